"""Conditions of a conditional model: checks and embeds labels and numbers."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae import checks


class LabelCondition:
    """A label from 0 to classes - 1, or -1 if it is missing. Its embedding is one-hot.

    Args:
        classes: int, the number of labels.

    Attributes:
        config: int, the argument of `parse`.
        missing: int, the value of a missing label.
        shape: tuple, the shape of one label.
    """

    missing, shape = np.int32(-1), ()

    def __init__(self, classes: int):
        self.config = self.classes = classes

    def check(self, array: np.ndarray, name: str, optional: bool) -> np.ndarray:
        """Returns labels as int32, or raises a ValueError. Accepts -1 if `optional`."""
        expected = f"labels from 0 to {self.classes - 1}"
        if array.dtype.kind not in "iu":
            raise ValueError(
                f"`{name}` must hold {expected}, ints. "
                f"Received: {name} of dtype {array.dtype}"
            )
        array = array.astype(np.int64)
        invalid = (array < (-1 if optional else 0)) | (array >= self.classes)
        if invalid.any():
            raise ValueError(
                f"`{name}` must hold {expected}{', or -1 for a missing label' * optional}. "
                f"Received: {np.unique(array[invalid])[:5].tolist()}"
            )
        return array.astype(np.int32)

    def example(self, rows: int) -> np.ndarray:
        """Makes example labels, int32 `[rows]`."""
        return np.arange(rows, dtype=np.int32) % np.int32(self.classes)

    def keep(self, label: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        """Replaces labels by `missing` where the bool tensor `kept` is false."""
        return tf.where(kept, tf.cast(label, tf.int32), self.missing)

    def embed(self, label: tf.Tensor, optional: bool) -> tf.Tensor:
        """One-hot encodes labels `[rows]`: `[rows, classes]`, zeros for a missing label."""
        label = tf.cast(label, tf.int32)
        valid = (label >= (-1 if optional else 0)) & (label < self.classes)
        # An invalid label becomes NaN, not zeros, so that the training step is skipped.
        zero_or_nan = tf.sqrt(tf.cast(valid, tf.float32) - 1.0)
        return tf.one_hot(label, self.classes) + zero_or_nan[:, None]


class NumberCondition:
    """Numbers of a fixed shape, or NaN in a missing row.

    If rows may be missing, the embedding has a flag channel: 1 if present, 0 if missing.

    Args:
        shape: tuple of ints, the shape of the numbers of one row.

    Attributes:
        config: tuple, the argument of `parse`.
        missing: float, the value of missing numbers.
        shape: tuple of ints, the shape of the numbers of one row.
    """

    missing = np.float32("nan")

    def __init__(self, shape: tuple[int, ...]):
        self.config = self.shape = shape

    def check(self, array: np.ndarray, name: str, optional: bool) -> np.ndarray:
        """Returns numbers, or raises a ValueError. Accepts NaN if `optional`."""
        checks.dtype(array.dtype, name)
        if array.dtype.kind != "f":
            return array
        invalid = ~np.isfinite(array) & ~(np.isnan(array) & optional)
        if invalid.any():
            raise ValueError(
                f"`{name}` must be finite. "
                f"Received: {invalid.sum()} values of NaN or infinity"
            )
        return array.astype(np.float32)

    def example(self, rows: int) -> np.ndarray:
        """Makes example numbers, float32 `[rows, *shape]`."""
        numbers = np.sin(np.arange(rows * math.prod(self.shape)), dtype=np.float32)
        return numbers.reshape(rows, *self.shape)

    def keep(self, value: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        """Replaces numbers by `missing` in rows where the bool tensor `kept` is false."""
        kept = tf.reshape(kept, (-1, *[1] * len(self.shape)))
        return tf.where(kept, self._as_float(value), self.missing)

    def embed(self, value: tf.Tensor, optional: bool) -> tf.Tensor:
        """Casts numbers to float32 `[rows, ..., n]`; adds a flag channel if `optional`."""
        value = self._as_float(value)
        if not self.shape:
            value = value[:, None]
        if not optional:
            return value
        axes = range(1, value.shape.rank)
        present = tf.reduce_all(tf.equal(value, value), axis=axes, keepdims=True)
        flag = tf.cast(present, tf.float32) * tf.ones((1, *value.shape[1:-1], 1))
        return tf.concat([tf.where(present, value, 0.0), flag], axis=-1)

    @staticmethod
    def _as_float(value: tf.Tensor) -> tf.Tensor:
        scale = 255.0 if value.dtype == "uint8" else 1.0
        return tf.cast(value, tf.float32) / scale


def parse(condition: Any) -> Any:
    """Parses the argument `condition` of a model: one condition, or a dict of them.

    Args:
        condition: int, the number of labels; tuple, the shape of the numbers; or a dict
            from names to these.

    Returns:
        `LabelCondition` or `NumberCondition`, or a dict of them.

    Raises:
        ValueError: for any other value, and for a reserved name.
    """
    if isinstance(condition, dict):
        reserved = {"x", "z", "seed", "condition"}
        is_valid = condition and all(
            isinstance(key, str) and key.isidentifier() and key not in reserved
            for key in condition
        )
        expected = f"a dict whose keys are identifiers other than {sorted(reserved)}"
        checks.require(is_valid, "condition", expected, condition)
        return {
            key: _parse_one(value, f"condition[{key!r}]")
            for key, value in condition.items()
        }
    return _parse_one(condition, "condition")


def _parse_one(value: Any, name: str) -> LabelCondition | NumberCondition:
    if isinstance(value, (tuple, list)):
        return NumberCondition(checks.shape(value, name) if value else ())
    if isinstance(value, (bool, type(None), float, str)):
        expected = (
            "an int (the number of labels), a tuple (the shape of the numbers) or a dict"
        )
        checks.require(False, name, expected, value)
    return LabelCondition(checks.positive_int(value, name))
