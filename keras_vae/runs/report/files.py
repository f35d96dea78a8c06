"""Rows of results as files: a table, arrays or a picture."""

import contextlib
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_vae import atomic
from keras_vae.runs.report.pictures import Pictures

TABLES = (".csv", ".parquet")
NUMBERED = {"mean": "z{}", "std": "z{}_std"}  # columns of a table for each latent unit


def check_path(
    path: pathlib.Path, suffixes: Sequence[str], overwrite: bool, rows: str = "rows"
) -> pathlib.Path:
    """Checks the path of a file to write, before any computation, and returns it.

    Args:
        path: path of the file.
        suffixes: the possible ends of its name, such as ".csv".
        overwrite: bool, whether an existing file may be replaced.
        rows: str, what is written, for the message.

    Raises:
        ValueError: if the file exists, cannot be written or has another suffix.
    """
    if path.suffix not in suffixes:
        ends = " or ".join(suffixes)
        raise ValueError(f"`out` must end with {ends} for {rows}. Received: out={path}")
    if path.is_dir():
        raise ValueError(f"`out` must be a file. Received: out={path}, which is a folder")
    if path.exists() and not overwrite:
        raise ValueError(
            "`out` must be a new file, unless `overwrite` is set. "
            f"Received: out={path}, which exists"
        )
    if not path.parent.is_dir():
        raise ValueError(f"`out` must be in a folder that exists. Received: out={path}")
    return path


def write(
    path: pathlib.Path,
    batches: Iterable[dict[str, np.ndarray]],
    columns: Sequence[str] | None = None,
) -> None:
    """Writes batches of rows as they come, into a .csv, .parquet or .npz file.

    A table has a column for each element, and leaves `originals` out. An .npz file has an
    array for each name. The file appears when it is complete.

    Args:
        path: path of the file.
        batches: dicts of arrays `[batch, ...]`, all with the same names.
        columns: names of the columns of the data, for a table.
    """
    with atomic.replacing(path) as part:
        if path.suffix == ".npz":
            _write_arrays(part, batches)
        else:
            _write_table(part, batches, columns)


def _write_table(path, batches, columns):
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    make = pyarrow.csv.CSVWriter
    if path.suffix == ".parquet":
        make = pyarrow.parquet.ParquetWriter
    writer = None
    try:
        for batch in batches:
            pairs = [
                pair for key in batch if key != "originals"
                for pair in _flat(key, batch[key], columns)
            ]  # fmt: skip
            names, values = zip(*pairs, strict=True)
            arrays = [pyarrow.array(v.tolist() if v.dtype.kind in "UO" else v)
                      for v in values]  # fmt: skip
            table = pyarrow.Table.from_arrays(arrays, names)
            writer = writer or make(str(path), table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _flat(name, values, columns):
    """Yields (column name, values `[rows]`) for each element of values `[rows, ...]`."""
    if values.ndim == 1:
        yield name, values
        return
    values = values.reshape(len(values), -1)
    for i, column in enumerate(values.T):
        numbered = NUMBERED.get(name, "x{}").format(i)
        named = columns is not None and name not in NUMBERED
        yield columns[i] if named else numbered, column


def _write_arrays(path, batches):
    """Writes an .npz file; the batches are collected on the disk, not in memory."""
    files: dict[str, Any] = {}
    rows = 0
    with contextlib.ExitStack() as stack:
        for batch in batches:
            for key, values in batch.items():
                if key not in files:
                    file = tempfile.TemporaryFile(dir=path.parent)
                    files[key] = stack.enter_context(file), values
                files[key][0].write(np.ascontiguousarray(values).data.cast("B"))
            rows += len(values)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for key, (file, values) in files.items():
                header = np.lib.format.header_data_from_array_1_0(values[:0])
                header |= {"shape": (rows, *values.shape[1:]), "fortran_order": False}
                with archive.open(f"{key}.npy", "w", force_zip64=True) as target:
                    np.lib.format.write_array_header_1_0(target, header)
                    file.seek(0)
                    shutil.copyfileobj(file, target)


def write_picture(
    path: pathlib.Path,
    batches: Iterator[dict[str, np.ndarray]],
    n: int,
    shown_range: Sequence[float],
) -> None:
    """Writes a grid of the first n images; several arrays are one below the other.

    Args:
        path: path of the .png file.
        batches: dicts of arrays `[batch, height, width, channels]`; others are left out.
        n: int, the largest number of rows.
        shown_range: (low, high), the values of black and white.
    """
    stacks: list[np.ndarray] = []
    while sum(map(len, stacks)) < n and (batch := next(batches, None)):
        images = [values for values in batch.values() if values.ndim == 4]
        stacks.append(np.stack(images, axis=1))  # [batch, arrays, *event]
    x = np.concatenate(stacks)[:n]
    rows, kinds, *shape = x.shape
    columns = min(16, rows)
    missing = [(0, -rows % columns), *[(0, 0)] * (x.ndim - 1)]
    x = np.pad(x, missing, mode="edge").reshape(-1, columns, kinds, *shape)
    x = x.swapaxes(1, 2).reshape(-1, *shape)
    with atomic.replacing(path) as part:
        Pictures(shape, shown_range).save(part, x, columns)
