"""What is backed up goes on bit for bit, whenever and however it was stopped."""

import itertools
import json
import math
import pathlib
import resource
import shutil
import signal
import sys
import threading

import keras
import numpy as np
import pytest

from keras_vae.callbacks import Backup, Preempted
from keras_vae.callbacks.snapshot import read_state
from tests.callbacks import backup

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork")


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_killed_and_preempted_it_ends_as_the_uninterrupted_fit(tmp_path, run_module):
    said = run_module("tests.callbacks.backup", tmp_path).split()
    assert [int(code) for code in said] == [-signal.SIGKILL, 75, 0]
    model, watch = backup.build(), backup.watchers()
    arrays, values = backup.end(model, backup.fit(model, watch), watch)
    with np.load(tmp_path / "end.npz") as file:
        assert_same(arrays, [file[name] for name in file.files])
    assert json.loads(json.dumps(values)) == json.loads((tmp_path / "end.json").read_text())
    epochs, history = values[:2]
    assert 5 < len(epochs) < backup.EPOCHS  # it stopped early, after the kills
    assert len(set(history["learning_rate"])) > 2 and watch[1].epochs_below == len(epochs)
    # Once more: it had stopped early, trains nothing and ends as it ended.
    again, watch = backup.build(), backup.watchers()
    keep = Backup(tmp_path / "backup", math.inf)
    _, *more = backup.end(again, backup.fit(again, [*watch, keep]), watch)
    assert more == [values]
    assert_same(again.get_weights(), model.get_weights())
    # A backup's model is a Keras model like any other.
    loaded = keras.saving.load_model(keep.newest / "model.keras")
    assert int(loaded.epochs_begun) == len(epochs)


# On one small model, which goes back to what a backup holds each time.


@pytest.fixture(scope="module")
def model():
    return backup.build()


def fit(model, folder, epochs, *more, share=math.inf):
    # The backup first: it is put last.
    return backup.fit(model, [Backup(folder, share), *more], epochs, steps_per_epoch=2)


@pytest.fixture(scope="module")
def three(model, tmp_path_factory):
    """Backups after epochs 1 and 2, and the weights after the third."""
    folder = tmp_path_factory.mktemp("three") / "backup"
    fit(model, folder, 2)
    shutil.copytree(folder, folder.with_name("kept"))
    fit(model, folder, 3)
    return folder.with_name("kept"), state(model)


def state(model):
    return [v.numpy() for v in (*model.variables, *model.optimizer.variables)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Death(BaseException):
    pass


class Dying(Backup):
    """Each commit dies at its first access to the disk, at its second ... at its last.

    What is dead does nothing on the disk any more, not even clean up.
    """

    calls = left = None

    def commit(self, epoch):
        before = self.newest
        for self.calls in itertools.count():
            Dying.left, self.newest = self.calls, before
            try:
                return super().commit(epoch)
            except Death:
                Dying.left = None  # or the following would die as well
                newest = max(p for p in self.folder.iterdir() if p.name[0] != ".")
                assert read_state(newest)["epoch"] in (epoch - 1, epoch)  # and it is whole
            finally:
                Dying.left = None


def die(event, _):
    disk = event == "open" or event.startswith(("os.", "shutil."))
    main = threading.current_thread() is threading.main_thread()
    if Dying.left is not None and disk and main:
        Dying.left -= 1
        if Dying.left < 0:
            raise Death


def test_killed_at_each_step_of_a_commit(model, three, tmp_path):
    source, end = three
    folder = tmp_path / "backup"
    shutil.copytree(source, folder)
    sys.addaudithook(die)  # sees each access to the disk before it takes place
    dying = Dying(folder, math.inf)
    backup.fit(model, [dying], 3, steps_per_epoch=2)
    assert dying.calls > 20
    assert names(folder) == ["epoch-000002", "epoch-000003"]
    assert fit(model, folder, 3).epoch == [0, 1, 2]
    assert_same(state(model), end)


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def change(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def newer(path):
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))


