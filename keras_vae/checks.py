"""Checks of arguments: an error names the argument, what was expected and what came."""

import math
import numbers


def positive_int(value, name):
    """Returns `value` as an int if it is one of 1 or more, else raises a ValueError."""
    if not _is(numbers.Integral, value) or value < 1:
        raise ValueError(f"`{name}` must be a positive int. Received: {name}={value!r}")
    return int(value)


def non_negative(value, name):
    """Returns `value` as a float if it is a finite number of 0 or more, else raises."""
    if not _is(numbers.Real, value) or not (math.isfinite(value) and value >= 0):
        raise ValueError(
            f"`{name}` must be a finite number of 0 or more. Received: {name}={value!r}"
        )
    return float(value)


def int32(value, name):
    """Returns `value` as an int if it is one of 32 bits, else raises a ValueError."""
    if not _is(numbers.Integral, value) or not -(2**31) <= value < 2**31:
        raise ValueError(
            f"`{name}` must be an int of 32 bits (-2**31 to 2**31 - 1). "
            f"Received: {name}={value!r}"
        )
    return int(value)


def shape(value, name):
    """Returns `value` as a tuple of positive ints, else raises a ValueError."""
    try:
        return tuple(positive_int(d, name) for d in value)
    except (TypeError, ValueError):
        raise ValueError(
            f"`{name}` must be a tuple of positive ints, such as (20,) or (28, 28, 1). "
            f"Received: {name}={value!r}"
        ) from None


def _is(kind, value):
    return isinstance(value, kind) and not isinstance(value, bool)
