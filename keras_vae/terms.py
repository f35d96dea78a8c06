"""The terms of the bound for one batch, from which objectives make a loss."""

import functools

import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions


class Terms:
    """The terms of the bound for one batch, computed when first asked for.

    Args:
        x: `[batch, *event]`, the data, as the likelihood observes it.
        z: `[samples, batch, *latent]`, samples of the posterior.
        posterior: `tfd.Distribution` q(z|x), batch `[batch]`.
        prior: `tfd.Distribution` p(z), batch `[]` or `[batch]`.
        likelihood: `tfd.Distribution` p(x|z), batch `[samples * batch]`: samples are
            rows for the decoder.
        draw_prior: function without arguments that gives the terms for z from the prior.
    """

    def __init__(self, x, z, posterior, prior, likelihood, draw_prior=None):
        self.x = x
        self.z = z
        self.posterior = posterior
        self.prior = prior
        self.likelihood = likelihood
        self._draw_prior = draw_prior

    @functools.cached_property
    def from_prior(self):
        """The `Terms` with as many samples of the prior in place of the posterior's."""
        return self._draw_prior()

    @functools.cached_property
    def log_likelihood(self):
        """log p(x|z) in nats, summed over the event: `[samples, batch]`."""
        samples = self.z.shape[0]
        x = tile_rows(self.x, samples)
        return tf.reshape(self.likelihood.log_prob(x), (samples, -1))

    @functools.cached_property
    def log_prior(self):
        """log p(z) in nats: `[samples, batch]`."""
        return self.prior.log_prob(self.z)

    @functools.cached_property
    def log_posterior(self):
        """log q(z|x) in nats: `[samples, batch]`."""
        return self.posterior.log_prob(self.z)

    @functools.cached_property
    def log_weight(self):
        """log p(x, z) - log q(z|x) in nats, the log importance weights `[samples, batch]`.

        Its mean over samples estimates the ELBO, and its log-mean-exp log p(x).
        """
        return self.log_likelihood + self.log_prior - self.log_posterior

    @functools.cached_property
    def kl_per_unit(self):
        """KL(q || p) of each latent unit in nats, `[batch, *latent]`.

        None unless posterior and prior are independent over the units and TFP knows the
        KL in closed form.
        """
        q, p = self.posterior, self.prior
        if not (isinstance(q, tfd.Independent) and isinstance(p, tfd.Independent)):
            return None
        if q.event_shape != p.event_shape or q.distribution.event_shape.rank != 0:
            return None
        return _analytic_kl(q.distribution, p.distribution)

    @functools.cached_property
    def kl(self):
        """KL(q || p) in nats, `[batch]`: analytic where TFP has it, else Monte Carlo."""
        if self.kl_per_unit is not None:
            return tf.reduce_sum(self.kl_per_unit, tf.range(1, self.kl_per_unit.shape.rank))
        analytic = _analytic_kl(self.posterior, self.prior)
        if analytic is not None:
            return analytic
        return tf.reduce_mean(self.log_posterior - self.log_prior, axis=0)

    @functools.cached_property
    def reconstruction(self):
        """-E[log p(x|z)] in nats, `[batch]`, the mean over the samples."""
        return -tf.reduce_mean(self.log_likelihood, axis=0)

    @property
    def elbo(self):
        """The evidence lower bound in nats, `[batch]`: `-(reconstruction + kl)`."""
        return -(self.reconstruction + self.kl)


def tile_rows(values, samples):
    """A structure of tensors `[batch, ...]`, or None, -> `[samples * batch, ...]`."""
    if samples == 1 or values is None:
        return values

    def tile(value):
        # Along a new axis: LiteRT's converter loses a tile of an axis of unknown size.
        tiled = tf.tile(value[None], [samples, *[1] * value.shape.rank])
        return tf.reshape(tiled, (-1, *value.shape[1:]))

    return tf.nest.map_structure(tile, values)


def _analytic_kl(q, p):
    try:
        return tfd.kl_divergence(q, p)
    except NotImplementedError:
        return None
