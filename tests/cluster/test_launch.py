"""Two workers train as one process does, although one of them is killed or stopped."""

import csv
import functools
import sys

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_vae import cli
from keras_vae.cluster import launcher

# A worker that gets a signal in the middle of the third epoch of its first start.
WORKER_SCRIPT = """
import os, signal, sys
sys.argv[0] = "keras-vae"
from keras_vae import cli
from keras_vae.cli.progress import start_tensorflow

start_tensorflow()
from keras_vae.cli import watcher


class Signalled(watcher.Watcher):
    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 2 and batch == 2 and "--resume" not in sys.argv:
            os.kill(os.getpid(), signal.NAME)


watcher.Watcher = Signalled
cli.main()
"""


def invoke(*args):
    result = CliRunner().invoke(cli.app, [str(a) for a in args])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stderr


def read_metrics(run):
    with open(run / "metrics.csv") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("SIGKILL", "ended with SIGKILL"),
        pytest.param("SIGSTOP", "did not respond for", marks=pytest.mark.slow),
    ],
)
def test_launched_workers_train_as_one_process_does(
    tmp_path, monkeypatch, capfd, name, failure
):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=rng.uniform(size=(75, 9)))
    command = [
        "train", tmp_path / "x.npz", "--network", "mlp", "--hidden", "8", "--latent", 2,
        "--batch", 16, "--epochs", 4, "--no-xla", "--baselines", "none",
        "--num-samples", 2, "--out",
    ]  # fmt: skip
    alone, team = tmp_path / "alone", tmp_path / "team"
    with monkeypatch.context() as patch:
        patch.setattr(cli.train, "write_report", lambda *_: None)  # slow
        invoke(*command, alone)
    program = [sys.executable, "-c", WORKER_SCRIPT.replace("NAME", name)]
    launch = functools.partial(launcher.launch, program=program)
    monkeypatch.setattr(launcher, "launch", launch)
    capfd.readouterr()
    errors = invoke("launch", "--workers", 2, "--restarts", 1, "--", *command, team)
    output, _ = capfd.readouterr()
    assert f"worker 0 {failure}" in errors and ": restarting all workers" in errors
    assert (
        "Continuing after epoch" in output
        and output.count("training    at most 4 epochs") == 2
    )
    assert "Traceback" not in errors
    # float32 sums in another order, of 60 rows split into parts of 8, 5 and 6.
    for one, other in zip(read_metrics(alone), read_metrics(team), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    models = [keras.saving.load_model(run / "model.keras") for run in (alone, team)]
    for a, b in zip(*(model.variables for model in models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert (team / "report.html").exists() and not [*team.glob(".*")]
