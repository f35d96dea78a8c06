"""Data sets from NumPy files."""

import pathlib
from typing import Any

import numpy as np

from keras_vae.datasets.dataset import Dataset, with_test_rows
from keras_vae.datasets.rows import MappedRows, too_large


def load_arrays(
    path: pathlib.Path, value_range: tuple[float, float] | None = None
) -> Dataset:
    """Loads a .npy file (x), or a .npz file with x, or with x_train and x_test.

    Labels (y, or y_train and y_test) and x_val are optional. A large .npy file stays on the
    disk, unless its values are scaled.

    Args:
        path: path of the file.
        value_range: (low, high), which is scaled to [0, 1]; None leaves the values
            unchanged.

    Raises:
        ValueError: for a file that cannot be read, and for unsuitable arrays.
    """
    if path.suffix.lower() == ".npy" and too_large(path.stat().st_size):
        x = read_arrays(path, mmap_mode="r")["x"]
        if value_range is None or (x.dtype == np.uint8 and value_range == (0, 255)):
            rows = MappedRows(_as_rows(x, f"x of {path.name}"), "data")
            return with_test_rows(str(path), rows, value_range=_range(x, value_range))
    arrays = read_arrays(path)
    names = set(arrays)
    xs = [x for name, x in arrays.items() if name.split("_")[0] == "x"]
    if value_range is None and all(
        x.dtype == np.uint8 and x.max(initial=0) <= 1 for x in xs
    ):
        # Only 0 and 1: binary data, not grey values.
        arrays |= {name: x.astype(bool) for name, x in arrays.items() if name[0] == "x"}
    if "x" in names and not names & {"x_train", "x_test"}:
        x = _array(arrays["x"], f"x of {path.name}", value_range)
        y = _labels(arrays.get("y"), len(x), f"y of {path.name}")
        return with_test_rows(str(path), x, y, value_range=_range(x, value_range))
    if not {"x_train", "x_test"} <= names:
        raise ValueError(
            "`data` must be an .npz file with x, or with x_train and x_test, and "
            f"optionally labels y. Received: {path} with "
            f"{', '.join(sorted(names)) or 'no array'}"
        )
    parts = {}
    for part in ("train", "test", "val"):
        if f"x_{part}" in arrays:
            name = f"x_{part} of {path.name}"
            parts[f"x_{part}"] = x = _array(arrays[f"x_{part}"], name, value_range)
            first = parts["x_train"]
            if x.shape[1:] != first.shape[1:] or x.dtype != first.dtype:
                raise ValueError(
                    f"`data` must have rows of one shape and dtype: {first.shape[1:]} "
                    f"{first.dtype} in x_train. Received: {x.shape[1:]} {x.dtype} in {name}"
                )
            if part != "val":
                y = _labels(arrays.get(f"y_{part}"), len(x), f"y_{part} of {path.name}")
                parts[f"y_{part}"] = y
    if (parts["y_train"] is None) != (parts["y_test"] is None):
        raise ValueError(
            "`data` must have both y_train and y_test, or neither. Received: only "
            f"{'y_test' if parts['y_train'] is None else 'y_train'} in {path}"
        )
    return Dataset(str(path), **parts, value_range=_range(parts["x_train"], value_range))


def read_arrays(path: pathlib.Path, mmap_mode: Any = None) -> dict[str, np.ndarray]:
    """Reads the arrays of a .npy or .npz file by name; the array of a .npy file is `x`.

    Args:
        path: path of the file.
        mmap_mode: as for `np.load`.

    Raises:
        ValueError: for a file that cannot be read.
    """
    try:
        # Given a path, NumPy does not close a damaged zip file.
        with open(path, "rb") as file:
            source = path if mmap_mode else file
            loaded = np.load(source, mmap_mode=mmap_mode, allow_pickle=False)
            return {"x": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except Exception as error:  # damaged files raise many kinds of errors
        raise ValueError(
            f"`data` must be a readable NumPy file of numbers. Received: {path}: {error}"
        ) from error


def _as_rows(x, name):
    """Returns x `[rows, *event]`, with a channel axis, or raises a ValueError."""
    if x.dtype.kind not in "buif":
        raise ValueError(f"`data` must hold numbers. Received: {name} of dtype {x.dtype}")
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise ValueError(
            "`data` must be images (rows, height, width) or (rows, height, width, "
            f"channels), or vectors (rows, columns). Received: {name} of shape {x.shape}"
        )
    return x[..., None] if x.ndim == 3 else x


def _array(x, name, value_range):
    """Returns x, scaled, as uint8, bool or float32, or raises a ValueError."""
    x = _as_rows(x, name)
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            wrong = ~np.isfinite(x.astype(np.float32))
        if wrong.any():
            raise ValueError(
                f"`data` must be finite in float32. Received: {wrong.sum()} values "
                f"that are NaN, infinite or too large, in {name}"
            )
    if value_range is not None:
        low, high = value_range
        if x.min() < low or x.max() > high:
            raise ValueError(
                f"`value_range` must contain all values. Received: value_range={low} "
                f"{high}, but values from {x.min()} to {x.max()} in {name}"
            )
        if x.dtype != np.uint8 or (low, high) != (0, 255):
            x = (x.astype(np.float32) - low) / np.float32(high - low)
    elif x.dtype not in (np.uint8, bool):
        x = x.astype(np.float32)
    return x


def _range(x, value_range):
    return (0, 255) if x.dtype == np.uint8 else value_range


def _labels(y, rows, name):
    if y is None:
        return None
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (rows,):
        raise ValueError(
            f"`data` must have one label for each row of x: shape ({rows},). "
            f"Received: {name} of shape {y.shape}"
        )
    return y
