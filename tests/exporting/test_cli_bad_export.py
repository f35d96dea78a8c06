"""Bad input of `keras-vae export` and `keras-vae verify`.

As in `tests/cli/test_bad_input.py`, the message names the option as it is typed, or RUN,
DATA or ARTEFACT, and no file is written. The checks of the Python functions are tested in
`test_bad_arguments.py`.
"""

import os
import pathlib

import keras
import numpy as np
import pytest

from tests import refusals
from tests.refusals import (
    DAMAGES,
    ROWS,
    assert_command_refused,
    assert_commands_refused,
    assert_each_damage_refused,
    assert_succeeds,
    assert_unchanged,
    change_json,
    delete_key,
    run_command,
    skip_report,
    train_eagerly,
    tree,
    truncate,
    write_file,
)

pytest.importorskip("ai_edge_litert")
pytest.importorskip("tf2onnx")
pytest.importorskip("tensorflow_serving")


@pytest.fixture(scope="module")
def source_folder(tmp_path_factory):
    """A run, a second run with another seed, and two artefacts of the first run."""
    folder = tmp_path_factory.mktemp("source")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        skip_report(patch)
        train_eagerly(patch)
        write_file("a.npy", ROWS)
        assert_succeeds("train a.npy --out run")
        assert_succeeds("train a.npy --out twin --seed 1")
        command = "export run --to litert --score-samples 2"
        assert_succeeds(f"{command} --out m.tflite")
        assert_succeeds(f"{command} --out q.tflite --quantize dynamic")
        write_file("images/a.txt", "mine")
    return folder


@pytest.fixture(autouse=True)
def folder(source_folder, tmp_path, monkeypatch):
    return refusals.work_in_copy(source_folder, tmp_path / "work", monkeypatch)


LITERT, ONNX, SERVING = (f"export run --to {to}" for to in ("litert", "onnx", "serving"))
VERIFY = "verify m.tflite run"


def test_export_needs_a_run():
    assert_commands_refused([
        ("export gone --to litert", "RUN", "gone"),
        ("export gone --to serving", "RUN", "gone"),
        ("export a.npy --to litert", "RUN", "a.npy"),
        ("export images --to onnx", "RUN", "images", "run.json"),
        ("export run/model.keras --to onnx", "RUN", "model.keras"),
        ("export digits --to litert", "RUN", "digits"),
    ])  # fmt: skip
    assert_each_damage_refused("run/run.json", {"text": "{]"}, ONNX, "RUN", "run.json")
    assert_each_damage_refused(
        "run/model.keras", {"cut": truncate(900)}, ONNX, "RUN", "model.keras"
    )
    assert_each_damage_refused(
        "run/model.keras", {"missing": None}, SERVING, "RUN", "--resume"
    )


def test_damaged_files_of_a_run_that_the_card_needs_are_refused():
    damages = DAMAGES | {"missing": None}
    assert_each_damage_refused("run/metrics.csv", damages, ONNX, "RUN", "metrics.csv")
    damages = DAMAGES | {"list": "[1]"}
    for name in ("run/evaluation.json", "run/scaler.json"):
        if "scaler" in name:
            damages = DAMAGES
        file = name.removeprefix("run/")
        assert_each_damage_refused(name, damages, LITERT, "RUN", file)


def test_missing_and_unknown_arguments_are_refused():
    rows = [
        ("export --to litert", "RUN"),
        ("export run", "--to"),
        ("export run twin --to litert", "twin"),
        (f"{LITERT} --quantise int8", "--quantise"),
        (f"{LITERT} --epochs 2", "--epochs"),
        ("verify", "ARTEFACT"),
        ("verify m.tflite", "RUN"),
        (f"{VERIFY} twin", "twin"),
        (f"{VERIFY} --rows 3", "--rows"),
    ]
    rows += [(f"export run --to {to}", "--to") for to in ("tflite", "''", "ONNX", "a,b")]
    rows += [(f"{LITERT} --quantize int4", "--quantize", "int4")]
    assert_commands_refused(rows, received=None)


def test_options_of_another_target_are_refused():
    assert_commands_refused([
        (f"{ONNX} --quantize int8", "--quantize", "--to", "litert", "int8"),
        (f"{SERVING} --quantize float16", "--quantize", "litert", "float16"),
        (f"{ONNX} --batch-size 2", "--batch-size", "--to", "litert", "2"),
        (f"{SERVING} --batch-size 2", "--batch-size", "litert", "2"),
        (f"{LITERT} --name a", "--name", "--to", "serving", "a"),
        (f"{ONNX} --name ''", "--name", "serving"),
    ])  # fmt: skip


