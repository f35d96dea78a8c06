"""What a trained model does, as row-wise functions of tensors.

A row never depends on its neighbours: one seed per row, so that a server may batch
requests as it likes.
"""

import numpy as np
import tensorflow as tf

from keras_vae import checks, input, random


def sample(model, seed):
    """Draws x by seed: z from the prior, x from p(x|z).

    Args:
        model: `keras_vae.VAE`.
        seed: int32 or int64 tensor `[rows]`, one seed per row.

    Returns:
        Dict: `"x"` `[rows, *event]`, the draws; `"mean"` `[rows, *event]`, the means of
        p(x|z); `"z"` `[rows, *latent]`.
    """
    seed = tf.convert_to_tensor(seed)
    if seed.dtype not in (tf.int32, tf.int64):
        raise ValueError(
            f"`seed` must be int32 or int64. Received: dtype {seed.dtype.name}"
        )
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
    array = np.asarray(input.plain_array(seeds, "seeds"))
    if (
        array.ndim != 1
        or not array.size
        or array.dtype.kind not in "iu"
        or array.max() >= 2**63
    ):
        raise ValueError(
            "`seeds` must be ints of 64 bits and of shape [rows], one for each row. "
            f"Received: seeds of dtype {array.dtype} and shape {array.shape}"
        )
    return sample(model, array.astype(np.int64))
