"""The package loads its names on first use, and registers its classes with Keras."""

import importlib
import pkgutil
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


# Modules that import Keras, or TensorFlow, which imports Keras, before they are complete.
@pytest.mark.parametrize("module", ["objectives", "datasets"])
def test_a_module_can_be_imported_first(module):
    code = f"import keras_vae.{module}, keras; from keras_vae.models import VAE; " + (
        "assert keras.saving.get_registered_object('keras_vae>VAE') is VAE"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_all_serializable_classes_are_registered_before_they_are_imported():
    import keras

    for info in pkgutil.walk_packages(kv.__path__, "keras_vae."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)
    registry = keras.saving.get_custom_objects()
    names = {name for name in registry if name.startswith("keras_vae>")}
    listed = {(m, name) for m, names in kv._SERIALIZABLE.items() for name in names}
    assert names == {f"keras_vae>{name}" for _, name in listed}
    for module, name in listed:
        cls = getattr(importlib.import_module(f"keras_vae.{module}"), name)
        assert registry[f"keras_vae>{name}"] is cls
        assert kv._Unloaded(module, name).from_config == cls.from_config


def test_public_names_exist():
    assert {*kv.__all__} <= {*dir(kv)}
    for name in kv.__all__:
        assert getattr(kv, name) is not None


def test_an_unknown_name_raises_an_attribute_error():
    with pytest.raises(AttributeError, match="VQVAE"):
        kv.VQVAE  # noqa: B018
