"""Images in files, decoded when a batch needs them."""

import concurrent.futures
import contextlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_vae import checks
from keras_vae.datasets.rows import RowsOnDisk, check_paths
from keras_vae.datasets.scaling import scale

# Endings of file names, in lower case, and the only formats that PIL may open, whatever the
# ending: some of its other formats start programs.
IMAGES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
IGNORED = ("__macosx", "@eadir", "$recycle.bin", "thumbs.db", "desktop.ini")
ORIENTATION = 0x0112  # an EXIF tag; 5 to 8 exchange height and width


class ImageFiles(RowsOnDisk):
    """Image files as rows, decoded when they are needed, several at a time.

    The pixels are those that an image viewer shows: rotated as EXIF says, palettes and
    other colour spaces as RGB, transparent pixels on white, and the first frame or page.

    Args:
        paths: list of paths, in the order of the rows; or a folder, for the images in it
            and in its subfolders, in the order of their names.
        shape: (height, width, channels). All images are resized to it. With 1 channel they
            are converted to grey, with 3 channels to RGB.
        value_range: (low, high) of the pixels, which is scaled to [0, 1]: rows are float32.
            Grey images of more than 8 bits need it, such as (0, 4095). Default: uint8.

    Attributes:
        shape: `(rows, height, width, channels)`.
        dtype: uint8, or float32 with a `value_range`.

    Raises:
        ValueError: if there is no image; and, when rows are read, for an image that cannot
            be decoded or has more than 8 bits without a `value_range`.

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

    def __init__(
        self, paths: Any, shape: Sequence, value_range: tuple[float, float] | None = None
    ):
        if isinstance(paths, (str, os.PathLike)):
            paths = images_in(pathlib.Path(paths))
        self.paths = check_paths(paths, "image")
        event = checks.shape(shape, "shape")
        is_image = len(event) == 3 and event[2] in (1, 3)
        checks.require(is_image, "shape", "(height, width, 1 or 3)", shape)
        is_range = value_range is None or (
            np.shape(value_range) == (2,) and value_range[0] < value_range[1]
        )
        checks.require(is_range, "value_range", "(low, high), low below high", value_range)
        self.value_range = value_range
        dtype = np.uint8 if value_range is None else np.float32
        self.shape, self.dtype = (len(self.paths), *event), np.dtype(dtype)
        self.pages = np.zeros(len(self.paths), np.int32)  # page of the file for each row

    def rows(self, index: np.ndarray) -> np.ndarray:
        rows = np.empty((len(index), *self.shape[1:]), self.dtype)
        deep = self.value_range is not None

        def read(path, page, row):
            row[:] = read_pixels(path, self.shape[1:], deep, page)

        paths = [self.paths[i] for i in index]
        _, faults = call_for_each(read, paths, self.pages[index], rows)
        if faults:
            path, reason = next(iter(faults.items()))
            raise ValueError(
                f"`{self.name}` must have readable images. Received: {path}: {reason}"
            )
        return scale(rows, self.value_range)


def images_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the paths of the images in a folder and in its subfolders, sorted."""
    return sorted(p for p in files_in(folder) if p.suffix.lower() in IMAGES)


