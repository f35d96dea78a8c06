"""One rule for the range of raw values, in arrays and in image files."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_vae.datasets.rows import RowsOnDisk

FEW_LEVELS = 32  # pixels up to this value are label maps or images of few grey levels
Range = tuple[float, float]


def unit_range(
    parts: Mapping[str, Any], value_range: Range | None = None
) -> tuple[dict[str, Any], Range | None, tuple[str, ...]]:
    """Scales arrays to [0, 1], all of them by the same range.

    Without a `value_range`, the range depends on the largest value:

    * at most 1: integers are binary data and become bool; floats are in [0, 1] already;
    * at most 32: label maps or few grey levels; the largest value becomes 1;
    * at most 255: pixels of 8 bits. uint8 is left unchanged, because the training step
      divides it by 255;
    * more: pixels of more bits, such as 0 to 4095 for 12 bits.

    Negative values are scaled from the smallest value, or not at all if all values are
    between -32 and 32. The rule is for uint8, and for volumes and images, `[rows, height,
    width, channels]`, of any dtype. Other arrays are not scaled.

    Args:
        parts: dict from names, which errors show, to arrays or `RowsOnDisk`
            `[rows, *event]` of numbers. A sample of the rows on disk is checked.
        value_range: (low, high), which is scaled to [0, 1], or None.

    Returns:
        (parts, range, notes): the parts as uint8, bool or float32; (low, high) of the raw
        values that were scaled, (0, 255) for uint8, or None; and sentences for
        `Dataset.notes`.

    Raises:
        ValueError: for values outside of `value_range`.
    """
    limits = {name: _limits(x) for name, x in parts.items()}
    for name, (lowest, highest) in limits.items():
        if value_range and not value_range[0] <= lowest <= highest <= value_range[1]:
            low, high = value_range
            raise ValueError(
                f"`value_range` must contain all values. Received: value_range={low} "
                f"{high}, but values from {lowest} to {highest} in {name}"
            )
    notes: tuple[str, ...] = ()
    dtypes = {x.dtype for x in parts.values()}
    is_image = all(len(x.shape) >= 4 for x in parts.values())
    all_limits = np.array([*limits.values()])
    lowest, highest = all_limits.min(), all_limits.max()
    if value_range is None and (is_image or dtypes == {np.dtype("uint8")}):
        value_range, notes = _find_range(lowest, highest, dtypes)
    scaled = {name: scale(x, value_range) for name, x in parts.items()}
    is_bool = all(x.dtype == bool for x in scaled.values())
    return scaled, None if is_bool else value_range, notes


def scale(x: Any, value_range: Range | None) -> Any:
    """Scales values from `value_range` to [0, 1].

    Args:
        x: array or `RowsOnDisk` `[rows, *event]`.
        value_range: (low, high) that contains all values; None leaves them unchanged.

    Returns:
        x as float32; as bool or uint8, which is divided by 255 later, if it has integers
        and the range is (0, 1) or (0, 255).
    """
    if x.dtype == bool or (x.dtype == np.uint8 and value_range in (None, (0, 255))):
        return x
    if isinstance(x, RowsOnDisk):
        return x if value_range is None else _ScaledRows(x, value_range)
    if x.dtype.kind in "ui" and value_range in ((0, 1), (0, 255)):
        return x.astype(bool if value_range == (0, 1) else np.uint8)
    x = x.astype(np.float32)
    if value_range is not None:
        low, high = value_range
        x = (x - np.float32(low)) / np.float32(high - low)
    return x


class _ScaledRows(RowsOnDisk):
    """Rows of another `RowsOnDisk`, scaled to [0, 1]: float32."""

    def __init__(self, source, value_range):
        self.source, self.value_range = source, value_range
        self.shape, self.dtype = source.shape, np.dtype(np.float32)
        self.most_sampled = source.most_sampled

    def rows(self, index: np.ndarray) -> np.ndarray:
        return scale(self.source.rows(index).astype(np.float32), self.value_range)


def _limits(x):
    """Returns (lowest, highest) value of an array, or of sampled rows on the disk."""
    x = x.sample_rows() if isinstance(x, RowsOnDisk) else x
    return x.min(), x.max()


def _find_range(lowest, highest, dtypes):
    """Returns the range that is scaled to [0, 1], or None, and notes."""
    if dtypes == {np.dtype(bool)}:
        return None, ()
    if lowest < 0:
        if max(-lowest, highest) <= FEW_LEVELS:
            return None, ()
        return _noted(lowest.item(), highest.item(), "")
    if highest <= 1:
        if any(dtype.kind == "f" for dtype in dtypes):
            return None, ()
        return (0, 1), ("The values are only 0 and 1: binary data.",)
    if highest <= FEW_LEVELS:
        return _noted(0, highest.item(), "")
    if dtypes == {np.dtype("uint8")}:
        return (0, 255), ()
    bits = max(8, math.ceil(highest).bit_length())
    why = f", because the largest value, {highest:g}, has {bits} bits"
    return _noted(0, 2**bits - 1, why)


def _noted(low, high, why):
    change = "--value-range changes this"
    return (low, high), (f"{low:g} to {high:g} is scaled to [0, 1]{why} ({change}).",)
