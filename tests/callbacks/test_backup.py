"""An interrupted fit resumes bit for bit from its backup."""

import hashlib
import itertools
import json
import math
import os
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


def test_a_killed_and_preempted_fit_ends_as_the_uninterrupted_one(tmp_path, run_module):
    codes = run_module("tests.callbacks.backup", tmp_path).split()
    assert [int(code) for code in codes] == [-signal.SIGKILL, 75, 0]
    model, callbacks = backup.build(), backup.make_callbacks()
    arrays, values = backup.results(model, backup.fit(model, callbacks), callbacks)
    with np.load(tmp_path / "end.npz") as file:
        assert_same(arrays, [file[name] for name in file.files])
    assert json.loads(json.dumps(values)) == json.loads((tmp_path / "end.json").read_text())
    epochs, history = values[:2]
    assert 5 < len(epochs) < backup.EPOCHS  # early stopping, after the kills
    assert len(set(history["learning_rate"])) > 2
    assert callbacks[1].epochs_below == len(epochs)
    # A fit that had stopped early trains no further and has the same results.
    resumed, callbacks = backup.build(), backup.make_callbacks()
    keeper = Backup(tmp_path / "backup", math.inf)
    history = backup.fit(resumed, [*callbacks, keeper])
    assert backup.results(resumed, history, callbacks)[1] == values
    assert_same(resumed.get_weights(), model.get_weights())
    # The model in a backup is an ordinary .keras file.
    loaded = keras.saving.load_model(keeper.newest / "model.keras")
    assert int(loaded.epochs_begun) == len(epochs)


# Tests on one small model, which a backup resets each time.


@pytest.fixture(scope="module")
def model():
    return backup.build()


def fit(model, folder, epochs, *callbacks, share=math.inf):
    # Backup comes first here; it moves itself to the end.
    callbacks = [Backup(folder, share), *callbacks]
    return backup.fit(model, callbacks, epochs, steps_per_epoch=2)


@pytest.fixture(scope="module")
def three_epochs(model, tmp_path_factory):
    """(folder of the backups after epochs 1 and 2, state after the third epoch)."""
    folder = tmp_path_factory.mktemp("three_epochs") / "backup"
    fit(model, folder, 2)
    shutil.copytree(folder, folder.with_name("kept"))
    fit(model, folder, 3)
    return folder.with_name("kept"), state(model)


def state(model):
    return [v.numpy() for v in (*model.variables, *model.optimizer.variables)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Killed(BaseException):
    pass


class KilledBackup(Backup):
    """Repeats each commit, killed at the first access to the disk, the second, and so on.

    A killed commit makes no further access, not even to clean up.
    """

    calls = left = None

    def commit(self, epoch):
        before = self.newest
        for self.calls in itertools.count():
            KilledBackup.left, self.newest = self.calls, before
            try:
                return super().commit(epoch)
            except Killed:
                KilledBackup.left = None  # allows the accesses below
                newest = max(p for p in self.folder.iterdir() if p.name[0] != ".")
                # The newest backup is complete.
                assert read_state(newest)["epoch"] in (epoch - 1, epoch)
            finally:
                KilledBackup.left = None


def kill_at_access(event, _):
    is_access = event == "open" or event.startswith(("os.", "shutil."))
    in_main = threading.current_thread() is threading.main_thread()
    if KilledBackup.left is not None and is_access and in_main:
        KilledBackup.left -= 1
        if KilledBackup.left < 0:
            raise Killed


def test_a_backup_is_intact_after_a_kill_at_any_step_of_a_commit(
    model, three_epochs, tmp_path
):
    source, end = three_epochs
    folder = tmp_path / "backup"
    shutil.copytree(source, folder)
    sys.addaudithook(kill_at_access)  # called before each access to the disk
    killed = KilledBackup(folder, math.inf)
    backup.fit(model, [killed], 3, steps_per_epoch=2)
    assert killed.calls > 20
    assert names(folder) == ["epoch-000002", "epoch-000003"]
    assert fit(model, folder, 3).epoch == [0, 1, 2]
    assert_same(state(model), end)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def make_newer(path):
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))


def nest_deeply(path):
    path.write_text("[" * 10**5)


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