def files_in(folder: pathlib.Path, above: tuple[str, ...] = ()) -> Iterator[pathlib.Path]:
    """Yields the files in a folder and in its subfolders.

    Hidden files and those of operating systems are left out. Links are followed, except to
    a folder that contains the link.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name.lower() in IGNORED:
            continue
        if path.is_dir():
            yield from files_in(path, (*above, real))
        else:
            yield path


class Header(NamedTuple):
    """The properties of an image that decide how it is read.

    Attributes:
        size: (height, width), as shown.
        grey: bool, True if one channel holds the image.
        deep: bool, True for a grey image of more than 8 bits, or of floats.
        reduced: bool, True for a colour image of 16 bits, of which the upper 8 are read.
        transparent: bool, True if a pixel is transparent.
        animated: bool, True if only the first frame or page is read.
        pages: int, the pages of a TIFF file if they have the same size; otherwise 1.
    """

    size: tuple[int, int]
    grey: bool
    deep: bool
    reduced: bool
    transparent: bool
    animated: bool
    pages: int


def read_header(path: pathlib.Path, complete: bool = False) -> Header:
    """Reads the properties of an image.

    Args:
        path: path of the image.
        complete: bool, whether to decode all pixels, which finds damaged files.
    """
    with _open(path) as image:
        mode, deep, tile = image.mode, _is_deep(image), str(image.tile)
        pages = _count_pages(image)
        # PIL decodes a PNG file to find EXIF after its pixels, which is rare.
        has_exif = image.format != "PNG" or "exif" in image.info
        turned = has_exif and image.getexif().get(ORIENTATION, 1) >= 5
        if turned and image.format == "TIFF":
            image.load()  # also rotates the image
            turned = False
        header = Header(
            size=image.size if turned else image.size[::-1],
            grey=deep or mode in ("1", "L", "LA") or _has_grey_palette(image),
            deep=deep,
            reduced=not deep and ";16" in tile,
            transparent=_is_transparent(image),
            # A JPEG file of several images (MPO) has previews, not frames.
            animated=pages == 1 < getattr(image, "n_frames", 1) and image.format != "MPO",
            pages=pages,
        )
        for page in range(pages if complete else 0):
            image.seek(page)
            _check_pixels(image)
        return header


def read_pixels(
    path: pathlib.Path, shape: tuple[int, ...], deep: bool = False, page: int = 0
) -> np.ndarray:
    """Reads an image as an image viewer shows it.

    Args:
        path: path of the image.
        shape: (height, width, 1 or 3) of the result; other images are resized.
        deep: bool, True to return float32 instead of uint8, in the units of the file.
        page: int, page of the file.

    Raises:
        ValueError: for an image of more than 8 bits, unless `deep`, and for NaN.
    """
    from PIL import Image, ImageOps

    height, width, channels = shape
    with _open(path) as image:
        image.seek(page)
        _check_pixels(image)
        if _is_deep(image):
            if not deep:
                raise ValueError(f"more than 8 bits per pixel (mode {image.mode})")
            # In float32: PIL can resize, rotate and convert few modes of more bits.
            pixels, exif = np.asarray(image, np.float32), image.getexif()
            image = Image.fromarray(pixels)
            image.getexif().update(exif)
        image = ImageOps.exif_transpose(image)
        if _is_transparent(image):
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        if image.mode == "LAB":
            image = _lab_to_rgb(image)
        if image.mode != "F":
            image = image.convert("L" if channels == 1 else "RGB")
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return np.broadcast_to(pixels if pixels.ndim == 3 else pixels[..., None], shape)


def call_for_each(
    function: Callable, paths: Sequence[pathlib.Path], *arguments: Iterable
) -> tuple[list[Any], dict[pathlib.Path, str]]:
    """Calls `function(path, ...)` for each path, several at a time.

    Returns:
        (results, faults): list of results, None for a path whose call failed; dict from
        these paths to the reasons.
    """
    faults = {}

    def call(path, *values):
        try:
            return function(path, *values)
        except Exception as error:  # PIL raises many kinds for damaged files
            faults[path] = _reason(error)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(call, paths, *arguments))
    return results, {path: faults[path] for path in paths if path in faults}


@contextlib.contextmanager
def _open(path):
    from PIL import Image

    # Given a path, PIL maps some TIFF files, and then rotates them wrongly.
    with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
        yield image


def _is_deep(image):
    return image.mode.startswith(("I", "F"))


def _check_pixels(image):
    """Decodes an image, and raises an error for damage and for pixels without a value."""
    image.load()
    if image.mode == "F" and not np.isfinite(np.asarray(image)).all():
        raise ValueError("pixels that are NaN or infinite")


def _count_pages(image):
    """Returns the number of pages of a TIFF file of the same size and mode, otherwise 1."""
    if image.format != "TIFF" or image.n_frames == 1:
        return 1
    kinds = set()
    for page in range(image.n_frames):
        image.seek(page)
        kinds.add((image.size, image.mode))
    image.seek(0)
    return image.n_frames if len(kinds) == 1 else 1


def _is_transparent(image):
    """Returns True if a pixel of the image is transparent, at least in part."""
    has_alpha = image.mode[-1] in "Aa" or "transparency" in image.info
    if not has_alpha or _is_deep(image):
        return False
    return image.convert("RGBA").getchannel("A").getextrema()[0] < 255


def _has_grey_palette(image):
    if image.mode not in ("P", "PA"):
        return False
    colours = np.reshape(image.getpalette("RGB"), (-1, 3))
    return bool((colours == colours[:, :1]).all())


def _lab_to_rgb(image):
    from PIL import ImageCms

    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, *profiles, outputMode="RGB")


def _reason(error):
    """Returns a short text for an error of PIL."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # its text repeats the path
        return "not an image of a known format"
    text = getattr(error, "strerror", None) or str(error)
    return checks.short(text or type(error).__name__)
