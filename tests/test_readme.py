"""The code of the README runs unchanged."""

import pathlib
import re

import numpy as np

README = pathlib.Path(__file__).parent.parent / "README.md"


def examples():
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def black_and_white(rows):
    pixels = np.random.default_rng(0).integers(0, 2, (rows, 28, 28, 1))
    return (255 * pixels).astype(np.uint8)


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    example = examples()[0]
    monkeypatch.chdir(tmp_path)
    images = black_and_white(96)
    names = {"x_train": images[:64], "x_test": images[64:]}
    exec(compile(example, "README.md", "exec"), names)
    assert names["q"].mean().shape == (32, 20)
    assert names["p"].mean().shape == (32, 28, 28, 1)
    for path in ("vae.keras", "serving/vae/1/saved_model.pb", "vae.tflite"):
        assert (tmp_path / path).exists()


def test_the_conditional_example_runs():
    import keras_vae as kv

    _, example = examples()
    images = black_and_white(96)
    names = {"kv": kv, "images": images, "labels": np.arange(96) % 10}
    exec(compile(example.replace("epochs=20", "epochs=1"), "README.md", "exec"), names)
    assert names["z"].shape == (96, 20)


def test_every_name_in_the_readme_exists():
    import keras_vae as kv

    names = set(re.findall(r"kv((?:\.\w+)+)", README.read_text()))
    assert len(names) > 10
    for name in names:
        value = kv
        for part in name.strip(".").split("."):
            value = getattr(value, part)
