"""Variational autoencoders for Keras 3 on TensorFlow."""

import pkgutil as _pkgutil
from typing import Any as _Any

import wrapt as _wrapt

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
    "runs": "runs",
    "schedules": "schedules",
    "signatures": "exporting.signatures",
}
__all__ = list(_PUBLIC)

# All classes that Keras saves by name.
_SERIALIZABLE = {
    "distributions": (
        "Deterministic", "IndependentBernoulli", "IndependentNormal", "PriorNetwork",
        "StandardNormal",
    ),
    "models": (
        "Autoencoder", "ConditionalVAE", "SemiSupervisedVAE", "StructuredPredictor", "VAE",
    ),
    "nets": ("Concatenated", "FiLM", "Planes"),
    "objectives": ("ELBO", "Hybrid", "IWAE", "Reconstruction"),
    "schedules": ("Constant", "Cosine", "Cyclical", "Linear"),
}  # fmt: skip


def __getattr__(name: str) -> _Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    # With a colon, an import that fails raises its own error.
    return _pkgutil.resolve_name(f"{__name__}.{module}:{attribute}")


def __dir__() -> list[str]:
    special = {name for name in globals() if name.startswith("__")}
    return sorted({*special, *__all__})


def check_backend(keras: _Any) -> None:
    """Raises an ImportError unless Keras uses TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "keras_vae needs the TensorFlow backend of Keras: it builds on TensorFlow "
            "Probability, tf.distribute, SavedModel and LiteRT. Received: the backend "
            f"{keras.backend.backend()!r}. Set the environment variable KERAS_BACKEND="
            '"tensorflow" before keras is first imported, or the "backend" in '
            "~/.keras/keras.json."
        )


class _Unloaded:
    """Stands for a class in the registry of Keras until the class is imported."""

    def __init__(self, module: str, name: str):
        self._path = f"{__name__}.{module}:{name}"

    @property
    def from_config(self) -> _Any:
        return _pkgutil.resolve_name(self._path).from_config


@_wrapt.when_imported("keras")
def _register(keras: _Any) -> None:
    """Registers all classes as soon as Keras is imported, before or after this package.

    `keras.saving.load_model` finds the class of a saved model only if it is registered. The
    classes are not imported here: Keras may be imported by a module that they import.
    """
    check_backend(keras)
    registry = keras.saving.get_custom_objects()
    for module, names in _SERIALIZABLE.items():
        for name in names:
            registry.setdefault(f"{__name__}>{name}", _Unloaded(module, name))
