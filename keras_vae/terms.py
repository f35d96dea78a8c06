"""The terms of the bound for one batch, from which an objective computes the loss."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_vae.distributions.tfd import tfd


class Terms:
    """The terms of the bound for one batch. Each is computed on first access.

    Args:
        x: `[batch, *event]`, the data as returned by `observe` of the likelihood.
        z: `[samples, batch, *latent]`, samples of the posterior.
        posterior: `tfd.Distribution` q(z|x), batch `[batch]`.
        prior: `tfd.Distribution` p(z), batch `[]` or `[batch]`.
        likelihood: `tfd.Distribution` p(x|z), batch `[samples * batch]`: samples are
            rows for the decoder.
        draw_prior: function without arguments that returns the `Terms` with z drawn from
            the prior.
    """

    def __init__(
        self,
        x: Any,
        z: Any,
        posterior: Any,
        prior: Any,
        likelihood: Any,
        draw_prior: Callable[[], "Terms"] | None = None,
    ):
        self.x = x
        self.z = z
        self.posterior = posterior
        self.prior = prior
        self.likelihood = likelihood
        self._draw_prior = draw_prior

    @functools.cached_property
    def from_prior(self) -> "Terms":
        """The `Terms` with the same number of samples, drawn from the prior."""
        assert self._draw_prior is not None
        return self._draw_prior()

    @functools.cached_property
    def log_likelihood(self) -> tf.Tensor:
        """log p(x|z) in nats, summed over the event: `[samples, batch]`."""
        samples = self.z.shape[0]
        x = tile_rows(self.x, samples)
        return tf.reshape(self.likelihood.log_prob(x), (samples, -1))

    @functools.cached_property
    def log_prior(self) -> tf.Tensor:
        """log p(z) in nats: `[samples, batch]`."""
        return self.prior.log_prob(self.z)

    @functools.cached_property
    def log_posterior(self) -> tf.Tensor:
        """log q(z|x) in nats: `[samples, batch]`."""
        return self.posterior.log_prob(self.z)

    @functools.cached_property
    def log_weight(self) -> tf.Tensor:
        """Log importance weights log p(x, z) - log q(z|x) in nats, `[samples, batch]`.

        Their mean over the samples estimates the ELBO; their log-mean-exp, log p(x).
        """
        return self.log_likelihood + self.log_prior - self.log_posterior

    @functools.cached_property
    def kl_per_unit(self) -> tf.Tensor | None:
        """KL(q || p) of each latent unit in nats, `[batch, *latent]`.

        None unless the units are independent in the posterior and in the prior, and TFP has
        a closed form of the KL.
        """
        q, p = self.posterior, self.prior
        if not (isinstance(q, tfd.Independent) and isinstance(p, tfd.Independent)):
            return None
        if q.event_shape != p.event_shape or q.distribution.event_shape.rank != 0:
            return None
        return _analytic_kl(q.distribution, p.distribution)

    @functools.cached_property
    def kl(self) -> tf.Tensor:
        """KL(q || p) in nats, `[batch]`: analytic if TFP has a closed form, else estimated.

        The estimate is the mean of log q(z|x) - log p(z) over the samples.
        """
        if self.kl_per_unit is not None:
            return tf.reduce_sum(self.kl_per_unit, tf.range(1, self.kl_per_unit.shape.rank))
        analytic = _analytic_kl(self.posterior, self.prior)
        if analytic is not None:
            return analytic
        return tf.reduce_mean(self.log_posterior - self.log_prior, axis=0)

    @functools.cached_property
    def reconstruction(self) -> tf.Tensor:
        """-E[log p(x|z)] in nats, `[batch]`, the mean over the samples."""
        return -tf.reduce_mean(self.log_likelihood, axis=0)

    @functools.cached_property
    def reconstructed(self) -> tf.Tensor:
        """The mean of p(x|z), `[batch, *event]`, the mean over the samples."""
        mean = self.likelihood.mean()
        split = tf.reshape(mean, (self.z.shape[0], -1, *mean.shape[1:]))
        return tf.reduce_mean(split, axis=0)

    @property
    def elbo(self) -> tf.Tensor:
        """The evidence lower bound in nats, `[batch]`: `-(reconstruction + kl)`."""
        return -(self.reconstruction + self.kl)


def tile_rows(values: Any, samples: int) -> Any:
    """Repeats the rows of each tensor: `[batch, ...]` -> `[samples * batch, ...]`.

    Args:
        values: a structure of tensors, or None, which is returned unchanged.
        samples: int, the number of repetitions.
    """
    if samples == 1 or values is None:
        return values

    def tile(value: tf.Tensor) -> tf.Tensor:
        # Tiles a new axis: LiteRT's converter loses a tile of an axis of unknown size.
        tiled = tf.tile(value[None], [samples, *[1] * value.shape.rank])
        return tf.reshape(tiled, (-1, *value.shape[1:]))

    return tf.nest.map_structure(tile, values)


def _analytic_kl(q: Any, p: Any) -> tf.Tensor | None:
    """Returns KL(q || p) in closed form, or None if TFP has none."""
    try:
        return tfd.kl_divergence(q, p)
    except NotImplementedError:
        return None
