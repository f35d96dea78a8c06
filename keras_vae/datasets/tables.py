"""CSV and Parquet tables: numbers only, standardised by the training rows."""

from typing import NamedTuple

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
    def of(cls, columns, x):
        """The scaler that gives the rows x `[rows, columns]` mean 0 and variance 1."""
        varies = np.ptp(x, axis=0) > 0  # the sum of a constant is rounded, its std not 0
        mean = np.where(varies, x.mean(axis=0), x[0])
        return cls(tuple(columns), mean, np.where(varies, x.std(axis=0), 1.0))

    def transform(self, x):
        """Raw values `[rows, columns]` -> standardised, float32."""
        return ((x - self.mean) / self.scale).astype(np.float32)

    def inverse(self, x):
        """Standardised values `[rows, columns]` -> raw, float64."""
        return np.asarray(x, np.float64) * self.scale + self.mean

    def to_dict(self):
        """Plain lists by name, for JSON."""
        return {name: list(value) for name, value in self._asdict().items()}

    @classmethod
    def from_dict(cls, fields):
        """The scaler that `to_dict` described."""
        mean, scale = (np.array(fields[name], np.float64) for name in ("mean", "scale"))
        return cls(tuple(fields["columns"]), mean, scale)


def is_table(path):
    """Whether the name of a file is that of a CSV (may be .gz) or Parquet table."""
    return path.name.lower().removesuffix(".gz").endswith((".csv", ".parquet"))


def read_table(path, label=None, drop=()):
    """Reads the columns of a table.

    Args:
        path: `pathlib.Path` of a .csv, .csv.gz or .parquet file; CSV with a header.
        label: name of a column that is not modelled, or None.
        drop: names of columns to leave out.

    Returns:
        (columns, x, y): names, float64 `[rows, columns]`, and the label column or None.

    Raises:
        ValueError: if it cannot be read, has no rows, lacks a column, or has a column to
            model that is text, has missing values or is infinite; it is named.
    """
    table = _read(path)
    for option, names in (("label", [label] if label else []), ("drop", drop)):
        for name in names:
            if name not in table.column_names:
                raise ValueError(
                    f"`{option}` must name a column of {path.name}: "
                    f"{', '.join(table.column_names)}. Received: {option}={name}"
                )
    doubled = {n for n in table.column_names if table.column_names.count(n) > 1}
    if doubled:
        raise ValueError(
            f"`data` must have a name for each column. Received: {path.name} has several "
            f"columns named {', '.join(sorted(doubled))}"
        )
    if not table.num_rows:
        raise ValueError(f"`data` must have rows. Received: {path.name} with none")
    names = [n for n in table.column_names if n != label and n not in drop]
    if not names:
        raise ValueError(f"`data` must have a column to model. Received: none is left of "
                         f"{', '.join(table.column_names)}")  # fmt: skip
    _check_columns(path, table, names)
    x = np.stack([np.asarray(table[n], np.float64) for n in names], axis=1)
    for name, column in zip(names, x.T, strict=True):
        with np.errstate(over="ignore"):
            wrong = ~np.isfinite(column.astype(np.float32))
        if wrong.any():
            raise ValueError(
                f"`data` must be finite in float32. Received: {wrong.sum()} values of NaN "
                f"or infinity, or beyond its range, in column {name!r} of {path.name}"
            )
    if label is None:
        return names, x, None
    if table[label].null_count:
        raise ValueError(
            f"`label` must name a column without missing values. Received: {label}, which "
            f"lacks {table[label].null_count} of {table.num_rows} in {path.name}"
        )
    return names, x, np.array(table[label].to_pylist())


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
        table.column_names  # noqa: B018 (decodes them)
        return table
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        kind = "Parquet" if parquet else "CSV"
        raise ValueError(
            f"`data` must be a {kind} table in UTF-8 that can be read. Received: {path}: "
            f"{error}"
        ) from error


def _check_columns(path, table, names):
    import pyarrow.types as types

    for name in names:
        column = table[name]
        kind = column.type
        if column.null_count:
            count = "all" if column.null_count == table.num_rows else column.null_count
            raise ValueError(
                "`data` must have a value in each row: leave the column out with `drop` or "
                f"fill it. Received: {count} of {table.num_rows} values are missing in "
                f"column {name!r} of {path.name}"
            )
        numeric = (
            types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
        )
        if not (numeric or types.is_boolean(kind)):
            raise ValueError(
                "`data` must have columns of numbers: leave the column out with `drop`, "
                "take it as labels with `label`, or encode it. Received: column "
                f"{name!r} of {path.name} has type {kind}"
            )
