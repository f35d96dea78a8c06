"""Random numbers: the only module of the package that draws them.

Two sources return the base noise that heads and priors turn into samples. Both are pure
functions, so no generator state has to be saved, and replicas cannot share one by mistake:

* `step_noise` for training: Philox. The key is the model's seed; the counter holds the
  step, the stream and the row's position in the global batch. A replica draws the numbers
  of its own rows only.
* `row_noise` for everything else: Threefry, keyed by one seed per row. The noise of a row
  does not depend on the other rows. For sampling it is a fixed *format*: every client
  (Python, TF Serving, LiteRT, browser) draws the same numbers from the same seed.

Both return a function `draw(kind, shape, stream, num_samples=1)`, which returns float32
noise `[num_samples, rows, *shape]`. `kind` is the attribute `noise` of a head or prior:
`"normal"`, `"uniform"`, or `"seed"`. The kind `"seed"` returns int32
`[num_samples, rows, 2]`: seeds for TFP's samplers, for families without a sampling formula.
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

# Streams of the format: the second counter word. Sample k of a stream uses the word
# `stream + STREAMS * k`; the format defines only sample 0.
PRIOR, POSTERIOR, OBSERVATION, TOKENS, ORDER, AUGMENTATION, CONDITION = range(7)
THRESHOLDS = 7
STREAMS = 16
# Added to the stream in evaluation, so that its noise differs from that of `sample`, which
# can have the same key.
EVALUATION = 8


def fresh_seed() -> int:
    """Draws a new seed (int) from Keras' global seed."""
    # Keras draws its own default seeds in the same way, from Python's generator, which
    # `keras.utils.set_random_seed` resets.
    generator = keras.random.SeedGenerator()
    return int(generator.state.numpy()[0])


def order(seed: int, epoch: int, rows: int) -> np.ndarray:
    """Returns the order of the rows in an epoch: a permutation, fixed by (seed, epoch).

    `tf.random.experimental.index_shuffle` is not used: for 60,000 rows it reads only 8 bits
    of each word of its seed, so epoch 256 would repeat epoch 0.

    Args:
        seed: int, the model's seed.
        epoch: int.
        rows: int, the number of rows.

    Returns:
        NumPy int32 `[rows]`.
    """
    words = ciphers.philox_4x32(seed, 0, epoch * STREAMS + ORDER, rows).numpy()
    # Sorts int64 numbers whose high half is the random word and whose low half is the row.
    # That is ten times faster than argsort, and stable if words are equal. The low half
    # comes first in memory.
    pairs = np.stack([np.arange(rows, dtype=np.int32), words], axis=1)
    pairs.view(np.int64)[:, 0].sort()
    return pairs[:, 0].copy()


class KeyedSeeds(keras.random.SeedGenerator):
    """Seeds for Keras' random layers: a function of (seed, epoch, batch), without state.

    Args:
        seed: int.
        epoch: int64 scalar tensor, the number of the epoch.
        batch: int64 scalar tensor, the position of the batch in the epoch.
    """

    def __init__(self, seed: int, epoch: tf.Tensor, batch: tf.Tensor):
        # Keras' constructor is not called: it would create a state variable.
        self.word = ciphers.philox_4x32(seed, batch, epoch * STREAMS + AUGMENTATION, 1)[0]
        self.drawn = 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        """Returns the next seed, int32 `[2]`."""
        self.drawn += 1
        return tf.stack([self.word, self.drawn])


