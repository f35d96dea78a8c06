"""Checks and conversion of the arrays that are passed to `fit` and other methods."""

import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae import checks
from keras_vae.datasets.rows import MappedRows, RowsOnDisk
from keras_vae.training import tables

# Conversions to an array, for errors.
_DENSE = {
    list: "np.array(x)",
    tf.SparseTensor: "tf.sparse.to_dense(x)",
    tf.RaggedTensor: "x.to_tensor()",
}


def yields_batches(data: Any) -> bool:
    """Returns True if `data` yields batches by itself: tf.data, PyDataset, a generator."""
    plain = (list, tuple, dict, str, bytes, numbers.Number, type(None))
    sparse = (tf.SparseTensor, tf.RaggedTensor)
    is_array = hasattr(data, "__array__") or tables.is_sparse(data)
    return not (is_array or isinstance(data, (*plain, *sparse)))


def is_mapped(value: Any) -> bool:
    """Returns True if `value` is a memory-mapped array, or a slice of one."""
    return isinstance(value, np.memmap) and value.filename is not None


def as_array(value: Any, name: str) -> np.ndarray | RowsOnDisk:
    """Returns an array as NumPy (bool, an integer type or float32), or as `RowsOnDisk`.

    `RowsOnDisk` are returned unchanged. A memory-mapped array and a sparse matrix of SciPy
    become `RowsOnDisk`.

    Args:
        value: array of any library that NumPy understands.
        name: str, the argument's name for errors.

    Raises:
        ValueError: for anything that is not an array of numbers, and for an empty one; for
            columns of a data frame with text or missing values.
    """
    if isinstance(value, RowsOnDisk):
        return value
    if is_mapped(value):
        return MappedRows(value, name)
    if tables.is_sparse(value):
        return tables.SparseRows(value, name)
    if not hasattr(value, "__array__") or isinstance(value, tf.RaggedTensor):
        convert = next((c for kind, c in _DENSE.items() if isinstance(value, kind)), "")
        raise ValueError(
            f"`{name}` must be an array of numbers (NumPy, TensorFlow, pandas, ...)"
            f"{convert and f': {convert}'}. Received: {name} of type {type(value).__name__}"
        )
    if tables.is_frame(value):
        array = tables.from_frame(value, name)
    else:
        array = tables.numbers_in(np.asarray(value))
    checks.dtype(array.dtype, name)
    if array.dtype.kind not in "bui":
        with np.errstate(over="ignore"):  # too large values become infinite
            array = array.astype(np.float32, copy=False)
    if not array.size:
        raise ValueError(f"`{name}` is empty. Received: shape {array.shape}")
    return array


def plain_array(value: Any, name: str) -> Any:
    """Returns a number or a list of numbers as a NumPy array; anything else unchanged."""
    if not isinstance(value, (list, tuple, numbers.Number)):
        return value
    try:
        return np.asarray(value)
    except ValueError as error:  # ragged
        kind = type(value).__name__
        raise ValueError(
            f"`{name}` must be a rectangular array. Received: a {kind}: {error}"
        ) from None


def as_numbers(value: Any, name: str) -> np.ndarray:
    """Returns a condition as a NumPy array, of numbers where its elements are numbers."""
    value = value.toarray() if tables.is_sparse(value) else plain_array(value, name)
    return tables.numbers_in(np.asarray(value), missing=np.nan)


def select_rows(values: Any, rows: Any) -> Any:
    """Selects rows of each array or tensor in a structure; None stays None."""
    return map_arrays(lambda a: a[rows], values)


def check_labels(y: Any, rows: int, name: str) -> None:
    """Raises a ValueError unless `y` is None or a structure of arrays of `rows` rows."""
    if isinstance(y, list):
        raise ValueError(
            f"`{name}` must be an array: np.array(y). Received: {name} of type list"
        )
    for array in tf.nest.flatten(y):
        if array is not None and np.shape(array)[:1] != (rows,):
            raise ValueError(
                f"`{name}` must have one row for each row of x, {rows}. "
                f"Received: {name} of shape {np.shape(array)}"
            )


def check_weight(weight: Any, rows: int, name: str) -> np.ndarray | None:
    """Returns sample weights as an array `[rows]` or None, or raises a ValueError."""
    if weight is None:
        return None
    if np.shape(weight) != (rows,):
        raise ValueError(
            f"`{name}` must hold one number for each row of x: shape ({rows},). "
            f"Received: {name} of shape {np.shape(weight)}"
        )
    weight = as_array(np.asarray(weight), name)
    if weight.dtype.kind == "f" and not np.isfinite(weight).all():
        raise ValueError(
            f"`{name}` must be finite. Received: {(~np.isfinite(weight)).sum()} values of "
            "NaN or infinity"
        )
    return weight


def split_last(data: Any, fraction: float) -> tuple[Any, Any]:
    """Splits off the last rows, as Keras does for `validation_split`.

    Args:
        data: structure of arrays with equal numbers of rows, or None.
        fraction: float in (0, 1), the share of the rows to split off.

    Returns:
        (first, last): two structures like `data`.

    Raises:
        ValueError: if the fraction is out of range or leaves one side empty.
    """
    in_range = isinstance(fraction, (int, float)) and 0 < fraction < 1
    checks.require(in_range, "validation_split", "between 0 and 1", fraction)
    rows = len(tf.nest.flatten(data)[0])
    boundary = int(rows * (1 - fraction))
    if boundary in (0, rows):
        raise ValueError(
            f"`validation_split` leaves one side of the {rows} rows empty. "
            f"Received: validation_split={fraction}"
        )

    def part(rows):
        return map_arrays(
            lambda a: a.part(rows) if isinstance(a, RowsOnDisk) else a[rows], data
        )

    return part(slice(boundary)), part(slice(boundary, None))


def map_arrays(function: Callable, data: Any) -> Any:
    """Applies a function to each array of a structure; None stays None."""
    return tf.nest.map_structure(lambda a: None if a is None else function(a), data)
