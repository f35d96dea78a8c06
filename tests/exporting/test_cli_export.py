"""The commands `keras-vae export` and `keras-vae verify`."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from keras_vae import cli
from keras_vae.exporting import verify
from tests.refusals import skip_report, train_eagerly

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")


def run_command(*args):
    result = CliRunner().invoke(cli.app, list(map(str, args)))
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs with the same table and different seeds."""
    folder = tmp_path_factory.mktemp("cli")
    table = folder / "t.csv"
    x = np.random.default_rng(0).normal(5.0, 2.0, size=(60, 3))
    np.savetxt(table, x, delimiter=",", header="a,b,c", comments="")
    options = ["--hidden", "8", "--latent", "2", "--epochs", "2", "--num-samples", "1",
               "--baselines", "none", "--no-xla"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        train_eagerly(patch)
        for seed in (0, 1):
            code, output = run_command(
                "train", table, "--out", folder / f"run{seed}", "--seed", seed, *options
            )
            assert code == 0, output
            skip_report(patch)  # for the second run
    return folder


@pytest.mark.parametrize(
    ("options", "path"),
    [
        (["serving", "--name", "tables"], "serving/tables/1"),
        (["litert", "--batch-size", "4", "--score-samples", "3"], "model.tflite"),
        # The command is the same for all formats, and int8 and ONNX have their own tests.
        pytest.param(
            ["litert", "--quantize", "int8", "--out", "{run}/q.tflite"],
            "q.tflite",
            marks=pytest.mark.slow,
        ),
        pytest.param(["onnx"], "onnx", marks=pytest.mark.slow),
    ],
    ids=["serving", "litert", "int8", "onnx"],
)
def test_an_export_is_verified(runs, options, path):
    for package in {"serving": ("tensorflow_serving",), "onnx": ("tf2onnx",)}.get(
        options[0], ()
    ):
        pytest.importorskip(package)
    run, other = runs / "run0", runs / "run1"
    options = [option.format(run=run) for option in options]
    code, output = run_command("export", run, "--to", *options)
    assert code == 0 and output.split()[-1] == str(run / path), output
    code, output = run_command("verify", run / path, run, "-n", "50")
    assert code == 0 and "50 rows and seeds were compared" in output, output
    assert ("quantised" in output) == ("int8" in options)
    if "int8" in options:  # quantisation could cause the differences
        code, output = run_command("verify", run / path, other, "-n", "50")
        assert code == 2 and "other weights" in output
    elif "litert" in options:  # the comparison is the same for all
        code, output = run_command("verify", run / path, other, "-n", "50")
        assert code == 1 and "DIFFERS" in output
    code, output = run_command("export", run, "--to", *options)
    if options[0] == "serving":
        assert code == 0 and (run / "serving/tables/2").is_dir()
    else:
        assert code == 2 and "never overwrite" in output


def test_the_card_describes_training_and_preprocessing(runs, tmp_path):
    path = tmp_path / "m.tflite"
    code, _ = run_command("export", runs / "run0", "--to", "litert", "--out", path)
    assert code == 0
    # Also valid for readers of JSON without NaN, such as browsers.
    json.loads((tmp_path / "m.card.json").read_text(), parse_constant=pytest.fail)
    card = verify.read_card(path)
    evaluation = json.loads((runs / "run0" / "evaluation.json").read_text())
    assert card["training"]["test_elbo"] == evaluation["test_elbo"]
    assert card["training"]["data"] == "t.csv" and card["training"]["epochs"] == 2
    # The card has the means and scales of the standardisation.
    scaler = json.loads((runs / "run0" / "scaler.json").read_text())
    assert card["preprocessing"]["standardise"] == scaler
    assert card["model"]["likelihood"]["class_name"] == "IndependentNormal"
    assert card["model"]["likelihood"]["scale"] == "shared"
    text = (tmp_path / "m.card.md").read_text()
    for words in ("### sample", "| input | seed | int32 | [batch] |", "t.csv", "sha256"):
        assert words in text
    assert str(runs) not in text + json.dumps(card)  # paths are the user's own
