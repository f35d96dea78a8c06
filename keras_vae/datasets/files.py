"""Data sets from NumPy files and from folders of images."""

import math
import pathlib
from typing import Any

import numpy as np

from keras_vae.datasets import image_files
from keras_vae.datasets.dataset import Dataset, unsplit
from keras_vae.datasets.rows import MappedRows, RowsOnDisk, too_large


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
            return unsplit(str(path), rows, value_range=_range(x, value_range))
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
        return unsplit(str(path), x, y, value_range=_range(x, value_range))
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


def load_images(
    path: pathlib.Path, resize: tuple[int, int] | None = None, channels: int | None = None
) -> Dataset:
    """Loads a folder of images, uint8.

    The images are in the folder itself, or in subfolders, whose names are then the labels.
    Subfolders `train`, `test` and optionally `val` have the same structure. If all
    images are grey, one channel is loaded, otherwise RGB; transparency is lost. Images that
    do not fit into memory are read when they are needed, and have no labels.

    Args:
        path: path of the folder, or of one image.
        resize: (height, width) to which all images are resized, or None if all have the
            same size.
        channels: 1 or 3, or None for 1 if all images are grey.

    Raises:
        ValueError: for a folder without images, and for images of several sizes.
    """
    parts = [part for part in ("train", "test", "val") if (path / part).is_dir()]
    if parts[:1] in (["train"], ["test"]) and parts[:2] != ["train", "test"]:
        raise ValueError(
            "`data` must be a folder with both `train` and `test`, or with neither. "
            f"Received: {path} with only {' and '.join(parts)}"
        )
    if parts[:2] == ["train", "test"]:
        x, y, ids = _read_images([path / part for part in parts], resize, channels)
        unlabelled = y[0] is None or y[1] is None or isinstance(x[0], RowsOnDisk)
        y = [None, None] if unlabelled else y
        named = {f"ids_{part}": paths for part, paths in zip(parts, ids, strict=True)}
        x_val = x[2] if len(x) == 3 else None
        named["value_range"] = (0, 255)
        return Dataset(str(path), x[0], x[1], x_val, y[0], y[1], **named)
    (x,), (y,), (ids,) = _read_images([path], resize, channels)
    y = None if isinstance(x, RowsOnDisk) else y
    return unsplit(str(path), x, y, ids, value_range=(0, 255))


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


def _read_images(folders, resize, channels):
    """Reads each folder: (list of x, list of labels or None, list of paths)."""
    files = [
        image_files.images_in(folder) if folder.is_dir() else [folder] for folder in folders
    ]
    for folder, paths in zip(folders, files, strict=True):
        if not paths:
            raise ValueError(
                f"`data` must be a folder with images ({', '.join(image_files.IMAGES)}). "
                f"Received: {folder} without images"
            )
    all_paths = [path for paths in files for path in paths]
    formats = [_size_and_grey(path) for path in all_paths]
    size = resize or formats[0][0]
    for path, (other, _) in zip(all_paths, formats, strict=True):
        if resize is None and other != size:
            raise ValueError(
                "`data` must have images of one size, or give `resize`. Received: "
                f"{all_paths[0]} of {size[0]} x {size[1]} and {path} of "
                f"{other[0]} x {other[1]} (height x width)"
            )
    shape = (*size, channels or (1 if all(grey for _, grey in formats) else 3))
    xs, ys, ids = [], [], []
    for folder, paths in zip(folders, files, strict=True):
        x = image_files.ImageFiles(paths, shape)
        x.name = "data"
        xs.append(x if too_large(math.prod(x.shape)) else x[:])
        in_subfolders = folder.is_dir() and all(path.parent != folder for path in paths)
        labels = np.array([path.parent.name for path in paths])
        ys.append(labels if in_subfolders else None)
        ids.append(np.array(paths, dtype=object))
    return xs, ys, ids


def _size_and_grey(path):
    """Reads ((height, width), True if it is grey) of an image."""
    with image_files.open_image(path, "data") as image:
        return image.size[::-1], image.mode in ("1", "L", "LA")
