"""The contract of heads and priors: tensors on the wire, distributions at the desk.

Keras layers must return tensors, so a distribution travels as the dict of its
parameters, named as the TFP constructor names them, and is put together where it is
needed. Nothing outside this folder knows how a family is parameterised.
"""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks


class Head(keras.layers.Layer):
    """Turns a network's features into a distribution over an event.

    A head has two faces: `head(features)` returns a dict of parameter tensors
    `[batch, *event_shape]` (or scalars), and
    `head.distribution(params)` the TFP distribution with these parameters, whose event
    is all of `event_shape` and whose batch is `[batch]`.

    The head owns the projection from features to parameters. Features whose spatial axes
    equal the event's are projected over the last axis; all others are flattened,
    projected and reshaped. Heads compute in float32 whatever the policy of the networks:
    a log-density in bfloat16 is off by nats.

    A family is a subclass that lists its projected parameters in `projected`, turns the
    raw projections into parameters in `parameters`, and parameters into a distribution
    in `distribution`. If it can turn base noise into a sample it names the noise in
    `noise` and overrides `sample`: then training, seeded sampling and the exported
    functions all draw through that one method.

    Args:
        event_shape: tuple of ints, the shape of one observation or latent.
        bias_initializer: initializer of the bias of the first projected parameter, of
            shape `[units]` of its projection (for a decoder of the event's spatial shape
            the last axis, else all elements of the event).
        projection: a Keras layer, features -> `[batch, *event_shape]`, that replaces the
            default projection. A head with several projected parameters takes a dict
            with one layer for each, by name.

    Raises:
        ValueError: for an event shape that is not made of positive ints, or a projection
            that does not fit.
    """

    projected: tuple = ()
    noise = "seed"
    is_point = False  # whether the distribution has all its mass on one point

    def __init__(
        self,
        event_shape,
        bias_initializer="zeros",
        projection=None,
        dtype="float32",
        **kwargs,
    ):
        super().__init__(dtype=dtype, **kwargs)
        _check_dtype(self)
        self.event_shape = checks.shape(event_shape, "event_shape")
        if projection is not None:
            fits = isinstance(projection, (keras.layers.Layer, dict))
            checks.require(
                fits, "projection", "a Keras layer, or a dict of layers", projection
            )
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.projection = projection

    # The contract.

    def parameters(self, raw):
        """Raw projections (dict of `[batch, *event_shape]`) -> parameters (dict)."""
        return raw

    def distribution(self, params):
        """Parameters (dict of tensors) -> `tfd.Distribution`, batch `[batch]`."""
        raise NotImplementedError

    def sample(self, params, noise):
        """Draws by reparameterisation: a deterministic function of parameters and noise.

        Args:
            params: dict of tensors `[batch, *event_shape]`.
            noise: base noise of the kind `self.noise`, `[..., batch, *event_shape]`; of
                the kind `"seed"`, `[..., batch, 2]`.

        Returns:
            `[..., batch, *event_shape]`.
        """
        return _sample_rows(self.distribution(params), noise)

    def as_likelihood(self):
        """Called when a model takes the head for p(x|z): sets defaults of that role."""

    def observe(self, x, draw):
        """What of the data is modelled: float32 x -> the value whose density counts.

        Values that have no density become NaN, so that the step that meets them is
        skipped and counted rather than learned from.
        """
        return x

    def supported(self, x):
        """Whether each value of float32 x has a density: bool, of the shape of x."""
        return tf.abs(x) < math.inf  # false for NaN; tf.math.is_finite is not in LiteRT

    def check(self, x, name):
        """Raises a ValueError if the NumPy array `x` has values without a density."""

    # The data of a likelihood.

    def check_batch(self, x: Any, name: str = "x") -> None:
        """Raises a ValueError unless x, an array, tensor or spec, is a batch of events."""
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            raise ValueError(
                f"`{name}` must be one tensor or array. "
                f"Received: {name} of type {type(x).__name__}"
            )
        checks.dtype(x.dtype, name)
        shape = tf.TensorShape(x.shape)
        if not shape.is_compatible_with((None, *self.event_shape)):
            raise ValueError(
                f"`{name}` must have shape {('batch', *self.event_shape)}, the event shape "
                f"of the likelihood in each row. Received: shape {tuple(shape)}"
            )

    def check_values(self, x: np.ndarray, name: str = "x") -> None:
        """Raises a ValueError if the NumPy array `x` cannot be data of this likelihood."""
        if x.dtype == "uint8" and x.max() == 1:
            raise ValueError(
                f"`{name}` must not be uint8 with only 0 and 1: uint8 is divided by 255. "
                "Pass binary data as bool or float32. Received: largest value 1"
            )
        self.check(x, name)

    def as_float(self, x: Any) -> tf.Tensor:
        """x as floats `[batch, *event_shape]`; uint8 is divided by 255."""
        self.check_batch(x)
        x = tf.ensure_shape(x, (None, *self.event_shape))
        scale = 255.0 if x.dtype == tf.uint8 else 1.0
        return tf.cast(x, self.compute_dtype) / scale

    # Layer.

    def build(self, input_shape):
        if not all(d is None or isinstance(d, int) for d in input_shape or ("none",)):
            raise ValueError(
                f"{type(self).__name__} takes the features of a network as one tensor. "
                f"Received: a structure of tensors of shapes {input_shape}"
            )
        self._projections = self._make_projections(input_shape)
        for name, layer in self._projections.items():
            shape = layer(keras.KerasTensor(input_shape, self.compute_dtype)).shape
            if None in shape[1:] or math.prod(shape[1:]) != math.prod(self.event_shape):
                raise ValueError(
                    f"The projection of `{name}` must give {self.event_shape} per row, "
                    f"the event shape of {type(self).__name__}. "
                    f"Received: {tuple(shape[1:])}, for features {input_shape[1:]}"
                )

    def call(self, features):
        raw = {
            name: tf.reshape(layer(features), (-1, *self.event_shape))
            for name, layer in self._projections.items()
        }
        return self.parameters(raw)

    def _make_projections(self, input_shape):
        projection = self.projection
        if isinstance(projection, dict):
            given = projection
        elif projection is not None:
            given = dict.fromkeys(self.projected[:1], projection)
        else:
            return {
                name: self._default_projection(
                    input_shape, self.bias_initializer if i == 0 else "zeros"
                )
                for i, name in enumerate(self.projected)
            }
        if set(given) != set(self.projected) or not all(
            isinstance(layer, keras.layers.Layer) for layer in given.values()
        ):
            raise ValueError(
                f"`projection` of {type(self).__name__} must be a Keras layer for each "
                f"of {list(self.projected)} (a dict by name, where there are several). "
                f"Received: projection={projection!r}"
            )
        return given

    def _default_projection(self, input_shape, bias_initializer):
        if None in input_shape[1:]:
            raise ValueError(
                f"{type(self).__name__} needs features of a known shape to project. "
                f"Received: features of shape {tuple(input_shape)}"
            )
        options = {"bias_initializer": bias_initializer, "dtype": self.dtype_policy}
        if tuple(input_shape[1:-1]) == self.event_shape[:-1]:
            return keras.layers.Dense(self.event_shape[-1], **options)
        flat = keras.layers.Flatten(dtype=self.dtype_policy)
        dense = keras.layers.Dense(math.prod(self.event_shape), **options)
        return keras.Sequential([flat, dense])

    def get_config(self):
        return {
            **super().get_config(),
            "event_shape": self.event_shape,
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "projection": keras.saving.serialize_keras_object(self.projection),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**keras.saving.deserialize_keras_object(config))


