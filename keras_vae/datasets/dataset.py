"""What a data set is to the rest of the package: arrays, split, with what they mean."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from keras_vae.datasets.tables import Scaler


class Dataset(NamedTuple):
    """Arrays ready for `fit`, and what is needed to show them as they were.

    Images are `[rows, height, width, channels]`, tables and vectors `[rows, columns]`;
    uint8 is left as it is, everything else is float32 or bool.

    Attributes:
        name: str, how it was asked for.
        x_train: array `[rows, *event]`.
        x_test: array `[rows, *event]`.
        x_val: array `[rows, *event]`, held out of the training data, or None.
        y_train: labels `[rows]`, or None.
        y_test: labels `[rows]`, or None.
        value_range: (low, high) of the raw values that were scaled to [0, 1]; (0, 255) for
            uint8, which the training step scales; None if nothing is scaled.
        scaler: `Scaler` of a table, or None.
    """

    name: str
    x_train: Any
    x_test: Any
    x_val: Any = None
    y_train: Any = None
    y_test: Any = None
    value_range: tuple[float, float] | None = None
    scaler: Scaler | None = None

    @property
    def event_shape(self):
        """The shape of one row."""
        return self.x_test.shape[1:]

    @property
    def x_fit(self):
        """The training rows at the size of an event: the middle of what training crops."""
        return center(self.x_train, self.event_shape)

    def mean(self, axis):
        """The mean of the training rows, flattened, as the model sees them."""
        return self.x_fit.mean(axis, dtype=np.float64).ravel() / self._unit

    @property
    def spread(self):
        """The standard deviation of an element over some thousand training rows, a mean."""
        x = self.x_fit[:: max(1, len(self.x_fit) // 5000)]
        return float(x.std(0, dtype=np.float64).mean()) / self._unit

    @property
    def _unit(self):
        return 255 if self.x_train.dtype == np.uint8 else 1

    @property
    def shown_range(self):
        """The values between which rows are drawn, as the model sees them: (low, high)."""
        x = self.x_test
        if self.scaler is not None:
            return -3.0, 3.0  # standard deviations
        if x.dtype in (np.uint8, bool) or (x.min() >= 0 and x.max() <= 1):
            return 0.0, 1.0
        return float(x.min()), float(x.max())

    @property
    def fingerprint(self):
        """A hash of all arrays: whether this is the data that a run was made with."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.x_val, self.x_test):
            if array is not None:
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def hold_out(self, fraction):
        """The same with some of the training rows as `x_val`, unless there is one.

        Which rows depends only on their number.

        Args:
            fraction: float in [0, 1), of the training rows.
        """
        rows = len(self.x_train)
        count = round(rows * fraction)
        if self.x_val is not None or not count:
            return self
        if count >= rows:
            raise ValueError(
                "`validation` must leave some of the training rows. "
                f"Received: validation={fraction} of {rows} rows"
            )
        train, held_out = permuted(rows, count)
        y = self.y_train
        return self._replace(
            x_train=self.x_train[train],
            x_val=self.x_train[held_out],
            y_train=None if y is None else y[train],
        )


def center(x, event_shape):
    """The middle of images `[rows, height, width, channels]`, or x if it is of the size."""
    if x is None or x.shape[1:] == tuple(event_shape):
        return x
    height, width = event_shape[:2]
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]


def permuted(rows, count):
    """Splits `range(rows)` at random, always alike: (all but `count`, `count` of them)."""
    order = np.random.RandomState(0).permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])


def with_test_rows(name, x, y=None, fraction=0.2, **more):
    """A `Dataset` of data without a split: a fifth of the rows are for testing."""
    rows = len(x)
    if rows < 2:
        raise ValueError(
            f"`data` must have at least 2 rows, to train and to test on. Received: {rows} "
            f"in {name}"
        )
    train, test = permuted(rows, max(1, round(rows * fraction)))
    ys = (None, None) if y is None else (y[train], y[test])
    return Dataset(name, x[train], x[test], None, *ys, **more)
