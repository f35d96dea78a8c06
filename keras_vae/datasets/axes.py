"""Axes of an array: vectors, signals, images and volumes, with the channels last."""

from typing import Any

import numpy as np

from keras_vae import checks
from keras_vae.datasets.rows import RowsOnDisk

# The axes of a row: c channels, d depth, h height, t time, w width.
AXES = {
    "hw": "images (height, width)",
    "hwc": "images (height, width, channels)",
    "chw": "images (channels, height, width)",
    "t": "signals (time)",
    "tc": "signals (time, channels)",
    "ct": "signals (channels, time)",
    "dhw": "volumes (depth, height, width)",
    "dhwc": "volumes (depth, height, width, channels)",
    "cdhw": "volumes (channels, depth, height, width)",
}
CHANNELS = {1: 2, 3: 2, 2: 1, 4: 1}  # how usual a number of channels is for images
MOST_CHANNELS = 16  # of a signal that is recognised by its shape


def channels_last(x: Any, axes: str | None) -> Any:
    """Moves the channels of the rows to the last axis, or adds an axis of one channel.

    Args:
        x: array or `RowsOnDisk` `[rows, *event]`.
        axes: a key of `AXES`, or None, which leaves x unchanged.

    Returns:
        x as `[rows, time, channels]`, `[rows, height, width, channels]` or
        `[rows, depth, height, width, channels]`.
    """
    if axes is None:
        return x
    if isinstance(x, RowsOnDisk):
        return _Rearranged(x, axes)
    return x[..., None] if "c" not in axes else np.moveaxis(x, 1 + axes.index("c"), -1)


class _Rearranged(RowsOnDisk):
    """Rows of another `RowsOnDisk`, with the channels last."""

    def __init__(self, source, axes):
        self.source, self.axes = source, axes
        event_shape = channels_last(np.empty((0, *source.shape[1:])), axes).shape[1:]
        self.shape, self.dtype = (len(source), *event_shape), source.dtype

    def rows(self, index: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(channels_last(self.source.rows(index), self.axes))


def find_axes(
    shape: tuple[int, ...], dtype: np.dtype, axes: str | None, name: str
) -> tuple[str | None, tuple[str, ...]]:
    """Chooses the axes of the rows of an array by its shape and dtype.

    Args:
        shape: ints, `(rows, *event)`.
        dtype: of the array.
        axes: a key of `AXES` that the user gives, or None.
        name: str, the array's name for errors.

    Returns:
        (axes, notes): a key of `AXES`, or None for vectors; and sentences for
        `Dataset.notes`.

    Raises:
        ValueError: if `axes` does not fit the shape; and if it is None and the shape may
            be several of them, or none.
    """
    event = shape[1:]
    if 0 in shape:
        raise ValueError(f"`data` must not be empty. Received: {name} of shape {shape}")
    if len(event) not in (1, 2, 3, 4):
        raise ValueError(
            "`data` must be rows of vectors, signals, images or volumes: 2 to 5 axes, of "
            "which the first counts the rows. Cut one long series into rows, for example "
            "np.lib.stride_tricks.sliding_window_view(series, 100, axis=0)[::10]. "
            f"Received: {name} of shape {shape}"
        )
    sizes = " x ".join(map(str, event))
    if axes is not None:
        expected = f"one of {', '.join(AXES)}"
        checks.require(axes in AXES, "axes", expected, axes)
        if len(axes) != len(event):
            raise ValueError(
                f"`axes` must have a letter for each axis of a row. Received: axes={axes} "
                f"for {name}, whose rows are {sizes}"
            )
        return axes, ()
    if len(event) == 1:
        return None, ()
    is_pixels = dtype.kind in "bu"
    possible = _possible(event, is_pixels)
    if len(possible) != 1:
        choices = ", ".join(f"{axes} for {AXES[axes]}" for axes in possible)
        advice = "The first axis must count the rows."
        if len(event) == 4:
            advice = "Videos are not supported: dhwc reads their frames as depth."
        raise ValueError(
            f"`axes` must be given, because rows of {sizes} may be several things: "
            f"{choices}. {advice} Received: {name} of shape {shape}"
        )
    (axes,) = possible
    if axes == "hwc" or (axes == "hw" and is_pixels and event[0] == event[1]):
        return axes, ()
    others = " or ".join(a for a in AXES if len(a) == len(event) and a != axes)
    return axes, (f"Rows of {sizes} are {AXES[axes]} (--axes {others} changes this).",)


def _possible(event, is_pixels):
    """Returns the axes that rows of this shape may have."""
    if len(event) == 2:
        time_or_height, channels_or_width = event
        return _possible_of_two(time_or_height, channels_or_width, is_pixels)
    first, last = CHANNELS.get(event[0], 0), CHANNELS.get(event[-1], 0)
    if len(event) == 3:
        a, b, c = event
        if last > first or (last == first > 0 and a == b):
            return ["hwc"]
        if first > last or (last == first > 0 and b == c):
            return ["chw"]
        return ["hwc", "chw", "dhw"]
    # Several channels, and a depth that is not the height and width, may be a video.
    if last > first and (event[-1] == 1 or len({*event[:-1]}) == 1):
        return ["dhwc"]
    if first > last and (event[0] == 1 or len({*event[1:]}) == 1):
        return ["cdhw"]
    return ["dhwc", "cdhw"]


def _possible_of_two(a, b, is_pixels):
    """Returns the axes that rows of a x b may have: images or signals."""
    ratio = max(a, b) / min(a, b)
    if b == 1:
        return ["tc"]
    if a == 1:
        return ["tc", "ct"]
    if a == b or (is_pixels and ratio < 4) or (min(a, b) > 32 and ratio <= 2):
        return ["hw"]
    return ["tc"] if b <= MOST_CHANNELS and a > b else ["hw", "tc", "ct"]
