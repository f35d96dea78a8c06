"""What a trained model does, as row-wise functions of tensors.

A row never depends on its neighbours: one seed per row, so that a server may batch
requests as it likes.
"""

import numpy as np
import tensorflow as tf

from keras_vae import checks, random


def sample(model, seed):
    """Draws x by seed: z from the prior, x from p(x|z).

    Args:
        model: `keras_vae.VAE`.
        seed: int32 or int64 tensor `[rows]`, one seed per row.

    Returns:
        Dict: `"x"` `[rows, *event]`, the draws; `"mean"` `[rows, *event]`, the means of
        p(x|z); `"z"` `[rows, *latent]`.
    """
    draw = random.row_noise(*random.seed_words(seed))
    prior, likelihood = model.prior, model.likelihood
    z = prior.sample(draw(prior.noise, prior.event_shape, random.PRIOR)[0])
    params = model.generate(z)
    noise = draw(likelihood.noise, likelihood.event_shape, random.OBSERVATION)
    return {
        "x": likelihood.sample(params, noise)[0],
        "mean": likelihood.distribution(params).mean(),
        "z": z,
    }


def sample_rows(model, n=None, seed=None, seeds=None):
    """`sample` for `n` rows of one seed, or for a list of row seeds.

    Raises:
        ValueError: unless either `n` or `seeds` is given, and for seeds that are no ints.
    """
    if (n is None) == (seeds is None) or (seed is not None and seeds is not None):
        raise ValueError(
            "Give either `n`, with a `seed` if you like, or `seeds`. "
            f"Received: n={n}, seed={seed}, seeds={seeds}"
        )
    if seeds is None:
        seed = random.fresh_seed() if seed is None else checks.int32(seed, "seed")
        seeds = random.sample_seeds(checks.positive_int(n, "n"), seed)
    seeds = np.asarray(seeds)
    if seeds.dtype.kind not in "iu" or seeds.ndim != 1 or not seeds.size:
        raise ValueError(
            "`seeds` must be ints of shape [rows], one for each row. "
            f"Received: dtype {seeds.dtype} of shape {seeds.shape}"
        )
    return sample(model, tf.constant(seeds.astype(np.int64)))
