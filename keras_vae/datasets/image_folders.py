"""Data sets from folders of images."""

import collections
import itertools
import math
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from keras_vae.datasets.dataset import Dataset, unsplit
from keras_vae.datasets.image_files import (
    IMAGES,
    Header,
    ImageFiles,
    call_for_each,
    files_in,
    read_header,
)
from keras_vae.datasets.rows import RowsOnDisk, too_large
from keras_vae.datasets.scaling import unit_range

# Names of folders that are a part of the data set and not a class, in lower case.
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
MOST_NAMED = 10  # files in a message


class _Images(NamedTuple):
    """The images of a part of the data set: paths, and labels `[images]` or None."""

    paths: list[pathlib.Path]
    labels: np.ndarray | None


def load_images(
    path: pathlib.Path,
    resize: tuple[int, int] | None = None,
    value_range: tuple[float, float] | None = None,
    skip_broken: bool = False,
    channels: int | None = None,
) -> Dataset:
    """Loads a folder of images, with the pixels that an image viewer shows.

    The images are in the folder itself, or in subfolders, whose names are then the labels.
    Subfolders `train`, `test` and `val` have the same structure; without `test`, `val` is
    the test set. If all images are grey, one channel is loaded, otherwise RGB. Each page of
    a TIFF file is an image. Images that do not fit into memory are read when they are
    needed, and have no labels.

    Args:
        path: path of the folder, or of one image.
        resize: (height, width) to which all images are resized, or None if all have the
            same size.
        value_range: (low, high) of the pixels, which is scaled to [0, 1]. Default: see
            `unit_range`.
        skip_broken: bool, whether to leave out images that cannot be read.
        channels: 1 or 3, or None for 1 if all images are grey.

    Raises:
        ValueError: for a folder without images, and for images that cannot be read, that
            have several sizes, or of which only some have more than 8 bits.
    """
    single = {"train": _Images([path], None)}
    parts, notes = _find_images(path) if path.is_dir() else (single, [])
    headers, skipped = _read_headers(path, parts, skip_broken)
    notes += skipped + _notes_on([*headers.values()])
    shape = _common_shape(path, headers, resize, channels)
    xs: dict[str, Any] = {}
    ys: dict[str, Any] = {}
    ids: dict[str, Any] = {}
    for part, (paths, labels) in parts.items():
        pages = [headers[p].pages if p in headers else 0 for p in paths]
        if not any(pages):
            raise ValueError(
                f"`data` must have readable images in {part}. Received: none in {path}"
            )
        repeated = [p for p, n in zip(paths, pages, strict=True) for _ in range(n)]
        xs[part] = _read_pixels(path, repeated, shape, headers)
        ys[part] = None if labels is None else np.repeat(labels, pages)
        ids[part] = np.array(repeated, dtype=object)
    ys, unlabelled = _usable_labels(xs, ys)
    xs, value_range, scaling = unit_range(xs, value_range)
    fields: dict[str, Any] = {
        "value_range": value_range,
        "notes": (*notes, *unlabelled, *scaling),
    }
    if "test" not in xs:
        return unsplit(str(path), xs["train"], ys["train"], ids["train"], **fields)
    arrays = {f"x_{part}": x for part, x in xs.items()}
    arrays |= {f"y_{part}": y for part, y in ys.items()}
    arrays |= {f"ids_{part}": paths for part, paths in ids.items()}
    return Dataset(str(path), **arrays, **fields)


