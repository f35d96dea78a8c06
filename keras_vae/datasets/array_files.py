"""Data sets from .npy and .npz files."""

import pathlib
import zipfile
from typing import Any

import numpy as np

from keras_vae.datasets import archives
from keras_vae.datasets.array_names import Choice, choose
from keras_vae.datasets.axes import channels_last, find_axes
from keras_vae.datasets.dataset import Dataset, unsplit
from keras_vae.datasets.labels import as_labels
from keras_vae.datasets.rows import MappedRows, too_large
from keras_vae.datasets.scaling import unit_range


def load_arrays(
    path: pathlib.Path,
    value_range: tuple[float, float] | None = None,
    axes: str | None = None,
    array: str | None = None,
    label: str | None = None,
) -> Dataset:
    """Loads the rows of a .npy file, or the data and labels of an .npz file.

    A large .npy file stays on the disk. Without a test split, rows are held out.

    Args:
        path: path of the file.
        value_range: (low, high), which is scaled to [0, 1]; see `unit_range` for None.
        axes: the axes of a row, see `AXES`, or None to choose them by the shape.
        array: name of the data in an .npz file; see `choose` for None.
        label: name of the labels in an .npz file, likewise.

    Raises:
        ValueError: for a file that cannot be read, and for unsuitable arrays.
    """
    choice, x, y = Choice({"train": "x"}, {}, ()), {}, {}
    if zipfile.is_zipfile(path):
        choice, x, y = _read_archive(path, array, label)
    else:
        mmap_mode = "r" if too_large(path.stat().st_size) else None
        _check_kind(archives.read_header(path), f"x of {path.name}")
        x["train"] = archives.read_array(path, mmap_mode)
    names = {part: f"{name} of {path.name}" for part, name in choice.x.items()}
    _check_parts(x, names)
    shape, dtype = x["train"].shape, x["train"].dtype
    axes, axes_notes = find_axes(shape, dtype, axes, names["train"])
    rows = {name: _as_rows(x[part], axes, name) for part, name in names.items()}
    rows, value_range, scale_notes = unit_range(rows, value_range)
    parts = {f"x_{part}": rows[name] for part, name in names.items()}
    parts |= {f"y_{part}": labels for part, labels in y.items()}
    if "test" in x:
        data = Dataset(str(path), **parts)
    else:
        data = unsplit(str(path), parts.pop("x_train"), parts.pop("y_train", None))
        data = data._replace(**parts)
    notes = (*choice.notes, *axes_notes, *scale_notes)
    return data._replace(value_range=value_range, axes=axes, notes=notes)


def _read_archive(path, array, label):
    """Reads an .npz file: (`Choice`, data by part, labels by part)."""
    headers = archives.read_headers(path)
    arrays: dict[str, Any] = {}
    if array is None:
        arrays, headers = archives.read_sparse(path, headers)
    choice = choose(path, headers, array, label)
    for name in choice.x.values():
        if name not in arrays:
            _check_kind(headers[name], f"{name} of {path.name}")
            arrays |= archives.read_arrays(path, [name])
    x = {part: arrays[name] for part, name in choice.x.items()}
    y, problem = _read_labels(path, choice.y, {part: len(rows) for part, rows in x.items()})
    if problem and label is not None:
        raise ValueError(
            "`label` must name an array with one class for each row: numbers or text, or "
            f"one-hot rows. Received: label={label}: {problem}"
        )
    if problem:
        note = f"No labels are used: {problem}."
        return choice._replace(notes=(*choice.notes, note)), x, {}
    if "test" in x and len({*y} & {"train", "test"}) == 1:
        raise ValueError(
            "`data` must have both y_train and y_test, or neither. Received: only "
            f"{' and '.join(choice.y.values())} in {path}"
        )
    return choice, x, y


def _read_labels(path, names, rows):
    """Reads labels by part; returns them, and the reason why they cannot be used."""
    y = {}
    for part, name in names.items():
        raw = archives.read_arrays(path, [name])[name]
        if raw.shape[:1] != (rows[part],):
            raise ValueError(
                f"`data` must have one label for each row of x: shape ({rows[part]},). "
                f"Received: {name} of {path.name} of shape {raw.shape}"
            )
        y[part], problem = as_labels(raw)
        if problem:
            return {}, f"{name} has {problem}"
    return y, ""


def _check_parts(x, names):
    """Raises a ValueError unless all parts have rows of the same shape and dtype."""
    first = x["train"]
    for part, rows in x.items():
        if rows.shape[1:] != first.shape[1:] or rows.dtype != first.dtype:
            raise ValueError(
                f"`data` must have rows of one shape and dtype: {first.shape[1:]} "
                f"{first.dtype} in {names['train']}. Received: {rows.shape[1:]} "
                f"{rows.dtype} in {names[part]}"
            )


def _check_kind(x, name):
    """Raises a ValueError unless an array, or the header of one, has numbers."""
    advice = {
        "c": "save the parts as channels: np.stack([x.real, x.imag], -1)",
        "V": "save columns as a table: pandas.DataFrame(x).to_csv('x.csv', index=False)",
        "O": "save rows of one length: np.array(x.tolist(), 'float32')",
    }
    kind = x.dtype.kind
    if kind not in "buif":
        hint = f" ({advice[kind]})" if kind in advice else ""
        raise ValueError(
            f"`data` must hold numbers{hint}. Received: {name} of dtype {x.dtype}"
        )


def _as_rows(x, axes, name):
    """Returns finite rows with the channels last: an array, or `RowsOnDisk`."""
    if isinstance(x, np.memmap):
        return channels_last(MappedRows(x, "data"), axes)
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            wrong = ~np.isfinite(x.astype(np.float32))
        if wrong.any():
            row, *place = map(int, np.unravel_index(wrong.argmax(), wrong.shape))
            raise ValueError(
                f"`data` must be finite in float32. Received: {wrong.sum():,} values that "
                f"are NaN, infinite or too large in {name}, first in row {row} at {place}"
            )
    return channels_last(x, axes)
