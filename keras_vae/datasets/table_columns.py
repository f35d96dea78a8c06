"""The columns of a table: their names, and the faults of those that are not numbers."""

import itertools
import re
import shlex
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from keras_vae import checks, escapes
from keras_vae.datasets import text_layout

DATES = "dates or times, such as"
_MOST_LISTED = 20  # faulty columns in a message


def name_columns(table: Any, keep: Collection, notes: list[str]) -> dict[str, int]:
    """Gives the columns of a table unique names, and leaves out those of an index.

    An index is a first column without a name, of distinct whole numbers or of text, or
    a column that pandas names as its index. Columns without name and values are also left
    out.

    Args:
        table: `pyarrow.Table`.
        keep: names of columns that are not left out.
        notes: list of str, to which sentences about the names are added.

    Returns:
        The number of the column by its name.
    """
    numbers: dict[str, int] = {}
    indices, renamed = [], []
    for i, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        nameless = name not in keep and re.fullmatch(r"|Unnamed: [0-9.]+", name)
        if nameless and column.null_count == table.num_rows > 0:
            continue  # after a separator at the end of each line
        if (nameless and not numbers and _is_index(column)) or (
            name not in keep and re.fullmatch(r"__index_level_[0-9]+__", name)
        ):
            indices.append(name)
            continue
        unique = name if name or name in keep else f"x{i}"
        copy = itertools.count(1)
        while unique in numbers or (unique != name and unique in table.column_names):
            unique = f"{name or f'x{i}'}.{next(copy)}"
        if unique != name:
            renamed.append(unique)
        if not numbers and name not in keep and _counts_rows(column):
            word = shlex.quote(unique)
            notes.append(f"{unique!r} counts the rows (--drop {word} leaves it out).")
        numbers[unique] = i
    if indices:
        shown = ", ".join(repr(n) if n else "a column without a name" for n in indices)
        notes.append(f"Left out as an index (rename it to keep it): {shown}.")
    if renamed:
        notes.append(f"Columns without a name of their own are named {listed(renamed)}.")
    return numbers


def listed(names: Sequence[str]) -> str:
    """Lists the first names, in quotes."""
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")


def _is_index(column):
    """Returns True for distinct whole numbers, and for text or dates."""
    import pyarrow.types as types

    if types.is_integer(column.type):
        return not column.null_count and len(column.unique()) == len(column)
    return not is_numeric(column.type)


def _counts_rows(column):
    """Returns True for 0, 1, 2, ... and for 1, 2, 3, ..."""
    import pyarrow.types as types

    if not types.is_integer(column.type) or column.null_count:
        return False
    places = column.to_numpy() - np.arange(len(column))
    return len(places) > 2 and places[0] in (0, 1) and (places == places[0]).all()


class Fault(NamedTuple):
    """The reason why a column is not modelled.

    Attributes:
        text: str, such as "text, such as".
        row: int, the first row with the fault; None if all cells are missing.
        more: str, a further reason.
    """

    text: str
    row: int | None
    more: str = ""


def find_fault(column: Any, decimal: str = ".") -> Fault | None:
    """Returns the fault of a column that is not finite numbers, otherwise None.

    Args:
        column: `pyarrow.ChunkedArray`.
        decimal: str, the decimal mark of numbers in text.
    """
    import pyarrow.types as types

    kind, missing = column.type, column.is_null(nan_is_null=True).to_numpy()
    if missing.all():
        return Fault("no values", None)
    gaps = f"{_count(missing.sum(), 'missing cell')}" if missing.any() else ""
    if is_numeric(kind):
        if gaps:
            return Fault(f"{gaps}, the first", int(missing.argmax()))
        with np.errstate(over="ignore"):
            wrong = ~np.isfinite(as_floats(column).astype(np.float32))
        text = f"{_count(wrong.sum(), 'infinite or too large number')}, the first"
        return Fault(text, int(wrong.argmax())) if wrong.any() else None
    first, more = int(missing.argmin()), f", and {gaps}" if gaps else ""
    if types.is_temporal(kind):
        return Fault(DATES, first, more)
    if str(kind) not in ("string", "large_string", "string_view"):
        name = "categories" if types.is_dictionary(kind) else f"values of type {kind}"
        return Fault(f"{name}, such as", first, more)
    words = ~missing & ~_has_number(column, decimal)
    if 0 < 2 * words.sum() < (~missing).sum():
        text = f"{_count(words.sum(), 'cell')} without a number, the first"
        return Fault(text, int(words.argmax()), more)
    is_date = re.match(r"[0-9]{1,4}([-/.])[0-9]{1,2}\1[0-9]{1,4}", column[first].as_py())
    return Fault("dates, such as" if is_date else "text, such as", first, more)


def _has_number(column, decimal):
    """Returns True for each cell of text that is a number: bool `[rows]`."""
    import pyarrow.compute as pc

    thousands = "," if decimal == "." else "."
    patterns = (text_layout.number_pattern(decimal, mark) for mark in ("", thousands))
    column = column.cast("large_string")
    found = pc.match_substring_regex(column, f"^(?:{'|'.join(patterns)})$")
    return found.fill_null(False).to_numpy()


def _count(number, noun):
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def is_numeric(kind: Any) -> bool:
    """Returns True for an Arrow type of numbers or bool."""
    import pyarrow.types as types

    tests = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    return any(test(kind) for test in tests)


def as_floats(column: Any) -> np.ndarray:
    """Converts a column of numbers or bool: float64 `[rows]`."""
    return column.cast("float64", safe=False).to_numpy()


def refuse_columns(
    name: str,
    faults: dict[str, Fault],
    numbers: dict[str, int],
    locate: Callable[[Collection[int]], dict[int, tuple[str, Sequence[str]]]],
    notes: Sequence[str],
) -> NoReturn:
    """Raises the error that lists all columns with faults.

    Args:
        name: str, the name of the file.
        faults: the fault of each such column, by name.
        numbers: the number of each column, by name.
        locate: function of row numbers: `{row: (place, cells)}`.
        notes: what was noticed in the file.
    """
    listed = dict([*faults.items()][:_MOST_LISTED])
    rows = locate({fault.row for fault in listed.values() if fault.row is not None})
    lines = [f"{name}, with {_count(len(faults), 'unsuitable column')}:"]
    for column, fault in listed.items():
        shown = ""
        if fault.row is not None:
            place, cells = rows[fault.row]
            cell = cells[numbers[column]]
            cell = cell if len(cell) <= 30 else f"{cell[:27]}..."
            shown = f" {cell!r} in {place}" if cell else f" in {place}"
        lines.append(f"  {checks.short(column)!r}: {fault.text}{shown}{fault.more}")
    if len(faults) > len(listed):
        lines.append(f"  and {len(faults) - len(listed):,} more")
    elif len(faults) < len(numbers):
        words = " ".join(f"--drop {shlex.quote(column)}" for column in faults)
        lines.append(f"To leave them out, add: {words}")
    else:
        lines.append("No column has only numbers: is the file a table?")
    if any(fault.text == DATES for fault in faults.values()):
        lines.append("For a time series, save windows [rows, time, channels] as .npy.")
    message = (
        "`data` must have columns of numbers without missing cells: fill the cells, encode "
        "text as numbers, use a column as labels with `label`, or leave columns out with "
        "`drop`. A later version will model text and missing cells. Received: "
    )
    received = "\n".join(map(escapes.visible, [*lines, *notes]))
    raise ValueError(escapes.Lines(message + received))
