"""Which latent units a model uses."""

import numpy as np

from keras_vae.terms import Terms


def active_units(model, x, threshold=0.01, batch_size=1024, condition=None):
    """The units whose posterior mean varies with x: `Var_x(E[z|x]) > threshold`.

    Burda et al. (2016), section 5.2. Of a conditional model it is the mean less that of
    the prior p(z|c), which varies, too, where a network gives it.

    Args:
        model: `keras_vae.VAE`.
        x: array `[rows, *event]`.
        threshold: float, variance above which a unit counts as active.
        batch_size: int, rows that pass the encoder at a time.
        condition: what a conditional model conditions on.

    Returns:
        NumPy bool `[*latent]`; `.sum()` is the number of active units.

    Raises:
        ValueError: for data that do not fit the likelihood.
    """
    means = model.encode(x, batch_size, condition).mean()
    if condition is not None:
        means -= _prior(model, x, condition).mean()
    return np.var(means, axis=0) > threshold


def kl_per_unit(model, x, batch_size=1024, condition=None):
    """KL(q(z_j|x) || p(z_j)) of each latent unit, averaged over the data.

    A unit near 0 has collapsed to the prior.

    Args:
        model: `keras_vae.VAE`.
        x: array `[rows, *event]`, taken as it is (grey values are not binarised).
        batch_size: int, rows that pass the encoder at a time.
        condition: what a conditional model conditions on.

    Returns:
        NumPy float32 `[*latent]`, nats.

    Raises:
        ValueError: for data that do not fit the likelihood, and if posterior and prior
            have no KL per unit in closed form.
    """
    posterior = model.encode(x, batch_size, condition)
    prior = _prior(model, x, condition)
    kl = Terms(None, None, posterior, prior, None).kl_per_unit
    if kl is None:
        raise ValueError(
            "There is no KL per unit in closed form between the posterior "
            f"{posterior.name} and the prior {type(model.prior).__name__}."
        )
    return np.mean(kl, axis=0)


def _prior(model, x, condition):
    given = model.embed(model.check_condition(condition, len(x)))
    return model.prior.distribution(given)
