"""The folder that `train` writes: chosen, made, locked, and removed if nothing was written.

In these tests, the data do not exist or are damaged: a command that is refused for its
folder does not read them.
"""

import json
import pathlib

import numpy as np
import pytest

from keras_vae.cli import run_folder
from keras_vae.datasets import Dataset
from keras_vae.runs import lock
from keras_vae.runs.folder import Run
from keras_vae.runs.options import Options
from tests.refusals import assert_command_refused, tree

pytestmark = pytest.mark.skipif(lock.fcntl is None, reason="no flock")


@pytest.fixture(autouse=True)
def work_in_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("command", "argument"),
    [
        ("train no.npy --out run", "--out"),
        ("train no.npy --out run --resume", "--out"),
        ("launch --workers 2 -- train no.npy --out run --resume", "--out"),
        ("evaluate run", "RUN"),
        ("report run", "RUN"),
    ],
)
def test_a_command_that_writes_is_refused_before_it_reads_anything(command, argument):
    pathlib.Path("run").mkdir()
    pathlib.Path("run/run.json").write_text("damaged")
    with lock.hold(pathlib.Path("run"), "out"):
        assert_command_refused(command, argument, "in use", received="run")


@pytest.mark.parametrize("folder", ["--out new/run", "--out mine", ""])
@pytest.mark.parametrize("data", ["no.npy", "text.csv"])
def test_a_train_that_does_not_start_leaves_nothing(folder, data):
    pathlib.Path("mine").mkdir()
    pathlib.Path("text.csv").write_text("")
    assert_command_refused(f"train {data} {folder}", "DATA", received=data)


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_a_run_is_not_a_file(out):
    pathlib.Path("file").touch()
    assert_command_refused(f"train no.npy --out {out}", "--out", received="file")


def test_two_trains_get_different_folders():
    before = tree()
    with (
        run_folder.claim("a/x.csv", None, False) as one,
        run_folder.claim("b/x.npz", None, False) as other,
    ):
        assert [one, other] == [pathlib.Path("runs", name) for name in ("x-1", "x-2")]
    assert tree() == before


def test_what_a_killed_process_leaves_counts_as_empty():
    for name in ("new/.lock", "new/scaler.json", "new/.keras-vae-1-x/file"):
        pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(name).touch()
    with run_folder.claim("x", pathlib.Path("new"), False):
        pass
    assert pathlib.Path("new/scaler.json").exists()


def config(kind, index):
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("environment", "strategy", "first"),
    [
        ({}, "auto", True),
        ({"TF_CONFIG": config("chief", 0)}, "auto", True),
        ({"TF_CONFIG": config("worker", 0)}, "auto", False),
        ({"TF_CONFIG": config("worker", 1), "SLURM_PROCID": "0"}, "multi-worker", False),
        ({"SLURM_PROCID": "0"}, "multi-worker", True),
        ({"SLURM_PROCID": "1"}, "multi-worker", False),
        ({"SLURM_PROCID": "1"}, "auto", True),  # tasks that train their own runs
    ],
)
def test_one_of_several_workers_locks_the_run(monkeypatch, environment, strategy, first):
    for name in ("TF_CONFIG", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run_folder.is_first_worker(strategy) == first


def test_a_new_run_does_not_replace_another():
    x = np.zeros((2, 3), "float32")
    Run("run", Options("x")).start("first", Dataset("x", x, x))
    before = tree()
    with pytest.raises(ValueError, match="`out` must be a new folder"):
        Run("run", Options("y")).start("second", Dataset("y", x, x))
    assert tree() == before
