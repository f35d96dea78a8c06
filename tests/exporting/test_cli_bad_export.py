"""Every bad input of `keras-vae export` and `keras-vae verify`.

As in `tests/test_cli_bad_input.py`: exit code 2, a message in words that names the option
as it is typed, or RUN, DATA or ARTEFACT, and nothing written.
"""

import os
import shutil

import keras
import numpy as np
import pytest

from tests.test_cli_bad_input import (
    ROWS,
    done,
    first,
    json_with,
    keras_vae,
    newer,
    no_report,
    other_model,
    put,
    refused,
    run_eagerly,
    table,
    tree,
    without,
)

pytest.importorskip("ai_edge_litert")
pytest.importorskip("tf2onnx")
pytest.importorskip("tensorflow_serving")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, its twin of another seed, one of other rows, an autoencoder, and artefacts."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        no_report(patch)
        run_eagerly(patch)
        put("a.npy", ROWS)
        put("b.npy", np.concatenate([ROWS, ROWS], axis=1))
        done("train a.npy --out run")
        done("train a.npy --out twin --seed 1")
        done("train b.npy --out wide")
        done("train a.npy --out plain --model autoencoder")
        done("export run --to litert --out m.tflite --score-samples 2")
        done("export run --to litert --out q.tflite --score-samples 2 --quantize dynamic")
        put("images/a.txt", "mine")
    return folder


@pytest.fixture(autouse=True)
def folder(made, tmp_path, monkeypatch):
    """The working folder, a copy of what was made; the runs know it by its new place."""
    new = tmp_path / "work"
    shutil.copytree(made, new)
    for path in new.glob("*/run.json"):
        path.write_text(path.read_text().replace(str(made), str(new)))
    monkeypatch.chdir(new)
    monkeypatch.delenv("KERAS_VAE_DATA", raising=False)
    return new


