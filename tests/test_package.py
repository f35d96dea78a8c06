"""The package loads its names on first use, and registers its classes with Keras."""

import subprocess
import sys

import pytest

import keras_vae as kv

SCRIPT = """
import sys
import keras_vae
assert not {"keras", "tensorflow", "numpy"} & {*sys.modules}
import keras  # now the classes are registered
print(type(keras.saving.load_model(sys.argv[1])).__name__)
"""


def test_a_saved_model_loads_after_importing_the_package_alone(tmp_path):
    import keras

    vae = kv.VAE(
        keras.layers.Dense(4), keras.layers.Dense(4),
        kv.distributions.IndependentNormal((3,)), 2,
    )  # fmt: skip
    vae.save(tmp_path / "vae.keras")
    command = [sys.executable, "-c", SCRIPT, tmp_path / "vae.keras"]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.stdout == "VAE\n", process.stderr


def test_public_names_exist():
    assert {*kv.__all__} <= {*dir(kv)}
    for name in kv.__all__:
        assert getattr(kv, name) is not None


def test_an_unknown_name_raises_an_attribute_error():
    with pytest.raises(AttributeError, match="VQVAE"):
        kv.VQVAE  # noqa: B018
