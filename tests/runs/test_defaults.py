"""Defaults of training: its length, the KL warm-up, early stopping and the best epoch."""

import csv
import json

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_vae import cli
from keras_vae.datasets import Dataset
from keras_vae.runs import build
from keras_vae.runs.options import Options


def resolve(rows, validation=True, **options):
    """Resolves the options for a data set of `rows` training rows."""
    x = np.random.default_rng(0).normal(size=(rows, 2)).astype("float32")
    data = Dataset("x", x, x[:2], x[:2] if validation else None)
    return build.resolve(Options("x", batch=10, **options), data)


@pytest.mark.parametrize(
    ("rows", "epochs", "warm_up", "patience"),
    [
        (20, 5000, 20, 100),  # 2 steps per epoch: 10 epochs of warm-up
        (1000, 100, 1000, 20),
        (5000, 20, 2000, 10),  # the warm-up is at most 2,000 steps
        (20_000, 10, 2000, 10),  # at least 10 epochs
    ],
)
def test_training_has_about_10000_steps(rows, epochs, warm_up, patience):
    options = resolve(rows)
    assert (options.epochs, options.beta_steps, options.patience) == (
        epochs, warm_up, patience,
    )  # fmt: skip
    assert options.beta_schedule == "linear"


@pytest.mark.parametrize(("columns", "latent"), [(3, 3), (100, 16), (101, 32)])
def test_the_latent_size_follows_the_size_of_a_row(columns, latent):
    x = np.zeros((20, columns), "float32")
    assert build.resolve(Options("x"), Dataset("x", x, x[:2])).latent == latent


def test_the_warm_up_is_at_most_a_fifth_of_a_short_training():
    assert resolve(1000, epochs=5).beta_steps == 100


@pytest.mark.parametrize(
    "changes", [{"objective": "iwae"}, {"model": "autoencoder"}], ids=str
)
def test_only_the_elbo_has_a_warm_up(changes):
    assert resolve(100, **changes).beta_schedule == "constant"


def test_without_comparable_losses_all_epochs_are_trained():
    assert resolve(100, validation=False).patience == 0
    assert resolve(100, beta_schedule="cyclical").patience == 0
    with pytest.raises(ValueError, match="`patience` must be 0 without validation"):
        resolve(100, validation=False, patience=3)


def invoke(*arguments):
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_stops_early_and_keeps_the_weights_of_the_best_epoch(tmp_path):
    # Few rows of noise: the validation loss grows after some epochs.
    path, folder = tmp_path / "x.npy", tmp_path / "run"
    np.save(path, np.random.default_rng(0).normal(size=(40, 8)))
    command = [
        "train", path, "--out", folder, "--epochs", 300, "--patience", 3, "--hidden", 64,
        "--learning-rate", 0.01, "--beta-steps", 2, "--num-samples", 2, "--latent", 4,
        "--baselines", "none",
    ]  # fmt: skip
    output = invoke(*command)
    with open(folder / "metrics.csv") as file:
        losses = [float(row["val_loss"]) for row in csv.DictReader(file)]
    # The first epoch is a part of the warm-up.
    best = 2 + int(np.argmin(losses[1:]))
    assert len(losses) == best + 3 < 300
    assert (
        f"stopped early after epoch {best + 3}; kept the weights of epoch {best}" in output
    )
    model = keras.saving.load_model(folder / "model.keras")
    assert int(model.epochs_begun) == best
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["steps"] == int(model.step) == best
    assert "stopped early" in invoke(*command, "--resume")
    # A process that was killed before it wrote the best weights writes them on resume.
    (folder / "report.html").unlink()
    (folder / "model.keras").unlink()
    assert f"kept the weights of epoch {best}" in invoke(*command, "--resume")
    again = keras.saving.load_model(folder / "model.keras")
    for one, other in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_epoch_is_the_best_if_all_are_in_the_warm_up(tmp_path, monkeypatch):
    monkeypatch.setattr(cli.train, "write_report", lambda *_: None)
    path, folder = tmp_path / "x.npy", tmp_path / "run"
    np.save(path, np.random.default_rng(0).normal(size=(40, 8)))
    output = invoke("train", path, "--out", folder, "--epochs", 2, "--beta-steps", 100)
    assert "kept the weights" not in output
    assert int(keras.saving.load_model(folder / "model.keras").epochs_begun) == 2
    info = json.loads((folder / "run.json").read_text())
    assert info["early_stopping"] == {"best_epoch": None, "stopped": False}
