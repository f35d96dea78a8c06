"""Files of known content: read with a limit on their size, and checked against a kind.

A kind is a type annotation: `float`, `int`, `str`, `bool`, `None`, `list[...]`,
`dict[str, ...]`, `Literal[...]`, a union of these, `Annotated[..., Rule(...)]`, or `Fields`
for an object with known keys.
"""

import contextlib
import dataclasses
import io
import json
import os
import reprlib
import stat
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

MAX_BYTES = 32 * 2**20
_SHORT = reprlib.Repr()  # shows a part of a long value
_SHORT.maxlevel, _SHORT.maxstring = 2, 80
# Descriptions of a kind, for one value and for several.
_WORDS: dict[Any, tuple[str, str]] = {
    float: ("a number", "numbers"),
    int: ("a whole number", "whole numbers"),
    str: ("a text", "texts"),
    bool: ("true or false", "true or false"),
    type(None): ("null", "null"),
    list: ("a list", "lists"),
    dict: ("an object", "objects"),
}


class Rule(NamedTuple):
    """A rule for a value that has the right type, and its description."""

    expected: str
    holds: Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Fields:
    """An object with known keys.

    Attributes:
        required: the kind of each key that must exist.
        optional: the kind of each key that may be missing.
        others: the kind of all other keys.
        rules: rules for the object as a whole.
    """

    required: dict[str, Any]
    optional: dict[str, Any] = dataclasses.field(default_factory=dict)
    others: Any = Any
    rules: tuple[Rule, ...] = ()


class KindError(ValueError):
    """A value that is not of its kind, or a missing key.

    Args:
        key: str, such as `data.value_range[0]`; empty for the whole content.
        expected: str.
        received: str, such as `with 'latent': null`.
    """

    def __init__(self, key: str, expected: str, received: str):
        self.key, self.received = key, received
        self.rule = f"key '{key}' must be {expected}" if key else f"it must be {expected}"
        super().__init__(f"{self.rule}. Received: a file {received}")


@contextlib.contextmanager
def open_regular(path: str | os.PathLike) -> Iterator[io.BufferedReader]:
    """Opens a file for reading.

    Raises:
        ValueError: for a pipe, a device or a socket.
        OSError: if it cannot be opened, such as a folder.
    """

    def opener(name, flags):
        # Otherwise a named pipe blocks until it has a writer.
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    with open(path, "rb", opener=opener) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("a pipe or a device, not a regular file")
        yield file


def read_text(path: str | os.PathLike, limit: int = MAX_BYTES) -> str:
    """Reads a text in UTF-8.

    Raises:
        ValueError: for a file that is too large, not UTF-8 or not a regular file.
        OSError: if it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise ValueError(f"{size:,} bytes, more than the limit of {limit:,}")
        return file.read(limit).decode("utf-8-sig")


def read_json(path: str | os.PathLike, kind: Any) -> Any:
    """Reads a JSON file and checks it.

    Raises:
        ValueError: if it cannot be parsed; a `KindError` if a value is not of its kind.
        OSError: if it cannot be read.
    """
    value = parse_json(path)
    check(value, kind)
    return value


def parse_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file without a check of its values.

    Raises:
        ValueError: if it cannot be parsed.
        OSError: if it cannot be read.
    """
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None


def check(value: Any, kind: Any, key: str = "") -> None:
    """Raises a `KindError` unless a value is of a kind."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, Fields):
        _check_fields(value, kind, key)
    elif origin is Annotated:
        check(value, arguments[0], key)
        _check_rules(value, kind.__metadata__, key)
    elif origin in (typing.Union, types.UnionType):
        _check_union(value, kind, key)
    elif origin is Literal:
        if value not in arguments:
            raise _fault(key, _describe(kind), value)
    elif origin is list:
        check(value, list, key)
        for i, item in enumerate(value):
            check(item, arguments[0], f"{key}[{i}]")
    elif origin is dict:
        _check_fields(value, Fields({}, {}, arguments[1]), key)
    elif kind is not Any and not _is_a(value, kind):
        raise _fault(key, _describe(kind), value)


def _is_a(value, kind):
    """Returns True for a value of a simple kind. Whole numbers have at most 64 bits."""
    if kind in (int, float) and isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, kind)


def _check_fields(value, kind, key):
    check(value, dict, key)
    for name in kind.required:
        if name not in value:
            path = _join(key, name)
            expected = _describe(kind.required[name])
            raise KindError(path, expected, f"without '{path}'")
    known = kind.required | kind.optional
    for name, item in value.items():
        check(item, known.get(name, kind.others), _join(key, name))
    _check_rules(value, kind.rules, key)


def _check_rules(value, rules, key):
    for rule in rules:
        if isinstance(rule, Rule) and not rule.holds(value):
            raise _fault(key, rule.expected, value)


def _check_union(value, kind, key):
    """Checks the kinds of a union; the deepest fault tells the most."""
    faults = []
    for arm in typing.get_args(kind):
        try:
            return check(value, arm, key)
        except KindError as fault:
            faults.append(fault)
    deepest = max(faults, key=lambda fault: len(fault.key))
    raise deepest if deepest.key != key else _fault(key, _describe(kind), value)


def _describe(kind, several=False):
    """Describes a kind in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, Fields) or origin is dict:
        return _WORDS[dict][several]
    if origin is Annotated:
        rules = [rule for rule in kind.__metadata__ if isinstance(rule, Rule)]
        is_rule = rules and not several
        return rules[0].expected if is_rule else _describe(arguments[0], several)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is list:
        return f"{_WORDS[list][several]} of {_describe(arguments[0], True)}"
    if arguments:
        return " or ".join(_describe(arm, several) for arm in arguments)
    return _WORDS[kind][several]


def short(value: Any) -> str:
    """Shows a value of a file in at most 100 characters, with escapes."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = _SHORT.repr(value)
    return text if len(text) <= 100 else f"{text[:96]} ..."


def _fault(key, expected, value):
    shown = short(value)
    return KindError(key, expected, f"with '{key}': {shown}" if key else f"with {shown}")


def _join(key, name):
    """Returns the path of a key, whose name may be any text."""
    name = short(name)[1:-1]
    return f"{key}.{name}" if key else name


def reason(error: BaseException) -> str:
    """Returns the message of an error in one line, without the path of an OSError."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:300]
