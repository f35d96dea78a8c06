"""Networks that are told a condition, made of ordinary ones: the ways to join the two.

Each is a Keras layer of (x, condition) -> features. The condition is a tensor
`[batch, ...]`, or a dict of them: labels are one-hot already.
"""

import math

import keras
from keras import ops


class _Joined(keras.layers.Layer):
    """A network and a way to tell it a condition.

    Args:
        network: Keras layer or model.
    """

    def __init__(self, network, **kwargs):
        super().__init__(**kwargs)
        self.network = network

    def join(self, x, condition):
        """x and the condition as one tensor for the network."""
        raise NotImplementedError

    def build(self, input_shape):
        self.network(self.join(*self._symbolic(input_shape)))

    def _symbolic(self, shapes):
        # Called, not built: `build` would leave layers without one unmade.
        return keras.tree.map_shape_structure(
            lambda shape: keras.KerasTensor(shape, self.compute_dtype), shapes
        )

    def call(self, inputs, training=False):
        return self.network(self.join(*inputs), training=training)

    def get_config(self):
        network = keras.saving.serialize_keras_object(self.network)
        return {**super().get_config(), "network": network}

    @classmethod
    def from_config(cls, config):
        return cls(**keras.saving.deserialize_keras_object(config))


@keras.saving.register_keras_serializable("keras_vae")
class Concatenated(_Joined):
    """x and the condition, both flattened, as one vector: for dense networks.

    Args:
        network: Keras layer or model, `[batch, n]` -> features.

    Example:

    >>> network = Concatenated(keras.layers.Dense(4))
    >>> network((ops.ones((2, 3)), ops.ones((2, 10)))).shape
    TensorShape([2, 4])
    """

    def join(self, *inputs):
        return as_vector(inputs)


@keras.saving.register_keras_serializable("keras_vae")
class Planes(_Joined):
    """The condition as further channels of an image: for convolutional encoders.

    A vector becomes a constant plane for each of its numbers; an image of the same height
    and width keeps its channels.

    Args:
        network: Keras layer or model, `[batch, height, width, channels + n]` -> features.

    Raises:
        ValueError: if a condition is an image of another size.
    """

    def join(self, x, condition):
        size = x.shape[1:-1]

        def plane(value):
            if len(value.shape) != len(x.shape):
                value = as_vector(value)
                value = ops.reshape(value, (-1, *[1] * len(size), value.shape[-1]))
                # By ones, whose number of rows need not be known.
                return value * ops.ones((1, *size, 1), value.dtype)
            if value.shape[1:-1] != size:
                raise ValueError(
                    f"A condition that is an image must be of the size of x, {size}. "
                    f"Received: a condition of shape {tuple(value.shape)}"
                )
            return value

        parts = [plane(value) for value in keras.tree.flatten(condition)]
        return ops.concatenate([x, *parts], axis=-1)


@keras.saving.register_keras_serializable("keras_vae")
class FiLM(_Joined):
    """The condition scales and shifts what each layer gives: for any network of layers.

    Feature-wise linear modulation (Perez et al., 2018, equation 2): channel i of a layer
    becomes `(1 + gamma_i) h_i + beta_i`, with gamma and beta linear in the condition, and
    0 before training. Here after the layer's own activation.

    Args:
        network: `keras.Sequential`, x -> features, such as `nets.ConvDecoder`.

    Raises:
        ValueError: if the network is no `keras.Sequential`.
    """

    def __init__(self, network, **kwargs):
        if not isinstance(network, keras.Sequential):
            raise ValueError(
                "`network` must be a keras.Sequential, whose layers are modulated. "
                f"Received: network={network!r}"
            )
        super().__init__(network, **kwargs)

    def build(self, input_shape):
        h, condition = self._symbolic(input_shape)
        numbers = as_vector(condition).shape[-1]
        self.modulations = []
        for layer in self.network.layers:
            h = layer(h)
            dense = None
            if layer.weights:
                dense = keras.layers.Dense(
                    2 * h.shape[-1], kernel_initializer="zeros", dtype=self.dtype_policy
                )
                dense.build((None, numbers))
            self.modulations.append(dense)

    def call(self, inputs, training=False):
        h, condition = inputs
        condition = as_vector(condition)
        for layer, modulation in zip(self.network.layers, self.modulations, strict=True):
            h = layer(h, training=training)
            if modulation is not None:
                both = modulation(condition)
                both = ops.reshape(both, (-1, *[1] * (len(h.shape) - 2), both.shape[-1]))
                gamma, beta = ops.split(both, 2, axis=-1)
                h = (1.0 + gamma) * h + beta
        return h


def as_vector(values):
    """All tensors of a structure as one, `[batch, n]`."""
    flat = [
        ops.reshape(value, (-1, math.prod(value.shape[1:])))
        for value in keras.tree.flatten(values)
    ]
    return ops.concatenate(flat, axis=-1) if len(flat) > 1 else flat[0]
