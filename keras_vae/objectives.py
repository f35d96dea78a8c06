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

import inspect
import math

import keras
import tensorflow as tf

from keras_vae import checks, schedules
from keras_vae.terms import Terms


class Objective:
    """Base of the objectives here: checks and keeps the number of samples.

    Args:
        num_samples: int, posterior samples per example.
    """

    compares_rows = False

    def __init__(self, num_samples=1):
        self.num_samples = checks.positive_int(num_samples, "num_samples")

    def __call__(self, terms: Terms, step: tf.Tensor) -> tf.Tensor:
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

    def __call__(self, terms: Terms, step: tf.Tensor) -> tf.Tensor:
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

    def __call__(self, terms: Terms, step: tf.Tensor) -> tf.Tensor:
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
        checks.require(self.alpha <= 1, "alpha", "at most 1", alpha)

    def __call__(self, terms: Terms, step: tf.Tensor) -> tf.Tensor:
        predicted = terms.from_prior.reconstruction
        return (1.0 - self.alpha) * predicted - self.alpha * terms.elbo

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha}


@keras.saving.register_keras_serializable("keras_vae")
class Reconstruction(Objective):
    """-E[log p(x|z)] alone, in nats: what an autoencoder minimises."""

    def __call__(self, terms: Terms, step: tf.Tensor) -> tf.Tensor:
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
    checks.require(fits, "objective", expected, objective)


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
