"""Images in files, decoded when a batch needs them."""

import concurrent.futures
import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_vae import checks
from keras_vae.datasets.rows import RowsOnDisk, check_paths

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class ImageFiles(RowsOnDisk):
    """Image files as rows, decoded when they are needed, several at a time.

    Args:
        paths: list of paths, in the order of the rows; or a folder, for the images in it
            and in its subfolders, in the order of their names.
        shape: (height, width, channels). All images are resized to it. With 1 channel they
            are converted to grey, with 3 channels to RGB. Transparency is lost.

    Attributes:
        shape: `(rows, height, width, channels)`.
        dtype: uint8.

    Raises:
        ValueError: if there is no image; and, when rows are read, for an image that cannot
            be decoded.

    Example:

    >>> import keras, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for i in range(3):
    ...     keras.utils.save_img(folder / f"{i}.png", np.zeros((10, 8, 3)))
    >>> ImageFiles(folder, shape=(5, 4, 3)).shape
    (3, 5, 4, 3)
    """

    most_sampled = 100
    name = "paths"  # the argument's name for errors

    def __init__(self, paths: Any, shape: Sequence):
        if isinstance(paths, (str, os.PathLike)):
            paths = images_in(pathlib.Path(paths))
        self.paths = check_paths(paths, "image")
        event = checks.shape(shape, "shape")
        is_image = len(event) == 3 and event[2] in (1, 3)
        checks.require(is_image, "shape", "(height, width, 1 or 3)", shape)
        self.shape, self.dtype = (len(self.paths), *event), np.dtype(np.uint8)

    def rows(self, index: np.ndarray) -> np.ndarray:
        height, width, channels = self.shape[1:]

        def read(row, i):
            with open_image(self.paths[i], self.name) as image:
                picture = image.convert("L" if channels == 1 else "RGB")
                picture = picture.resize((width, height), resample=2)  # bilinear
                row[:] = np.reshape(picture, row.shape)

        rows = np.empty((len(index), *self.shape[1:]), self.dtype)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(read, rows, index))
        return rows


def images_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the paths of the images in a folder and in its subfolders, sorted."""
    return sorted(
        p
        for p in (*folder.glob("*"), *folder.glob("*/*"))
        if p.suffix.lower() in IMAGES and not p.name.startswith(".")
    )


@contextlib.contextmanager
def open_image(path: pathlib.Path, name: str) -> Iterator[Any]:
    """Opens an image with PIL, which decodes the pixels only when they are used.

    Args:
        path: path of the image.
        name: str, the argument's name for errors.

    Raises:
        ValueError: for a file that is not an image of 8 bits per channel.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise OSError(f"more than 8 bits per channel (mode {image.mode})")
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"`{name}` must have readable images of 8 bits per channel. Received: {path}: "
            f"{error}"
        ) from error
