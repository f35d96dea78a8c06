"""Normal distributions that are independent over the event: head and standard prior."""

import math
import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks
from keras_vae.distributions.base import Head, Prior
from keras_vae.distributions.tfd import tfd


@keras.saving.register_keras_serializable("keras_vae")
class IndependentNormal(Head):
    """Independent normal distributions of the elements of the event.

    Parameters: `loc` `[batch, *event_shape]`, and `scale`, the standard deviation, of the
    same shape or a scalar. As a posterior with the default scale: Kingma and Welling
    (2014), equation 9. As a likelihood, `log_prob` is a normalised density: it keeps the
    constant `0.5 log(2 pi)` per element, so bounds with different scales can be compared.

    Args:
        event_shape: tuple of ints.
        scale: the source of the standard deviation:

            * `"per_element"`: a network output for each element (default of a posterior);
            * `"shared"`: one trained number (default of a likelihood; the sigma-VAE of
              Rybkin et al., 2021);
            * a positive number: a constant. It has the same effect as beta: up to a factor
              and a constant, the loss is `sum((x - loc)**2) + beta * kl` with
              `beta = 2 * scale**2`.
        min_scale: float, the lower bound of a trained scale:
            `scale = min_scale + softplus(raw)`.
        initial_scale: float, the initial value of a trained scale. The standard deviation
            of the data is a good value for a likelihood.
        bias_initializer: initializer of the bias of `loc`.
        projection: see `Head`; a dict with the keys `"loc"` and `"scale"` if the scale
            is `"per_element"`.

    Raises:
        ValueError: if `scale` has another value, or unless `0 < min_scale < 1` and
            `min_scale < initial_scale`.

    Example:

    >>> head = IndependentNormal((2,), scale=0.5)
    >>> params = {"loc": tf.zeros((3, 2)), "scale": 0.5}
    >>> head.distribution(params).log_prob(tf.zeros((3, 2))).shape
    TensorShape([3])
    """

    noise = "normal"

    def __init__(
        self,
        event_shape: Any,
        scale: str | float | None = None,
        min_scale: float = 1e-3,
        initial_scale: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(event_shape, **kwargs)
        if scale is None or isinstance(scale, str):
            is_scale = scale in (None, "per_element", "shared")
        else:
            is_scale = not isinstance(scale, bool) and isinstance(scale, numbers.Real)
            is_scale = is_scale and math.isfinite(scale) and scale > 0
        expected = '"per_element", "shared" or a positive number (the standard deviation)'
        checks.require(is_scale, "scale", expected, scale)
        is_bound = isinstance(min_scale, float) and 0 < min_scale < 1
        checks.require(is_bound, "min_scale", "a float between 0 and 1", min_scale)
        self.scale = scale if scale is None or isinstance(scale, str) else float(scale)
        self.min_scale = min_scale
        self.initial_scale = checks.non_negative(initial_scale, "initial_scale")
        is_above = self.initial_scale > min_scale
        checks.require(is_above, "initial_scale", f"above {min_scale=}", initial_scale)

    def as_likelihood(self) -> None:
        self.scale = self.scale or "shared"

    @property
    def projected(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("loc", "scale") if self.scale == "per_element" else ("loc",)

    def build(self, input_shape: Any) -> None:
        self.scale = self.scale or "per_element"
        super().build(input_shape)
        if self.scale == "shared":
            self.raw_scale = self.add_weight(
                name="raw_scale", shape=(), initializer="zeros", dtype=self.dtype
            )

    def parameters(self, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        if self.scale == "per_element":
            return {"loc": raw["loc"], "scale": self._positive(raw["scale"])}
        if self.scale == "shared":
            return {"loc": raw["loc"], "scale": self._positive(self.raw_scale)}
        return {"loc": raw["loc"], "scale": tf.constant(self.scale, self.dtype)}

    def _positive(self, raw: tf.Tensor) -> tf.Tensor:
        # The inverse of softplus, so that the scale is `initial_scale` at raw = 0.
        initial = self.initial_scale - self.min_scale
        initial += math.log(-math.expm1(-initial))
        return self.min_scale + tf.nn.softplus(raw + initial)

    def distribution(self, params: dict[str, tf.Tensor]) -> Any:
        return tfd.Independent(tfd.Normal(**params), len(self.event_shape))

    def sample(self, params: dict[str, tf.Tensor], noise: tf.Tensor) -> tf.Tensor:
        return params["loc"] + params["scale"] * tf.cast(noise, params["loc"].dtype)

    def check(self, x: np.ndarray, name: str) -> None:
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise ValueError(
                f"`{name}` must be finite. "
                f"Received: {np.size(x) - np.isfinite(x).sum()} values of NaN or "
                f"infinity in an array of shape {x.shape}"
            )


@keras.saving.register_keras_serializable("keras_vae")
class StandardNormal(Prior):
    """N(0, I), the prior of Kingma and Welling (2014). It has no weights.

    Args:
        event_shape: tuple of ints, the shape of one latent.

    Example:

    >>> round(float(StandardNormal((2,)).distribution().log_prob([0.0, 0.0])), 4)
    -1.8379
    """

    noise = "normal"

    def distribution(self, condition: Any = None) -> Any:
        zeros = tf.zeros(self.event_shape, self.dtype)
        return tfd.Independent(
            tfd.Normal(zeros, tf.ones_like(zeros)), len(self.event_shape)
        )

    def sample(self, noise: tf.Tensor, condition: Any = None) -> tf.Tensor:
        return noise
