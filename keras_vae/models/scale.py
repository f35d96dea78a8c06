"""Warnings about data whose scale does not suit the model."""

import warnings
from typing import Any

import numpy as np

from keras_vae.datasets.rows import RowsOnDisk
from keras_vae.distributions import IndependentNormal

# A Normal likelihood starts with a scale near 1. Standardised data and images stay below.
LARGE_SPREAD, LARGE_VALUE = 100.0, 1e4
LARGE_RATIO = 1e4  # of the spreads of two columns
DARK = 32  # uint8 images with only this many levels are rare
SAMPLED = 2**17  # elements


def warn(x: Any, name: str, likelihood: Any) -> str:
    """Warns about the scale of checked data, and describes their range.

    Args:
        x: array or `RowsOnDisk` `[rows, *event]`.
        name: str, the argument's name.
        likelihood: head of p(x|z).

    Returns:
        str, the range of some rows.
    """
    if isinstance(x, RowsOnDisk):
        x = x.sample_rows()
    count = max(1, SAMPLED // max(1, x[0].size))
    rows = np.asarray(x[:: -(-len(x) // count)])
    low, high = float(rows.min()), float(rows.max())
    message = None
    if rows.dtype == np.uint8:
        message = _uint8(int(x.max()), name)
    elif rows.dtype != bool and isinstance(likelihood, IndependentNormal):
        message = _normal(rows.astype(np.float32), low, high, name)
    if message:
        warnings.warn(message, stacklevel=5)
    return f"some rows have values from {low:g} to {high:g}"


def _uint8(highest: int, name: str) -> str | None:
    if not 1 < highest <= DARK:
        return None
    return (
        f"`{name}` is uint8, which is divided by 255, but its largest value is {highest}. "
        f"If {highest} is the largest possible value, pass {name} / np.float32({highest}) "
        "instead; encode labels of pixels as one-hot channels."
    )


def _normal(rows: np.ndarray, low: float, high: float, name: str) -> str | None:
    spread = np.subtract(*np.percentile(rows, [95, 5], axis=0))
    is_table = spread.ndim == 1
    # Columns that are mostly constant, such as the borders of images, have no spread.
    smallest = spread.min(initial=np.inf, where=spread > 0)
    columns = ""
    if is_table and smallest < np.inf and spread.max() > LARGE_RATIO * smallest:
        columns = (
            f" Column {spread.argmax()} varies over {spread.max():.3g}, column "
            f"{np.where(spread > 0, spread, np.inf).argmin()} over {smallest:.3g}."
        )
    elif spread.max() <= LARGE_SPREAD and max(-low, high) < LARGE_VALUE:
        return None
    limit = next((limit for limit in (255, 65535) if high <= limit), None)
    if is_table or low < 0 or limit is None:
        remedy = f"Standardise the columns: ({name} - {name}.mean(0)) / {name}.std(0)."
    else:
        remedy = f"Divide by the largest possible value: {name} / np.float32({limit})."
    return (
        f"`{name}` has values from {low:g} to {high:g}, which are not scaled: a Normal "
        "likelihood and the networks start with a scale of 1, and learn little from such "
        f"values.{columns} {remedy}"
    )
