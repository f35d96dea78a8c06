"""Objectives: functions that turn the terms of the bound into a loss per example, in nats.

An objective is any function `objective(terms, step) -> [batch]`. It is an argument of
`compile`, because it defines how a model is trained, not what is modelled. Every objective
works with every posterior, prior, likelihood and network. Three attributes are optional:

* `num_samples`: int, the number of posterior samples per example (default 1);
* `compares_rows`: bool, True if the loss of an example depends on other rows. Such an
  objective raises an error under several replicas;
* `trainable_weights`: an objective with weights is a Keras layer. Its weights are trained
  and saved with the model.
"""

import inspect
import math
from typing import Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from keras_vae import checks, schedules
from keras_vae.configured import Configured
from keras_vae.terms import Terms


class Objective(Configured):
    """Base class of the objectives: checks and stores the number of samples.

    Args:
        num_samples: int, posterior samples per example.
    """

    compares_rows = False

    def __init__(self, num_samples: int = 1):
        self.num_samples = checks.positive_int(num_samples, "num_samples")

    def __call__(self, terms: Terms, step: tf.Tensor) -> tf.Tensor:
        """Computes the loss of each example in nats, `[batch]`.

        Args:
            terms: `Terms` of a batch.
            step: int64 scalar tensor, the training step.
        """
        raise NotImplementedError


@keras.saving.register_keras_serializable("keras_vae")
class ELBO(Objective):
    """The negative evidence lower bound, with the usual variants of its KL term.

    `loss = reconstruction + beta * kl`; Kingma and Welling (2014), equation 3, with the
    analytic KL of equation 7 if TFP has a closed form.

    Args:
        beta: number or schedule, the weight of the KL (Higgins et al., 2017, equation 4).
            With 1.0 the loss is the negative bound. A schedule that rises to 1 is KL
            annealing.
        free_bits: float, the lower limit of the KL of a unit in the loss, in nats:
            `sum_j max(free_bits, kl_j)`. Kingma et al. (2016), appendix C.8, average over
            the minibatch before the maximum. Here the maximum is per example, as in Li et
            al. (2019): the loss of a row does not depend on other rows or on the replicas.
        capacity: number or schedule C in nats, or None. The KL term becomes
            `beta * |kl - C|` (Burgess et al., 2018, equation 8). Not with `free_bits`.
        num_samples: int, posterior samples per example; the terms are averaged over them.

    Raises:
        ValueError: if an argument is negative or not a number, or if both `capacity` and
            `free_bits` are set.

    Example:

    >>> objective = ELBO(beta=schedules.Linear(0.0, 1.0, steps=2000), free_bits=0.1)
    """

    def __init__(
        self,
        beta: float | LearningRateSchedule = 1.0,
        free_bits: float = 0.0,
        capacity: float | LearningRateSchedule | None = None,
        num_samples: int = 1,
    ):
        super().__init__(num_samples)
        self.beta = schedules.get(beta, "beta")
        self.free_bits = checks.non_negative(free_bits, "free_bits")
        self.capacity = None if capacity is None else schedules.get(capacity, "capacity")
        if self.capacity is not None and self.free_bits:
            raise ValueError(
                "`free_bits` and `capacity` exclude each other: set one of them. "
                f"Received: free_bits={free_bits}, capacity={capacity}"
            )

    def __call__(self, terms: Terms, step: tf.Tensor) -> tf.Tensor:
        kl = terms.kl
        if self.free_bits:
            kl = self._kl_with_free_bits(terms)
        elif self.capacity is not None:
            kl = tf.abs(kl - tf.cast(self.capacity(step), kl.dtype))
        return terms.reconstruction + tf.cast(self.beta(step), kl.dtype) * kl

    def _kl_with_free_bits(self, terms: Terms) -> tf.Tensor:
        if terms.kl_per_unit is None:
            raise ValueError(
                "`free_bits` must be 0 if the KL of a latent unit has no closed form; use "
                "`capacity` or a schedule of `beta`. "
                f"Received: free_bits={self.free_bits}, with the posterior "
                f"{terms.posterior.name} and the prior {terms.prior.name}"
            )
        units = tf.maximum(terms.kl_per_unit, self.free_bits)
        return tf.reduce_sum(units, tf.range(1, units.shape.rank))