class Prior(keras.layers.Layer):
    """The distribution of the latents, before any data.

    `prior.distribution(condition)` gives a `tfd.Distribution` over `event_shape`, with
    batch `[]`, or `[batch]` where it depends on a condition. Weights, if any, are made
    with `add_weight` in `__init__`, so that they are saved and trained: a `tf.Variable`
    inside a TFP object is neither.

    Args:
        event_shape: tuple of ints, the shape of one latent.

    Raises:
        ValueError: for an event shape that is not made of positive ints.
    """

    noise = "seed"

    def __init__(self, event_shape, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        _check_dtype(self)
        self.event_shape = checks.shape(event_shape, "event_shape")
        self.built = True

    def call(self, condition):
        """What of a condition `distribution` is made of; builds what reads it."""
        return condition

    def distribution(self, condition=None):
        """`tfd.Distribution` over the latents."""
        raise NotImplementedError

    def sample(self, noise, condition=None):
        """Draws as a function of base noise `[rows, *event_shape]` -> the same shape."""
        return _sample_rows(self.distribution(condition), noise)

    def get_config(self):
        return {**super().get_config(), "event_shape": self.event_shape}


def _check_dtype(layer):
    if layer.compute_dtype not in ("float32", "float64"):
        raise ValueError(
            f"{type(layer).__name__} computes in float32 (or float64): log-densities in "
            f"half precision are off by nats. Received: dtype={layer.dtype_policy.name!r}"
        )


def _sample_rows(distribution, seeds):
    """TFP's own sampler, once per row: slow, for families without a formula.

    Args:
        distribution: `tfd.Distribution` with batch `[]` or `[rows]`.
        seeds: int32 `[..., rows, 2]`.

    Returns:
        `[..., rows, *event]`.
    """
    rows = tf.shape(seeds)[-2]

    def sample(args):
        i, seed = args
        # The ellipsis first: TFP looks for one by `in`, which tensors do not allow.
        row = distribution[..., i % rows] if distribution.batch_shape.rank else distribution
        return row.sample(seed=seed)

    flat = tf.reshape(seeds, (-1, 2))
    indices = tf.range(tf.shape(flat)[0])
    samples = tf.map_fn(sample, (indices, flat), fn_output_signature=distribution.dtype)
    return tf.reshape(samples, (*seeds.shape[:-2], -1, *distribution.event_shape))
