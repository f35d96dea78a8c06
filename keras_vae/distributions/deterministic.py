"""A point mass: the "posterior" of a plain autoencoder."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from keras_vae.distributions.base import Head

tfd = tfp.distributions


@keras.saving.register_keras_serializable("keras_vae")
class Deterministic(Head):
    """All mass on one point, `loc` `[batch, *event_shape]`; a sample is that point.

    Args:
        event_shape: tuple of ints.
        bias_initializer: initializer of the bias of `loc`.
        projection: see `Head`.
    """

    projected = ("loc",)
    is_point = True
    noise = "normal"  # only its shape matters; the graph drops the numbers

    def distribution(self, params):
        return tfd.Deterministic(**params)

    def sample(self, params, noise):
        return tf.broadcast_to(params["loc"], tf.shape(noise))
