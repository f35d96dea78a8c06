"""Conditions of a conditional model: how labels and numbers are checked and embedded."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae import checks


class LabelCondition:
    """A label from 0 to classes - 1, -1 where it is missing; embedded one-hot.

    Args:
        classes: int, the number of labels.

    Attributes:
        config: int, the argument as `parse` takes it.
        missing: int, the value of a missing label.
        shape: tuple, the shape of one label.
    """

    missing, shape = np.int32(-1), ()

    def __init__(self, classes: int):
        self.config = self.classes = classes

    def check(self, array: np.ndarray, name: str, optional: bool) -> np.ndarray:
        """Returns labels as int32, or raises a ValueError; -1 only if `optional`."""
        labels = f"labels from 0 to {self.classes - 1}"
        if array.dtype.kind not in "iu":
            raise ValueError(
                f"`{name}` must hold {labels}, ints. "
                f"Received: {name} of dtype {array.dtype}"
            )
        array = array.astype(np.int64)
        wrong = (array < (-1 if optional else 0)) | (array >= self.classes)
        if wrong.any():
            raise ValueError(
                f"`{name}` must hold {labels}{', or -1 for a missing one' * optional}. "
                f"Received: {np.unique(array[wrong])[:5].tolist()}"
            )
        return array.astype(np.int32)

    def example(self, rows: int) -> np.ndarray:
        """Makes labels of `rows` rows."""
        return np.arange(rows, dtype=np.int32) % np.int32(self.classes)

    def keep(self, label: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        """Replaces labels by `missing` where the bool tensor `kept` is false."""
        return tf.where(kept, tf.cast(label, tf.int32), self.missing)

    def embed(self, label: tf.Tensor, optional: bool) -> tf.Tensor:
        """Returns labels `[rows]` one-hot, `[rows, classes]`; zeros for a missing one."""
        label = tf.cast(label, tf.int32)
        known = (label >= (-1 if optional else 0)) & (label < self.classes)
        # NaN, not zeros, for an unknown label: such a step is skipped.
        hole = tf.sqrt(tf.cast(known, tf.float32) - 1.0)
        return tf.one_hot(label, self.classes) + hole[:, None]


class NumberCondition:
    """Numbers of a shape, NaN where a row is missing; embedded with a flag that says so.

    Args:
        shape: tuple of ints, the shape of the numbers of one row.

    Attributes:
        config: tuple, the argument as `parse` takes it.
        missing: float, the value of missing numbers.
        shape: tuple of ints.
    """

    missing = np.float32("nan")

    def __init__(self, shape: tuple):
        self.config = self.shape = shape

    def check(self, array: np.ndarray, name: str, optional: bool) -> np.ndarray:
        """Returns numbers, or raises a ValueError; NaN only if `optional`."""
        checks.dtype(array.dtype, name)
        if array.dtype.kind != "f":
            return array
        wrong = ~np.isfinite(array) & ~(np.isnan(array) & optional)
        if wrong.any():
            raise ValueError(
                f"`{name}` must be finite. "
                f"Received: {wrong.sum()} values of NaN or infinity"
            )
        return array.astype(np.float32)

    def example(self, rows: int) -> np.ndarray:
        """Makes numbers of `rows` rows."""
        numbers = np.sin(np.arange(rows * math.prod(self.shape)), dtype=np.float32)
        return numbers.reshape(rows, *self.shape)

    def keep(self, value: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        """Replaces numbers by `missing` in rows where the bool tensor `kept` is false."""
        kept = tf.reshape(kept, (-1, *[1] * len(self.shape)))
        return tf.where(kept, self._as_float(value), self.missing)

    def embed(self, value: tf.Tensor, optional: bool) -> tf.Tensor:
        """Returns float32 numbers `[rows, ..., n]`, with a flag channel if `optional`."""
        value = self._as_float(value)
        if not self.shape:
            value = value[:, None]
        if not optional:
            return value
        axes = range(1, value.shape.rank)
        known = tf.reduce_all(tf.equal(value, value), axis=axes, keepdims=True)
        flag = tf.cast(known, tf.float32) * tf.ones((1, *value.shape[1:-1], 1))
        return tf.concat([tf.where(known, value, 0.0), flag], axis=-1)

    @staticmethod
    def _as_float(value):
        scale = 255.0 if value.dtype == "uint8" else 1.0
        return tf.cast(value, tf.float32) / scale


def parse(condition: Any) -> Any:
    """Reads the argument `condition` of a model: a condition, or a dict of them by name.

    Args:
        condition: int, the number of labels; tuple, the shape of numbers; or a dict.

    Returns:
        `LabelCondition` or `NumberCondition`, or a dict of them.

    Raises:
        ValueError: for anything else, and for names that a model has already.
    """
    if isinstance(condition, dict):
        taken = {"x", "z", "seed", "condition"}
        named = condition and all(
            isinstance(key, str) and key.isidentifier() and key not in taken
            for key in condition
        )
        expected = f"a dict by names other than {sorted(taken)}"
        checks.require(named, "condition", expected, condition)
        return {
            key: _parse_one(value, f"condition[{key!r}]")
            for key, value in condition.items()
        }
    return _parse_one(condition, "condition")


def _parse_one(value, name):
    if isinstance(value, (tuple, list)):
        return NumberCondition(checks.shape(value, name) if value else ())
    if isinstance(value, (bool, type(None), float, str)):
        expected = (
            "an int, how many labels there are, a tuple, the shape of numbers, or a dict"
        )
        checks.require(False, name, expected, value)
    return LabelCondition(checks.positive_int(value, name))
