"""Normal distributions that are independent over the event: head and standard prior."""

import math
import numbers

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from keras_vae import checks
from keras_vae.distributions.base import Head, Prior

tfd = tfp.distributions


@keras.saving.register_keras_serializable("keras_vae")
class IndependentNormal(Head):
    """Normal over each element of the event, with diagonal covariance.

    Parameters: `loc` `[batch, *event_shape]` and `scale`, the standard deviation, of that
    shape or a scalar. As a posterior with the default scale: Kingma and Welling (2014),
    equation 9. As a likelihood, `log_prob` is a normalised density: the constant
    `0.5 log(2 pi)` per element is not dropped, so that bounds with different scales
    compare.

    Args:
        event_shape: tuple of ints.
        scale: where the standard deviation comes from:

            * `"per_element"`: a network output for each element (a posterior's default);
            * `"shared"`: one trained number (a likelihood's default; the sigma-VAE of
              Rybkin et al., 2021);
            * a positive number: fixed. The variance `c = scale**2` of the literature
              and beta are one knob: beta = 2c scales the squared error alike
              (the loss is then `sum((x - loc)**2) + beta * kl` up to factor and constant).
        min_scale: float, the floor that keeps a trained scale positive:
            `scale = min_scale + softplus(raw)`.
        initial_scale: float, what a trained scale starts at. The standard deviation of
            the data is a good value for a likelihood.
        bias_initializer: initializer of the bias of `loc`.
        projection: see `Head`; a dict with the keys `"loc"` and `"scale"` if the scale
            is `"per_element"`.

    Raises:
        ValueError: if `scale` is none of these, or not `0 < min_scale < initial_scale`.

    Example:

    >>> head = IndependentNormal((2,), scale=0.5)
    >>> params = {"loc": tf.zeros((3, 2)), "scale": 0.5}
    >>> head.distribution(params).log_prob(tf.zeros((3, 2))).shape
    TensorShape([3])
    """

    noise = "normal"

    def __init__(
        self, event_shape, scale=None, min_scale=1e-3, initial_scale=1.0, **kwargs
    ):
        super().__init__(event_shape, **kwargs)
        if scale is None or isinstance(scale, str):
            fits = scale in (None, "per_element", "shared")
        else:
            fits = not isinstance(scale, bool) and isinstance(scale, numbers.Real)
            fits = fits and math.isfinite(scale) and scale > 0
        expected = '"per_element", "shared" or a positive number (the standard deviation)'
        checks.require(fits, "scale", expected, scale)
        fits = isinstance(min_scale, float) and 0 < min_scale < 1
        checks.require(fits, "min_scale", "a float between 0 and 1", min_scale)
        self.scale = scale if scale is None or isinstance(scale, str) else float(scale)
        self.min_scale = min_scale
        self.initial_scale = checks.non_negative(initial_scale, "initial_scale")
        fits = self.initial_scale > min_scale
        checks.require(fits, "initial_scale", f"above {min_scale=}", initial_scale)

    def as_likelihood(self):
        self.scale = self.scale or "shared"

    @property
    def projected(self):  # type: ignore[override]
        return ("loc", "scale") if self.scale == "per_element" else ("loc",)

    def build(self, input_shape):
        self.scale = self.scale or "per_element"
        super().build(input_shape)
        if self.scale == "shared":
            self.raw_scale = self.add_weight(
                name="raw_scale", shape=(), initializer="zeros", dtype=self.dtype
            )

    def parameters(self, raw):
        if self.scale == "per_element":
            return {"loc": raw["loc"], "scale": self._positive(raw["scale"])}
        if self.scale == "shared":
            return {"loc": raw["loc"], "scale": self._positive(self.raw_scale)}
        return {"loc": raw["loc"], "scale": tf.constant(self.scale, self.dtype)}

    def _positive(self, raw):
        start = self.initial_scale - self.min_scale
        at_start = start + math.log(-math.expm1(-start))  # inverse of softplus
        return self.min_scale + tf.nn.softplus(raw + at_start)

    def distribution(self, params):
        return tfd.Independent(tfd.Normal(**params), len(self.event_shape))

    def sample(self, params, noise):
        return params["loc"] + params["scale"] * tf.cast(noise, params["loc"].dtype)

    def check(self, x, name):
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise ValueError(
                f"`{name}` must be finite. "
                f"Received: {np.size(x) - np.isfinite(x).sum()} values of NaN or "
                f"infinity in an array of shape {x.shape}"
            )

    def get_config(self):
        return {
            **super().get_config(),
            "scale": self.scale,
            "min_scale": self.min_scale,
            "initial_scale": self.initial_scale,
        }


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

    def distribution(self, condition=None):
        zeros = tf.zeros(self.event_shape, self.dtype)
        return tfd.Independent(
            tfd.Normal(zeros, tf.ones_like(zeros)), len(self.event_shape)
        )

    def sample(self, noise, condition=None):
        return noise
