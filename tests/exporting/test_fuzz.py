"""Every file of an export, damaged by rule: one line, nothing else is touched."""

import json
import os
import shutil

import numpy as np
import pytest

import keras_vae as kv
from keras_vae.exporting import card as cards
from keras_vae.exporting import inspection, verify
from tests.refusals import MAX_MESSAGE_LENGTH, run_command, skip_report, train_eagerly

pytest.importorskip("ai_edge_litert")
X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
FORMATS = ("tf_saved_model", "litert", pytest.param("onnx", marks=pytest.mark.slow))


class RanError(Exception):
    """The artefact passed all checks."""


@pytest.fixture(scope="module")
def vae():
    mlp = kv.nets.MLP([4])
    head = kv.distributions.IndependentNormal((3,))
    return kv.VAE(mlp, kv.nets.MLP([4]), head, latent_dim=2, seed=0)


@pytest.fixture(scope="module", params=FORMATS)
def source(request, vae, tmp_path_factory):
    if request.param == "onnx":
        pytest.importorskip("tf2onnx")
    folder = tmp_path_factory.mktemp("source")
    name = "m.tflite" if request.param == "litert" else "m"
    return vae.export(folder / name, request.param, names=["encode_mean"])


@pytest.fixture
def path(source, tmp_path):
    """A copy of an export, alone in a folder next to a file of the user."""
    (tmp_path / "outside").write_text("mine")
    folder = shutil.copytree(source.parent, tmp_path / "work")
    yield folder / source.name
    assert (tmp_path / "outside").read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} <= {"outside", "work", "original"}


def outcome(vae, path):
    """Returns "ran", or the message of a refusal, which is one line."""

    def run(*_, **__):
        raise RanError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "run", run)
        patch.setattr(verify, "_outputs", lambda *_: {})  # takes long
        try:
            verify.verify(vae, path, X, 2)
        except RanError:
            return "ran"
        except (ValueError, OSError) as error:  # which the command line shows as one line
            text = str(error)
            assert "\n" not in text and 0 < len(text) < MAX_MESSAGE_LENGTH, text
            return text
    raise AssertionError("neither ran nor refused")


def make_big(file):
    with open(file, "wb") as opened:
        opened.truncate(100 * 2**20)


REPLACEMENTS = {
    "missing": lambda file: None,
    "empty": lambda file: file.touch(),
    "link": lambda file: file.symlink_to(file.parents[2] / "outside"),
    "link to the same": lambda file: file.symlink_to(file.parents[-2] / "original"),
    "link to itself": lambda file: file.symlink_to(file),
    "link to nothing": lambda file: file.symlink_to("nowhere"),
    "device": lambda file: file.symlink_to("/dev/zero"),
    "pipe": os.mkfifo,
    "folder": lambda file: file.mkdir(),
    "big": make_big,
    "pickle": lambda file: file.write_bytes(b"\x80\x04]."),
    "deep": lambda file: file.write_text('{"a":' * 50_000 + "1" + "}" * 50_000),
    "list": lambda file: file.write_text("[1]"),
}


@pytest.mark.parametrize("replacement", REPLACEMENTS)
def test_each_file_replaced_is_refused(vae, path, tmp_path, replacement):
    original = tmp_path / "original"
    for file in [p for p in path.parent.rglob("*") if p.is_file()]:
        if file.suffix == ".md" and "link" not in replacement:
            continue  # for people; nothing reads it
        file.rename(original)
        REPLACEMENTS[replacement](file)
        assert outcome(vae, path) != "ran", file
        if file.is_dir() and not file.is_symlink():
            file.rmdir()
        file.unlink(missing_ok=True)
        original.rename(file)
    assert outcome(vae, path) == "ran"


def damaged(content):
    """Yields damaged contents: cut at, or with bytes changed at, eight positions."""
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(content), 8):
        yield content[:position]
        noise = rng.bytes(min(9, len(content) - position))
        yield content[:position] + noise + content[position + len(noise) :]


def test_a_graph_damaged_with_its_card_gives_one_line(vae, path):
    root = path if path.is_dir() else path.parent
    graphs = [root / name for name in inspection.read_card(path)["files"]]
    for file in [f for f in graphs if f.suffix in (".pb", ".tflite", ".onnx")]:
        original = file.read_bytes()
        for content in [b"", b"\x80\x04].", *damaged(original)]:
            file.write_bytes(content)
            as_json, as_markdown = cards.paths(path)
            card = json.loads(as_json.read_text())
            as_json.unlink(), as_markdown.unlink()
            cards.write(card, path, path)
            outcome(vae, path)
        file.write_bytes(original)


VALUES = (None, True, -1, 0.5, float("nan"), 10**30, "", "../outside", "\n\x1b[31m", [], {},
          [[]], {"a": 1})  # fmt: skip


def changed(value):
    """Yields (path of keys, changed copy): each entry deleted or of another kind."""
    for replacement in VALUES:
        yield (), replacement
    for key in value if isinstance(value, dict) else range(len(value)):
        rest = value.copy()
        del rest[key]
        yield (key, "deleted"), rest
        children = changed(value[key]) if isinstance(value[key], (dict, list)) else (
            ((), v) for v in VALUES
        )  # fmt: skip
        for path, child in children:
            copy = value.copy()
            copy[key] = child
            yield (key, *path), copy


def test_each_entry_of_a_card_changed_gives_one_line(vae, path):
    file = cards.paths(path)[0]
    card = json.loads(file.read_text())
    needed = ("format", "signatures", "files", "model")
    used = {key: card[key] for key in (*needed, "num_samples")} | {
        key: card[key] for key in ("serving_default", "quantize") if key in card
    }
    used["model"] = {"weights": card["model"]["weights"]}
    for keys, content in changed(used):
        file.write_text(json.dumps(content))
        result = outcome(vae, path)
        assert result != "ran" or keys[:-1] or keys[0] not in needed, content


@pytest.mark.parametrize(
    "text", ['{"a": ' + "1" * 10_000 + "}", "\ufeff{}", '"\\ud800"', "NaN"]
)
def test_a_card_of_odd_text_is_refused(vae, path, text):
    cards.paths(path)[0].write_text(text, "utf-8")
    assert "model card" in outcome(vae, path)


@pytest.mark.slow
def test_the_command_shows_a_damaged_export_as_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    skip_report(monkeypatch)
    train_eagerly(monkeypatch)
    np.save("x.npy", X)
    assert run_command("train x.npy --out run").exit_code == 0
    assert run_command("export run --to serving --score-samples 2").exit_code == 0
    path = tmp_path / "run" / "serving" / "vae" / "1"
    for file in [p for p in path.rglob("*") if p.is_file() and p.suffix != ".md"]:
        original = tmp_path / "original"
        file.rename(original)
        for name in ("missing", "empty", "pipe", "folder", "link to the same", "device"):
            REPLACEMENTS[name](file)
            result = run_command(f"verify {path} run -n 2")
            assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.stderr
            assert result.stderr.startswith("Error: ARTEFACT"), result.stderr
            file.rmdir() if name == "folder" else file.unlink(missing_ok=True)
        original.rename(file)
    assert run_command(f"verify {path} run -n 2").exit_code == 0
