"""Arrays and images in files."""

import math

import numpy as np

from keras_vae.datasets import image_files
from keras_vae.datasets.dataset import Dataset, with_test_rows
from keras_vae.datasets.rows import MappedRows, RowsOnDisk, too_large


def load_arrays(path, value_range=None):
    """A `Dataset` of a .npy file, x, or a .npz file, x or x_train and x_test.

    Labels are optional: y, or y_train and y_test; so is x_val. A large .npy file stays on
    the disk, unless its values are to be scaled.

    Args:
        path: `pathlib.Path`.
        value_range: (low, high), scaled to [0, 1]; None leaves the values.
    """
    if path.suffix.lower() == ".npy" and too_large(path.stat().st_size):
        x = read_arrays(path, mmap_mode="r")["x"]
        if value_range is None or (x.dtype == np.uint8 and value_range == (0, 255)):
            x = MappedRows(_as_rows(x, f"x of {path.name}"), "data")
            return with_test_rows(str(path), x, value_range=_range(x, value_range))
    arrays = read_arrays(path)
    expected = "x, or x_train and x_test, and optionally labels under y"
    names = set(arrays)
    xs = [x for name, x in arrays.items() if name.split("_")[0] == "x"]
    if value_range is None and all(
        x.dtype == np.uint8 and x.max(initial=0) <= 1 for x in xs
    ):
        # 0 and 1 are not two of 256 grey values.
        arrays |= {name: x.astype(bool) for name, x in arrays.items() if name[0] == "x"}
    if "x" in names and not names & {"x_train", "x_test"}:
        x = _array(arrays["x"], f"x of {path.name}", value_range)
        y = _labels(arrays.get("y"), len(x), f"y of {path.name}")
        return with_test_rows(str(path), x, y, value_range=_range(x, value_range))
    if not {"x_train", "x_test"} <= names:
        raise ValueError(
            f"`data` must be an .npz file that holds {expected}. Received: {path} with "
            f"{', '.join(sorted(names)) or 'nothing'}"
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
            "`data` must have labels for both parts or for none. Received: "
            f"{'y_test' if parts['y_train'] is None else 'y_train'} alone in {path}"
        )
    return Dataset(str(path), **parts, value_range=_range(parts["x_train"], value_range))


def load_images(path, resize=None):
    """A `Dataset` of a folder of images, uint8.

    Images lie in the folder or in folders of it, whose names are then the labels; with
    folders `train` and `test`, and perhaps `val`, each is such a folder. They are grey if
    all are, else RGB; what is transparent is lost. Where they would take too much memory
    they are read as they are needed, and have no labels.

    Args:
        path: `pathlib.Path` of the folder.
        resize: (height, width) to bring all to, or None if they are of one size.
    """
    parts = [part for part in ("train", "test", "val") if (path / part).is_dir()]
    if parts[:1] in (["train"], ["test"]) and parts[:2] != ["train", "test"]:
        raise ValueError(
            "`data` must be a folder with both `train` and `test`, or with neither. "
            f"Received: {path} with {' and '.join(parts)}"
        )
    if parts[:2] == ["train", "test"]:
        x, y = _read_images([path / part for part in parts], resize)
        unlabelled = y[0] is None or y[1] is None or isinstance(x[0], RowsOnDisk)
        y = [None, None] if unlabelled else y
        x_val = x[2] if len(x) == 3 else None
        return Dataset(str(path), x[0], x[1], x_val, y[0], y[1], value_range=(0, 255))
    (x,), (y,) = _read_images([path], resize)
    y = None if isinstance(x, RowsOnDisk) else y
    return with_test_rows(str(path), x, y, value_range=(0, 255))


def read_arrays(path, mmap_mode=None):
    """The arrays of a .npy or .npz file by name; that of a .npy file is x."""
    try:
        # NumPy leaves a path open that is no whole zip file.
        with open(path, "rb") as file:
            file = path if mmap_mode else file
            loaded = np.load(file, mmap_mode=mmap_mode, allow_pickle=False)
            return {"x": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except Exception as error:  # damaged bytes raise whatever they hit
        raise ValueError(
            f"`data` must be a NumPy file of numbers that can be read. Received: {path}: "
            f"{error}"
        ) from error


def _as_rows(x, name):
    if x.dtype.kind not in "buif":
        raise ValueError(f"`data` must hold numbers. Received: {name} of dtype {x.dtype}")
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise ValueError(
            "`data` must be images (rows, height, width) or (rows, height, width, "
            f"channels), or vectors (rows, columns). Received: {name} of shape {x.shape}"
        )
    return x[..., None] if x.ndim == 3 else x


def _array(x, name, value_range):
    x = _as_rows(x, name)
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            wrong = ~np.isfinite(x.astype(np.float32))
        if wrong.any():
            raise ValueError(
                f"`data` must be finite in float32. Received: {wrong.sum()} values of NaN "
                f"or infinity, or beyond its range, in {name}"
            )
    if value_range is not None:
        low, high = value_range
        if x.min() < low or x.max() > high:
            raise ValueError(
                f"`value_range` must hold all values. Received: value_range={low} {high}, "
                f"but values from {x.min()} to {x.max()} in {name}"
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


def _read_images(folders, resize):
    """The images and the labels of each folder, all of one size and one mode."""
    files = [image_files.images_in(folder) for folder in folders]
    for folder, found in zip(folders, files, strict=True):
        if not found:
            raise ValueError(
                f"`data` must be a folder with images ({', '.join(image_files.IMAGES)}). "
                f"Received: {folder}, which has none"
            )
    every = [path for found in files for path in found]
    kinds = [_kind(path) for path in every]
    size = resize or kinds[0][0]
    for path, (other, _) in zip(every, kinds, strict=True):
        if resize is None and other != size:
            raise ValueError(
                "`data` must have images of one size, or give `resize`. Received: "
                f"{every[0]} of {size[0]} x {size[1]} and {path} of "
                f"{other[0]} x {other[1]} (height x width)"
            )
    shape = (*size, 1 if all(grey for _, grey in kinds) else 3)
    xs, ys = [], []
    for folder, found in zip(folders, files, strict=True):
        x = image_files.ImageFiles(found, shape)
        x.name = "data"
        xs.append(x if too_large(math.prod(x.shape)) else x[:])
        inside = all(path.parent != folder for path in found)
        ys.append(np.array([path.parent.name for path in found]) if inside else None)
    return xs, ys


def _kind(path):
    """((height, width), whether it is grey) of an image."""
    with image_files.open_image(path, "data") as image:
        return image.size[::-1], image.mode in ("1", "L", "LA")
