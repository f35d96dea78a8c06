"""Checks of arguments: an error names the argument, what was expected and what came."""

import math
import numbers
import os
import pathlib

import numpy as np


def require(condition, name, expected, value):
    """Raises a ValueError for the argument `name` unless the condition holds."""
    if not condition:
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")


def positive_int(value, name):
    """Returns `value` as an int if it is one of 1 or more, else raises a ValueError."""
    require(_is(numbers.Integral, value) and value >= 1, name, "a positive int", value)
    return int(value)


def positive_ints_or_none(**values):
    """Raises a ValueError for the first of the named values that is neither."""
    for name, value in values.items():
        if value is not None:
            positive_int(value, name)


def non_negative(value, name):
    """Returns `value` as a float if it is a finite number of 0 or more, else raises."""
    fits = _is(numbers.Real, value) and math.isfinite(value) and value >= 0
    require(fits, name, "a finite number of 0 or more", value)
    return float(value)


def positive(value, name):
    """Returns `value` as a float if it is a finite number above 0, else raises."""
    fits = _is(numbers.Real, value) and math.isfinite(value) and value > 0
    require(fits, name, "a finite number above 0", value)
    return float(value)


def short(text):
    """The text as it fits into a message; None is None."""
    return text if text is None or len(text) < 80 else f"{text[:76]} ..."


def int32(value, name):
    """Returns `value` as an int if it is one of 32 bits, else raises a ValueError."""
    fits = _is(numbers.Integral, value) and -(2**31) <= value < 2**31
    require(fits, name, "an int of 32 bits (-2**31 to 2**31 - 1)", value)
    return int(value)


def path(value, name):
    """Returns `value` as a `pathlib.Path` if it can be one, else raises a ValueError."""
    fits = isinstance(value, (str, os.PathLike)) and "\0" not in str(value)
    require(fits, name, "a path", value)
    return pathlib.Path(value)


def dtype(value, name):
    """Raises a ValueError unless `value`, of NumPy or TensorFlow, is a numeric dtype."""
    numpy = np.dtype(getattr(value, "as_numpy_dtype", value))
    if numpy.kind not in "buif" and numpy.name != "bfloat16":
        shown = value.name if hasattr(value, "as_numpy_dtype") else value
        raise ValueError(
            f"`{name}` must hold numbers: bool, an integer type or a float type. "
            f"Received: {name} of dtype {shown}"
        )


def shape(value, name):
    """Returns `value` as a tuple of one or more positive ints, else raises a ValueError."""
    try:
        dims = tuple(value)
    except TypeError:
        dims = ()
    fits = dims and all(_is(numbers.Integral, d) and d >= 1 for d in dims)
    require(fits, name, "a tuple of positive ints, such as (20,) or (28, 28, 1)", value)
    return tuple(int(d) for d in dims)


def _is(kind, value):
    return isinstance(value, kind) and not isinstance(value, bool)
