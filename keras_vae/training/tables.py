"""Tables in memory: data frames, and SciPy's sparse matrices."""

import decimal
import numbers
from typing import Any

import numpy as np

from keras_vae import checks
from keras_vae.datasets.rows import RowsOnDisk


def is_sparse(value: Any) -> bool:
    """Returns True for a sparse matrix or array of SciPy."""
    return hasattr(value, "tocsr")


def is_frame(value: Any) -> bool:
    """Returns True for a data frame of pandas or polars, or a table of PyArrow."""
    names = "columns", "column_names"
    return hasattr(value, "__array__") and any(hasattr(value, name) for name in names)


class SparseRows(RowsOnDisk):
    """Rows of a sparse matrix of SciPy, made dense when a batch needs them.

    The values are returned as float32 or bool: integer counts, of uint8 too, are not
    scaled.

    Args:
        matrix: matrix or array of `scipy.sparse`, of any format, `[rows, columns]`.
        name: str, the argument's name for errors.

    Raises:
        ValueError: for a matrix that is empty or not 2-dimensional, or not of numbers.
    """

    def __init__(self, matrix: Any, name: str):
        if matrix.ndim != 2 or not all(matrix.shape):
            raise ValueError(
                f"`{name}` must be a sparse matrix of one row or more. "
                f"Received: shape {matrix.shape}"
            )
        checks.dtype(matrix.dtype, name)
        self.dtype = np.dtype(bool if matrix.dtype == bool else np.float32)
        self.shape = matrix.shape
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite
            self.matrix = matrix.tocsr().astype(self.dtype, copy=False)

    def rows(self, index: np.ndarray) -> np.ndarray:
        return self.matrix[index].toarray()

    def sample_rows(self) -> np.ndarray:
        """Returns evenly spaced rows, and those of the smallest and the largest value."""
        count = max(1, min(len(self), self.most_sampled, 2**22 // self.shape[1]))
        index = np.linspace(0, len(self) - 1, count).astype(np.int64)
        if self.matrix.nnz:
            values = self.matrix.data
            extremes = [values.argmin(), values.argmax()]  # or the first NaN
            found = np.searchsorted(self.matrix.indptr, extremes, side="right") - 1
            index = np.concatenate([index, found])
        return self.rows(index)


def from_frame(frame: Any, name: str) -> np.ndarray:
    """Converts a data frame to an array `[rows, columns]` of numbers.

    Columns of nullable types and of Python's numbers are converted. Columns of different
    types become float32.

    Args:
        frame: data frame of pandas or polars, or a table of PyArrow.
        name: str, the argument's name for errors.

    Raises:
        ValueError: for columns that are not numbers, and for missing values; the message
            names the columns.
    """
    dtypes = {*getattr(frame, "dtypes", ())}
    if len(dtypes) == 1 and isinstance(dtype := dtypes.pop(), np.dtype):
        array = np.asarray(frame)  # of pandas, which stores such columns together
        if dtype.kind in "bui" or (dtype.kind == "f" and not np.isnan(array).any()):
            return array
    labels, columns = zip(*_columns(frame), strict=True) if len(frame.columns) else ((), ())
    arrays = [_numbers(column) for column in columns]
    text, missing = [], []
    for label, column, array in zip(labels, columns, arrays, strict=True):
        if array is None:
            kind = getattr(column, "dtype", None) or getattr(column, "type", "object")
            text.append(f"{label!r} ({kind})")
        elif array.dtype.kind == "f" and np.isnan(array).any():
            missing.append(f"{label!r} ({np.isnan(array).sum()})")
    if text or missing:
        raise ValueError(_message(name, text, missing, hasattr(frame, "to_dummies")))
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) > 1:  # uint8 would be divided by 255
        with np.errstate(over="ignore"):
            arrays = [array.astype(np.float32) for array in arrays]
    return np.stack(arrays).T if arrays else np.empty((len(frame), 0))


def _message(name, text, missing, polars):
    remedies, problems = [], []
    if text:
        code = "x.to_dummies([...])" if polars else "pd.get_dummies(x, columns=[...])"
        remedies.append(f"encode text and categories as numbers, such as {code}")
        problems.append(f"columns that are not numbers: {_listed(text)}")
    if missing:
        code = 'strategy="mean"' if polars else "x.mean(numeric_only=True)"
        method = "fill_null" if polars else "fillna"
        remedies.append(f"fill missing values, such as x.{method}({code})")
        problems.append(f"missing values in {_listed(missing)}")
    remedies.append(f"drop columns, x.drop({'' if polars else 'columns='}[...])")
    return (
        f"`{name}` must have columns of numbers without missing values: "
        f"{' or '.join(remedies)}. Received: {'; '.join(problems)}"
    )


def _columns(frame):
    if hasattr(frame, "column_names"):  # PyArrow
        return zip(frame.column_names, frame.columns, strict=True)
    if hasattr(frame, "get_columns"):  # polars
        return zip(frame.columns, frame.get_columns(), strict=True)
    return frame.items()


def _numbers(column):
    """Returns a column as an array of numbers, NaN where one is missing, or None."""
    if str(getattr(column, "dtype", "")) == "category":  # of pandas: labels, also as ints
        return None
    array = numbers_in(np.asarray(column), missing=np.nan)
    return array if array.dtype.kind in "buif" else None


def numbers_in(array: np.ndarray, missing: Any = None) -> np.ndarray:
    """Converts an array of Python's numbers to an array of numbers.

    Args:
        array: array of any dtype.
        missing: the value of missing elements: None, pd.NA. None does not accept them.

    Returns:
        A new array, or the array itself if it has another dtype or holds other objects.
    """
    if array.dtype.kind != "O":
        return array
    flat = [missing if _is_missing(v) else v for v in array.ravel()]
    if not all(isinstance(v, (numbers.Real, np.bool_, decimal.Decimal)) for v in flat):
        return array
    values = [float(v) if isinstance(v, decimal.Decimal) else v for v in flat]
    return np.array(values).reshape(array.shape)


def _is_missing(value):
    return value is None or type(value).__name__ == "NAType"


def _listed(items, most=5):
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
