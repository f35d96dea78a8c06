"""A prior that a network reads from the condition."""

import keras

from keras_vae import checks
from keras_vae.distributions.base import Prior
from keras_vae.distributions.independent_normal import IndependentNormal
from keras_vae.nets.conditional import as_vector


@keras.saving.register_keras_serializable("keras_vae")
class PriorNetwork(Prior):
    """p(z|c), a normal whose parameters a network reads from the condition.

    The prior network of Sohn et al. (2015), section 4.

    Args:
        network: Keras layer or model, condition -> features. To a `keras.Sequential`
            several conditions come as one vector.
        event_shape: tuple of ints, the shape of one latent.

    Raises:
        ValueError: if `network` is no Keras layer.
    """

    noise = "normal"

    def __init__(self, network, event_shape, **kwargs):
        super().__init__(event_shape, **kwargs)
        fits = isinstance(network, keras.layers.Layer) and not isinstance(network, Prior)
        expected = "a Keras layer or model, condition -> features"
        checks.require(fits, "network", expected, network)
        self.network = network
        self.head = IndependentNormal(self.event_shape)
        self.built = False

    def build(self, input_shape):
        symbols = keras.tree.map_shape_structure(keras.KerasTensor, input_shape)
        self.call(symbols)

    def call(self, condition):
        if isinstance(condition, dict) and isinstance(self.network, keras.Sequential):
            condition = as_vector(condition)
        return self.head(self.network(condition))

    def distribution(self, condition=None):
        return self.head.distribution(self(condition))

    def sample(self, noise, condition=None):
        return self.head.sample(self(condition), noise)

    def get_config(self):
        network = keras.saving.serialize_keras_object(self.network)
        return {**super().get_config(), "network": network}

    @classmethod
    def from_config(cls, config):
        return cls(**keras.saving.deserialize_keras_object(config))