def step_noise(seed: int, step: tf.Tensor, rows: tf.Tensor, offset: Any = 0) -> Draw:
    """Makes the source of base noise of one training step.

    Args:
        seed: int, the model's seed.
        step: int64 scalar tensor, the training step.
        rows: int32 scalar tensor, the number of rows of this replica.
        offset: int32 scalar tensor, the position of its first row in the global batch.

    Returns:
        A function `draw(kind, shape, stream, num_samples=1)`.
    """

    def draw(
        kind: str, shape: tuple[int, ...], stream: int, num_samples: int = 1
    ) -> tf.Tensor:
        n, *event = (2, 2) if kind == "seed" else (math.prod(shape), *shape)
        # XLA concatenates short parts one number at a time. So one block per normal is
        # cheaper than one block per four normals.
        blocks = n if kind == "normal" else -(-n // 4)
        first = tf.cast(offset, tf.int64) * num_samples * blocks
        high = step * STREAMS + stream
        words = ciphers.philox_blocks(seed, first, high, rows * num_samples * blocks)
        words = [tf.reshape(word, (rows, num_samples, blocks)) for word in words]
        if kind == "normal":
            noise = _normals(*words[:2])[0]
        else:
            pair = _TRANSFORMS[kind](tf.concat(words[:2], 2), tf.concat(words[2:], 2))
            noise = tf.concat(pair, axis=2)
        noise = noise[..., :n]  # [rows, num_samples, n]
        if num_samples > 1:
            noise = tf.transpose(noise, (1, 0, 2))
        return tf.reshape(noise, (num_samples, rows, *event))

    return draw


def row_noise(low: tf.Tensor, high: tf.Tensor, xla: bool = False) -> Draw:
    """Makes the source of base noise with one 64-bit seed per row: the fixed format.

    Threefry-2x32 with 20 rounds (Salmon et al., 2011, "Parallel Random Numbers: As Easy
    as 1, 2, 3"): the key is the row's seed as two words, the counter is (block, stream).
    Block i has the words a_i, b_i. A uniform is `u(a) = (2 * (a >>> 9) + 1) * 2**-24`: 23
    bits, never 0 or 1. n numbers need m = ceil(n / 2) blocks. n uniforms are the first n
    of u(a_0) .. u(a_{m-1}), u(b_0) .. u(b_{m-1}). n normals are the first n of r cos t for
    all blocks followed by r sin t for all blocks, with r = sqrt(-2 log u(a)) and
    t = 2 pi u(b) (Box and Muller, 1958).

    Args:
        low: int32 `[rows]`, the low words of the seeds.
        high: int32 `[rows]`, the high words. An int32 seed is sign-extended.
        xla: bool, compute the same noise with operations that are fast in code that XLA
            compiles.

    Returns:
        A function `draw(kind, shape, stream, num_samples=1, first=0)` for the samples
        `first` .. `first + num_samples - 1` of each row.
    """

    def draw(
        kind: str, shape: tuple[int, ...], stream: int, num_samples: int = 1, first: Any = 0
    ) -> tf.Tensor:
        n, *event = (2, 2) if kind == "seed" else (math.prod(shape), *shape)
        blocks = -(-n // 2)
        # XLA concatenates one number at a time, so with XLA each block is computed twice.
        index = tf.range(n if xla else blocks)
        counter = (
            (index % blocks)[None, None, :],
            (stream + STREAMS * (first + tf.range(num_samples)))[:, None, None],
        )
        key = low[None, :, None], high[None, :, None]
        pair = _TRANSFORMS[kind](*ciphers.threefry_2x32(key, counter, xla))
        # [num_samples, rows, n]
        noise = tf.where(index < blocks, *pair) if xla else tf.concat(pair, 2)[..., :n]
        return tf.reshape(noise, (num_samples, tf.shape(low)[0], *event))

    return draw


def _normals(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Turns two random words into two normals (Box and Muller, 1958)."""
    radius = tf.sqrt(-2.0 * tf.math.log(_uniform(a)))
    # 2 pi in two parts, for exported files with float16 constants: 6.28125 is exact in
    # float16, so their draws agree to 1e-6.
    turn = _uniform(b)
    angle = turn * 6.28125 + turn * (2.0 * math.pi - 6.28125)
    return radius * tf.cos(angle), radius * tf.sin(angle)


def _uniform(word: tf.Tensor) -> tf.Tensor:
    """Turns a random word into a uniform number in (0, 1), see `row_noise`."""
    bits = tf.bitwise.right_shift(word, 9) - tf.bitwise.right_shift(word, 31) * 2**23
    return tf.cast(2 * bits + 1, tf.float32) * 2.0**-24


# Turns two random words into two numbers of a kind.
_TRANSFORMS: dict[str, Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]] = {
    "normal": _normals,
    "uniform": lambda a, b: (_uniform(a), _uniform(b)),
    "seed": lambda a, b: (a, b),
}


def seed_words(seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits seeds into the two words of a Threefry key.

    Args:
        seeds: integer tensor `[rows]`, int32 or int64.

    Returns:
        (low, high), each int32 `[rows]`. An int32 seed is sign-extended, so that it gives
        the same key as the int64 seed of the same value.
    """
    low = tf.cast(seeds, tf.int32)  # keeps the low 32 bits
    sign = tf.bitwise.right_shift(low, 31)
    if seeds.dtype == tf.int32:
        return low, sign
    # `seeds - low` is a multiple of 2**32. It is one multiple too large if low is negative.
    return low, tf.cast((seeds - tf.cast(low, tf.int64)) // 2**32, tf.int32) + sign


def sample_seeds(n: int, seed: int) -> np.ndarray:
    """Returns the row seeds of `sample(n, seed=seed)`: `seed * 1000003 + i` in int32.

    Args:
        n: int, the number of rows.
        seed: int.

    Returns:
        NumPy int32 `[n]`.
    """
    wrapped = (int(seed) * 1_000_003 + np.arange(n, dtype=object)) & 0xFFFFFFFF
    return wrapped.astype(np.uint32).view(np.int32)
