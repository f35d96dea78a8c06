"""Where noise comes from: the only place in the package that draws random numbers.

Two sources give the base noise that heads and priors turn into samples, and both are
pure functions, so that there is no generator state to save, to lose, or to share by
mistake between replicas:

* `step_noise` for training: Philox, keyed by (model seed, step, stream), and counted by
  the row's place in the global batch, so that a replica draws its own rows and no others.
* `row_noise` for everything else: Threefry, keyed by one seed per row. A row's noise
  does not depend on its neighbours. For sampling it is a *file format*: every client
  (Python, TF Serving, LiteRT, browser) draws the same numbers from the same seed.

Both return a function `draw(kind, shape, stream, num_samples=1)` that gives float32
noise `[num_samples, rows, *shape]`. `kind` is what a head says it needs: `"normal"`,
`"uniform"`, or `"seed"`: int32 `[num_samples, rows, 2]`, seeds for TFP's own samplers, the
way out of families without a formula.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import ciphers

# draw(kind, shape, stream, num_samples=1) -> float32 `[num_samples, rows, *shape]`.
Draw = Callable[..., tf.Tensor]

# The streams of the file format: the second counter word. Sample k of a stream uses the
# word `stream + STREAMS * k`, so that the first sample is the one of the file format.
PRIOR, POSTERIOR, OBSERVATION, TOKENS, ORDER, AUGMENTATION, CONDITION = range(7)
STREAMS = 16
# Added to a stream in evaluation, whose keys are also those of sampled rows.
EVALUATION = 8


def fresh_seed() -> int:
    """Returns a new seed (int), drawn from Keras' global seed."""
    # Keras' own default seeds come from there too: from Python's generator, which
    # `keras.utils.set_random_seed` resets.
    generator = keras.random.SeedGenerator()
    return int(generator.state.numpy()[0])


def order(seed: int, epoch: int, rows: int) -> np.ndarray:
    """The order of the rows in an epoch: a permutation, a function of (seed, epoch).

    Not `tf.random.experimental.index_shuffle`: for 60,000 rows that reads 8 bits of each
    word of its seed, so that epoch 256 would be epoch 0 again.

    Args:
        seed: int, the model's seed.
        epoch: int.
        rows: int.

    Returns:
        NumPy int32 `[rows]`.
    """
    words = ciphers.philox_4x32(seed, 0, epoch * STREAMS + ORDER, rows).numpy()
    # Word and place as the high and the low half of one number: sorting those is ten times
    # faster than argsort, and stable where words are equal. The low half comes first.
    pairs = np.stack([np.arange(rows, dtype=np.int32), words], axis=1)
    pairs.view(np.int64)[:, 0].sort()
    return pairs[:, 0].copy()


class KeyedSeeds(keras.random.SeedGenerator):
    """Seeds for Keras' own random layers that are a function of a key, without a state.

    Args:
        seed: int.
        epoch: int64 scalar tensor, the pass over the data.
        batch: int64 scalar tensor, the place of the batch in the pass.
    """

    def __init__(self, seed: int, epoch: tf.Tensor, batch: tf.Tensor):
        # Not Keras' constructor, which makes the variable that this one does without.
        self.word = ciphers.philox_4x32(seed, batch, epoch * STREAMS + AUGMENTATION, 1)[0]
        self.drawn = 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        """The next seed, int32 `[2]`."""
        self.drawn += 1
        return tf.stack([self.word, self.drawn])


