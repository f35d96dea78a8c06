"""SavedModel, which TF Serving and TensorFlow load.

The process that loads it needs neither Keras nor this package.
"""

import os
import pathlib
from typing import Any

import tensorflow as tf

from keras_vae.exporting import artefact, card, serving
from keras_vae.exporting.signatures import Shapes, Signature
from keras_vae.models import VAE


def check(model: VAE, warmup: str | None = None) -> dict[str, Any]:
    """Returns the options of `write`, or raises a ValueError or an ImportError."""
    if warmup is not None:
        serving.check_name(warmup, "warmup")
        serving.check()
    return {"warmup": warmup}


def write(
    model: VAE,
    chosen: dict[str, Signature],
    path: str | os.PathLike,
    warmup: str | None = None,
    seed_dtype: str = "int64",
    batch_size: int | None = None,
) -> Shapes:
    """Writes a SavedModel; seeds are int64.

    Args:
        model: `keras_vae.VAE`.
        chosen: the signatures to export, by name.
        path: of the folder.
        warmup: str, the name of the model in TF Serving's warm-up requests, or None.
        seed_dtype: `"int32"` for a model that is converted to LiteRT.
        batch_size: int, or None for any number of rows.

    Returns:
        Dict: for each signature (inputs, outputs), dicts of `tf.TensorSpec`.
    """
    functions, shapes = {}, {}
    for name, signature in chosen.items():
        _, functions[name], shapes[name] = artefact.trace(signature, seed_dtype, batch_size)
    # A plain module with the variables that the functions read. Keras' own archive stores
    # them twice, and layers could not be loaded without their classes.
    module = tf.Module()
    variables = {v.ref(): v for f in functions.values() for v in f.graph.variables}
    module.read = list(variables.values())
    default = {"serving_default": functions[card.default_signature(chosen)]}
    tf.saved_model.save(module, str(path), signatures=functions | default)
    if warmup is not None:
        serving.write_warmup(pathlib.Path(path), warmup, shapes)
    return shapes