@keras.saving.register_keras_serializable("keras_vae")
class IWAE(Objective):
    """The importance-weighted bound: `loss = -log mean_k w_k`.

    Burda et al. (2016), equation 8. With one sample the bound is the ELBO, estimated
    without the analytic KL. With more samples it approaches log p(x) from below.

    Args:
        num_samples: int, K, the number of posterior samples per example.

    Raises:
        ValueError: if `num_samples` is not a positive int.
    """

    def __init__(self, num_samples: int):
        super().__init__(num_samples)

    def __call__(self, terms: Terms, step: tf.Tensor) -> tf.Tensor:
        bound = tf.reduce_logsumexp(terms.log_weight, axis=0)
        return math.log(self.num_samples) - bound


@keras.saving.register_keras_serializable("keras_vae")
class Hybrid(Objective):
    """A weighted mean of the bound and of the likelihood with z from the prior.

    `loss = alpha * -ELBO + (1 - alpha) * -E_p(z|c) log p(x|z,c)`; Sohn et al. (2015),
    equation 9. A conditional model predicts with z from the prior; the second part trains
    it with such z. This part is the Gaussian stochastic neural network of equation 8, which
    has no encoder; with `alpha=0` only this network is trained.

    Args:
        alpha: float in [0, 1], the weight of the bound.
        num_samples: int, samples of the posterior and of the prior per example.

    Raises:
        ValueError: if `alpha` is not in [0, 1].
    """

    def __init__(self, alpha: float = 0.5, num_samples: int = 1):
        super().__init__(num_samples)
        self.alpha = checks.non_negative(alpha, "alpha")
        checks.require(self.alpha <= 1, "alpha", "at most 1", alpha)

    def __call__(self, terms: Terms, step: tf.Tensor) -> tf.Tensor:
        predicted = terms.from_prior.reconstruction
        return (1.0 - self.alpha) * predicted - self.alpha * terms.elbo


@keras.saving.register_keras_serializable("keras_vae")
class Reconstruction(Objective):
    """-E[log p(x|z)] in nats, without a KL: the objective of an autoencoder."""

    def __call__(self, terms: Terms, step: tf.Tensor) -> tf.Tensor:
        return terms.reconstruction


def check(objective: Any) -> None:
    """Raises a ValueError unless `objective` can be called as `objective(terms, step)`."""
    try:
        inspect.signature(objective).bind(None, None)
        is_objective = not isinstance(objective, (type, keras.losses.Loss))
    except TypeError:
        is_objective = False
    expected = (
        "an instance from keras_vae.objectives or a function (terms, step) -> [batch]"
    )
    checks.require(is_objective, "objective", expected, objective)
    check_saved(objective, "objective")


def check_saved(value: Any, name: str) -> None:
    """Raises a ValueError unless Keras can save and load `value`, an argument of `compile`.

    Keras saves a function by its name. It loads an instance of a registered class from its
    config.
    """
    expected = (
        "one that is saved with the model: a function of a module, or a function or class "
        "with the decorator @keras.saving.register_keras_serializable()"
    )
    kind = value if inspect.isfunction(value) else type(value)
    registered = keras.saving.get_registered_object(keras.saving.get_registered_name(kind))
    if inspect.isfunction(value):
        has_name = "<" not in value.__qualname__  # <lambda> or <locals>
        checks.require(has_name or registered is not None, name, expected, value)
    elif not (isinstance(value, str) or kind.__module__.startswith("keras.")):
        checks.require(registered is not None, name, expected, value)
        try:
            config = keras.saving.serialize_keras_object(value)
            if isinstance(value, Objective):
                keras.saving.deserialize_keras_object(config)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ValueError(
                f"`{name}` must have a `get_config` with all arguments of its constructor. "
                f"Received: {name}={value!r}: {str(error).splitlines()[-1]}"
            ) from error


def per_example(objective: Any, terms: Terms, step: tf.Tensor) -> tf.Tensor:
    """Calls an objective. Raises a ValueError unless it returns a tensor `[batch]`."""
    # `call`, not `__call__`: Keras accepts only tensors as positional arguments of a layer.
    is_layer = isinstance(objective, keras.layers.Layer)
    losses = (objective.call if is_layer else objective)(terms, step)
    check_per_example("objective", losses)
    return losses


def check_per_example(name: str, value: Any) -> None:
    """Raises a ValueError unless `value` is a tensor `[batch]`.

    Another shape, such as `[batch, 1]`, would broadcast to one loss per pair of rows.
    """
    shape = getattr(value, "shape", None)
    if shape is None or len(shape) != 1:
        raise ValueError(
            f"`{name}` must have one number for each row, [batch]. "
            f"Received: {value if shape is None else f'shape {tuple(shape)}'}"
        )