def step_noise(seed: int, step: tf.Tensor, rows: tf.Tensor, offset: Any = 0) -> Draw:
    """Base noise of one training step.

    Args:
        seed: int, the model's seed.
        step: int64 scalar tensor, the training step.
        rows: int32 scalar tensor, the rows of this replica.
        offset: int32 scalar tensor, where they begin in the global batch.

    Returns:
        A function `draw(kind, shape, stream, num_samples=1)`.
    """

    def draw(kind, shape, stream, num_samples=1):
        n, *event = (2, 2) if kind == "seed" else (math.prod(shape), *shape)
        # XLA computes what it concatenates number by number unless the parts are long: a
        # block for each normal is cheaper than one for four.
        blocks = n if kind == "normal" else -(-n // 4)
        first = tf.cast(offset, tf.int64) * num_samples * blocks
        high = step * STREAMS + stream
        words = ciphers.philox_blocks(seed, first, high, rows * num_samples * blocks)
        words = [tf.reshape(word, (rows, num_samples, blocks)) for word in words]
        if kind == "normal":
            noise = _polar(*words[:2])[0]
        else:
            pair = _FROM_WORDS[kind](tf.concat(words[:2], 2), tf.concat(words[2:], 2))
            noise = tf.concat(pair, axis=2)
        noise = noise[..., :n]  # [rows, num_samples, n]
        if num_samples > 1:
            noise = tf.transpose(noise, (1, 0, 2))
        return tf.reshape(noise, (num_samples, rows, *event))

    return draw


def row_noise(low: tf.Tensor, high: tf.Tensor, xla: bool = False) -> Draw:
    """Base noise from one 64-bit seed per row: the file format of seeded sampling.

    Threefry-2x32 with 20 rounds (Salmon et al., 2011, "Parallel Random Numbers: As Easy
    as 1, 2, 3"): the key is the row's seed as two words, the counter is (block, stream).
    Block i gives the words a_i, b_i. A uniform is `(2 * (word >>> 9) + 1) * 2**-24`: 23
    bits, never 0 or 1. n uniforms are those of a_0 .. a_{m-1}, then of b_0 .. b_{m-1},
    cut to n, with m = ceil(n / 2). n normals are r cos t for all blocks, then r sin t, cut
    to n, with r = sqrt(-2 log u(a)) and t = 2 pi u(b) (Box and Muller, 1958).

    Args:
        low: int32 `[rows]`, the low words of the seeds.
        high: int32 `[rows]`, the high words. An int32 seed is sign-extended.
        xla: bool, the same noise by the operations that XLA is fast with, for the inside
            of what it compiles.

    Returns:
        A function `draw(kind, shape, stream, num_samples=1, first=0)` for the samples
        `first` .. `first + num_samples - 1` of each row.
    """

    def draw(kind, shape, stream, num_samples=1, first=0):
        n, *event = (2, 2) if kind == "seed" else (math.prod(shape), *shape)
        blocks = -(-n // 2)
        # XLA computes what it concatenates number by number. It gets each block twice.
        place = tf.range(n if xla else blocks)
        counter = (
            (place % blocks)[None, None, :],
            (stream + STREAMS * (first + tf.range(num_samples)))[:, None, None],
        )
        key = low[None, :, None], high[None, :, None]
        pair = _FROM_WORDS[kind](*ciphers.threefry_2x32(key, counter, xla))
        # [num_samples, rows, n]
        noise = tf.where(place < blocks, *pair) if xla else tf.concat(pair, 2)[..., :n]
        return tf.reshape(noise, (num_samples, tf.shape(low)[0], *event))

    return draw


def _polar(a, b):
    """Two normals of two words (Box and Muller, 1958)."""
    radius = tf.sqrt(-2.0 * tf.math.log(_uniform(a)))
    # 2 pi in two parts: a file with its constants in float16 draws the same to 1e-6.
    turn = _uniform(b)
    angle = turn * 6.28125 + turn * (2.0 * math.pi - 6.28125)
    return radius * tf.cos(angle), radius * tf.sin(angle)


def _uniform(word):
    bits = tf.bitwise.right_shift(word, 9) - tf.bitwise.right_shift(word, 31) * 2**23
    return tf.cast(2 * bits + 1, tf.float32) * 2.0**-24


# Two random words -> two numbers.
_FROM_WORDS = {
    "normal": _polar,
    "uniform": lambda a, b: (_uniform(a), _uniform(b)),
    "seed": lambda a, b: (a, b),
}


def seed_words(seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits seeds into the two words of a Threefry key.

    Args:
        seeds: integer tensor `[rows]`, int32 or int64.

    Returns:
        (low, high), each int32 `[rows]`. An int32 seed is sign-extended, so that it and
        the int64 of the same value are one key.
    """
    low = tf.cast(seeds, tf.int32)  # keeps the low 32 bits
    sign = tf.bitwise.right_shift(low, 31)
    if seeds.dtype == tf.int32:
        return low, sign
    # `seeds - low` is a multiple of 2**32, one too many where low counts as negative.
    return low, tf.cast((seeds - tf.cast(low, tf.int64)) // 2**32, tf.int32) + sign


def sample_seeds(n: int, seed: int) -> np.ndarray:
    """The row seeds of `sample(n, seed=seed)`: `seed * 1000003 + i` in int32.

    Args:
        n: int, how many rows.
        seed: int.

    Returns:
        NumPy int32 `[n]`.
    """
    wrapped = (int(seed) * 1_000_003 + np.arange(n, dtype=object)) & 0xFFFFFFFF
    return wrapped.astype(np.uint32).view(np.int32)
