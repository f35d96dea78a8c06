"""A point mass: the posterior of a deterministic autoencoder."""

from typing import Any

import keras
import tensorflow as tf

from keras_vae.distributions.base import Head
from keras_vae.distributions.tfd import tfd


@keras.saving.register_keras_serializable("keras_vae")
class Deterministic(Head):
    """A point mass at `loc` `[batch, *event_shape]`. Every sample is that point.

    Args:
        event_shape: tuple of ints.
        bias_initializer: initializer of the bias of `loc`.
        projection: see `Head`.
    """

    projected = ("loc",)
    is_point = True
    noise = "normal"  # used for its shape only; TensorFlow removes the unused numbers

    def distribution(self, params: dict[str, tf.Tensor]) -> Any:
        return tfd.Deterministic(**params)

    def sample(self, params: dict[str, tf.Tensor], noise: tf.Tensor) -> tf.Tensor:
        return tf.broadcast_to(params["loc"], tf.shape(noise))
