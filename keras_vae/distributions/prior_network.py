"""A prior whose parameters a network computes from the condition."""

from typing import Any

import keras
import tensorflow as tf

from keras_vae import checks
from keras_vae.distributions.base import Prior
from keras_vae.distributions.independent_normal import IndependentNormal
from keras_vae.nets.conditional import as_vector


@keras.saving.register_keras_serializable("keras_vae")
class PriorNetwork(Prior):
    """A normal prior p(z|c). A network computes its parameters from the condition.

    The prior network of Sohn et al. (2015), section 4.

    Args:
        network: Keras layer or model, condition -> features. A `keras.Sequential` receives
            several conditions as one vector.
        event_shape: tuple of ints, the shape of one latent.

    Raises:
        ValueError: if `network` is not a Keras layer.
    """

    noise = "normal"

    def __init__(self, network: keras.layers.Layer, event_shape: Any, **kwargs: Any):
        super().__init__(event_shape, **kwargs)
        is_network = isinstance(network, keras.layers.Layer)
        is_network = is_network and not isinstance(network, Prior)
        expected = "a Keras layer or model, condition -> features"
        checks.require(is_network, "network", expected, network)
        self.network = network
        self.head = IndependentNormal(self.event_shape)
        self.built = False

    def build(self, input_shape: Any) -> None:
        self.call(keras.tree.map_shape_structure(keras.KerasTensor, input_shape))

    def call(self, condition: Any) -> dict[str, tf.Tensor]:
        if isinstance(condition, dict) and isinstance(self.network, keras.Sequential):
            condition = as_vector(condition)
        return self.head(self.network(condition))

    def distribution(self, condition: Any = None) -> Any:
        return self.head.distribution(self(condition))

    def sample(self, noise: tf.Tensor, condition: Any = None) -> tf.Tensor:
        return self.head.sample(self(condition), noise)
