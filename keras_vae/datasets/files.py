"""Data sets from folders of images."""

import math
import pathlib

import numpy as np

from keras_vae.datasets import image_files
from keras_vae.datasets.dataset import Dataset, with_test_rows
from keras_vae.datasets.rows import RowsOnDisk, too_large


def load_images(path: pathlib.Path, resize: tuple[int, int] | None = None) -> Dataset:
    """Loads a folder of images, uint8.

    The images are in the folder itself, or in subfolders, whose names are then the labels.
    Subfolders `train`, `test` and optionally `val` have the same structure. If all
    images are grey, one channel is loaded, otherwise RGB; transparency is lost. Images that
    do not fit into memory are read when they are needed, and have no labels.

    Args:
        path: path of the folder.
        resize: (height, width) to which all images are resized, or None if all have the
            same size.

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
        x, y = _read_images([path / part for part in parts], resize)
        unlabelled = y[0] is None or y[1] is None or isinstance(x[0], RowsOnDisk)
        y = [None, None] if unlabelled else y
        x_val = x[2] if len(x) == 3 else None
        return Dataset(str(path), x[0], x[1], x_val, y[0], y[1], value_range=(0, 255))
    (x,), (y,) = _read_images([path], resize)
    y = None if isinstance(x, RowsOnDisk) else y
    return with_test_rows(str(path), x, y, value_range=(0, 255))


def _read_images(folders, resize):
    """Reads the images and labels of each folder: (list of x, list of y or None)."""
    files = [image_files.images_in(folder) for folder in folders]
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
    shape = (*size, 1 if all(grey for _, grey in formats) else 3)
    xs, ys = [], []
    for folder, paths in zip(folders, files, strict=True):
        x = image_files.ImageFiles(paths, shape)
        x.name = "data"
        xs.append(x if too_large(math.prod(x.shape)) else x[:])
        in_subfolders = all(path.parent != folder for path in paths)
        labels = np.array([path.parent.name for path in paths])
        ys.append(labels if in_subfolders else None)
    return xs, ys


def _size_and_grey(path):
    """Reads ((height, width), True if it is grey) of an image."""
    with image_files.open_image(path, "data") as image:
        return image.size[::-1], image.mode in ("1", "L", "LA")