def test_values_of_options_are_checked():
    assert_commands_refused([
        (f"{SERVING} --name a/b", "--name", "a/b"),
        (f"{SERVING} --name ..", "--name", ".."),
        (f"{SERVING} --name ''", "--name", "''"),
        (f"{SERVING} --name 'a b'", "--name", "a b"),
        (f"{LITERT} --batch-size 0", "--batch-size", "1", "0"),
        (f"{LITERT} --batch-size 2.5", "--batch-size", "2.5"),
        (f"{LITERT} --score-samples 0", "--score-samples", "0"),
        (f"{ONNX} --score-samples few", "--score-samples", "few"),
        (f"{LITERT} --score-samples 10001", "--score-samples", "10,000", "10001"),
        (f"{VERIFY} -n 0", "-n", "0"),
        (f"{VERIFY} -n all", "-n", "all"),
        (f"{VERIFY} -n 1000001", "-n", "1,000,000", "1000001"),
    ])  # fmt: skip


def test_an_export_needs_a_new_path_of_its_format(monkeypatch):
    write_file("s/models.config", "models {")
    write_file("run/model.tflite", "mine")
    write_file("run/onnx/a", "mine")
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, m: "images" not in str(p) and access(p, m))
    assert_commands_refused([
        (f"{LITERT} --out m.tflite", "--out", "m.tflite"),
        (f"{LITERT} --out m", "--out", ".tflite"),
        (f"{LITERT} --out a.npy/m.tflite", "--out", "a.npy"),
        (LITERT, "--out", "model.tflite"),
        (ONNX, "--out", "onnx"),
        (f"{ONNX} --out .", "--out"),
        (f"{ONNX} --out run", "--out", "run"),
        (f"{ONNX} --out new.tflite", "--out", ".tflite", "new.tflite"),
        (f"{ONNX} --out images/new", "--out", "images/new"),
        (f"{SERVING} --out a.npy", "--out", "a.npy"),
        (f"{SERVING} --out a.npy/s", "--out", "a.npy"),
        (f"{SERVING} --out s", "--out", "models.config"),
    ])  # fmt: skip


def test_int8_and_verify_need_the_data_of_the_run():
    damages = {"missing": None, "other": ROWS[:, :2], "text": "mine"}
    for command in (f"{LITERT} --quantize int8", VERIFY):
        assert_each_damage_refused("a.npy", damages, command, "DATA", "a.npy")


def test_verify_needs_an_artefact_and_a_run():
    assert_commands_refused([
        ("verify run m.tflite", "RUN", "m.tflite"),
        ("verify m.tflite gone", "RUN", "gone"),
        ("verify m.tflite images", "RUN", "images", "run.json"),
        ("verify gone.tflite run", "ARTEFACT", "gone.tflite"),
        ("verify gone run", "ARTEFACT", "gone"),
        ("verify run run", "ARTEFACT", "run", "model_card.json"),
        ("verify a.npy run", "ARTEFACT", "a.npy"),
        ("verify m.card.json run", "ARTEFACT", "m.card.json"),
        ("verify run/model.keras run", "ARTEFACT", "model.keras"),
    ])  # fmt: skip
    assert_each_damage_refused(
        "run/model.keras", {"missing": None}, VERIFY, "RUN", "--resume"
    )


def test_verify_names_a_damaged_artefact():
    damages = {"cut": truncate(2000), "text": "mine"}
    assert_each_damage_refused("m.tflite", damages, VERIFY, "ARTEFACT", "checksum")
    damages = {"missing": None, "text": "{]", "entry": delete_key("signatures")}
    assert_each_damage_refused("m.card.json", damages, VERIFY, "ARTEFACT", "m.card.json")
    # Another format, which only the runtime detects.
    damages = {"format": change_json(lambda card: card.update(format="onnx"))}
    assert_each_damage_refused("m.card.json", damages, VERIFY, "ARTEFACT", "onnx")


def test_verify_finds_an_artefact_of_another_run():
    before = tree()
    result = run_command("verify m.tflite twin -n 20")
    assert result.exit_code == 1, result.output
    assert "m.tflite" in result.stderr and "twin" in result.stderr
    assert "DIFFERS" in result.stdout
    assert_unchanged(before)


def test_a_quantised_artefact_needs_the_same_weights():
    assert run_command("verify q.tflite run -n 20").exit_code == 0
    # Quantisation causes differences, so the weights are compared first.
    assert_command_refused(
        "verify q.tflite twin", "ARTEFACT", "weights", received="q.tflite"
    )
    write_file("q.card.json", delete_key("model", "weights"))
    assert_command_refused(
        "verify q.tflite run", "ARTEFACT", received=("q.card.json", "weights")
    )


def test_verify_finds_a_run_that_was_trained_further():
    before = run_command(f"{VERIFY} -n 20")
    assert before.exit_code == 0, before.output
    path = pathlib.Path("run/model.keras")
    model = keras.models.load_model(path)
    model.decoder.weights[0].assign_add(np.ones(model.decoder.weights[0].shape))
    model.save(path)
    after = run_command(f"{VERIFY} -n 20")
    assert after.exit_code == 1 and "DIFFERS" in after.stdout