TO = "--to ... serving ... litert ... onnx"
EXPORT = [
    # The run.
    ("no_run", {}, "export --to litert", "RUN"),
    ("missing", {}, "export gone --to litert", "RUN ... gone"),
    ("missing_serving", {}, "export gone --to serving", "RUN ... gone"),
    ("a_file", {}, "export a.npy --to litert", "RUN ... a.npy"),
    ("a_folder", {}, "export images --to onnx", "RUN ... images ... run.json"),
    ("a_part", {}, "export run/model.keras --to onnx", "RUN ... model.keras"),
    ("an_artefact", {}, "export m.tflite --to onnx", "RUN ... m.tflite"),
    ("data", {}, "export digits --to litert", "RUN ... digits"),
    ("two_runs", {}, "export run twin --to litert", "twin"),
    ("newer", {"run/run.json": json_with(newer)}, "export run --to onnx", "RUN ... 99"),
    ("json", {"run/run.json": "{]"}, "export run --to litert", "RUN ... run.json"),
    (
        "no_options",
        {"run/run.json": without("options")},
        "export run --to litert",
        "RUN ... options",
    ),
    (
        "no_fingerprint",
        {"run/run.json": without("data", "fingerprint")},
        "export run --to litert",
        "RUN ... run.json ... fingerprint",
    ),
    (
        "no_model",
        {"run/model.keras": None},
        "export run --to litert",
        "RUN ... model.keras|--resume",
    ),
    (
        "model_cut",
        {"run/model.keras": first(900)},
        "export run --to serving",
        "RUN ... model.keras",
    ),
    (
        "model_empty",
        {"run/model.keras": b""},
        "export run --to onnx",
        "RUN ... model.keras",
    ),
    (
        "model_other",
        {"run/model.keras": other_model},
        "export run --to onnx",
        "RUN ... model",
    ),
    (
        "no_metrics",
        {"run/metrics.csv": None},
        "export run --to onnx",
        "RUN ... metrics.csv",
    ),
    (
        "evaluation_garbage",
        {"run/evaluation.json": "{]"},
        "export run --to litert",
        "RUN ... evaluation.json",
    ),
    (
        "evaluation_list",
        {"run/evaluation.json": "[1]"},
        "export run --to litert",
        "RUN ... evaluation.json",
    ),
    (
        "scaler_garbage",
        {"run/scaler.json": "{]"},
        "export run --to litert",
        "RUN ... scaler.json",
    ),
    # --to
    ("to_missing", {}, "export run", "--to"),
    ("to_unknown", {}, "export run --to tflite", f"{TO} ... tflite"),
    ("to_empty", {}, "export run --to ''", TO),
    ("to_case", {}, "export run --to ONNX", f"{TO} ... ONNX"),
    ("to_two", {}, "export run --to litert,onnx", f"{TO} ... litert,onnx"),
    # Options of another target, or of none.
    (
        "quantize_onnx",
        {},
        "export run --to onnx --quantize int8",
        "--quantize ... litert ... int8",
    ),
    (
        "quantize_serving",
        {},
        "export run --to serving --quantize float16",
        "--quantize ... litert ... float16",
    ),
    (
        "batch_size_onnx",
        {},
        "export run --to onnx --batch-size 2",
        "--batch-size ... --to ... litert ... 2",
    ),
    (
        "batch_size_serving",
        {},
        "export run --to serving --batch-size 2",
        "--batch-size ... litert ... 2",
    ),
    ("name_litert", {}, "export run --to litert --name a", "--name ... serving ... a"),
    ("name_onnx", {}, "export run --to onnx --name a", "--name ... serving ... a"),
    ("name_empty_onnx", {}, "export run --to onnx --name ''", "--name ... serving"),
    ("misspelt", {}, "export run --to litert --quantise int8", "--quantise"),
    ("of_train", {}, "export run --to litert --epochs 2", "--epochs"),
    # Values.
    ("name_path", {}, "export run --to serving --name a/b", "--name ... letters ... 'a/b'"),
    ("name_parent", {}, "export run --to serving --name ..", "--name ... letters ... '..'"),
    ("name_empty", {}, "export run --to serving --name ''", "--name ... letters ... ''"),
    ("name_spaces", {}, "export run --to serving --name 'a b'", "--name ... 'a b'"),
    (
        "quantize",
        {},
        "export run --to litert --quantize int4",
        "--quantize ... int4 ... int8",
    ),
    (
        "batch_size_0",
        {},
        "export run --to litert --batch-size 0",
        "--batch-size ... 1 or more",
    ),
    (
        "batch_size_text",
        {},
        "export run --to litert --batch-size x",
        "--batch-size ... whole number ... 'x'",
    ),
    (
        "batch_size_float",
        {},
        "export run --to litert --batch-size 2.5",
        "--batch-size ... whole number ... '2.5'",
    ),
    (
        "score_samples_0",
        {},
        "export run --to litert --score-samples 0",
        "--score-samples ... of 1 or more",
    ),
    (
        "score_samples_many",
        {},
        "export run --to litert --score-samples 10001",
        "--score-samples ... up to 10,000",
    ),
    (
        "score_samples_text",
        {},
        "export run --to onnx --score-samples few",
        "--score-samples ... whole number ... 'few'",
    ),
    # --out
    (
        "out_exists",
        {},
        "export run --to litert --out m.tflite",
        "--out ... m.tflite ... file",
    ),
    (
        "out_a_folder",
        {},
        "export run --to onnx --out images",
        "--out ... images ... folder",
    ),
    ("out_here", {}, "export run --to onnx --out .", "--out ... must not exist"),
    ("out_is_the_run", {}, "export run --to onnx --out run", "--out ... run ... folder"),
    ("out_suffix", {}, "export run --to litert --out m", "--out ... .tflite ... m"),
    (
        "out_suffix_onnx",
        {},
        "export run --to onnx --out new.tflite",
        "--out ... .tflite ... new.tflite",
    ),
    (
        "out_in_a_file",
        {},
        "export run --to litert --out a.npy/m.tflite",
        "--out ... folder ... a.npy",
    ),
    ("out_in_a_file_onnx", {}, "export run --to onnx --out a.npy/m", "--out ... folder"),
    ("out_a_file_serving", {}, "export run --to serving --out a.npy", "--out ... a.npy"),
    (
        "out_in_a_file_serving",
        {},
        "export run --to serving --out a.npy/s",
        "--out ... a.npy",
    ),
    ("default_exists", {"run/model.tflite": "mine"}, "export run --to litert", "--out"),
    (
        "default_exists_onnx",
        {"run/onnx/a": "mine"},
        "export run --to onnx",
        "--out ... onnx",
    ),
    (
        "config_garbage",
        {"s/models.config": "models {"},
        "export run --to serving --out s",
        "--out ... models.config",
    ),
    # The data, which int8 learns from.
    (
        "int8_no_data",
        {"a.npy": None},
        "export run --to litert --quantize int8",
        "DATA|RUN ... a.npy",
    ),
    (
        "int8_other_data",
        {"a.npy": ROWS + 1},
        "export run --to litert --quantize int8",
        "DATA|RUN ... a.npy",
    ),
    (
        "int8_text",
        {"a.npy": "mine"},
        "export run --to litert --quantize int8",
        "DATA|RUN ... a.npy",
    ),
]


