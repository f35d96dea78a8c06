"""Variational autoencoders for Keras 3 on TensorFlow."""

import pathlib
import sys

__version__ = "0.1.0"

# The command line answers --help at once: it imports what it needs when it needs it.
if pathlib.Path(*sys.argv[:1]).name not in ("keras-vae", "keras-vae.exe"):
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "keras_vae needs the TensorFlow backend of Keras: it builds on TensorFlow "
            "Probability, tf.distribute, SavedModel and LiteRT. Received: the backend "
            f"{keras.backend.backend()!r}. Set the environment variable KERAS_BACKEND="
            '"tensorflow" before keras is first imported, or the "backend" in '
            "~/.keras/keras.json."
        )

    from keras_vae import (
        callbacks,
        datasets,
        distributions,
        evaluation,
        exporting,
        nets,
        objectives,
        random,
        schedules,
        signatures,
    )
    from keras_vae.models import (
        VAE,
        Autoencoder,
        ConditionalVAE,
        SemiSupervisedVAE,
        StructuredPredictor,
    )
    from keras_vae.sources import ImageFiles, Shards, TFRecords

    __all__ = [
        "VAE",
        "Autoencoder",
        "ConditionalVAE",
        "ImageFiles",
        "SemiSupervisedVAE",
        "Shards",
        "StructuredPredictor",
        "TFRecords",
        "callbacks",
        "datasets",
        "distributions",
        "evaluation",
        "exporting",
        "nets",
        "objectives",
        "random",
        "schedules",
        "signatures",
    ]
