"""Tables of numbers in files, standardised with the training rows."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_vae.datasets.table_columns import (
    as_floats,
    find_fault,
    is_numeric,
    name_columns,
    refuse_columns,
)
from keras_vae.datasets.text_tables import TextTable

TEXT = (".csv", ".tsv", ".txt", ".dat", ".data", ".xlsx")  # .xlsx: refused with a hint
BINARY = (".parquet", ".feather")


class Scaler(NamedTuple):
    """Standardisation of the columns of a table: `(x - mean) / scale`.

    Attributes:
        columns: names, in the order of the array's columns.
        mean: float64 `[columns]`, of the training rows.
        scale: float64 `[columns]`, their standard deviation; 1 for a constant column.
    """

    columns: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, columns: Sequence[str], x: np.ndarray) -> "Scaler":
        """Makes the scaler that gives x `[rows, columns]` mean 0 and variance 1."""
        varies = np.ptp(x, axis=0) > 0  # rounding can make the std of a constant nonzero
        mean = np.where(varies, x.mean(axis=0), x[0])
        return cls(tuple(columns), mean, np.where(varies, x.std(axis=0), 1.0))

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Standardises raw values `[rows, columns]`; returns float32."""
        return ((x - self.mean) / self.scale).astype(np.float32)

    def inverse(self, x: Any) -> np.ndarray:
        """Maps standardised values `[rows, columns]` back to raw ones; returns float64."""
        return np.asarray(x, np.float64) * self.scale + self.mean

    def to_dict(self) -> dict[str, list]:
        """Returns lists by name, for JSON."""
        return {name: list(value) for name, value in self._asdict().items()}

    @classmethod
    def from_dict(cls, fields: dict[str, list]) -> "Scaler":
        """Makes a scaler from the result of `to_dict`."""
        mean, scale = (np.array(fields[name], np.float64) for name in ("mean", "scale"))
        return cls(tuple(fields["columns"]), mean, scale)


class Table(NamedTuple):
    """A table of numbers.

    Attributes:
        columns: names of the columns of x.
        x: float64 `[rows, columns]`.
        y: labels `[rows]`, or None.
        notes: sentences about what was noticed in the file.
    """

    columns: list[str]
    x: np.ndarray
    y: np.ndarray | None
    notes: tuple[str, ...]


def is_table(path: pathlib.Path) -> bool:
    """Returns True for the name of a table: text, which may be compressed, or Parquet."""
    name = path.name.lower()
    stem, end = name.rsplit(".", 1) if "." in name else (name, "")
    return end == "zip" or (stem if end in ("gz", "bz2", "xz") else name).endswith(
        TEXT + BINARY
    )


def read_table(
    path: pathlib.Path,
    label: str | None = None,
    drop: Sequence[str] = (),
    header: bool | None = None,
    columns: Sequence[str] | None = None,
) -> Table:
    """Reads a table in text (CSV and others), Parquet or Feather.

    The layout of text is noticed: encoding, separator, decimal mark, comment lines, column
    names. A column that only counts the rows, as pandas writes it, is left out.

    Args:
        path: path of the file.
        label: name of a column that is not modelled, or None.
        drop: names of columns to leave out.
        header: bool, whether the first line of text has the column names; None notices it.
        columns: names of the columns to read, in this order; `label` may be missing then,
            and `drop` is not used. None: all columns.

    Returns:
        `Table`.

    Raises:
        ValueError: for a file that cannot be read or has no rows, for a missing column, and
            for modelled columns with text, missing or infinite values; the message names
            all of them.
    """
    if path.name.lower().endswith(BINARY):
        table, decimal, notes = _read_arrow(path), ".", []
        locate: Any = functools.partial(_locate, table)
    else:
        file = TextTable(path, header)
        table, decimal, notes, locate = file.read(), file.decimal, file.notes, file.locate
    numbers = name_columns(table, {label, *drop, *(columns or ())}, notes)
    if columns is not None:
        label, drop = _known_label(table, numbers, label, notes), ()
        numbers = _select(path, numbers, columns, label, notes)
    _check_options(path, numbers, label, drop, notes)
    if not table.num_rows:
        raise ValueError(f"`data` must have rows. Received: {path.name} with 0 rows")
    names = [name for name in numbers if name != label and name not in drop]
    modelled = [table.column(numbers[name]) for name in names]
    faults = [find_fault(column, decimal) for column in modelled]
    if any(faults):
        found = {n: f for n, f in zip(names, faults, strict=True) if f}
        refuse_columns(path.name, found, numbers, locate, notes)
    x = np.stack([as_floats(column) for column in modelled], axis=1)
    y = (
        None
        if label is None
        else _labels(path, label, table.column(numbers[label]), locate)
    )
    return Table(names, x, y, tuple(notes))