def change_state(path):
    """Changes a type in state.json, and its checksum accordingly."""
    path.write_text(path.read_text().replace('"epoch": 2,', '"epoch": null,', 1))
    about = json.loads(path.with_name("backup.json").read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    about["files"][path.name] = [path.stat().st_size, digest]
    path.with_name("backup.json").write_text(json.dumps(about))


def list_files(path):
    path.write_text('{"format": 1, "files": ["model.keras"]}')


@pytest.mark.parametrize(
    "file, damage, words",
    [
        ("model.keras", pathlib.Path.unlink, "No such file .*model.keras"),
        ("model.keras", truncate, "model.keras has [0-9]+ bytes instead of"),
        ("arrays.npz", flip_bit, "arrays.npz has another checksum"),
        ("backup.json", pathlib.Path.unlink, "No such file .*backup.json"),
        ("backup.json", truncate, "damaged and skipped"),
        ("backup.json", make_newer, "newer keras_vae, format 99"),
        ("backup.json", nest_deeply, "nested too deeply"),
        ("backup.json", list_files, "key 'files' must be an object"),
        ("backup.json", make_pipe, "not a regular file"),
        ("state.json", change_state, "key 'epoch' must be a whole number"),
    ],
)
def test_a_damaged_backup_is_skipped(model, three_epochs, tmp_path, file, damage, words):
    source, end = three_epochs
    folder = tmp_path / "backup"
    shutil.copytree(source, folder)
    damage(folder / "epoch-000002" / file)
    with pytest.warns(UserWarning, match=f"epoch-000002 is damaged.*{words}|{words}"):
        history = fit(model, folder, 3)
    assert history.epoch == [0, 1, 2]
    assert_same(state(model), end)
    assert names(folder) == ["epoch-000002", "epoch-000003"]


def test_training_does_not_start_over_if_all_backups_are_damaged(
    model, three_epochs, tmp_path
):
    folder = tmp_path / "backup"
    shutil.copytree(three_epochs[0], folder)
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


class FullDisk(keras.callbacks.Callback):
    """Limits the size of files in these epochs, so that a write fails half-way."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs, self.limit = epochs, resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_epoch_begin(self, epoch, logs=None):
        soft = 20_000 if epoch in self.epochs else self.limit[0]
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, self.limit[1]))

    def on_train_end(self, logs=None):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limit)


def test_training_continues_when_the_disk_is_full(model, three_epochs, tmp_path):
    folder, listings = tmp_path / "backup", []
    shutil.copytree(three_epochs[0], folder)
    recorder = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, _: listings.append(names(folder))
    )
    with pytest.warns(UserWarning, match="backup after epoch") as caught:
        fit(model, folder, 8, FullDisk([2, 3, 6]), recorder)
    # One warning for each series of failures.
    words = [str(w.message)[:24] for w in caught if w.category is UserWarning]
    assert words == ["The backup after epoch 3", "The backup after epoch 7"]
    assert listings[1:3] == [["epoch-000001", "epoch-000002"]] * 2
    assert names(folder) == ["epoch-000006", "epoch-000008"]


def test_no_backup_is_written_to_a_nearly_full_disk(
    model, three_epochs, tmp_path, monkeypatch
):
    folder = tmp_path / "backup"
    shutil.copytree(three_epochs[0], folder)
    # HDF5 may end the process if it finds no space for a large model.
    full = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.warns(UserWarning, match="could not be written: .*No space left"):
        assert fit(model, folder, 4).epoch == [0, 1, 2, 3]
    assert names(folder) == names(three_epochs[0])


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
def test_the_backup_of_another_training_is_refused(three_epochs, arguments, options, words):
    folder, _ = three_epochs
    vae = backup.build(**arguments)
    before, files = state(vae), sorted(folder.rglob("*"))
    options = {"batch_size": 8, "steps_per_epoch": 2, "validation_data": backup.X[:20],
               **options}  # fmt: skip
    callbacks = [*options.pop("callbacks", []), Backup(folder)]
    with pytest.raises(ValueError, match=f"of the same training.*{words}"):
        vae.fit(backup.X, epochs=3, verbose=0, callbacks=callbacks, **options)
    assert_same(state(vae), before)
    assert sorted(folder.rglob("*")) == files


def test_the_backup_of_other_data_is_refused(model, three_epochs, monkeypatch):
    monkeypatch.setattr(backup, "X", backup.X + 1)
    with pytest.raises(ValueError, match=r"\bx was float32 \(60, 6\), checksum"):
        fit(model, three_epochs[0], 3)


def test_names_of_layers_do_not_matter_for_resuming(three_epochs, tmp_path):
    source, end = three_epochs
    shutil.copytree(source, tmp_path / "backup")
    vae = backup.build()
    assert vae.encoder.layers[1].name != "dense"
    assert fit(vae, tmp_path / "backup", 3).epoch == [0, 1, 2]
    assert_same(state(vae), end)


def test_backups_take_at_most_their_share_of_the_time(model, tmp_path):
    written = []

    class Counting(Backup):
        def commit(self, epoch):
            written.append(epoch)
            super().commit(epoch)

    backup.fit(model, [Counting(tmp_path / "a", 1e-9)], epochs=6, steps_per_epoch=2)
    assert written == [0, 1, 6]
    fit(model, tmp_path / "b", 6)
    assert names(tmp_path / "b") == ["epoch-000005", "epoch-000006"]


def test_sigterm_raises_preempted_and_the_signal_handler_is_restored(model, tmp_path):
    def handler(*_):
        pass

    def on_epoch_begin(epoch, _):
        signal.raise_signal(number)
        raise RuntimeError("the peer is gone")

    original = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(Preempted):
            fit(
                model,
                tmp_path / "backup",
                3,
                backup.Signal(signal.SIGTERM, "test batch 1", 1),
            )
        number = signal.SIGTERM
        error = keras.callbacks.LambdaCallback(on_epoch_begin=on_epoch_begin)
        with pytest.raises(Preempted) as caught:
            fit(model, tmp_path / "backup", 3, error)
        assert caught.value.code == 75 and "peer" in str(caught.value.__cause__)
        assert signal.getsignal(signal.SIGTERM) is handler
        number = signal.SIGCHLD  # which is ignored
        with pytest.raises(RuntimeError, match="the peer is gone"):
            fit(model, tmp_path / "backup", 3, error)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, original)
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
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Backup(*arguments)


def test_wrong_folders_callbacks_and_models_are_refused_before_the_first_step(
    model, tmp_path
):
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
