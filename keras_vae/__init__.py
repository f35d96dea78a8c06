"""Variational autoencoders for Keras 3 on TensorFlow."""

import importlib
import pkgutil
from typing import Any

import wrapt

__version__ = "0.1.0"

# Loaded on first use, so that the command line answers `--help` at once.
_PUBLIC = {
    "VAE": "models:VAE",
    "Autoencoder": "models:Autoencoder",
    "ConditionalVAE": "models:ConditionalVAE",
    "ImageFiles": "datasets:ImageFiles",
    "SemiSupervisedVAE": "models:SemiSupervisedVAE",
    "Shards": "datasets:Shards",
    "StructuredPredictor": "models:StructuredPredictor",
    "TFRecords": "datasets:TFRecords",
    "callbacks": "callbacks",
    "datasets": "datasets",
    "distributions": "distributions",
    "evaluation": "evaluation",
    "exporting": "exporting",
    "nets": "nets",
    "objectives": "objectives",
    "random": "random",
    "schedules": "schedules",
    "signatures": "exporting.signatures",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return pkgutil.resolve_name(f"{__name__}.{_PUBLIC[name]}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


@wrapt.when_imported("keras")
def _register(keras: Any) -> None:
    """Registers all classes as soon as Keras is imported, before or after this package.

    `keras.saving.load_model` finds the class of a saved model only if it is registered.
    """
    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "keras_vae needs the TensorFlow backend of Keras: it builds on TensorFlow "
            "Probability, tf.distribute, SavedModel and LiteRT. Received: the backend "
            f"{keras.backend.backend()!r}. Set the environment variable KERAS_BACKEND="
            '"tensorflow" before keras is first imported, or the "backend" in '
            "~/.keras/keras.json."
        )
    importlib.import_module(f"{__name__}.models")
