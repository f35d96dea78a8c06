"""Backups of a fit, from which another process goes on as if nothing had happened."""

import contextlib
import errno
import hashlib
import json
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

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks, distribute
from keras_vae.resumable import ResumableModel

FORMAT = 1  # of a backup's files

# What Keras' own callbacks know at the end of an epoch, beside their arguments.
_KERAS = {
    keras.callbacks.EarlyStopping: (
        "wait", "stopped_epoch", "best", "best_epoch", "best_weights",
    ),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    keras.callbacks.ModelCheckpoint: (
        "best", "_batches_seen_since_last_saving", "_last_batch_seen",
    ),
}  # fmt: skip


class Preempted(SystemExit):
    """Ends a process whose `fit` was told to stop by SIGTERM: exit status 75.

    75 is EX_TEMPFAIL, "try again": a scheduler that starts the same command again loses
    what came after the last backup.
    """

    def __init__(self):
        super().__init__(75)


class Backup(keras.callbacks.Callback):
    """Backs a fit up after its epochs; the same `fit` in a new process then goes on.

    A backup is a folder, `epoch-000012`, with `model.keras`, which
    `keras.saving.load_model` reads, and all else that training depends on: the optimizer,
    the counters, the state of seed generators, History, whether it had stopped early, and
    the state of `EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint` and
    `PosteriorCollapse`. Any other callback is backed up if it has `get_state()`, which
    returns a dict of JSON values and arrays, and `set_state(state)`.

    It appears when all of it is on the disk, or not at all, and the two newest are kept. A
    damaged one is skipped with a warning. When the disk is full, training goes on, with a
    warning. On SIGTERM `fit` raises `Preempted` after the execution under way: one step,
    or `steps_per_execution` of them. What is lost is the epoch at hand, and, where epochs
    are short, those since the last one that was saved.

    Where `fit` is given arrays, the weights, the optimizer and History end bit for bit as
    without the interruption, on the same kind of device. A `tf.data.Dataset` must yield in
    each epoch what it would have yielded then; one that goes on over epochs
    (`steps_per_epoch`) begins anew.

    With several workers the folder must be one that all of them see; the chief writes.

    Args:
        folder: path of a local or mounted folder, for this training alone. Delete it to
            begin anew.
        share: number above 0, the largest share of the time that saving may take; where
            epochs are shorter, not each is saved. The last one always is. `math.inf` saves
            each.

    Raises:
        ValueError: from `fit`, if the folder cannot be written, if all backups in it are
            damaged, or if they are of another training: another model, optimizer,
            objective, seed or batch size, or other data or callbacks. Arrays are compared
            by checksum, rows on disk by some of them, a `tf.data.Dataset` by its element
            spec and number of batches, other sources by their type.
        Preempted: from `fit`, after SIGTERM.

    Example:

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

    async_safe = True  # at batches it only looks at a flag

    def __init__(self, folder, share=0.1):
        super().__init__()
        self.folder = checks.path(folder, "folder")
        fits = "://" not in str(folder) and (
            not self.folder.exists() or self.folder.is_dir()
        )
        checks.that(fits, "folder", "a local or mounted folder, or a new path", folder)
        number = isinstance(share, numbers.Real) and not isinstance(share, bool)
        checks.that(number and share > 0, "share", "a number above 0", share)
        self.share = share
        # The backup that was restored or written last, and why a later one was not.
        self.newest: pathlib.Path | None = None
        self.failed: OSError | None = None
        self.hint = "The same training, started again, goes on from there"

    def set_model(self, model):
        checks.that(isinstance(model, ResumableModel), "model", "one of keras_vae", model)
        super().set_model(model)

    @contextlib.contextmanager
    def around_fit(self, callbacks, facts):
        """What `fit` of a model of keras_vae runs in.

        Args:
            callbacks: list of the callbacks of the fit.
            facts: function that returns a dict of strings, which data are trained on.
        """
        self._callbacks, self._data_facts = callbacks, facts
        self._told, self._chief = False, None
        main = threading.current_thread() is threading.main_thread()
        former = signal.signal(signal.SIGTERM, self._tell) if main else None
        try:
            yield
        except Exception as error:  # of a peer that is gone, for one
            if self._told and self._chief is not None:
                raise self._preempted() from error
            raise
        finally:
            if main:  # None: it was none of Python's
                signal.signal(signal.SIGTERM, signal.SIG_DFL if former is None else former)
            if self.model is not None:
                self.model._initial_epoch = None
            self._callbacks = self._data_facts = None  # and with it the data

    def on_train_begin(self, logs=None):
        """Goes on with the newest whole backup, or writes the first."""
        strategy = self.model.distribute_strategy
        self._chief = distribute.is_chief(strategy)
        self._with_state = [c for c in self._callbacks if _state(c) is not None]
        self.facts = {
            **self._data_facts(),
            **self.model.facts(),
            "callbacks": ", ".join(type(c).__name__ for c in self._with_state),
        }
        callbacks = self.facts["callbacks"]
        self.restore()
        here = {
            "callbacks": callbacks,
            "newest backup": "none" if self.newest is None else self.newest.name,
            "weights": self.model.fingerprint(),
        }
        distribute.check_same(here, strategy)
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

    def on_train_batch_begin(self, batch, logs=None):
        """Stops if told to. Not at the end of a batch, which may be in another thread."""
        self._stop_if_told()

    def on_test_batch_begin(self, batch, logs=None):
        """Stops if told to."""
        self._stop_if_told()

    def on_epoch_end(self, epoch, logs=None):
        """Writes a backup, if it is time."""
        done, now = epoch + 1, time.monotonic()
        due = now - self._saved > self._cost / self.share
        last = done == self.params["epochs"] or self.model.stop_training
        if self._chief and (due or last or self._told):
            try:
                self.commit(done)
                self.failed = None
            except OSError as error:
                if self.failed is None:
                    warnings.warn(
                        f"The backup after epoch {done} could not be written: {error}. "
                        f"Training goes on, and {self.newest} stays.",
                        stacklevel=2,
                    )
                self.failed = error
            self._saved = time.monotonic()
            self._cost = self._saved - now
        self._stop_if_told()

    def restore(self):
        """Takes up the newest whole backup, if there is any."""
        self.newest = None
        places = self._places()
        for place in places:
            try:
                state = _read(place)
            except (OSError, ValueError, KeyError, TypeError) as error:
                warnings.warn(
                    f"The backup {place} is damaged and skipped: {error}", stacklevel=2
                )
            else:
                self._check(place, state)
                self._take_up(place, state)
                return
        if places:
            raise ValueError(
                "`folder` must hold a backup that is whole, or none: delete it to begin "
                f"anew. Received: {self.folder}, where all of {len(places)} are damaged"
            )

    def commit(self, epoch):
        """Writes a backup, whole or not at all.

        Args:
            epoch: int, how many epochs are done.

        Raises:
            OSError: if it cannot be written.
        """
        place = self.folder / f"epoch-{epoch:06}"
        for left in self.folder.glob(".epoch-*"):  # of processes that were killed
            shutil.rmtree(left, ignore_errors=True)
        part = self.folder / f".{place.name}-{os.getpid()}"
        try:
            part.mkdir()
            self._check_space()
            self.model.save(part / "model.keras")
            _write(part, self._state(epoch))
            if place.exists():  # damaged, and skipped
                shutil.rmtree(place)
            part.rename(place)
            _sync(self.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        kept, self.newest = {self.newest, place}, place
        for old in self._places():
            if old not in kept:
                shutil.rmtree(old, ignore_errors=True)

    def _check_space(self):
        # Keras writes large models to the disk twice, and HDF5, when that is full, may end
        # the process instead of raising.
        weights = (*self.model.variables, *self.model.optimizer.variables)
        sizes = [math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in weights]
        if shutil.disk_usage(self.folder).free < 2 * sum(sizes):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    @property
    def epochs_done(self):
        """How many epochs the newest backup has, or None if there is none."""
        newest = next(iter(self._places()), None)
        return None if newest is None else _epoch(newest)

    def _places(self):
        """The backups, damaged ones too, the newest first."""
        found = self.folder.glob("epoch-*")
        places = [p for p in found if re.fullmatch(r"epoch-[0-9]{6,}", p.name)]
        return sorted(places, key=_epoch, reverse=True)

    def _state(self, epoch):
        history = self.model.history
        # The learning rate is a weight, and part of the optimizer's configuration.
        now = self.model.facts().items()
        return {
            "epoch": epoch,
            "stopped": bool(self.model.stop_training),
            "history": {"epoch": history.epoch, "history": history.history},
            "callbacks": [_state(callback) for callback in self._with_state],
            "facts": self.facts,
            "moved": {name: value for name, value in now if self.facts.get(name) != value},
        }

    def _check(self, place, state):
        was, now, moved = state["facts"], self.facts, state["moved"]
        other = [
            f"{name} was {checks.short(was.get(name))} and is {checks.short(now.get(name))}"
            for name in sorted({*was, *now})
            if now.get(name) not in (was.get(name), moved.get(name, was.get(name)))
        ]
        if other:
            more = f", and {len(other) - 3} more" if len(other) > 3 else ""
            raise ValueError(
                "`folder` must hold backups of the same training: resume it as it began, "
                f"or delete them. Received: {place}, where {'; '.join(other[:3])}{more}"
            )

    def _take_up(self, place, state):
        self.model.load_weights(place / "model.keras")
        self.newest, self.facts = place, state["facts"]
        history = self.model.history
        history.epoch, history.history = state["history"].values()
        for callback, kept in zip(self._with_state, state["callbacks"], strict=True):
            _set_state(callback, kept)
        self.model._initial_epoch = state["epoch"]  # as Keras' BackupAndRestore does
        if state["stopped"]:
            self.model.stop_training = True
            self.model._initial_epoch = max(self.params["epochs"], state["epoch"])

    def _tell(self, *_):
        self._told = True

    def _stop_if_told(self):
        if self._told:
            raise self._preempted()

    def _preempted(self):
        if self._chief:
            print(
                f"Stopped by SIGTERM. The newest backup is {self.newest}. {self.hint}.",
                file=sys.stderr,
            )
        return Preempted()


def _epoch(place):
    return int(place.name.partition("-")[2])


def _state(callback):
    """The state of a callback, a dict, or None if it has none that is known."""
    if hasattr(callback, "get_state"):
        return callback.get_state()
    for kind, names in _KERAS.items():
        if isinstance(callback, kind):
            return {name: getattr(callback, name, None) for name in names}
    return None


def _set_state(callback, state):
    if hasattr(callback, "set_state"):
        callback.set_state(state)
    else:
        for name, value in state.items():
            setattr(callback, name, value)


def _write(folder, state):
    """Writes the state beside the model, then what tells whether all of it is whole."""
    arrays: dict = {}
    try:
        text = json.dumps(_without_arrays(state, arrays))
    except TypeError as error:
        raise ValueError(
            "`get_state` of a callback must return a dict of JSON values and arrays. "
            f"Received: {state['callbacks']}: {error}"
        ) from error
    (folder / "state.json").write_text(text)
    np.savez(folder / "arrays.npz", **arrays)
    files = {p.name: [p.stat().st_size, _digest(p)] for p in sorted(folder.iterdir())}
    (folder / "backup.json").write_text(json.dumps({"format": FORMAT, "files": files}))
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _read(folder):
    """The state in a backup that is whole.

    Raises:
        OSError, ValueError, KeyError, TypeError: which say what is wrong with it.
    """
    about = json.loads((folder / "backup.json").read_text())
    if about["format"] > FORMAT:
        raise ValueError(
            f"it is of a newer keras_vae, format {about['format']}; this reads {FORMAT}"
        )
    for name, (size, digest) in about["files"].items():
        path = folder / name
        if path.stat().st_size != size:
            raise ValueError(f"{name} has {path.stat().st_size} bytes instead of {size}")
        if _digest(path) != digest:
            raise ValueError(f"{name} has another checksum")
    with np.load(folder / "arrays.npz") as file:
        arrays = dict(file)
    return _with_arrays(json.loads((folder / "state.json").read_text()), arrays)


def _without_arrays(value, arrays):
    """JSON values; arrays are moved into the dict `arrays`."""
    if isinstance(value, dict):
        return {key: _without_arrays(v, arrays) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_arrays(v, arrays) for v in value]
    if isinstance(value, (np.ndarray, np.generic)) or tf.is_tensor(value):
        name, array = f"array_{len(arrays)}", np.asarray(value)
        arrays[name] = array
        # By name, as .npz does not know bfloat16.
        return {"array": name, "dtype": array.dtype.name}
    return value


def _with_arrays(value, arrays):
    if isinstance(value, list):
        return [_with_arrays(v, arrays) for v in value]
    if isinstance(value, dict) and value.keys() == {"array", "dtype"}:
        return arrays[value["array"]].view(value["dtype"])[()]  # a scalar is one again
    if isinstance(value, dict):
        return {key: _with_arrays(v, arrays) for key, v in value.items()}
    return value


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path):
    """Has the disk write a file, or the names in a folder, before what comes next."""
    # Not each system or disk can do it for a folder.
    quiet = contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext()
    with quiet:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