def _find_images(root: pathlib.Path) -> tuple[dict[str, _Images], list[str]]:
    """Finds the images of each part: ({"train": ..., "test": ...}, notes).

    Without folders for the parts, all images are in `train`.
    """
    images, notes = _image_paths(root)
    top = _only_subfolder(root, images)
    if top != root:
        notes.append(
            f"The images are those of the only subfolder, {top.relative_to(root)}."
        )
    groups = collections.defaultdict(list)  # by subfolder
    for path in images:
        first, *rest = path.relative_to(top).parts
        groups[first if rest else ""].append(path)
    found = _parts_of(top, groups)
    if not found:
        labelled, more = _with_labels(top, images)
        return {"train": labelled}, notes + more
    if unused := sorted({*groups} - {*found.values()}):
        used = ", ".join(found.values())
        names = _some([name or "no subfolder" for name in unused])
        notes.append(f"Only images in {used} are used, not those in {names}.")
    if "test" not in found:
        found["test"] = found.pop("val")
        notes.append(f"There is no folder of test images: {found['test']} is the test set.")
    parts = {}
    for part, name in found.items():
        parts[part], more = _with_labels(top / name, groups[name])
        notes += [note for note in more if note not in notes]
    return parts, notes


def _image_paths(root):
    """Returns (paths of the images, notes), or raises a ValueError without images."""
    try:
        files = sorted(files_in(root))
    except OSError as error:  # such as a missing permission
        raise ValueError(f"`data` must be a readable folder. Received: {error}") from error
    images = [p for p in files if p.suffix.lower() in IMAGES]
    parts = [f for f in root.iterdir() if f.name.lower() in PARTS and f.is_dir()]
    empty = [f for f in parts if not any(f in p.parents for p in images)]
    if empty or not images:
        raise ValueError(
            f"`data` must be a folder with images ({', '.join(IMAGES)}). "
            f"Received: {empty[0] if empty else root} without images"
        )
    endings = collections.Counter(p.suffix.lower() or p.name for p in files)
    others = [f"{n} {end}" for end, n in sorted(endings.items()) if end not in IMAGES]
    return images, [
        f"Files of other kinds are not read: {_some(others)}."
    ] if others else []


def _only_subfolder(folder, images):
    """Returns the deepest folder with all images that is not a choice of classes."""
    firsts = {p.relative_to(folder).parts[0] for p in images}
    if len(firsts) > 1 or images[0].parent == folder:
        return folder
    return _only_subfolder(folder / firsts.pop(), images)


def _parts_of(folder, groups):
    """Returns the names of the subfolders that are parts: {"train": "Training", ...}."""
    found = {PARTS[name.lower()]: name for name in groups if name.lower() in PARTS}
    if len(found) == 1 and "train" in found and len(groups) > 2:
        return {}  # a class of that name
    if found and ("train" not in found or len(found) == 1):
        raise ValueError(
            "`data` must be a folder with both `train` and `test` (or `val`), or with "
            f"neither. Received: {folder} with {_some(sorted(groups))}"
        )
    return found


def _with_labels(folder, paths):
    """Returns (images with the first subfolder as label, notes)."""
    names = [p.relative_to(folder).parts for p in paths]
    inside = [len(name) > 1 for name in names]
    if not all(inside):
        note = "Some images are outside of subfolders: all are used, without labels."
        return _Images(paths, None), [note] if any(inside) else []
    deep = next((name for name in names if len(name) > 2), None)
    labels = np.array([name[0] for name in names])
    if deep is None:
        return _Images(paths, labels), []
    note = f"The outer subfolders are the labels, such as {deep[0]} of {'/'.join(deep)}."
    return _Images(paths, labels), [note]


def _read_headers(
    root: pathlib.Path, parts: dict[str, _Images], skip_broken: bool
) -> tuple[dict[pathlib.Path, Header], list[str]]:
    """Reads the headers of all images that can be read: (header of each path, notes)."""
    paths = [p for images in parts.values() for p in images.paths]
    # Damage to pixels is found when they are decoded; images to skip must be found here.
    headers, broken = call_for_each(read_header, paths, [skip_broken] * len(paths))
    if broken and not skip_broken:
        _refuse_broken(root, paths)
    notes = []
    if broken:
        names = _some([str(p.relative_to(root)) for p in broken])
        count = f"{len(broken)} of {len(paths)}"
        notes = [f"{count} images cannot be read and are left out: {names}."]
    kept = {p: h for p, h in zip(paths, headers, strict=True) if h is not None}
    if not kept:
        _refuse_broken(root, paths)
    return kept, notes


