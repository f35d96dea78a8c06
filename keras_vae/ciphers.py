"""Counter-based random number generators on tensors: Philox and Threefry.

Salmon et al. (2011), "Parallel Random Numbers: As Easy as 1, 2, 3".
"""

from typing import Any

import tensorflow as tf

# Threefry-2x32: the rotation distances of eight rounds, and the parity constant of the key
# schedule.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
# Philox-4x32: the factors of a round, and the constants that a round adds to the key.
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85


def philox_4x32(seed: int, low: Any, high: Any, size: Any) -> tf.Tensor:
    """Computes random words by Philox-4x32 with 10 rounds, with TensorFlow's kernel.

    The kernel returns the same words on every device, with and without XLA. That does not
    hold for the normals and uniforms that TensorFlow makes from these words, or for its
    default algorithm.

    Args:
        seed: int of 32 bits, the key, used modulo 2**32.
        low: int64 scalar tensor, the low half of the counter of the first block. A block
            has four words.
        high: int64 scalar tensor, the high half of the counter.
        size: int32 scalar tensor, the number of words.

    Returns:
        int32 `[size]`.
    """
    counter = tf.stack([tf.cast(low, tf.int64), tf.cast(high, tf.int64)])
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[size],
        key=tf.constant([seed % 2**32], tf.uint64),
        counter=tf.cast(counter, tf.uint64),
        alg=1,  # Philox
        dtype=tf.int32,
    )


def philox_blocks(seed: int, low: Any, high: Any, blocks: Any) -> list[tf.Tensor]:
    """Computes the blocks of `philox_4x32` with elementary operations.

    For code that XLA compiles: it fuses these operations into one loop, 15 times faster on
    a CPU than XLA's replacement of TensorFlow's kernel.

    Args:
        seed: int of 32 bits, the key.
        low: int64 scalar tensor, the low half of the counter of the first block.
        high: int64 scalar tensor, the high half of the counter.
        blocks: int32 scalar tensor, the number of blocks.

    Returns:
        List of four int32 `[blocks]`: the four words of each block.
    """
    index = tf.cast(low, tf.int64) + tf.range(tf.cast(blocks, tf.int64))
    high = tf.fill(tf.shape(index), tf.cast(high, tf.int64))
    (b, a), (d, c) = _halves(tf.cast(index, tf.uint64)), _halves(tf.cast(high, tf.uint64))
    for i in range(10):
        keys = [(k + i * w) % 2**32 for k, w in zip((seed % 2**32, 0), _WEYL, strict=True)]
        (p, q), (r, s) = _products(a, _MULTIPLIERS[0]), _products(c, _MULTIPLIERS[1])
        a, b, c, d = _xor(r, b, keys[0]), s, _xor(p, d, keys[1]), q
    return [tf.cast(word, tf.int32) for word in (a, b, c, d)]


def _products(word: tf.Tensor, factor: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Multiplies uint32 by a factor; returns the high and the low half of the product."""
    return _halves(tf.cast(word, tf.uint64) * tf.constant(factor, tf.uint64))


def _halves(words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits uint64 into its high and its low 32 bits."""
    high = tf.bitwise.right_shift(words, tf.constant(32, tf.uint64))
    return tf.cast(high, tf.uint32), tf.cast(words, tf.uint32)


def _xor(a: tf.Tensor, b: tf.Tensor, key: int) -> tf.Tensor:
    return tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(a, b), tf.constant(key, tf.uint32))


def threefry_2x32(
    key: tuple[Any, Any], counter: tuple[Any, Any], xla: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes Threefry-2x32 with 20 rounds, on int32 tensors that broadcast.

    Without `xla`, the only operations are add, subtract, multiply, xor and arithmetic right
    shift, which are builtin operators of LiteRT. int32 arithmetic wraps around on overflow,
    as the cipher requires.

    Args:
        key: pair of int32 tensors.
        counter: pair of int32 tensors.
        xla: bool, use operations that are fast in XLA; the words are the same.

    Returns:
        Pair of int32 tensors: the two random words.
    """
    rotate = _rotate_left_by_shifts if xla else _rotate_left
    xor = tf.bitwise.bitwise_xor
    keys = (*key, xor(xor(key[0], key[1]), _PARITY))
    a, b = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            a = a + b
            b = xor(rotate(b, distance), a)
        a = a + keys[(group + 1) % 3]
        b = b + keys[(group + 2) % 3] + (group + 1)
    return a, b


def _rotate_left(word: tf.Tensor, distance: int) -> tf.Tensor:
    # (word << d) + (word >>> (32 - d)), where >>> fills with zeros. The arithmetic shift
    # fills a negative word with ones; subtracting the sign first compensates for them.
    sign = tf.bitwise.right_shift(word, 31)
    return (word - sign) * 2**distance + tf.bitwise.right_shift(word, 32 - distance)


def _rotate_left_by_shifts(word: tf.Tensor, distance: int) -> tf.Tensor:
    # Fast in XLA. LiteRT has no left shift among its builtin operators.
    low = tf.bitwise.right_shift(word, 32 - distance) & (2**distance - 1)
    return tf.bitwise.left_shift(word, distance) | low
