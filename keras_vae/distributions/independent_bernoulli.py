"""Bernoulli distributions that are independent over the event."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from keras_vae import checks, random
from keras_vae.distributions.base import Head

tfd = tfp.distributions


@keras.saving.register_keras_serializable("keras_vae")
class IndependentBernoulli(Head):
    """Bernoulli over each element of the event: for data in {0, 1}.

    Parameter: `logits` `[batch, *event_shape]`.

    Args:
        event_shape: tuple of ints.
        grey: what to do with values strictly between 0 and 1, which have no probability
            under a Bernoulli:

            * `"binarize"`: a value is the probability of a 1, drawn anew each step, and
              with fixed noise in evaluation (Salakhutdinov and Murray, 2008; Burda et
              al., 2016, section 5). The value stays a log-likelihood, of binary data.
            * `"soft"`: soft targets, a cross-entropy. Widespread, but not a
              log-likelihood of anything: the numbers do not compare.
            * `"error"`: refused. The cheapest for data that is binary already, since
              no noise is drawn for it.
        bias_initializer: initializer of the bias of `logits`. Burda et al. (2016) take
            the logit of the mean of the training data.
        projection: see `Head`.

    Raises:
        ValueError: if `grey` is none of these.

    Example:

    >>> head = IndependentBernoulli((2,), grey="error")
    >>> float(head.distribution({"logits": tf.zeros((1, 2))}).log_prob([[0.0, 1.0]])[0])
    -1.3862943649291992
    """

    projected = ("logits",)
    noise = "uniform"

    def __init__(self, event_shape, grey="binarize", **kwargs):
        super().__init__(event_shape, **kwargs)
        fits = isinstance(grey, str) and grey in ("binarize", "soft", "error")
        checks.require(fits, "grey", '"binarize", "soft" or "error"', grey)
        self.grey = grey

    def distribution(self, params):
        bernoulli = tfd.Bernoulli(logits=params["logits"], dtype=self.dtype)
        return _Independent(bernoulli, len(self.event_shape))

    def sample(self, params, noise):
        return tf.cast(noise < tf.sigmoid(params["logits"]), self.dtype)

    def supported(self, x):
        if self.grey == "error":
            return (x == 0.0) | (x == 1.0)
        return (x >= 0.0) & (x <= 1.0)

    def observe(self, x, draw):
        supported = self.supported(x)
        if self.grey == "binarize":
            noise = draw("uniform", self.event_shape, random.OBSERVATION)[0]
            x = tf.cast(noise < x, x.dtype)
        return tf.where(supported, x, np.nan)

    def check(self, x, name):
        if x.dtype == np.uint8:
            x = x / np.float32(255) if self.grey == "error" else x[:0]
        low, high = (x.min(), x.max()) if x.size else (0, 1)
        if not (low >= 0 and high <= 1):  # also false for NaN
            raise ValueError(
                f"`{name}` must lie in [0, 1] for a Bernoulli likelihood; scale it "
                "(uint8 is divided by 255 for you) or choose another likelihood. "
                f"Received: values from {low} to {high}"
            )
        if self.grey == "error" and not ((x == 0) | (x == 1)).all():
            raise ValueError(
                f'`{name}` must be 0 or 1 for a Bernoulli likelihood with grey="error" '
                '(grey="binarize" takes values between). '
                f"Received: {np.sum((x != 0) & (x != 1))} values strictly between"
            )

    def get_config(self):
        return {**super().get_config(), "grey": self.grey}


class _Independent(tfd.Independent):  # type: ignore[name-defined]
    """TFP's, with a log-probability that takes a fifth of the time.

    `log p(x) = sum(x l - max(l, 0)) - sum(log(1 + exp(-|l|)))` for logits l. TFP takes two
    softplus functions of each element; here the logarithm is one of a product of elements.
    """

    def _log_prob(self, x):
        logits = self.distribution.logits
        rank = len(self.event_shape)
        linear = tf.cast(x, logits.dtype) * logits - tf.nn.relu(logits)
        linear = tf.reduce_sum(linear, axis=range(-rank, 0))
        batch, size = (
            tf.shape(logits)[: logits.shape.rank - rank],
            self.event_shape.num_elements(),
        )
        return linear - _sum_of_logs(tf.reshape(logits, tf.concat([batch, [size]], 0)))


@tf.custom_gradient
def _sum_of_logs(logits):
    """The sum of `log(1 + exp(-|l|))` over the last axis."""
    size = logits.shape[-1]
    # Factors between 1 and 2, whose product is taken across vectors.
    factors = max(n for n in range(1, 17) if size % n == 0)
    terms = 1.0 + tf.exp(-tf.abs(logits))
    split = tf.concat([tf.shape(terms)[:-1], [factors, size // factors]], 0)
    products = tf.reduce_prod(tf.reshape(terms, split), axis=-2)

    def gradient(upstream):
        # With that of relu, 0 at 0, it makes -sigmoid(logits) of `_log_prob`.
        step = tf.cast(logits > 0.0, logits.dtype)
        return upstream[..., None] * (tf.sigmoid(logits) - step)

    return tf.reduce_sum(tf.math.log(products), axis=-1), gradient
