"""Posterior collapse: the active latent units, and the KL of each unit."""

from typing import Any

import numpy as np

from keras_vae.terms import Terms


def active_units(
    model: Any,
    x: Any,
    threshold: float = 0.01,
    batch_size: int = 1024,
    condition: Any = None,
) -> np.ndarray:
    """Finds the units whose posterior mean varies with x: `Var_x(E[z|x]) > threshold`.

    Burda et al. (2016), section 5.2. For a conditional model the mean of the prior p(z|c)
    is subtracted first, because it can vary with c as well.

    Args:
        model: `keras_vae.VAE`.
        x: array `[rows, *event]`.
        threshold: float, the variance above which a unit is active.
        batch_size: int, number of rows per call of the encoder.
        condition: the condition of a conditional model.

    Returns:
        NumPy bool `[*latent]`; `.sum()` is the number of active units.

    Raises:
        ValueError: for data that the likelihood does not accept.
    """
    means = model.encode(x, batch_size, condition).mean()
    if condition is not None:
        means -= _prior(model, x, condition).mean()
    return np.var(means, axis=0) > threshold


def kl_per_unit(
    model: Any, x: Any, batch_size: int = 1024, condition: Any = None
) -> np.ndarray:
    """Computes KL(q(z_j|x) || p(z_j)) of each latent unit, the mean over the data.

    A unit with a KL near 0 has collapsed to the prior.

    Args:
        model: `keras_vae.VAE`.
        x: array `[rows, *event]`.
        batch_size: int, number of rows per call of the encoder.
        condition: the condition of a conditional model.

    Returns:
        NumPy float32 `[*latent]`, nats.

    Raises:
        ValueError: for data that the likelihood does not accept, and if the KL per unit
            has no closed form.
    """
    posterior = model.encode(x, batch_size, condition)
    prior = _prior(model, x, condition)
    kl = Terms(None, None, posterior, prior, None).kl_per_unit
    if kl is None:
        raise ValueError(
            "`model` must have a closed form of the KL per unit. Received: posterior "
            f"{posterior.name} and prior {type(model.prior).__name__}"
        )
    return np.mean(kl, axis=0)


def _prior(model: Any, x: Any, condition: Any) -> Any:
    condition = model.embed(model.check_condition(condition, len(x)))
    return model.prior.distribution(condition)
