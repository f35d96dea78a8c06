"""Parsers of option values, from the command line (text) or from a YAML file."""

import contextlib
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

import typer


def ints(value: Any) -> list[int]:
    """Parses `"400,200"` -> [400, 200]; `"none"` -> []."""
    text = _text(value, ",") or "none"
    if text == "none":
        return []
    if not re.fullmatch(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", text):
        _refuse("whole numbers, such as 400,200", text)
    return [int(part) for part in text.split(",")]


def widths(value: Any) -> list[int]:
    """Parses the sizes of one or more layers, like `ints`."""
    sizes = ints(value)
    if not sizes:
        _refuse("the size of at least one layer, such as 400,200", value)
    return sizes


def size(value: Any) -> list[int]:
    """Parses `"28x20"` -> [28, 20], height and width."""
    text = _text(value, "x")
    if not re.fullmatch(r"[1-9][0-9]{0,4}x[1-9][0-9]{0,4}", text):
        _refuse("HEIGHTxWIDTH, such as 28x28", text)
    return [int(part) for part in text.split("x")]


def value_range(value: Any) -> list[float]:
    """Parses `"0:16"` -> [0.0, 16.0]."""
    text = _text(value, ":")
    with contextlib.suppress(ValueError):
        low, high = map(float, text.split(":"))
        if -math.inf < low < high < math.inf:
            return [low, high]
    _refuse("LOW:HIGH, such as 0:16", text)


def scale(value: Any) -> str | float:
    """Parses `"shared"`, `"per_element"` or a positive number."""
    if value in ("shared", "per_element"):
        return value
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if not isinstance(value, bool) and 0 < (parsed := float(value)) < math.inf:
            return parsed
    _refuse("shared, per_element or a positive number", value)


def number(
    low: float, high: float = math.inf, kind: type = float, exclusive: bool = False
) -> Callable[[Any], Any]:
    """Makes a parser of numbers from `low` to `high`; `exclusive` excludes `low`."""
    show = "{:,}" if kind is int else "{:g}"
    limit = f"above {show.format(low)}" if exclusive else f"of {show.format(low)} or more"
    expected = f"a {'whole ' if kind is int else ''}number {limit}"
    if high < math.inf:
        expected += f", up to {show.format(high)}"

    def parse(value):
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            parsed = kind(value)
            exact = isinstance(value, str) or value == parsed
            exact = exact and not isinstance(value, bool)
            in_range = low <= parsed <= high and abs(parsed) < math.inf
            if exact and in_range and not (exclusive and parsed == low):
                return parsed
        _refuse(expected, value)

    return parse


def _text(value, separator):
    """Returns the text of a value; joins a list of a YAML file with the separator."""
    return separator.join(map(str, value)) if isinstance(value, list) else str(value)


def _refuse(expected, value) -> NoReturn:
    raise typer.BadParameter(f"expected {expected}. Received: {value!r}")
