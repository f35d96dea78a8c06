"""Objectives: the terms of the bound -> a loss per example, in nats.

An objective is any function `objective(terms, step) -> [batch]`; given to `compile`, it
says how a model is trained and leaves open what is modelled. Any of them works with any
posterior, prior, likelihood and network. Three attributes are read, if present:

* `num_samples`: int, how many posterior samples per example it wants (default 1);
* `compares_rows`: bool, True if the loss of an example depends on the other rows, which
  is refused under several replicas;
* `trainable_weights`: an objective with state of its own is a Keras layer, and its
  weights are trained and saved with the model.
"""

import functools
import inspect
import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from keras_vae import checks, schedules

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


class Objective:
    """Base of the objectives here: checks and keeps the number of samples.

    Args:
        num_samples: int, posterior samples per example.
    """

    compares_rows = False

    def __init__(self, num_samples=1):
        self.num_samples = checks.positive_int(num_samples, "num_samples")

    def __call__(self, terms, step):
        """The loss of each example in nats, `[batch]`.

        Args:
            terms: `Terms` of a batch.
            step: int64 scalar tensor, the training step.
        """
        raise NotImplementedError

    def get_config(self):
        return {"num_samples": self.num_samples}

    @classmethod
    def from_config(cls, config):
        return cls(**keras.saving.deserialize_keras_object(config))


@keras.saving.register_keras_serializable("keras_vae")
class ELBO(Objective):
    """The negative evidence lower bound, with the usual knobs on its KL.

    `loss = reconstruction + beta * kl`; Kingma and Welling (2014), equation 3, with the
    analytic KL of equation 7 where TFP has one.

    Args:
        beta: number or schedule, the weight of the KL (Higgins et al., 2017, equation 4).
            With 1.0 the loss is the bound; beta < 1 with a schedule is KL annealing.
        free_bits: float, nats per latent unit below which the KL of an example costs no
            more: `sum_j max(free_bits, kl_j)`. Kingma et al. (2016), appendix C.8, take
            the maximum after the mean over the minibatch; here it is taken per example
            (as Li et al., 2019, do), so that a loss depends neither on the other rows
            nor on how they are spread over replicas.
        capacity: number or schedule, or None. With C nats of capacity the KL term is
            `beta * |kl - C|` (Burgess et al., 2018, equation 8). Excludes `free_bits`.
        num_samples: int, posterior samples per example, averaged.

    Raises:
        ValueError: if an argument is negative or not a number, or `capacity` and
            `free_bits` are both given.

    Example:

    >>> objective = ELBO(beta=schedules.Linear(0.0, 1.0, steps=2000), free_bits=0.1)
    """

    def __init__(self, beta=1.0, free_bits=0.0, capacity=None, num_samples=1):
        super().__init__(num_samples)
        self.beta = schedules.get(beta, "beta")
        self.free_bits = checks.non_negative(free_bits, "free_bits")
        self.capacity = None if capacity is None else schedules.get(capacity, "capacity")
        if self.capacity is not None and self.free_bits:
            raise ValueError(
                "`free_bits` and `capacity` both bound the KL from below; give one. "
                f"Received: free_bits={free_bits}, capacity={capacity}"
            )

    def __call__(self, terms, step):
        kl = terms.kl
        if self.free_bits:
            kl = self._with_free_bits(terms)
        elif self.capacity is not None:
            kl = tf.abs(kl - tf.cast(self.capacity(step), kl.dtype))
        return terms.reconstruction + tf.cast(self.beta(step), kl.dtype) * kl

    def _with_free_bits(self, terms):
        if terms.kl_per_unit is None:
            raise ValueError(
                "`free_bits` needs the KL of each latent unit in closed form, which "
                f"there is not between {terms.posterior.name} and {terms.prior.name}; "
                "use `capacity` or a schedule of `beta`."
            )
        units = tf.maximum(terms.kl_per_unit, self.free_bits)
        return tf.reduce_sum(units, tf.range(1, units.shape.rank))

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "beta": serialize(self.beta),
            "free_bits": self.free_bits,
            "capacity": serialize(self.capacity),
        }


@keras.saving.register_keras_serializable("keras_vae")
class IWAE(Objective):
    """The importance-weighted bound: `loss = -log mean_k w_k`.

    Burda et al. (2016), equation 8. With one sample it is the ELBO, estimated without the
    analytic KL; it grows with the number of samples towards log p(x).

    Args:
        num_samples: int, K, the posterior samples per example.

    Raises:
        ValueError: if `num_samples` is not a positive int.
    """

    def __init__(self, num_samples):
        super().__init__(num_samples)

    def __call__(self, terms, step):
        bound = tf.reduce_logsumexp(terms.log_weight, axis=0)
        return math.log(self.num_samples) - bound


@keras.saving.register_keras_serializable("keras_vae")
class Hybrid(Objective):
    """The bound, and the same with z from the prior: what a conditional model predicts by.

    `loss = alpha * -ELBO + (1 - alpha) * -E_p(z|c) log p(x|z,c)`; Sohn et al. (2015),
    equation 9. The second part is the Gaussian stochastic neural network of equation 8:
    training draws z as prediction does. `alpha=0` is that network, which uses no encoder.

    Args:
        alpha: float in [0, 1], the weight of the bound.
        num_samples: int, samples of the posterior and of the prior per example.

    Raises:
        ValueError: if `alpha` lies outside.
    """

    def __init__(self, alpha=0.5, num_samples=1):
        super().__init__(num_samples)
        self.alpha = checks.non_negative(alpha, "alpha")
        checks.that(self.alpha <= 1, "alpha", "at most 1", alpha)

    def __call__(self, terms, step):
        predicted = terms.from_prior.reconstruction
        return (1.0 - self.alpha) * predicted - self.alpha * terms.elbo

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha}


@keras.saving.register_keras_serializable("keras_vae")
class Reconstruction(Objective):
    """-E[log p(x|z)] alone, in nats: what an autoencoder minimises."""

    def __call__(self, terms, step):
        return terms.reconstruction


def check(objective):
    """Raises a ValueError unless it can be called as `objective(terms, step)`."""
    try:
        inspect.signature(objective).bind(None, None)
        fits = not isinstance(objective, (type, keras.losses.Loss))
    except TypeError:
        fits = False
    expected = (
        "an instance from keras_vae.objectives or a function (terms, step) -> [batch]"
    )
    checks.that(fits, "objective", expected, objective)


def per_example(objective, terms, step):
    """Calls an objective; raises a ValueError unless it gives `[batch]`."""
    # Keras refuses what is no tensor as a positional argument of a layer's call.
    layer = isinstance(objective, keras.layers.Layer)
    losses = (objective.call if layer else objective)(terms, step)
    check_per_example("objective", losses)
    return losses


def check_per_example(name, value):
    """Raises a ValueError unless `value` is a tensor `[batch]`.

    Any other shape would broadcast, to a loss for each pair of rows.
    """
    shape = getattr(value, "shape", None)
    if shape is None or len(shape) != 1:
        raise ValueError(
            f"`{name}` must give one number for each row, [batch]. "
            f"Received: {value if shape is None else f'shape {tuple(shape)}'}"
        )
