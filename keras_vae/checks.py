"""Checks of arguments. An error names the argument, the rule and the value."""

import contextlib
import math
import numbers
import os
import pathlib
from typing import Any

import numpy as np


def require(condition: Any, name: str, expected: str, value: Any) -> None:
    """Raises a ValueError for the argument `name` unless the condition holds."""
    if not condition:
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")


def positive_int(value: Any, name: str) -> int:
    """Returns `value` as an int. Raises a ValueError unless it is an int of at least 1."""
    require(
        _is_number(value, numbers.Integral) and value >= 1, name, "a positive int", value
    )
    return int(value)


def positive_ints_or_none(**values: Any) -> None:
    """Raises a ValueError for the first named value that is not a positive int or None."""
    for name, value in values.items():
        if value is not None:
            positive_int(value, name)


def non_negative(value: Any, name: str) -> float:
    """Returns `value` as a float. Raises unless it is a finite number of at least 0."""
    number = _finite(value)
    require(number >= 0, name, "a finite number of 0 or more", value)
    return number


def positive(value: Any, name: str) -> float:
    """Returns `value` as a float. Raises unless it is a finite number above 0."""
    number = _finite(value)
    require(number > 0, name, "a finite number above 0", value)
    return number


def short(text: str | None) -> str | None:
    """Shortens a text for a message to at most 80 characters. None stays None."""
    return text if text is None or len(text) < 80 else f"{text[:76]} ..."


def int32(value: Any, name: str) -> int:
    """Returns `value` as an int. Raises a ValueError unless it is an int of 32 bits."""
    is_valid = _is_number(value, numbers.Integral) and -(2**31) <= value < 2**31
    require(is_valid, name, "an int of 32 bits (-2**31 to 2**31 - 1)", value)
    return int(value)


def path(value: Any, name: str) -> pathlib.Path:
    """Returns `value` as a `pathlib.Path`. Raises a ValueError if it is not a path."""
    is_path = isinstance(value, (str, os.PathLike)) and "\0" not in str(value)
    require(is_path, name, "a path", value)
    return pathlib.Path(value)


def dtype(value: Any, name: str) -> None:
    """Raises a ValueError unless `value`, of NumPy or TensorFlow, is a numeric dtype."""
    numpy_dtype = np.dtype(getattr(value, "as_numpy_dtype", value))
    if numpy_dtype.kind not in "buif" and numpy_dtype.name != "bfloat16":
        shown = value.name if hasattr(value, "as_numpy_dtype") else value
        raise ValueError(
            f"`{name}` must hold numbers: bool, an integer type or a float type. "
            f"Received: {name} of dtype {shown}"
        )


def shape(value: Any, name: str) -> tuple[int, ...]:
    """Returns `value` as a tuple. Raises unless it is a sequence of positive ints."""
    try:
        dims = tuple(value)
    except TypeError:
        dims = ()
    is_shape = dims and all(_is_number(d, numbers.Integral) and d >= 1 for d in dims)
    require(is_shape, name, "a tuple of positive ints, such as (20,) or (28, 28, 1)", value)
    return tuple(int(d) for d in dims)


def _is_number(value: Any, kind: type) -> bool:
    """Returns True if `value` is a number of this kind. A bool is not a number."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _finite(value: Any) -> float:
    """Returns a finite real number as a float, and NaN for anything else."""
    if _is_number(value, numbers.Real):
        with contextlib.suppress(OverflowError):  # an int beyond the range of floats
            number = float(value)
            return number if math.isfinite(number) else math.nan
    return math.nan
