"""Layers that pass a condition to an ordinary network.

Each is a Keras layer (x, condition) -> features. The condition is a tensor `[batch, ...]`
or a dict of tensors, in which labels are already one-hot.
"""

import math
from typing import Any

import keras
from keras import ops

from keras_vae.configured import Configured


class _ConditionalNetwork(Configured, keras.layers.Layer):
    """Base class: passes x and a condition to a network as one tensor.

    Args:
        network: Keras layer or model.
    """

    def __init__(self, network: keras.layers.Layer, **kwargs: Any):
        super().__init__(**kwargs)
        self.network = network

    def join(self, x: Any, condition: Any) -> Any:
        """Joins x and the condition into one tensor, the input of the network."""
        raise NotImplementedError

    def build(self, input_shape: Any) -> None:
        self.network(self.join(*self._symbolic(input_shape)))

    def _symbolic(self, shapes: Any) -> Any:
        """Makes symbolic inputs, to build the network by a call.

        `network.build` is not enough: it leaves layers inside a layer without a `build`
        method unbuilt.
        """
        return keras.tree.map_shape_structure(
            lambda shape: keras.KerasTensor(shape, self.compute_dtype), shapes
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.network(self.join(*inputs), training=training)


@keras.saving.register_keras_serializable("keras_vae")
class Concatenated(_ConditionalNetwork):
    """Flattens and concatenates x and the condition, for dense networks.

    Args:
        network: Keras layer or model, `[batch, n]` -> features.

    Example:

    >>> network = Concatenated(keras.layers.Dense(4))
    >>> network((ops.ones((2, 3)), ops.ones((2, 10)))).shape
    TensorShape([2, 4])
    """

    def join(self, x: Any, condition: Any) -> Any:
        return as_vector((x, condition))


@keras.saving.register_keras_serializable("keras_vae")
class Planes(_ConditionalNetwork):
    """Adds the condition to an image as channels, for convolutional encoders.

    Each number of a vector becomes a constant plane. A condition that is an image must have
    the height and width of x; its channels are appended. Signals `[batch, steps, channels]`
    and volumes work in the same way.

    Args:
        network: Keras layer or model, `[batch, height, width, channels + n]` -> features.

    Raises:
        ValueError: if a condition is an image of another size.
    """

    def join(self, x: Any, condition: Any) -> Any:
        size = x.shape[1:-1]

        def plane(value: Any) -> Any:
            if len(value.shape) != len(x.shape):
                value = as_vector(value)
                value = ops.reshape(value, (-1, *[1] * len(size), value.shape[-1]))
                # Broadcasts by a product, which works with an unknown number of rows.
                return value * ops.ones((1, *size, 1), value.dtype)
            if value.shape[1:-1] != size:
                raise ValueError(
                    f"`condition`, if it is an image, must have the size of x, {size}. "
                    f"Received: condition of shape {tuple(value.shape)}"
                )
            return value

        parts = [plane(value) for value in keras.tree.flatten(condition)]
        return ops.concatenate([x, *parts], axis=-1)


@keras.saving.register_keras_serializable("keras_vae")
class FiLM(_ConditionalNetwork):
    """Scales and shifts the output of each layer by the condition, for any Sequential.

    Feature-wise linear modulation (Perez et al., 2018, equation 2): channel i of a layer
    becomes `(1 + gamma_i) h_i + beta_i`. gamma and beta are linear in the condition, and 0
    before training. The modulation follows the layer's activation.

    Args:
        network: `keras.Sequential`, x -> features, such as `nets.ConvDecoder`.

    Raises:
        ValueError: if the network is not a `keras.Sequential`.
    """

    def __init__(self, network: keras.Sequential, **kwargs: Any):
        if not isinstance(network, keras.Sequential):
            raise ValueError(
                "`network` must be a keras.Sequential, whose layers are modulated. "
                f"Received: network={network!r}"
            )
        super().__init__(network, **kwargs)

    def build(self, input_shape: Any) -> None:
        h, condition = self._symbolic(input_shape)
        condition_size = as_vector(condition).shape[-1]
        self.modulations = []
        for layer in self.network.layers:
            h = layer(h)
            dense = None
            if layer.weights:
                dense = keras.layers.Dense(
                    2 * h.shape[-1], kernel_initializer="zeros", dtype=self.dtype_policy
                )
                dense.build((None, condition_size))
            self.modulations.append(dense)

    def call(self, inputs: Any, training: bool = False) -> Any:
        h, condition = inputs
        condition = as_vector(condition)
        for layer, modulation in zip(self.network.layers, self.modulations, strict=True):
            h = layer(h, training=training)
            if modulation is not None:
                factors = modulation(condition)  # gamma and beta
                axes = [1] * (len(h.shape) - 2)
                factors = ops.reshape(factors, (-1, *axes, factors.shape[-1]))
                gamma, beta = ops.split(factors, 2, axis=-1)
                h = (1.0 + gamma) * h + beta
        return h


def with_condition(network: keras.Sequential) -> keras.layers.Layer:
    """Wraps a network: in `Planes` if it needs axes besides channels, else `Concatenated`.

    Args:
        network: `keras.Sequential`, whose first layer with an `input_spec` decides.
    """
    return (Planes if _input_rank(network) > 2 else Concatenated)(network)


def _input_rank(layer: keras.layers.Layer) -> int:
    """Returns the number of axes that the input of a layer needs; 0 if it has any."""
    if isinstance(layer, keras.Sequential):
        return next(filter(None, map(_input_rank, layer.layers)), 0)
    spec = getattr(layer, "input_spec", None)
    return getattr(spec, "ndim", None) or getattr(spec, "min_ndim", None) or 0


def as_vector(values: Any) -> Any:
    """Flattens and concatenates all tensors of a structure: `[batch, n]`."""
    flat = [
        ops.reshape(value, (-1, math.prod(value.shape[1:])))
        for value in keras.tree.flatten(values)
    ]
    return ops.concatenate(flat, axis=-1) if len(flat) > 1 else flat[0]
