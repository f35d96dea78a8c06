"""The README's example runs as it is written."""

import pathlib
import re

import numpy as np

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (96, 28, 28, 1)).astype(np.uint8)
    names = {"x_train": images[:64], "x_test": images[64:]}
    exec(compile(example, "README.md", "exec"), names)
    assert names["q"].mean().shape == (32, 20)
    assert names["p"].mean().shape == (32, 28, 28, 1)
    for path in ("vae.keras", "serving/vae/1/saved_model.pb", "vae.tflite"):
        assert (tmp_path / path).exists()


def test_every_name_it_uses_exists():
    import keras_vae as kv

    names = set(re.findall(r"kv((?:\.\w+)+)", README.read_text()))
    assert len(names) > 10
    for name in names:
        value = kv
        for part in name.strip(".").split("."):
            value = getattr(value, part)
