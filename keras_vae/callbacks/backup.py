"""Backups of a `fit`, from which a new process resumes exactly."""

import contextlib
import errno
import math
import numbers
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_vae import atomic, checks, typed_files
from keras_vae.callbacks import snapshot
from keras_vae.escapes import visible
from keras_vae.training import identity, replicas
from keras_vae.training.keras_private import set_initial_epoch
from keras_vae.training.model import ResumableModel


class Preempted(SystemExit):
    """Ends a process whose `fit` received SIGTERM: exit status 75.

    75 is EX_TEMPFAIL, "try again": a scheduler that starts the same command again resumes
    from the last backup.
    """

    def __init__(self):
        super().__init__(75)


class Backup(keras.callbacks.Callback):
    """Writes backups of a `fit`; the same `fit` in a new process resumes from the newest.

    A backup is a folder, `epoch-000012`, with `model.keras`, which
    `keras.saving.load_model` reads, and everything else that training depends on: the
    optimizer, the counters, the state of seed generators, History, whether training stopped
    early, and the state of `EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint` and
    `PosteriorCollapse`. Any other callback is backed up if it has `get_state()`, which
    returns a dict of JSON values and arrays, and `set_state(state)`.

    Backups are atomic, and the two newest are kept. A damaged backup is skipped with a
    warning. When the disk is full, training continues with a warning. On SIGTERM `fit`
    raises `Preempted` after the current execution: one step, or `steps_per_execution` of
    them. The current epoch is lost, and, if epochs are short, all epochs since the last
    backup.

    For arrays, the weights, the optimizer and History are bit for bit those of an
    uninterrupted training, on the same kind of device. A `tf.data.Dataset` must yield the
    same batches in each epoch as without the interruption; one that continues over epochs
    (`steps_per_epoch`) starts again.

    With several workers, all need access to the folder; only the chief writes.

    Args:
        folder: path of a local or mounted folder, used only by this training. Delete it
            to start again.
        share: number above 0, the maximum share of the time that saving may take. If
            epochs are too short, some are not saved, but the last one always is.
            `math.inf` saves every epoch.

    Raises:
        ValueError: from `fit`, if the folder cannot be written, if all backups in it are
            damaged, or if they belong to another training: another model, optimizer,
            objective, seed or batch size, or other data or callbacks. Arrays are compared
            by checksum, rows on disk by a sample of them, a `tf.data.Dataset` by its
            element spec and number of batches, other data by their type.
        Preempted: from `fit`, after SIGTERM.

    Example:

    >>> import numpy as np
    >>> import keras_vae as kv
    >>> x, folder = np.full((64, 4), 0.5, "float32"), tempfile.mkdtemp()
    >>> def train(epochs):
    ...     vae = kv.VAE(
    ...         keras.layers.Dense(8), keras.layers.Dense(8),
    ...         kv.distributions.IndependentNormal((4,)), latent_dim=3, seed=0,
    ...     )
    ...     vae.compile("sgd")
    ...     return vae.fit(x, epochs=epochs, verbose=0, callbacks=[Backup(folder)])
    >>> train(epochs=2).epoch
    [0, 1]
    >>> train(epochs=4).epoch  # trains two epochs
    [0, 1, 2, 3]
    """

    async_safe = True  # its batch methods only read a flag

    def __init__(self, folder: str | os.PathLike, share: float = 0.1):
        super().__init__()
        self.folder = checks.path(folder, "folder")
        local = "://" not in str(folder)
        checks.require(
            local and (self.folder.is_dir() or not self.folder.exists()),
            "folder",
            "a local or mounted folder, or a new path",
            folder,
        )
        is_number = isinstance(share, numbers.Real) and not isinstance(share, bool)
        checks.require(is_number and share > 0, "share", "a number above 0", share)
        self.share = share
        # The backup that was restored or written last, and the error of a later one.
        self.newest: pathlib.Path | None = None
        self.failed: OSError | None = None
        self.hint = "Start the same training again to resume from it"
        self._terminated = False
        self._chief: bool | None = None  # set while `fit` trains
        self._callbacks: list = []
        self._data_facts: Callable[[], dict] = dict

    def set_model(self, model: keras.Model) -> None:
        is_ours = isinstance(model, ResumableModel)
        checks.require(is_ours, "model", "a model of keras_vae", model)
        super().set_model(model)

    @contextlib.contextmanager
    def around_fit(self, callbacks: list, facts: Callable[[], dict]) -> Iterator[None]:
        """Wraps the `fit` of a model of keras_vae.

        Args:
            callbacks: list of the callbacks of the fit.
            facts: function that returns a dict of strings that identify the training data.
        """
        self._callbacks, self._data_facts = callbacks, facts
        self._terminated = False
        in_main_thread = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, self._on_sigterm) if in_main_thread else None
        try:
            yield
        except Exception as error:  # such as the error of a lost worker
            if self._terminated and self._chief is not None:
                raise self._preempted() from error
            raise
        finally:
            if in_main_thread:  # None: Python did not install the handler
                signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
            if self.model is not None:
                set_initial_epoch(self.model, None)
            self._callbacks, self._data_facts = [], dict  # releases the data
            self._chief = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Resumes from the newest intact backup, or writes the first."""
        strategy = self.model.distribute_strategy
        self._chief = replicas.is_chief(strategy)
        self._with_state = [
            callback
            for callback in self._callbacks
            if snapshot.callback_state(callback) is not None
        ]
        names = ", ".join(type(callback).__name__ for callback in self._with_state)
        self.facts = {
            **self._data_facts(),
            **identity.model_facts(self.model),
            "callbacks": names,
        }
        self.restore()
        state = {
            "callbacks": names,
            "newest backup": "none" if self.newest is None else self.newest.name,
            "weights": identity.fingerprint(self.model),
        }
        replicas.check_same(state, strategy)
        if self._chief:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=self.folder).close()
                if self.newest is None:
                    self.commit(0)
            except OSError as error:
                raise ValueError(
                    "`folder` must be a folder that can be written. Received: "
                    f"{self.folder}: {error}"
                ) from error
        self._saved, self._cost = time.monotonic(), 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Stops after SIGTERM. The hook of the end of a batch may run in another thread."""
        self._stop_if_terminated()

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Stops after SIGTERM."""
        self._stop_if_terminated()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes a backup, if one is due."""
        done, now = epoch + 1, time.monotonic()
        due = now - self._saved > self._cost / self.share
        last = done == self.params["epochs"] or self.model.stop_training
        if self._chief and (due or last or self._terminated):
            try:
                self.commit(done)
                self.failed = None
            except OSError as error:
                if self.failed is None:
                    warnings.warn(
                        f"The backup after epoch {done} could not be written: {error}. "
                        f"Training continues, and {self.newest} is kept.",
                        stacklevel=2,
                    )
                self.failed = error
            self._saved = time.monotonic()
            self._cost = self._saved - now
        self._stop_if_terminated()

    def restore(self) -> None:
        """Restores the newest intact backup, if there is one."""
        self.newest = None
        folders = self._backups()
        for folder in folders:
            try:
                state = snapshot.read_state(folder)
            except Exception as error:  # of zipfile, JSON and NumPy
                warnings.warn(
                    f"The backup {folder} is damaged and skipped: {error}", stacklevel=2
                )
            else:
                self._check(folder, state)
                self._restore_state(folder, state)
                return
        if folders:
            raise ValueError(
                "`folder` must hold an intact backup, or none: delete it to start again. "
                f"Received: {self.folder}, where all {len(folders)} backups are damaged"
            )

    def commit(self, epoch: int) -> None:
        """Writes a backup, atomically, and deletes all but the two newest.

        Args:
            epoch: int, number of completed epochs.

        Raises:
            OSError: if it cannot be written.
            RuntimeError: if weights are NaN or infinite; the former backups are kept.
        """
        self.model.check_weights()
        path = self.folder / f"epoch-{epoch:06}"
        # No other process writes here: files of killed processes can be removed at once.
        with atomic.creating(path, stale_after=0.0) as part:
            part.mkdir()
            self._check_space()
            self.model.save(part / "model.keras")
            snapshot.write_state(part, self._state(epoch))
            if path.exists():  # damaged, and skipped
                shutil.rmtree(path)
        kept, self.newest = {self.newest, path}, path
        for old in self._backups():
            if old not in kept:
                shutil.rmtree(old, ignore_errors=True)

    def _check_space(self):
        # Keras writes large models to the disk twice, and HDF5 may end the process, rather
        # than raise an error, when the disk is full.
        weights = (*self.model.variables, *self.model.optimizer.variables)
        sizes = [math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in weights]
        if shutil.disk_usage(self.folder).free < 2 * sum(sizes):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    @property
    def epochs_done(self) -> int | None:
        """The number of epochs of the newest backup, or None without a backup."""
        newest = next(iter(self._backups()), None)
        return None if newest is None else _epoch(newest)

    def _backups(self):
        """Returns the folders of all backups, also damaged ones, the newest first."""
        found = self.folder.glob("epoch-*")
        folders = [p for p in found if re.fullmatch(r"epoch-[0-9]{6,}", p.name)]
        return sorted(folders, key=_epoch, reverse=True)

    def _state(self, epoch):
        history = self.model.history
        # Some facts change in training: the learning rate is a weight, but also part of the
        # optimizer's config.
        now = identity.model_facts(self.model).items()
        states = [snapshot.callback_state(callback) for callback in self._with_state]
        return {
            "epoch": epoch,
            "stopped": bool(self.model.stop_training),
            "history": {"epoch": history.epoch, "history": history.history},
            "callbacks": states,
            "facts": self.facts,
            "moved": {name: value for name, value in now if self.facts.get(name) != value},
        }

    def _check(self, folder, state):
        old, now, moved = state["facts"], self.facts, state["moved"]
        changed = [
            f"{name} was {checks.short(old.get(name))} and is {checks.short(now.get(name))}"
            for name in sorted({*old, *now})
            if now.get(name) not in (old.get(name), moved.get(name, old.get(name)))
        ]
        if changed:
            more = f", and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise ValueError(
                "`folder` must hold backups of the same training: resume it with the same "
                "model, data and options, or delete the folder. Received: "
                f"{folder}, where {'; '.join(changed[:3])}{more}"
            )

    def _restore_state(self, folder, state):
        try:
            self.model.load_weights(folder / "model.keras")
        except Exception as error:  # of Keras, zipfile and h5py
            reason = typed_files.reason(error)
            raise ValueError(
                f"`folder` must hold intact backups. Received: {folder}: {reason}"
            ) from error
        self.newest, self.facts = folder, state["facts"]
        history = self.model.history
        saved_history = state["history"]
        history.epoch, history.history = saved_history["epoch"], saved_history["history"]
        for callback, saved in zip(self._with_state, state["callbacks"], strict=True):
            snapshot.set_callback_state(callback, saved)
        first = state["epoch"]
        if state["stopped"]:
            self.model.stop_training = True
            first = max(self.params["epochs"], first)
        set_initial_epoch(self.model, first)

    def _on_sigterm(self, *_):
        self._terminated = True

    def _stop_if_terminated(self):
        if self._terminated:
            raise self._preempted()

    def _preempted(self):
        if self._chief:
            text = f"Stopped by SIGTERM. The newest backup is {self.newest}. {self.hint}."
            print(visible(text), file=sys.stderr)
        return Preempted()


def _epoch(folder):
    return int(folder.name.partition("-")[2])