def _refuse_broken(root, paths):
    """Raises a ValueError that names all images that cannot be read, if there is one."""
    _, broken = call_for_each(read_header, paths, [True] * len(paths))
    if broken:
        reasons = [f"{p.relative_to(root)} ({why})" for p, why in broken.items()]
        raise ValueError(
            "`data` must have readable images: repair or delete the others, or "
            f"leave them out with `skip_broken`. Received: {len(broken)} of {len(paths)} "
            f"that cannot be read in {root}: {_some(reasons)}"
        )


def _common_shape(root, headers, resize, channels):
    """Returns (height, width, channels) of all images, or raises a ValueError."""
    deep = [p.relative_to(root) for p, h in headers.items() if h.deep]
    if 0 < len(deep) < len(headers):
        raise ValueError(
            "`data` must have only images of 8 bits, or only grey images of more bits. "
            f"Received: {len(deep)} of {len(headers)} images with more bits in {root}, "
            f"such as {deep[0]}"
        )
    channels = channels or (1 if all(h.grey for h in headers.values()) else 3)
    if resize is not None:
        return (*resize, channels)
    sizes = collections.Counter(h.size for h in headers.values())
    (size, count), *others = sizes.most_common()
    height, width = size
    if others:
        path, other = next((p, h.size) for p, h in headers.items() if h.size != size)
        raise ValueError(
            f"`data` must have images of one size, or give `resize` {height}x{width}. "
            f"Received: {count} of {len(headers)} images of {height} x {width}, and others "
            f"such as {path} of {other[0]} x {other[1]} (height x width)"
        )
    return height, width, channels


def _read_pixels(root, paths, shape, headers):
    """Returns the pixels in the units of the files, or `ImageFiles` for too many.

    A path that is repeated stands for the pages of a file.
    """
    deep = headers[paths[0]].deep
    x = ImageFiles(paths, shape, (0, 1) if deep else None)  # (0, 1) changes no value
    x.name = "data"
    x.pages = np.concatenate([np.arange(len([*g])) for _, g in itertools.groupby(paths)])
    if too_large(x.dtype.itemsize * math.prod(x.shape)):
        return x
    try:
        return x[:]
    except ValueError:
        _refuse_broken(root, [*headers])
        raise


def _usable_labels(xs, ys):
    """Returns (labels of each part, notes); no labels if the parts cannot all have them."""
    if any(isinstance(x, RowsOnDisk) for x in xs.values()):
        reason = "the images stay on the disk"
    elif any(y is None for part, y in ys.items() if part != "val"):
        reason = "some images have none"
    else:
        return ys, []
    labelled = any(y is not None for y in ys.values())
    notes = [f"Labels are not used, because {reason}."] if labelled else []
    return dict.fromkeys(ys), notes


def _notes_on(headers: list[Header]) -> list[str]:
    """Returns sentences about images that are changed when they are read."""
    grey = {h.grey for h in headers}
    counts = {
        "have transparent pixels, which are shown on white": [
            h.transparent for h in headers
        ],
        "have several frames: the first is read": [h.animated for h in headers],
        "have several pages: each page is a row": [h.pages > 1 for h in headers],
        "have 16 bits per colour: the upper 8 are read": [h.reduced for h in headers],
        "are grey and are read as RGB": [h.grey and len(grey) > 1 for h in headers],
    }
    return [
        f"{sum(applies)} of {len(headers)} images {text}."
        for text, applies in counts.items()
        if any(applies)
    ]


def _some(names: Iterable[str]) -> str:
    """Returns the first of the names as text, and the number of the others."""
    names = [*names]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