@pytest.mark.parametrize(
    "file, damage, words",
    [
        ("model.keras", pathlib.Path.unlink, "No such file .*model.keras"),
        ("model.keras", cut, "model.keras has [0-9]+ bytes instead of"),
        ("arrays.npz", change, "arrays.npz has another checksum"),
        ("backup.json", pathlib.Path.unlink, "No such file .*backup.json"),
        ("backup.json", cut, "damaged and skipped"),
        ("backup.json", newer, "newer keras_vae, format 99"),
    ],
)
def test_a_damaged_backup_is_skipped(model, three, tmp_path, file, damage, words):
    source, end = three
    folder = tmp_path / "backup"
    shutil.copytree(source, folder)
    damage(folder / "epoch-000002" / file)
    with pytest.warns(UserWarning, match=f"epoch-000002 is damaged.*{words}|{words}"):
        history = fit(model, folder, 3)
    assert history.epoch == [0, 1, 2]
    assert_same(state(model), end)
    assert names(folder) == ["epoch-000002", "epoch-000003"]


def test_no_fresh_start_where_all_are_damaged(model, three, tmp_path):
    folder = tmp_path / "backup"
    shutil.copytree(three[0], folder)
    for path in folder.glob("*/state.json"):
        path.unlink()
    before = state(model)
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(ValueError, match=r"`folder` must hold"),
    ):
        fit(model, folder, 3)
    assert_same(state(model), before)
    assert names(folder) == ["epoch-000001", "epoch-000002"]


