"""Base classes of heads and priors.

Keras layers must return tensors. So layers pass a distribution as the dict of its
parameters, with the names of the arguments of the TFP constructor, and the distribution is
made from them where it is needed. Code outside this folder does not depend on the
parameters of a family.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks, random
from keras_vae.configured import Configured


class Head(Configured, keras.layers.Layer):
    """Turns a network's features into a distribution over an event.

    `head(features)` returns a dict of parameter tensors `[batch, *event_shape]` (or
    scalars). `head.distribution(params)` returns the TFP distribution with these
    parameters. Its event shape is `event_shape`, its batch shape `[batch]`.

    The head contains the projection from features to parameters. Features whose spatial
    axes equal those of the event are projected over the last axis; all other features are
    flattened, projected and reshaped. Heads compute in float32 under every dtype policy of
    the networks: in bfloat16 the error of a log-density is several nats.

    A family is a subclass. It lists its projected parameters in `projected`, computes
    parameters from the raw projections in `parameters`, and makes the distribution in
    `distribution`. A family with a reparameterised sampler sets the kind of its base noise
    in `noise` and overrides `sample`. Training, seeded sampling and the exported functions
    all call this one method. A distribution for which TFP has no mean or standard
    deviation, such as a flow, gets Monte Carlo estimates in their place.

    Args:
        event_shape: tuple of ints, the shape of one observation or latent.
        bias_initializer: initializer of the bias of the first projected parameter, of
            shape `[units]` of its projection: the last axis of the event if the features
            have the event's spatial shape, else all elements of the event.
        projection: a Keras layer, features -> `[batch, *event_shape]`, that replaces the
            default projection. A head with several projected parameters needs a dict
            from the names of the parameters to layers.

    Raises:
        ValueError: if the event shape has an element that is not a positive int, or the
            projection is not a layer or a dict.
    """

    projected: tuple[str, ...] = ()
    noise = "seed"
    is_point = False  # True if all the probability mass is on one point

    def __init__(
        self,
        event_shape: Any,
        bias_initializer: Any = "zeros",
        projection: Any = None,
        dtype: Any = "float32",
        **kwargs: Any,
    ):
        super().__init__(dtype=dtype, **kwargs)
        _check_dtype(self)
        self.event_shape = checks.shape(event_shape, "event_shape")
        if projection is not None:
            is_projection = isinstance(projection, (keras.layers.Layer, dict))
            expected = "a Keras layer, or a dict of layers"
            checks.require(is_projection, "projection", expected, projection)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.projection = projection

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "distribution" in cls.__dict__:
            cls.distribution = _with_moments(cls.distribution)  # type: ignore[method-assign]

    # Methods that a family overrides.

    def parameters(self, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Computes parameters from raw projections: dicts of `[batch, *event_shape]`."""
        return raw

    def distribution(self, params: dict[str, tf.Tensor]) -> Any:
        """Makes the `tfd.Distribution` with these parameters. Its batch is `[batch]`."""
        raise NotImplementedError

    def sample(self, params: dict[str, tf.Tensor], noise: tf.Tensor) -> tf.Tensor:
        """Draws by reparameterisation: a deterministic function of parameters and noise.

        Args:
            params: dict of tensors `[batch, *event_shape]`.
            noise: base noise of the kind `self.noise`, `[..., batch, *event_shape]`, or
                `[..., batch, 2]` for the kind `"seed"`.

        Returns:
            `[..., batch, *event_shape]`.
        """
        return _sample_rows(self.distribution(params), noise)

    def as_likelihood(self) -> None:
        """Sets the defaults of a likelihood. A model calls it on its head of p(x|z)."""

    def observe(self, x: tf.Tensor, draw: random.Draw) -> tf.Tensor:
        """Returns the observed value of float32 x, whose density the model computes.

        A value without a density becomes NaN, so that the training step is skipped.
        """
        return x

    def encoder_input(self, x: tf.Tensor) -> tf.Tensor:
        """Returns float32 x as the encoder sees it outside of training, without a draw.

        A head whose `observe` draws at random overrides it: the encoder must see the same
        kind of values as in training. The result depends on x alone.
        """
        return x

    def supported(self, x: tf.Tensor) -> tf.Tensor:
        """Returns a bool for each value of float32 x: True if it has a density."""
        return tf.abs(x) < math.inf  # False for NaN; tf.math.is_finite is not in LiteRT

    def check(self, x: np.ndarray, name: str) -> None:
        """Raises a ValueError if the NumPy array `x` has values without a density."""

    # Data of a likelihood.

    def check_batch(self, x: Any, name: str = "x") -> None:
        """Raises a ValueError unless the array, tensor or spec x is a batch of events."""
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            raise ValueError(
                f"`{name}` must be one tensor or array. "
                f"Received: {name} of type {type(x).__name__}"
            )
        checks.dtype(x.dtype, name)
        shape = tf.TensorShape(x.shape)
        if not shape.is_compatible_with((None, *self.event_shape)):
            raise ValueError(
                f"`{name}` must have shape {('batch', *self.event_shape)}, with the event "
                f"shape of the likelihood in each row{_remedy(shape, self.event_shape)}. "
                f"Received: shape {tuple(shape)}"
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
        """Casts x to floats `[batch, *event_shape]`; uint8 is divided by 255."""
        self.check_batch(x)
        x = tf.ensure_shape(x, (None, *self.event_shape))
        scale = 255.0 if x.dtype == tf.uint8 else 1.0
        return tf.cast(x, self.compute_dtype) / scale

    # Methods of a Keras layer.

    def build(self, input_shape: Any) -> None:
        if not all(d is None or isinstance(d, int) for d in input_shape or ("none",)):
            raise ValueError(
                f"`features` of {type(self).__name__} must be one tensor. Leave out "
                "layers that make a mean and a variance, and that sample: the head and the "
                "model have their own. "
                f"Received: a structure of tensors of shapes {input_shape}"
            )
        self._projections = self._make_projections(input_shape)
        for name, layer in self._projections.items():
            shape = layer(keras.KerasTensor(input_shape, self.compute_dtype)).shape
            if None in shape[1:] or math.prod(shape[1:]) != math.prod(self.event_shape):
                raise ValueError(
                    f"`projection` of `{name}` must return the event shape of "
                    f"{type(self).__name__}, {self.event_shape}, for each row. "
                    f"Received: {tuple(shape[1:])}, for features {input_shape[1:]}"
                )

    def call(self, features: tf.Tensor) -> dict[str, tf.Tensor]:
        raw = {
            name: tf.reshape(layer(features), (-1, *self.event_shape))
            for name, layer in self._projections.items()
        }
        return self.parameters(raw)

    def _make_projections(self, input_shape: Any) -> dict[str, keras.layers.Layer]:
        projection = self.projection
        if isinstance(projection, dict):
            layers = projection
        elif projection is not None:
            layers = dict.fromkeys(self.projected[:1], projection)
        else:
            return {
                name: self._default_projection(
                    input_shape, self.bias_initializer if i == 0 else "zeros"
                )
                for i, name in enumerate(self.projected)
            }
        if set(layers) != set(self.projected) or not all(
            isinstance(layer, keras.layers.Layer) for layer in layers.values()
        ):
            raise ValueError(
                f"`projection` of {type(self).__name__} must be a Keras layer for each "
                f"of {list(self.projected)} (a dict by name if there are several). "
                f"Received: projection={projection!r}"
            )
        return layers

    def _default_projection(
        self, input_shape: Any, bias_initializer: Any
    ) -> keras.layers.Layer:
        if None in input_shape[1:]:
            raise ValueError(
                f"`features` of {type(self).__name__} must have a known shape. "
                f"Received: features of shape {tuple(input_shape)}"
            )
        options = {"bias_initializer": bias_initializer, "dtype": self.dtype_policy}
        if tuple(input_shape[1:-1]) == self.event_shape[:-1]:
            return keras.layers.Dense(self.event_shape[-1], **options)
        flat = keras.layers.Flatten(dtype=self.dtype_policy)
        dense = keras.layers.Dense(math.prod(self.event_shape), **options)
        return keras.Sequential([flat, dense])


def _remedy(shape: tf.TensorShape, event: tuple[int, ...]) -> str:
    """Returns the code that gives x of a usual wrong shape the right shape, or ''."""
    row = tuple(shape[1:]) if shape.rank else None
    if shape.rank == len(event) and tuple(shape) == event:
        return ": add the axis of rows, x[None] or dataset.batch(32)"
    if row == event[:-1] and event[-1] == 1:
        return ": add the axis of channels, x[..., None]"
    if row and len(row) == len(event) > 1 and (*row[1:], row[0]) == event:
        return ": move the channels to the last axis, np.moveaxis(x, 1, -1)"
    if row and None not in row and math.prod(row) == math.prod(event):
        return f": x.reshape(-1, {', '.join(map(str, event))})"
    return ""


class Prior(Configured, keras.layers.Layer):
    """The distribution of the latents before any data are observed.

    `prior.distribution(condition)` returns a `tfd.Distribution` over `event_shape`, with
    batch `[]`, or `[batch]` if it depends on a condition. A subclass creates weights with
    `add_weight` in `__init__`: Keras neither trains nor saves a `tf.Variable` inside a TFP
    object.

    Args:
        event_shape: tuple of ints, the shape of one latent.

    Raises:
        ValueError: if the event shape has an element that is not a positive int.
    """

    noise = "seed"

    def __init__(self, event_shape: Any, dtype: Any = "float32", **kwargs: Any):
        super().__init__(dtype=dtype, **kwargs)
        _check_dtype(self)
        self.event_shape = checks.shape(event_shape, "event_shape")
        self.built = True

    def call(self, condition: Any) -> Any:
        """Computes the input of `distribution` from a condition. Builds the prior."""
        return condition

    def distribution(self, condition: Any = None) -> Any:
        """Makes the `tfd.Distribution` over the latents."""
        raise NotImplementedError

    def sample(self, noise: tf.Tensor, condition: Any = None) -> tf.Tensor:
        """Computes a sample from base noise, both `[rows, *event_shape]`."""
        return _sample_rows(self.distribution(condition), noise)


def _check_dtype(layer: keras.layers.Layer) -> None:
    if layer.compute_dtype not in ("float32", "float64"):
        raise ValueError(
            f"`dtype` of {type(layer).__name__} must be float32 or float64: in half "
            "precision the error of a log-density is several nats. "
            f"Received: dtype={layer.dtype_policy.name!r}"
        )


_MOMENTS: dict[str, Callable[..., Any]] = {
    "mean": tf.reduce_mean,
    "stddev": tf.math.reduce_std,
    "variance": tf.math.reduce_variance,
}
# Draws of an estimated moment. The error of a mean is 1/16 of the standard deviation.
_DRAWS = 256


def has_mean(head: Head, params: dict[str, tf.Tensor]) -> bool:
    """Returns True if TFP has a formula for the mean, which is not estimated then."""
    distribution = head.distribution(params)
    try:
        type(distribution).mean(distribution)
    except NotImplementedError:
        return False
    return True


def _with_moments(make: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps `Head.distribution`: estimates the moments for which TFP has no formula."""

    @functools.wraps(make)
    def distribution(self: Head, params: dict[str, tf.Tensor]) -> Any:
        made = make(self, params)
        for name, reduce in _MOMENTS.items():
            exact = getattr(made, name)
            setattr(made, name, functools.partial(_moment, self, params, exact, reduce))
        return made

    return distribution


def _moment(
    head: Head,
    params: dict[str, tf.Tensor],
    exact: Callable[..., Any],
    reduce: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> tf.Tensor:
    """Computes a moment by the formula of TFP if there is one, else from draws."""
    try:
        return exact(*args, **kwargs)
    except NotImplementedError:
        if head.noise == "seed":
            draws = head.distribution(params).sample(_DRAWS, seed=(0, random.POSTERIOR))
            return reduce(draws, axis=0)
        rows = next(tf.shape(p)[0] for p in params.values() if p.shape.rank)
        # The same noise for each row: a row does not depend on the others.
        low = tf.zeros((rows,), tf.int32)
        draw = random.row_noise(low, low)
        noise = draw(head.noise, head.event_shape, random.POSTERIOR, _DRAWS)
        return reduce(head.sample(params, noise), axis=0)


def _sample_rows(distribution: Any, seeds: tf.Tensor) -> tf.Tensor:
    """Calls TFP's sampler once per row. Slow; for families without a sampling formula.

    Args:
        distribution: `tfd.Distribution` with batch `[]` or `[rows]`.
        seeds: int32 `[..., rows, 2]`.

    Returns:
        `[..., rows, *event]`.
    """
    rows = tf.shape(seeds)[-2]

    def sample(args: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        i, seed = args
        # The ellipsis comes first: TFP searches for it with `in`, which fails on tensors.
        row = distribution[..., i % rows] if distribution.batch_shape.rank else distribution
        return row.sample(seed=seed)

    flat = tf.reshape(seeds, (-1, 2))
    indices = tf.range(tf.shape(flat)[0])
    samples = tf.map_fn(sample, (indices, flat), fn_output_signature=distribution.dtype)
    return tf.reshape(samples, (*seeds.shape[:-2], -1, *distribution.event_shape))
