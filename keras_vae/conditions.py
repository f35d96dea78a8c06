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
        """Returns labels as int32, or raises a ValueError. Accepts -1 if `optional`.

        Accepts bool and floats without a fraction, too.
        """
        expected = f"labels from 0 to {self.classes - 1}"
        variable = name.split()[-1]  # without the prefix of validation data
        if array.dtype.kind not in "buif":
            raise ValueError(
                f"`{name}` must hold {expected}, ints. Number the labels: classes, "
                f"{variable} = np.unique({variable}, return_inverse=True). "
                f"Received: {name} of dtype {array.dtype}, such as "
                f"{checks.short(repr(array.ravel()[:1].tolist()))}"
            )
        valid = (array >= (-1 if optional else 0)) & (array < self.classes)
        valid &= array == np.floor(array) if array.dtype.kind == "f" else True
        if not valid.all():
            wrong = np.unique(array[~valid])
            shifted = bool(wrong.tolist() == [self.classes] and array.min() == 1)
            raise ValueError(
                f"`{name}` must hold {expected}{', or -1 for a missing label' * optional}"
                f"{f': pass {variable} - 1' * shifted}. Received: {wrong[:5].tolist()}"
            )
        return array.astype(np.int32)

    def by_row(self, array: np.ndarray, name: str) -> np.ndarray:
        """Converts labels `[rows, 1]` or one-hot `[rows, classes]` to `[rows]`."""
        if array.ndim != 2 or array.shape[1] not in (1, self.classes):
            return array
        if array.shape[1] == 1:
            return array[:, 0]
        is_one = array == 1
        if not (is_one | (array == 0)).all() or (is_one.sum(axis=1) != 1).any():
            raise ValueError(
                f"`{name}` must hold labels, or rows of {self.classes} values with one 1 "
                f"and zeros: use {name.split()[-1]}.argmax(axis=1), or the constructor's "
                f"condition=({self.classes},) for other numbers. Received: {array[:1]}"
            )
        return is_one.argmax(axis=1)

    def example(self, rows: int) -> np.ndarray:
        """Makes example labels, int32 `[rows]`."""
        return np.arange(rows, dtype=np.int32) % np.int32(self.classes)

    def keep(self, label: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        """Replaces labels by `missing` where the bool tensor `kept` is false."""
        return tf.where(kept, self._labels(label), self.missing)

    def embed(self, label: tf.Tensor, optional: bool) -> tf.Tensor:
        """One-hot encodes labels `[rows]`: `[rows, classes]`, zeros for a missing label."""
        label = self._labels(label)
        valid = (label >= (-1 if optional else 0)) & (label < self.classes)
        # An invalid label becomes NaN, not zeros, so that the training step is skipped.
        zero_or_nan = tf.sqrt(tf.cast(valid, tf.float32) - 1.0)
        return tf.one_hot(label, self.classes) + zero_or_nan[:, None]

    def _labels(self, label: tf.Tensor) -> tf.Tensor:
        """Converts labels of any form, see `by_row`, to int32 `[rows]`; -2 if invalid."""
        label = tf.cast(label, tf.int32)
        if label.shape.rank != 2:
            return label
        if label.shape[1] == 1:
            return label[:, 0]
        is_one_hot = tf.reduce_sum(tf.abs(label), axis=1) == 1
        return tf.where(is_one_hot, tf.argmax(label, 1, output_type=tf.int32), -2)


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

    def by_row(self, array: np.ndarray, name: str) -> np.ndarray:
        """Converts numbers `[rows, 1]` to `[rows]`, if a row has one number."""
        return array[:, 0] if not self.shape and array.shape[1:] == (1,) else array

    def example(self, rows: int) -> np.ndarray:
        """Makes example numbers, float32 `[rows, *shape]`."""
        numbers = np.sin(np.arange(rows * math.prod(self.shape)), dtype=np.float32)
        return numbers.reshape(rows, *self.shape)

    def keep(self, value: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        """Replaces numbers by `missing` in rows where the bool tensor `kept` is false."""
        kept = tf.reshape(kept, (-1, *[1] * len(self.shape)))
        value = tf.reshape(self._as_float(value), (-1, *self.shape))
        return tf.where(kept, value, self.missing)

    def embed(self, value: tf.Tensor, optional: bool) -> tf.Tensor:
        """Casts numbers to float32 `[rows, ..., n]`; adds a flag channel if `optional`."""
        value = self._as_float(value)
        if not self.shape:
            value = tf.reshape(value, (-1, 1))
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
