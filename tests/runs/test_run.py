"""Runs of the command line: training, resuming, sampling and reports."""

import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import keras_vae as kv
from keras_vae import cli, datasets
from keras_vae.datasets import array_files
from keras_vae.runs.report import numbers
from tests.refusals import assert_succeeds

ROOT = pathlib.Path(__file__).parents[2]
OPTIONS = [
    "--hidden", "16", "--network", "mlp", "--latent", "3", "--batch", "16",
    "--shift", "0.1",
    "--beta-schedule", "linear", "--baselines", "none", "--num-samples", "2", "--no-xla",
]  # fmt: skip
EPOCHS = 4  # of the run that most tests share


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "x.npz"
    rng = np.random.default_rng(0)
    np.savez(
        path, x=rng.integers(0, 256, (120, 6, 5)).astype("uint8"), y=rng.integers(0, 3, 120)
    )
    return path


# Runs one command several times, each in a fork of a process that has imported everything
# and run nothing. Each fork sends itself a signal when an epoch begins, and prints to a
# file. Then the script prints the exit codes.
STOP_SCRIPT = """
import json, os, signal, sys
import tensorflow_probability
from keras_vae import cli
from keras_vae.runs import report, train

signal.signal(signal.SIGINT, signal.default_int_handler)
stops, folder = json.loads(sys.argv.pop(1)), sys.argv.pop(1)
for stop_epoch, number in stops:
    child = os.fork()
    if not child:
        file = os.open(f"{folder}/output-{number}", os.O_CREAT | os.O_WRONLY)
        os.dup2(file, 1), os.dup2(file, 2)

        def send(keeper, epoch, logs=None):
            if epoch == stop_epoch:
                os.kill(os.getpid(), number)

        train.RunBackup.on_epoch_begin = send
        cli.main()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run_and_stop(folder, stops, *args):
    """Runs a command for each (epoch, signal): {signal: (exit code, output)}."""
    process = subprocess.run(
        [sys.executable, "-c", STOP_SCRIPT, json.dumps(stops), folder, *map(str, args)],
        cwd=ROOT, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, text=True,
        capture_output=True, timeout=240,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    numbers = [number for _, number in stops]
    outputs = [(folder / f"output-{number}").read_text() for number in numbers]
    codes = map(int, process.stdout.split())
    return dict(zip(numbers, zip(codes, outputs, strict=True), strict=True))


def skip_report(monkeypatch):
    """Skips the report, which takes longer than the training and is not under test."""
    monkeypatch.setattr(cli.train, "write_report", lambda *_: None)


def assert_same(one, other):
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    assert (one / "evaluation.json").read_text() == (other / "evaluation.json").read_text()
    models = [keras.saving.load_model(run / "model.keras") for run in (one, other)]
    for a, b in zip(models[0].variables, models[1].variables, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(*(m.optimizer.variables for m in models), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_killed_interrupted_and_terminated_run_resumes_bit_for_bit(
    run, data, tmp_path, monkeypatch
):
    broken = tmp_path / "broken"
    command = ["train", data, *OPTIONS, "--epochs", EPOCHS]
    command += ["--out", broken, "--resume"]  # starts a new run, too
    stops = [(1, signal.SIGKILL), (2, signal.SIGINT), (3, signal.SIGTERM)]
    ends = run_and_stop(tmp_path, stops, *command)
    assert {number: code for number, (code, _) in ends.items()} == {
        signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 75,
    }, ends  # fmt: skip
    output = ends[signal.SIGINT][1]
    assert "Stopped. " in output and "--resume to the same" in output
    output = ends[signal.SIGTERM][1]
    assert "Stopped by SIGTERM" in output and "--resume" in output
    assert "Traceback" not in output
    assert not (broken / "report.html").exists()
    resume = ["--out", broken, "--resume", "--num-samples", 2, "--baselines", "none"]
    output = invoke("train", data, *resume)
    assert "Continuing after epoch 3" in output and output.rstrip().endswith("report.html")
    assert_same(run, broken)
    assert f"The run is finished: {EPOCHS} epochs" in invoke("train", data, *resume)
    # The files that other commands read are restored from the backup.
    for name in ("model.keras", "metrics.csv", "report.html"):
        (broken / name).unlink()
    skip_report(monkeypatch)
    invoke("train", data, *resume)
    assert_same(run, broken)


def test_a_run_without_a_backup_is_reported_but_not_trained_further(run, data, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(run, old, ignore=shutil.ignore_patterns("backup", "report.html"))
    output = invoke("train", data, "--out", old, "--resume", "--epochs", EPOCHS + 1, code=2)
    assert "RUN must have a folder `backup`" in output and f"{EPOCHS} epochs" in output
    quick = ["--num-samples", 2, "--baselines", "none"]
    output = invoke("train", data, "--out", old, "--resume", *quick)
    assert output.rstrip().endswith("report.html") and not (old / "backup").exists()
    assert_same(run, old)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    invoke("train", data, *OPTIONS, "--epochs", EPOCHS, "--out", out)
    return out


def invoke(*args, code=0):
    result = CliRunner().invoke(cli.app, [str(a) for a in args])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_the_folder_of_a_run_has_all_files(run, data):
    names = {path.name for path in run.iterdir()}
    assert names == {"run.json", "backup", "model.keras", "metrics.csv", "tensorboard",
                     "figures", "evaluation.json", "report.html", "run.yaml"}  # fmt: skip
    with open(run / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(EPOCHS))
    terms = {"loss", "elbo", "reconstruction", "kl"}
    expected = {"epoch", "active_units", *terms}
    assert set(rows[0]) == expected | {f"val_{term}" for term in terms}
    info = json.loads((run / "run.json").read_text())
    assert info["options"]["data"] == str(data) and info["options"]["latent"] == 3
    assert info["versions"]["keras"] == keras.__version__
    scores = json.loads((run / "evaluation.json").read_text())
    bound, error = -scores["test_elbo"], scores["test_nll_standard_error"]
    assert scores["test_nll"] <= bound + 5 * error
    model = keras.saving.load_model(run / "model.keras")
    assert int(model.epochs_begun) == EPOCHS
    assert list((run / "tensorboard" / "images").glob("*tfevents*"))


def test_more_epochs_continue_from_the_last_epoch(run, data, tmp_path, monkeypatch):
    skip_report(monkeypatch)
    resumed, longer = tmp_path / "resumed", tmp_path / "longer"
    shutil.copytree(run, resumed)
    output = invoke("train", data, "--out", resumed, "--resume", "--epochs", EPOCHS + 1)
    assert f"Continuing after epoch {EPOCHS}" in output
    steps = json.loads((run / "run.json").read_text())["options"]["beta_steps"]
    options = [*OPTIONS, "--beta-steps", steps, "--epochs", EPOCHS + 1]
    invoke("train", data, *options, "--out", longer)
    options = json.loads((resumed / "run.json").read_text())["options"]
    assert options["epochs"] == EPOCHS + 1
    metrics = [(folder / "metrics.csv").read_text() for folder in (run, resumed, longer)]
    assert metrics[1] == metrics[2] and len(metrics[1].splitlines()) == 1 + EPOCHS + 1
    assert metrics[1].startswith(metrics[0])  # the earlier epochs


def test_samples_and_reconstructions_equal_those_of_the_model(run, tmp_path):
    invoke("sample", run, "-n", 5, "--seed", 7, "--out", tmp_path / "s.npz")
    model = keras.saving.load_model(run / "model.keras")
    with np.load(tmp_path / "s.npz") as file:
        expected = 255 * model.sample(5, seed=7)
        np.testing.assert_array_equal(file["samples"], expected)
    invoke("sample", run, "-n", 5, "--mean", "--out", tmp_path / "s.png")
    invoke("reconstruct", run, "-n", 4, "--out", tmp_path / "r.npz")
    with np.load(tmp_path / "r.npz") as file:
        x = file["originals"]
        assert x.shape == (4, 6, 5, 1) and 0 <= x.min() < 100 < x.max() <= 255
        expected = 255 * model.reconstruct(x / 255)
        np.testing.assert_allclose(file["reconstructions"], expected, atol=1e-3)


def test_samples_of_a_table_have_its_units(tmp_path, monkeypatch):
    monkeypatch.setattr(numbers, "STEPS", 100)  # of the baselines
    rng = np.random.default_rng(0)
    rows = np.stack([rng.normal(1000, 10, 200), rng.normal(-3, 0.1, 200)], axis=1)
    np.savetxt(
        tmp_path / "t.csv", rows, delimiter=",", header="price,odd name", comments=""
    )
    out = tmp_path / "run"
    invoke("train", tmp_path / "t.csv", "--out", out, "--epochs", 2, "--hidden", "8",
           "--latent", 2, "--baselines", 1, "--num-samples", 2)  # fmt: skip
    invoke("sample", out, "-n", 300)
    names, *lines = (out / "samples.csv").read_text().splitlines()
    assert names == '"price","odd name"'
    drawn = np.array([line.split(",") for line in lines], float)
    # Within three standard deviations of the data.
    assert (np.abs(drawn.mean(axis=0) - [1000, -3]) < [30, 0.3]).all()
    table = json.loads((out / "baselines.json").read_text())
    assert [row["model"] for row in table] == [
        "PCA", "linear autoencoder", "deep autoencoder", "VAE",
    ]  # fmt: skip
    assert "baselines" in (out / "report.html").read_text()


def test_an_autoencoder_is_trained_and_reported(data, tmp_path):
    out = tmp_path / "run"
    invoke("train", data, "--model", "autoencoder", "--epochs", 2, "--network", "mlp",
           "--hidden", "8", "--latent", 2, "--baselines", "none", "--out", out)  # fmt: skip
    scores = json.loads((out / "evaluation.json").read_text())
    assert "test_reconstruction" in scores and "test_nll" not in scores
    page = (out / "report.html").read_text()
    assert 'id="latent"' in page and 'id="samples"' not in page


def test_a_conditional_model_is_trained_on_the_labels(data, tmp_path, monkeypatch):
    with np.load(data) as arrays:
        names = np.array(["cat", "dog", "eel"])[arrays["y"]]
        np.savez(tmp_path / "named.npz", x=arrays["x"], y=names)
    out, command = tmp_path / "run", ["train", tmp_path / "named.npz", *OPTIONS]
    command += ["--model", "conditional", "--condition", "label", "--out", out]
    with monkeypatch.context() as patch:
        skip_report(patch)
        invoke(*command, "--epochs", 2)
    output = invoke(*command, "--epochs", 3, "--resume")
    assert "Continuing after epoch 2" in output
    info = json.loads((out / "run.json").read_text())
    assert info["data"]["classes"] == ["cat", "dog", "eel"]
    scores = json.loads((out / "evaluation.json").read_text())
    assert "test_nll" in scores and "probe_accuracy" not in scores
    page = (out / "report.html").read_text()
    assert 'id="classes"' in page and 'id="transfer"' in page and 'id="kl"' in page
    model = keras.saving.load_model(out / "model.keras")
    invoke("sample", out, "-n", 4, "--out", tmp_path / "all.npz")
    invoke("sample", out, "-n", 4, "--label", "eel", "--out", tmp_path / "eel.npz")
    for name, labels in (("all", [0, 1, 2, 0]), ("eel", 2)):
        with np.load(tmp_path / f"{name}.npz") as file:
            expected = 255 * model.sample(4, seed=0, condition=labels)
            np.testing.assert_array_equal(file["samples"], expected)
            drawn = np.array(["cat", "dog", "eel"])[np.broadcast_to(labels, 4)]
            np.testing.assert_array_equal(file["label"], drawn)
    invoke("reconstruct", out, "-n", 4)
    output = invoke("sample", out, "--label", "fox", "--overwrite", code=2)
    assert "--label must be one of cat, dog, eel. Received: label=fox" in output
    invoke("export", out, "--to", "litert")
    assert "agrees with the model" in invoke("verify", out / "model.tflite", out)
    with np.load(data) as arrays:  # the same rows with other labels
        np.savez(tmp_path / "named.npz", x=arrays["x"], y=names[::-1])
    assert "has changed" in assert_succeeds(f"evaluate {out}").output


def test_a_conditional_model_needs_labels(run, data, tmp_path):
    with np.load(data) as arrays:
        np.savez(tmp_path / "bare.npz", x=arrays["x"])
    command = ["train", tmp_path / "bare.npz", "--model", "conditional", "--out"]
    output = invoke(*command, tmp_path / "run", code=2)
    assert "--condition label needs 2 to 100 classes" in output and "no labels" in output
    output = invoke("train", data, "--condition", "label", "--out", tmp_path / "r", code=2)
    assert "--condition must be left out unless the model is conditional" in output
    assert not (tmp_path / "run").exists() and not (tmp_path / "r").exists()
    assert "--label must be left out" in invoke("sample", run, "--label", "a", code=2)


def test_rows_on_the_disk_give_the_same_run(data, tmp_path, monkeypatch):
    with np.load(data) as arrays:
        np.save(tmp_path / "x.npy", arrays["x"])
    command = ["train", tmp_path / "x.npy", *OPTIONS, "--epochs", 2, "--out"]
    with monkeypatch.context() as patch:
        skip_report(patch)
        assert "from the disk" not in invoke(*command, tmp_path / "memory")
    monkeypatch.setattr(array_files, "too_large", lambda size: True)
    assert "read from the disk when needed" in invoke(*command, tmp_path / "disk")
    metrics = [(tmp_path / run / "metrics.csv").read_text() for run in ("memory", "disk")]
    assert metrics[0] == metrics[1]


def test_help_imports_no_large_package():
    script = (
        "import sys; sys.argv = ['/usr/bin/keras-vae', '--help']; "
        "from keras_vae import cli; cli.app(standalone_mode=False); "
        "print([m for m in ('keras', 'tensorflow', 'numpy', 'sklearn', 'matplotlib') "
        "if m in sys.modules])"
    )
    run = [sys.executable, "-c", script]
    process = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    *lines, imported = process.stdout.splitlines()
    assert any("train" in line for line in lines) and imported == "[]"


@pytest.mark.slow
def test_crops_and_half_precision_resume_bit_for_bit(data, tmp_path):
    options = [
        "--network", "mlp", "--hidden", "8", "--latent", 2, "--num-samples", 2,
        "--crop", "4x3", "--rotate", 20, "--precision", "mixed_bfloat16", "--epochs",
    ]  # fmt: skip
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    invoke("train", data, *options, 4, "--baselines", "none", "--out", straight)
    invoke("train", data, *options, 2, "--baselines", "none", "--out", broken)
    page = (broken / "report.html").read_text()
    keras.config.set_dtype_policy("float32")  # as in another process
    assert "after\n2 epochs" in page
    resume = ["--num-samples", 2, "--baselines", "none", "--epochs"]
    invoke("train", data, "--out", broken, "--resume", *resume, 4)
    assert "after\n4 epochs" in (broken / "report.html").read_text()
    keras.config.set_dtype_policy("float32")
    assert_same(straight, broken)
    output = invoke("train", data, "--out", broken, "--resume", *resume, 3, code=2)
    assert "--epochs must be 4 or more" in output


def test_a_run_can_be_started_again_after_a_killed_start(data, tmp_path, monkeypatch):
    skip_report(monkeypatch)
    out = tmp_path / "run"
    out.mkdir()
    (out / "scaler.json").write_text("{}")
    (out / ".run-0123456789abcdef.json").write_text("{")
    quick = ["--epochs", 1, "--hidden", "4", "--num-samples", 2, "--baselines", "none"]
    invoke("train", data, "--network", "mlp", *quick, "--out", out, "--resume")
    assert (
        not (out / ".run-0123456789abcdef.json").exists() and (out / "model.keras").exists()
    )


@pytest.fixture
def dataset():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (120, 6, 5, 1)).astype("uint8")
    return datasets.Dataset("noise", x[:80], x[80:], value_range=(0, 255))


def test_bits_per_dimension_are_those_of_raw_pixels(dataset):
    # Uniform noise over 256 values has 8 bits; a Normal with its mean and variance
    # needs log2(sqrt(2 pi e / 12) 255) = 8.25 of them.
    vae = kv.VAE(
        kv.nets.MLP([4]),
        kv.nets.MLP([4]),
        kv.distributions.IndependentNormal((6, 5, 1), scale=255 / 256 / 12**0.5),
        latent_dim=1,
        seed=0,
    )
    vae.compile(keras.optimizers.Adam(0.01))
    vae.fit(dataset.x_train, epochs=60, verbose=0)
    bits = numbers._likelihood(vae, dataset, 50, 40, {})["bits_per_dimension"]
    # 80 images are few: the fit loses some hundredths of a bit.
    assert bits == pytest.approx(8.25, abs=0.1)
