"""CSV and Parquet tables of numbers, standardised with the training rows."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


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


def is_table(path: pathlib.Path) -> bool:
    """Returns True for the name of a CSV table (also .csv.gz) or a Parquet table."""
    return path.name.lower().removesuffix(".gz").endswith((".csv", ".parquet"))


def read_table(
    path: pathlib.Path,
    label: str | None = None,
    drop: Sequence[str] = (),
    columns: Sequence[str] | None = None,
) -> tuple[list[str], np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Reads the columns of a table.

    Args:
        path: path of a .csv, .csv.gz or .parquet file; CSV needs a header.
        label: name of a column that is not modelled, or None.
        drop: names of columns to leave out.
        columns: names of the columns to read, in this order; `label` may be missing then,
            and `drop` is not used. None: all columns.

    Returns:
        (columns, x, y, notes): names; float64 `[rows, columns]`; the label column or None;
        sentences about what was left out.

    Raises:
        ValueError: for a file that cannot be read or has no rows, for a missing column, and
            for a modelled column with text, missing or infinite values; the message names
            the column.
    """
    table, notes = _read(path), ()
    if columns is not None:
        table, notes = _select(table, columns, label, path)
        label, drop = label if label in table.column_names else None, ()
    for option, names in (("label", [label] if label else []), ("drop", drop)):
        for name in names:
            if name not in table.column_names:
                raise ValueError(
                    f"`{option}` must name a column of {path.name}: "
                    f"{', '.join(table.column_names)}. Received: {option}={name}"
                )
    duplicates = {n for n in table.column_names if table.column_names.count(n) > 1}
    if duplicates:
        raise ValueError(
            f"`data` must have unique column names. Received: {path.name} with several "
            f"columns named {', '.join(sorted(duplicates))}"
        )
    if not table.num_rows:
        raise ValueError(f"`data` must have rows. Received: {path.name} with 0 rows")
    names = [n for n in table.column_names if n != label and n not in drop]
    if not names:
        raise ValueError(
            "`data` must have a column that is neither label nor dropped. Received: "
            f"{', '.join(table.column_names)}"
        )
    _check_columns(path, table, names)
    x = np.stack([np.asarray(table[n], np.float64) for n in names], axis=1)
    for name, column in zip(names, x.T, strict=True):
        with np.errstate(over="ignore"):
            wrong = ~np.isfinite(column.astype(np.float32))
        if wrong.any():
            raise ValueError(
                f"`data` must be finite in float32. Received: {wrong.sum()} values "
                f"that are NaN, infinite or too large, in column {name!r} of {path.name}"
            )
    if label is None:
        return names, x, None, notes
    if table[label].null_count:
        raise ValueError(
            f"`label` must name a column without missing values. Received: label={label}, "
            f"with {table[label].null_count} of {table.num_rows} missing in {path.name}"
        )
    return names, x, np.array(table[label].to_pylist()), notes


def _select(table, columns, label, path):
    """Selects columns by name, and the label if it is there: (table, notes)."""
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise ValueError(
            f"`data` must have the columns {', '.join(columns)}. Received: {path.name} "
            f"without {', '.join(missing)}"
        )
    notes = []
    wanted = [*columns, label] if label in table.column_names else [*columns]
    extra = [name for name in table.column_names if name not in wanted]
    if extra:
        notes.append(f"Columns that were not modelled are ignored: {', '.join(extra)}.")
    table = table.select([i for i, n in enumerate(table.column_names) if n in wanted])
    if len({*table.column_names}) < table.num_columns:
        return table, ()  # an error about the names follows
    if label in wanted and (missing := table[label].null_count):
        wanted.remove(label)
        notes.append(f"The labels in {label} are left out: {missing} are missing.")
    return table.select(wanted), tuple(notes)


def _read(path):
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    parquet = path.name.lower().endswith(".parquet")
    try:
        if parquet:
            table = pyarrow.parquet.read_table(path)
        else:
            options = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
            table = pyarrow.csv.read_csv(path, convert_options=options)
        table.column_names  # noqa: B018 (decodes the names, which may raise)
        return table
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        kind = "Parquet" if parquet else "CSV"
        raise ValueError(
            f"`data` must be a readable {kind} table in UTF-8. Received: {path}: {error}"
        ) from error


def _check_columns(path, table, names):
    """Raises a ValueError unless the columns are numbers without missing values."""
    import pyarrow.types as types

    for name in names:
        column = table[name]
        kind = column.type
        if column.null_count:
            count = "all" if column.null_count == table.num_rows else column.null_count
            raise ValueError(
                "`data` must have no missing values: leave the column out with `drop`, or "
                f"fill it. Received: {count} of {table.num_rows} values are missing in "
                f"column {name!r} of {path.name}"
            )
        numeric = (
            types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
        )
        if not (numeric or types.is_boolean(kind)):
            raise ValueError(
                "`data` must have columns of numbers: leave the column out with `drop`, "
                "use it as labels with `label`, or encode it as numbers. Received: "
                f"column {name!r} of {path.name} of type {kind}"
            )
