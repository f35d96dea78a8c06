"""Training of a run: its callbacks, and the files that it writes at each backup."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_vae import atomic, callbacks, disks
from keras_vae.callbacks.images import optional
from keras_vae.datasets import Dataset
from keras_vae.runs.build import augmentation, steps_per_epoch
from keras_vae.runs.folder import Run
from keras_vae.runs.options import Options
from keras_vae.training import replicas


def train(run: Run, model: Any, data: Dataset, watchers: Iterable = ()) -> None:
    """Trains to the last epoch; writes the model and the metrics at each backup.

    Args:
        run: the run, whose newest backup is resumed.
        model: from `build_model`.
        data: the data set of the run.
        watchers: further callbacks, used only by the chief of several workers.

    Raises:
        OSError: if the last epoch could not be written.
    """
    options, backup = run.options, RunBackup(run)
    epochs = options.epochs or 0
    if run.epochs_done() and backup.epochs_done is None:  # finished, without backups
        return
    part = "test" if data.x_val is None else "val"
    x = getattr(data, f"x_{part}")
    used: list = [backup]
    if replicas.is_chief(model.distribute_strategy):
        run.write_info()  # `epochs` may have grown
        condition = run.condition_kwargs(data, part, slice(8))
        used += [*_image_callbacks(run, data, x, condition), *watchers]
    if model.generative:  # comes first, because other callbacks write its logs
        # Many runs collapse at first, then recover. Some inactive units are no reason to
        # stop: the report describes them.
        settings: dict[str, Any] = {"patience": max(3, epochs // 10), "min_active": 1e-6}
        settings |= run.condition_kwargs(data, part, slice(500))
        collapse = callbacks.PosteriorCollapse(x[:500], **settings)
        used.insert(0, collapse)
    if options.patience:
        stopper = keras.callbacks.EarlyStopping(
            "val_loss",
            patience=options.patience,
            mode="min",
            restore_best_weights=True,
            start_from_epoch=warm_up_epochs(options, data),
        )
        used.insert(0, stopper)  # comes before the backup, which stores its state
    y, validation = None, data.x_val
    if run.conditional:
        y = data.class_numbers("train")
        if validation is not None:
            validation = (validation, data.class_numbers("val"))
    with _resumable_if_disk_is_full(run):
        model.fit(
            data.x_train,
            y,
            batch_size=options.batch,
            epochs=epochs,
            verbose=0,
            validation_data=validation,
            callbacks=used,
            augmentation=augmentation(options) or None,
        )
        if backup.failed is not None:
            raise backup.failed
    if options.patience and replicas.is_chief(model.distribute_strategy):
        _keep_best(run, model, stopper)


@contextlib.contextmanager
def _resumable_if_disk_is_full(run):
    """Adds to the error of a full disk what is kept, and how to continue."""
    try:
        yield
    except Exception as error:
        if disks.full_disk(error):
            error.add_note(
                f"{run.folder} has the run up to epoch {run.epochs_done()}; to continue, "
                f"add --out {run.folder} --resume to the same command."
            )
        raise


def warm_up_epochs(options: Options, data: Dataset) -> int:
    """Returns the number of epochs with a smaller beta, whose losses are not compared."""
    if options.beta_schedule == "constant":
        return 0
    return -(-(options.beta_steps or 0) // steps_per_epoch(options, data))


def _keep_best(run, model, stopper):
    """Writes the weights of the best epoch, which `stopper` has restored."""
    compared = stopper.best_weights is not None  # some epochs came after the warm-up
    run.info["early_stopping"] = {
        "best_epoch": stopper.best_epoch + 1 if compared else None,
        "stopped": model.stop_training,
    }
    run.write_info()
    if compared:
        model.save(run.path("model.keras"))  # atomically


def _image_callbacks(run, data, x, condition) -> Iterator[keras.callbacks.Callback]:
    """Yields the callbacks that write to TensorBoard."""
    folder, shape = run.path("tensorboard"), data.event_shape
    if len(shape) == 3 and shape[-1] in (1, 3):
        every = max(1, (run.options.epochs or 0) // 50)
        yield callbacks.ImageGrids(folder / "images", x[:8], every=every, **condition)
    yield TensorBoard(str(folder), write_graph=False)


class TensorBoard(keras.callbacks.TensorBoard):
    """`keras.callbacks.TensorBoard`, without which training continues on a full disk."""

    on_train_begin = optional(keras.callbacks.TensorBoard.on_train_begin)
    on_test_begin = optional(keras.callbacks.TensorBoard.on_test_begin)
    on_test_end = optional(keras.callbacks.TensorBoard.on_test_end)
    on_epoch_end = optional(keras.callbacks.TensorBoard.on_epoch_end)
    on_train_end = optional(keras.callbacks.TensorBoard.on_train_end)
    # It writes to the writer that failed, which TensorFlow leaves as the default one.
    on_train_batch_end = optional(keras.callbacks.TensorBoard.on_train_batch_end)


class RunBackup(callbacks.Backup):
    """Backs up a run, and writes the files that other commands read.

    Args:
        run: the run.
    """

    def __init__(self, run: Run):
        super().__init__(run.path("backup"))
        self.run = run
        self.hint = f"To continue, add --out {run.folder} --resume to the same command"

    def restore(self) -> None:
        super().restore()
        if self._chief:
            self.publish()  # a killed process may not have done it

    def commit(self, epoch: int) -> None:
        if epoch:
            self.run.path("report.html").unlink(missing_ok=True)  # it is out of date
        super().commit(epoch)
        self.publish()

    def publish(self) -> None:
        """Writes model.keras and metrics.csv of the newest backup into the run."""
        history = self.model.history
        if self.newest is None or not history.epoch:  # not the untrained model
            return
        source = self.newest / "model.keras"
        model = self.run.path("model.keras")
        with atomic.replacing(model, sole_writer=True) as part:
            try:
                os.link(source, part)
            except OSError:  # a file system without hard links
                shutil.copyfile(source, part)
        columns = {"epoch": history.epoch, **history.history}
        rows = zip(*columns.values(), strict=True)
        lines = [",".join(columns), *(",".join(map(_text, row)) for row in rows)]
        self.run.write("metrics.csv", "\n".join(lines) + "\n")


def _text(value):
    """Formats a number without loss."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
