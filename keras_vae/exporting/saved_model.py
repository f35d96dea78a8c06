"""SavedModel: what TF Serving, and any process with TensorFlow alone, loads."""

import tensorflow as tf

from keras_vae.exporting import artefact, card, serving


def check(model, warmup=None):
    """The options of `write`, checked."""
    if warmup is not None:
        serving.check_name(warmup, "warmup")
        serving.check()
    return {"warmup": warmup}


def write(model, chosen, path, warmup=None, seed_dtype="int64", batch_size=None):
    """Writes a SavedModel; seeds are int64.

    Args:
        model: `keras_vae.VAE`.
        chosen: dict of `keras_vae.exporting.signatures.Signature`.
        path: `pathlib.Path` of the folder.
        warmup: str, the name of the model in TF Serving's warm-up requests, or None.
        seed_dtype: `"int32"` for a model that is to be converted further.
        batch_size: int, or None for any number of rows.

    Returns:
        Dict: for each signature (inputs, outputs), dicts of `tf.TensorSpec`.
    """
    functions, shapes = {}, {}
    for name, signature in chosen.items():
        _, functions[name], shapes[name] = artefact.trace(signature, seed_dtype, batch_size)
    # A bare module with the variables that the functions read. Keras' own archive holds
    # them twice, and layers would ask for their classes when they are loaded.
    module = tf.Module()
    variables = {v.ref(): v for f in functions.values() for v in f.graph.variables}
    module.read = list(variables.values())
    default = {"serving_default": functions[card.default(chosen)]}
    tf.saved_model.save(module, str(path), signatures=functions | default)
    if warmup is not None:
        serving.write_warmup(path, warmup, shapes)
    return shapes
