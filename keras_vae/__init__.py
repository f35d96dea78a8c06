"""Variational autoencoders for Keras 3 on TensorFlow."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "keras_vae needs the TensorFlow backend of Keras: it builds on TensorFlow "
        "Probability, tf.distribute, SavedModel and LiteRT. "
        f"Received: the backend {keras.backend.backend()!r}. Set the environment variable "
        'KERAS_BACKEND="tensorflow" before keras is first imported, or the "backend" in '
        "~/.keras/keras.json."
    )

from keras_vae import (
    distributions,
    evaluation,
    nets,
    objectives,
    random,
    schedules,
    signatures,
)
from keras_vae.models import VAE, Autoencoder

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "Autoencoder",
    "distributions",
    "evaluation",
    "nets",
    "objectives",
    "random",
    "schedules",
    "signatures",
]
