"""Rows of data for the model of a run: of a new file, or of the run's own data."""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from keras_vae import checks
from keras_vae.datasets import Dataset, RowsOnDisk, Scaler, center
from keras_vae.datasets.loading import read_rows
from keras_vae.datasets.rows import JoinedRows
from keras_vae.runs.data import reading
from keras_vae.runs.folder import Run


class Rows(NamedTuple):
    """Rows of data for the model of a run, in the order of their file.

    Attributes:
        x: array `[rows, *event]` or `RowsOnDisk`, scaled as the run scales its data.
        ids: row numbers from 0, int64 `[rows]`, or names of image files, `[rows]`.
        labels: labels `[rows]`, or None.
        notes: strings, a sentence for each thing that was noticed when the file was read.
    """

    x: Any
    ids: np.ndarray
    labels: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def first(self, n: int) -> "Rows":
        """Returns the first n rows."""
        x = self.x.part(slice(n)) if isinstance(self.x, RowsOnDisk) else self.x[:n]
        labels = None if self.labels is None else self.labels[:n]
        return self._replace(x=x, ids=self.ids[:n], labels=labels)


def rows_of_file(run: Run, scaler: Scaler | None, file: Any) -> Rows:
    """Reads all rows of a file as the run reads its data, in the order of the file.

    Args:
        run: the run.
        scaler: the standardisation of its table, or None.
        file: see `TrainedRun.read`.

    Raises:
        ValueError: for a file that cannot be read, has other columns, another shape or
            other units.
    """
    columns = None if scaler is None else scaler.columns
    options: dict[str, Any] = reading(run.options) | run.channels
    options["value_range"] = run.info["data"]["value_range"]
    try:
        data = read_rows(str(file), **options, columns=columns, strict=False)
    except ValueError as error:
        raise ValueError(str(error).replace("`data`", "`file`")) from error
    x, labels, ids = _all_rows(run, data)
    if data.columns is not None:
        checks.require(scaler is not None, "file", "data like those of the run", data.name)
        x = scaler.transform(x)  # type: ignore[union-attr]
    _check_units(run, x, data)
    return _rows(x, labels, ids, pathlib.Path(file), data.notes)


def rows_of_part(run: Run, data: Dataset, part: str) -> Rows:
    """Returns the rows of a part of the run's own data; see `TrainedRun.part`."""
    if part == "all":
        x, labels, ids = _all_rows(run, data)
    else:
        x, labels, ids = (getattr(data, f"{kind}_{part}") for kind in ("x", "y", "ids"))
        checks.require(x is not None, "part", "train or test: the run has no val", part)
        x = _cropped(run, x)
    return _rows(x, labels, ids, pathlib.Path(data.name), data.notes)


def _all_rows(run, data):
    """Joins the parts of a data set in the order of its file: (x, labels, ids)."""
    xs: list[Any] = []
    ys, ids = [], []
    for part in ("train", "val", "test"):
        x, y, own = (getattr(data, f"{kind}_{part}") for kind in ("x", "y", "ids"))
        if x is not None:
            start = sum(len(x) for x in xs)
            ids.append(np.arange(start, start + len(x)) if own is None else own)
            xs.append(_cropped(run, x))
            ys.append(y)
    if len(xs) == 1:
        return xs[0], ys[0], ids[0]
    joined = np.concatenate(ids)
    order = np.argsort(joined, kind="stable")
    x = JoinedRows(xs).part(order)
    if not any(isinstance(part, RowsOnDisk) for part in xs):
        x = np.asarray(x)
    return x, None if ys[0] is None else np.concatenate(ys)[order], joined[order]


def _rows(x, labels, ids, source, notes):
    """Makes `Rows`; paths of images become names relative to the folder `source`."""
    if labels is not None and labels.dtype == object:  # such as dates
        labels = labels.astype(str)
    if ids is None:
        ids = np.arange(len(x))
    if ids.dtype == object:
        root = source if source.is_dir() else source.parent
        ids = np.array([path.relative_to(root).as_posix() for path in ids])
    return Rows(x, ids, labels, notes)


def _cropped(run, x):
    """Returns rows of the shape of the run, or raises a ValueError."""
    shape = tuple(run.info["data"]["event_shape"])
    if run.options.crop and x.ndim == 4 and min(np.subtract(x.shape[1:], shape)) >= 0:
        x = center(x, shape)
    if x.shape[1:] != shape:
        raise ValueError(
            f"`file` must have rows of shape {shape}, like the data of the run. "
            f"Received: rows of shape {tuple(x.shape[1:])}"
        )
    return x


def _check_units(run, x, data):
    """Raises a ValueError for values that are scaled in another way than the run's."""
    low, high = run.info["data"]["shown_range"]
    in_unit = run.info["data"]["value_range"] is not None or (low, high) == (0, 1)
    if data.value_range is not None and (not in_unit or run.dtype == "bool"):
        raise ValueError(
            f"`file` must have the units of the run's data, from {low:g} to {high:g}. "
            f"Received: {data.name} with values from {data.value_range[0]:g} to "
            f"{data.value_range[1]:g}"
        )
    if run.info["data"]["value_range"] == [0, 255] and x.dtype == np.float32:
        check_bytes(x, "file", data.name)


def check_bytes(x: Any, name: str, source: Any) -> None:
    """Raises a ValueError for values in [0, 1] that were divided by 255 once more."""
    x = x.sample_rows() if isinstance(x, RowsOnDisk) else x
    if 0 < x.max() <= 1 / 255:
        raise ValueError(
            f"`{name}` must have values from 0 to 255, like the data of the run. "
            f"Received: {source} with values up to {x.max() * 255:g}"
        )
