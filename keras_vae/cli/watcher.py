"""A Keras callback that moves the progress bar of `keras-vae train`."""

import time
from typing import Any

import keras

from keras_vae.cli.progress import out, progress_bar


class Watcher(keras.callbacks.Callback):
    """Moves the progress bar; without a terminal, prints lines at least every 30 s."""

    async_safe = True  # reads neither weights nor logs while steps run

    def on_train_begin(self, logs: Any = None) -> None:
        """Shows the bar."""
        self.epochs, self.steps = self.params["epochs"], self.params["steps"] or 1
        self.bar = progress_bar()
        self.task = self.bar.add_task("training", total=None, text="")
        self.bar.start()
        self.first: int | None = None
        self.printed = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Sets the length of the bar; a resumed training has fewer epochs."""
        self.first = epoch if self.first is None else self.first
        self.done = (epoch - self.first) * self.steps
        self.bar.update(self.task, total=(self.epochs - self.first) * self.steps)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the bar."""
        self.bar.update(self.task, completed=self.done + batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Shows the bound of the epoch."""
        name = "elbo" if "elbo" in logs else "reconstruction"
        shown = {key: logs[key] for key in (name, f"val_{name}") if key in logs}
        text = "  ".join(f"{key} {value:.2f}" for key, value in shown.items())
        text = f"epoch {epoch + 1}/{self.epochs}  {text}"
        self.bar.update(self.task, completed=self.done + self.steps, text=text)
        due = time.monotonic() - self.printed > 30
        tenth = not (epoch + 1) % max(1, self.epochs // 10)
        if self.bar.disable and (due or tenth or epoch + 1 == self.epochs):
            out.print(text)
            self.printed = time.monotonic()

    def on_train_end(self, logs: Any = None) -> None:
        """Removes the bar."""
        self.bar.stop()