@table(("files", "command", "message"), EXPORT)
def test_export(files, command, message):
    for name, content in files.items():
        put(name, content)
    refused(command, message)


def test_a_folder_that_cannot_be_written(monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, m: "images" not in str(p) and access(p, m))
    refused("export run --to onnx --out images/new", "--out ... can be written ... images")


VERIFY = [
    ("nothing", {}, "verify", "ARTEFACT"),
    ("no_run", {}, "verify m.tflite", "RUN"),
    ("three", {}, "verify m.tflite run twin", "twin"),
    ("swapped", {}, "verify run m.tflite", "RUN ... m.tflite"),
    ("missing", {}, "verify gone.tflite run", "ARTEFACT ... gone.tflite ... not exist"),
    ("missing_folder", {}, "verify gone run", "ARTEFACT ... gone ... does not exist"),
    ("the_run", {}, "verify run run", "ARTEFACT ... run ... model_card.json"),
    ("a_file", {}, "verify a.npy run", "ARTEFACT ... a.npy"),
    ("the_card", {}, "verify m.card.json run", "ARTEFACT ... m.card.json"),
    ("the_model", {}, "verify run/model.keras run", "ARTEFACT ... model.keras"),
    ("cut", {"m.tflite": first(2000)}, "verify m.tflite run", "ARTEFACT ... checksum"),
    ("text", {"m.tflite": "mine"}, "verify m.tflite run", "ARTEFACT ... checksum"),
    ("no_card", {"m.card.json": None}, "verify m.tflite run", "ARTEFACT ... m.card.json"),
    ("card", {"m.card.json": "{]"}, "verify m.tflite run", "ARTEFACT ... m.card.json"),
    (
        "card_part",
        {"m.card.json": without("signatures")},
        "verify m.tflite run",
        "ARTEFACT ... m.card.json ... signatures",
    ),
    (
        "card_format",
        {"m.card.json": json_with(lambda card: card.update(format="onnx"))},
        "verify m.tflite run",
        "ARTEFACT ... onnx",
    ),
    ("of_wide", {}, "verify m.tflite wide", "ARTEFACT ... this model ... (8,) ... (4,)"),
    ("of_autoencoder", {}, "verify m.tflite plain", "ARTEFACT ... this model ... 'encode'"),
    ("run_missing", {}, "verify m.tflite gone", "RUN ... gone"),
    ("run_a_folder", {}, "verify m.tflite images", "RUN ... images ... run.json"),
    (
        "run_no_model",
        {"run/model.keras": None},
        "verify m.tflite run",
        "RUN ... model.keras|--resume",
    ),
    ("no_data", {"a.npy": None}, "verify m.tflite run", "DATA|RUN ... a.npy"),
    ("other_data", {"a.npy": ROWS + 1}, "verify m.tflite run", "DATA|RUN ... a.npy"),
    ("rows_0", {}, "verify m.tflite run -n 0", "-n ... of 1 or more"),
    ("rows_negative", {}, "verify m.tflite run -n -1", "-n ... of 1 or more"),
    ("rows_text", {}, "verify m.tflite run -n all", "-n ... whole number ... 'all'"),
    ("rows_many", {}, "verify m.tflite run -n 1000001", "-n ... up to 1,000,000"),
    ("unknown", {}, "verify m.tflite run --rows 3", "--rows"),
]


@table(("files", "command", "message"), VERIFY)
def test_verify(files, command, message):
    for name, content in files.items():
        put(name, content)
    refused(command, message)


def test_an_artefact_of_another_run():
    before = tree()
    result = keras_vae("verify m.tflite twin -n 20")
    assert result.exit_code == 1, result.output
    assert result.stderr.strip() == "m.tflite does not give what the model of twin gives."
    assert "DIFFERS" in result.stdout
    assert tree() == before


def test_a_quantised_artefact():
    assert keras_vae("verify q.tflite run -n 20").exit_code == 0
    # What differs could be the quantisation, so that the weights are compared first.
    refused("verify q.tflite twin", "ARTEFACT ... q.tflite ... other weights")
    put("q.card.json", without("model", "weights"))
    refused("verify q.tflite run", "ARTEFACT ... q.card.json ... weights")


def test_a_run_that_went_on():
    before = keras_vae("verify m.tflite run -n 20")
    assert before.exit_code == 0, before.output
    path = "run/model.keras"
    model = keras.models.load_model(path)
    model.decoder.weights[0].assign_add(np.ones(model.decoder.weights[0].shape))
    model.save(path)
    after = keras_vae("verify m.tflite run -n 20")
    assert after.exit_code == 1 and "DIFFERS" in after.stdout