def _select(path, numbers, columns, label, notes):
    """Returns the numbers of the chosen columns and of the label, in this order."""
    missing = [name for name in columns if name not in numbers]
    if missing:
        raise ValueError(
            f"`data` must have the columns {', '.join(columns)}. "
            f"{''.join(f'{note} ' for note in notes)}Received: {path.name} without "
            f"{', '.join(missing)}"
        )
    wanted = [*columns, *([] if label is None else [label])]
    extra = [name for name in numbers if name not in wanted]
    if extra:
        notes.append(f"Columns that were not modelled are ignored: {', '.join(extra)}.")
    return {name: numbers[name] for name in wanted}


def _known_label(table, numbers, label, notes):
    """Returns the label, or None if its column is missing or incomplete."""
    if label not in numbers:
        return None
    missing = table.column(numbers[label]).is_null(nan_is_null=True).to_numpy().sum()
    if missing:
        notes.append(f"The labels in {label} are left out: {missing:,} are missing.")
    return None if missing else label


def _check_options(path, names, label, drop, notes):
    listed = ", ".join([*names][:20]) + (f" and {len(names) - 20} more" * (len(names) > 20))
    for option, wanted in (("label", [label] * (label is not None)), ("drop", drop)):
        for name in wanted:
            if name not in names:
                raise ValueError(
                    f"`{option}` must name a column of {path.name}: {listed}. "
                    f"{''.join(f'{note} ' for note in notes)}Received: {option}={name}"
                )
    if not {*names} - {label, *drop}:
        raise ValueError(
            "`data` must have a column that is neither label nor dropped. Received: "
            f"{listed}"
        )


def _read_arrow(path):
    """Reads a Parquet or Feather file: `pyarrow.Table`."""
    import pyarrow.feather
    import pyarrow.parquet

    feather = path.name.lower().endswith(".feather")
    reader = pyarrow.feather.read_table if feather else pyarrow.parquet.read_table
    try:
        table = reader(path)
        table.column_names  # noqa: B018 (decodes the names, which may raise)
        return table
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        kind = "Feather" if feather else "Parquet"
        raise ValueError(
            f"`data` must be a readable {kind} table. Received: {path}: {error}"
        ) from error


def _locate(table, rows):
    """Returns `{row: (place, cells)}` for rows of a `pyarrow.Table`, like `TextTable`."""
    return {
        row: (f"row {row + 1}", [_shown(column[row]) for column in table.columns])
        for row in rows
    }


def _shown(value):
    try:
        return str(value.as_py())
    except ValueError:  # a time in nanoseconds, which Python does not have
        return str(value.cast("string").as_py())


def _labels(path, label, column, locate):
    """Returns labels as an array; whole numbers become int."""
    import pyarrow.types as types

    missing = column.is_null(nan_is_null=True).to_numpy()
    if missing.any():
        (place, _) = locate({int(missing.argmax())})[int(missing.argmax())]
        raise ValueError(
            f"`label` must name a column without missing values. Received: label={label}, "
            f"with {missing.sum()} of {len(missing)} missing in {path.name}, the first in "
            f"{place}"
        )
    if types.is_nested(column.type):
        raise ValueError(
            f"`label` must name a column of numbers or text. Received: label={label}, of "
            f"type {column.type}"
        )
    if types.is_temporal(column.type):
        column = column.cast("string")
    if not is_numeric(column.type) or types.is_boolean(column.type):
        return np.array(column.to_pylist())
    values = as_floats(column)
    whole = (values == np.round(values)).all() and (abs(values) < 2**53).all()
    return values.astype(np.int64) if whole else values
