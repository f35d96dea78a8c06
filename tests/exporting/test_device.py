"""export/device: the command runs without TensorFlow, the snippets use valid names."""

import json
import pathlib
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest

from tests.zoo import ZOO

DEVICE = pathlib.Path(__file__).parents[2] / "export" / "device"
SEEDS = [7, -3, 2**31 - 1, 7, 0]

# Runs a script as `python` does and asserts that it imports no large package.
WRAPPER = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
imported = {"tensorflow", "keras", "tf_keras", "keras_vae"} & set(sys.modules)
assert not imported, imported
"""


@pytest.fixture(scope="module")
def model():
    return next(row for row in ZOO if row.name == "conv").make()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    model.export(folder / "any.tflite", "litert", names=["sample"])
    model.export(folder / "two.tflite", "litert", names=["sample"], batch_size=2)
    model.export(folder / "none.tflite", "litert", names=["decode"])
    return folder


def run_script(*args):
    command = [sys.executable, "-P", "-c", WRAPPER, DEVICE / "sample.py", *args]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("name", ["any", "two"])
def test_seeds_give_the_same_samples_as_in_python(model, folder, name):
    out = folder / f"{name}.npz"
    process = run_script(folder / f"{name}.tflite", "--seeds", *SEEDS, "--out", out)
    assert process.returncode == 0, process.stderr
    with np.load(out) as file:
        actual = dict(file)
    np.testing.assert_array_equal(actual["seed"], SEEDS)
    np.testing.assert_array_equal(actual["x"], model.sample(seeds=SEEDS))
    mean = model.sample(seeds=SEEDS, mean=True)
    np.testing.assert_allclose(actual["mean"], mean, atol=1e-5)  # sums in another order


def test_save_png_places_the_images(tmp_path):
    from PIL import Image

    save_png = runpy.run_path(str(DEVICE / "sample.py"))["save_png"]
    images = np.random.default_rng(0).uniform(size=(5, 6, 7, 3))
    for channels in (1, 3):
        save_png(tmp_path / "x.png", images[..., :channels], columns=4)
        with Image.open(tmp_path / "x.png") as image:
            pixels = np.asarray(image).reshape(2 * 6, 4 * 7, channels)
        assert np.abs(pixels[6:, :7] - 255 * images[4, ..., :channels]).max() <= 0.5
        assert not pixels[6:, 7:].any()


def test_bad_input_of_the_command_is_refused(folder, tmp_path):
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"no model")
    model, out = folder / "any.tflite", tmp_path / "x.npz"
    for path, seed, target, words in (
        (model, 1, tmp_path / "x.jpg", r"must end with \.png or \.npz"),
        (model, 2**31, out, "must be of 32 bits"),
        (folder / "none.tflite", 1, out, "no signature `sample`: .*decode"),
        (tmp_path / "absent.tflite", 1, out, "absent.tflite"),
        (bad, 1, out, "bad.tflite"),
        (model, 1, tmp_path / "absent" / "x.npz", "No such file"),
        (model, 1, tmp_path / "x.png", r"rows of shape \(5, 7, 2\) are no images"),
    ):
        process = run_script(path, "--seeds", seed, "--out", target)
        assert process.returncode in (1, 2)
        assert "Traceback" not in process.stderr
        assert re.search(words, process.stderr), process.stderr
    assert not list(tmp_path.glob("x.*"))


# Patterns of the names of a signature, its inputs and its outputs in each language.
NAMES = {
    "python": (r'signature_runner\("(\w+)"', r"\brun\((\w+)=", r'outputs\["(\w+)"\]'),
    "kotlin": (r'outputs, "(\w+)"\)', r'inputs = .*"(\w+)" to', r'outputs = .*"(\w+)" to'),
    "swift": (r'signatureRunner\(with: "(\w+)"', r'\["(\w+)": ', r'output\(named: "(\w+)"'),
    "c": (
        r'GetSignatureRunner\(interpreter, "(\w+)"',
        r'GetInputTensor\(runner, "(\w+)"',
        r'GetOutputTensor\(runner, "(\w+)"',
    ),
}


@pytest.mark.parametrize("language", NAMES)
def test_the_snippets_use_existing_names(folder, language):
    text = (DEVICE / "README.md").read_text()
    card = json.loads((folder / "any.card.json").read_text())
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    signatures, inputs, outputs = (
        {name for block in blocks for name in re.findall(pattern, block)}
        for pattern in NAMES[language]
    )
    assert signatures == {"sample"}
    assert inputs == set(card["signatures"]["sample"]["inputs"])
    assert outputs and outputs <= set(card["signatures"]["sample"]["outputs"])


def test_the_readme_names_all_signatures(model):

    text = (DEVICE / "README.md").read_text()
    for name in model.signatures():
        assert f"`{name}`" in text