class Full(keras.callbacks.Callback):
    """No file can grow beyond some bytes in these epochs: a write fails half-way."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs, self.limit = epochs, resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_epoch_begin(self, epoch, logs=None):
        soft = 20_000 if epoch in self.epochs else self.limit[0]
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, self.limit[1]))

    def on_train_end(self, logs=None):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limit)


def test_training_survives_a_full_disk(model, three, tmp_path):
    folder, seen = tmp_path / "backup", []
    shutil.copytree(three[0], folder)
    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, _: seen.append(names(folder))
    )
    with pytest.warns(UserWarning, match="backup after epoch") as caught:
        fit(model, folder, 8, Full([2, 3, 6]), look)
    # Once for each time that it begins to fail.
    words = [str(w.message)[:24] for w in caught if w.category is UserWarning]
    assert words == ["The backup after epoch 3", "The backup after epoch 7"]
    assert seen[1:3] == [["epoch-000001", "epoch-000002"]] * 2
    assert names(folder) == ["epoch-000006", "epoch-000008"]


def test_a_disk_that_is_nearly_full_is_not_written_to(model, three, tmp_path, monkeypatch):
    folder = tmp_path / "backup"
    shutil.copytree(three[0], folder)
    # HDF5 may end the process where it finds no space for a large model.
    full = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.warns(UserWarning, match="could not be written: .*No space left"):
        assert fit(model, folder, 4).epoch == [0, 1, 2, 3]
    assert names(folder) == names(three[0])


@pytest.mark.parametrize(
    "arguments, options, words",
    [
        ({"units": 9}, {}, r"encoder.layers.1.units was 8 and is 9"),
        ({"clip": 1.0}, {}, r"global_clipnorm was None and is 1.0"),
        ({"seed": 7}, {}, r"seed was \S+ and is 7"),
        ({"optimizer": "sgd"}, {}, r'optimizer.class_name was "Adam" and is "SGD"'),
        (
            {"optimizer": keras.optimizers.Adam(0.2)},
            {},
            r"optimizer.learning_rate was 0.1\S+ and is 0.2",
        ),
        ({}, {"batch_size": 9}, r"batch_size was 8 and is 9$"),
        ({}, {"steps_per_epoch": 3}, r"steps_per_epoch was 2 and is 3$"),
        ({}, {"validation_data": backup.X[:9]}, r"validation_data was .* \(9, 6\)"),
        ({}, {"sample_weight": np.ones(60)}, r"sample_weight was None and is float64"),
        (
            {},
            {"callbacks": [keras.callbacks.EarlyStopping("loss")]},
            r"callbacks was  and is EarlyStopping$",
        ),
    ],
)
def test_another_training_is_refused(three, arguments, options, words):
    folder, _ = three
    vae = backup.build(**arguments)
    before, files = state(vae), sorted(folder.rglob("*"))
    options = {"batch_size": 8, "steps_per_epoch": 2, "validation_data": backup.X[:20],
               **options}  # fmt: skip
    callbacks = [*options.pop("callbacks", []), Backup(folder)]
    with pytest.raises(ValueError, match=f"of the same training.*{words}"):
        vae.fit(backup.X, epochs=3, verbose=0, callbacks=callbacks, **options)
    assert_same(state(vae), before)
    assert sorted(folder.rglob("*")) == files


def test_other_rows_are_refused(model, three, monkeypatch):
    monkeypatch.setattr(backup, "X", backup.X + 1)
    with pytest.raises(ValueError, match=r"\bx was float32 \(60, 6\), checksum"):
        fit(model, three[0], 3)


def test_the_same_model_built_in_another_place_is_the_same(three, tmp_path):
    source, end = three
    shutil.copytree(source, tmp_path / "backup")
    vae = backup.build()
    assert vae.encoder.layers[1].name != "dense"
    assert fit(vae, tmp_path / "backup", 3).epoch == [0, 1, 2]
    assert_same(state(vae), end)


def test_saving_takes_its_share_alone(model, tmp_path):
    written = []

    class Counting(Backup):
        def commit(self, epoch):
            written.append(epoch)
            super().commit(epoch)

    backup.fit(model, [Counting(tmp_path / "a", 1e-9)], epochs=6, steps_per_epoch=2)
    assert written == [0, 1, 6]
    fit(model, tmp_path / "b", 6)
    assert names(tmp_path / "b") == ["epoch-000005", "epoch-000006"]


def test_errors_after_sigterm_are_preemption_and_the_handler_is_put_back(model, tmp_path):
    def handler(*_):
        pass

    def on_epoch_begin(epoch, _):
        signal.raise_signal(told)
        raise RuntimeError("the peer is gone")

    former = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(Preempted):
            fit(
                model,
                tmp_path / "backup",
                3,
                backup.Signal(signal.SIGTERM, "test batch 1", 1),
            )
        told = signal.SIGTERM
        gone = keras.callbacks.LambdaCallback(on_epoch_begin=on_epoch_begin)
        with pytest.raises(Preempted) as caught:
            fit(model, tmp_path / "backup", 3, gone)
        assert caught.value.code == 75 and "peer" in str(caught.value.__cause__)
        assert signal.getsignal(signal.SIGTERM) is handler
        told = signal.SIGCHLD  # which is ignored
        with pytest.raises(RuntimeError, match="the peer is gone"):
            fit(model, tmp_path / "backup", 3, gone)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, former)
    assert fit(model, tmp_path / "backup", 1).epoch == [0]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((3,), "`folder` must be a path"),
        (("gs://bucket/backup",), "`folder` must be a local or mounted folder"),
        ((__file__,), "`folder` must be a local or mounted folder"),
        (("x", 0), "`share` must be a number above 0"),
        (("x", "a tenth"), "`share` must be a number above 0"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        Backup(*arguments)


def test_what_cannot_work_is_said_before_the_first_step(model, tmp_path):
    (tmp_path / "file").touch()
    steps = int(model.step)
    with pytest.raises(ValueError, match=r"`folder` must be a folder that can be written"):
        fit(model, tmp_path / "file" / "backup", 1)

    class Odd(keras.callbacks.Callback):
        def get_state(self):
            return {"model": self.model}

    with pytest.raises(ValueError, match="`get_state` of a callback must return"):
        fit(model, tmp_path / "odd", 1, Odd())
    assert int(model.step) == steps and names(tmp_path / "odd") == []
    plain = keras.Sequential([keras.layers.Dense(1)])
    plain.compile(loss="mse")
    with pytest.raises(ValueError, match="`model` must be"):
        plain.fit(backup.X, backup.X, verbose=0, callbacks=[Backup(tmp_path / "plain")])
