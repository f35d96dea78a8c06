"""What a data set is to the rest of the package: arrays, split, with what they mean."""

import functools
import hashlib
import math
from typing import Any, NamedTuple

import numpy as np

from keras_vae.datasets.rows import RowsOnDisk
from keras_vae.datasets.tables import Scaler

# Of rows that stay on the disk, what is held in memory to validate, to test, to look at.
MOST_ROWS, MOST_BYTES = 10_000, 2**28


class Dataset(NamedTuple):
    """Arrays ready for `fit`, and what is needed to show them as they were.

    Images are `[rows, height, width, channels]`, tables and vectors `[rows, columns]`;
    uint8 is left as it is, everything else is float32 or bool.

    Attributes:
        name: str, how it was asked for.
        x_train: array `[rows, *event]`, or a `RowsOnDisk` where it would
            take too much memory.
        x_test: array `[rows, *event]`, or `RowsOnDisk`.
        x_val: array `[rows, *event]`, or `RowsOnDisk`, held out for validation, or None.
        y_train: labels `[rows]`, or None.
        y_test: labels `[rows]`, or None.
        y_val: labels `[rows]`, or None.
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
    y_val: Any = None
    value_range: tuple[float, float] | None = None
    scaler: Scaler | None = None

    @property
    def event_shape(self):
        """The shape of one row."""
        return self.x_test.shape[1:]

    @property
    def streamed(self):
        """Whether the training rows stay on the disk."""
        return isinstance(self.x_train, RowsOnDisk)

    @property
    def x_seen(self):
        """The training rows, or some thousands of them if they stay on the disk."""
        return _some(self.x_train) if self.streamed else self.x_train

    @property
    def x_fit(self):
        """`x_seen` at the size of an event: the middle of what training crops."""
        return center(self.x_seen, self.event_shape)

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

    def fingerprint(self, labels=False):
        """A hash of all arrays, of some rows of sources: of what a run was made with.

        Args:
            labels: bool, whether the labels count, too.
        """
        digest = hashlib.sha256()
        for array in (self.x_train, self.x_val, self.x_test):
            if array is not None:
                digest.update(f"{array.dtype}{array.shape}".encode())
                seen = array.sample_rows() if isinstance(array, RowsOnDisk) else array
                digest.update(np.ascontiguousarray(seen).data)
        if labels:
            parts = (self.y_train, self.y_val, self.y_test)
            listed = [None if y is None else np.asarray(y).tolist() for y in parts]
            digest.update(repr(listed).encode())
        return digest.hexdigest()[:16]

    def hold_out(self, fraction):
        """The same with some of the training rows as `x_val`, unless there is one.

        Which rows depends only on their number.

        Args:
            fraction: float in [0, 1), of the training rows.
        """
        rows = len(self.x_train)
        count = _held(self.x_train, round(rows * fraction))
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
            x_train=_part(self.x_train, train),
            x_val=self.x_train[held_out],
            y_train=None if y is None else y[train],
            y_val=None if y is None else y[held_out],
        )

    @property
    def has_classes(self):
        """Whether labels name classes, a few of them, rather than measure something."""
        y = self.y_train
        return y is not None and y.dtype.kind != "f" and 2 <= len(np.unique(y)) <= 100

    @property
    def classes(self):
        """The labels that there are in training, sorted."""
        return np.unique(self.y_train)

    def class_numbers(self, part):
        """Labels as places in `classes`: int32 `[rows]`.

        Args:
            part: `"train"`, `"val"` or `"test"`.

        Raises:
            ValueError: for a label that there is not in training.
        """
        y = getattr(self, f"y_{part}")
        numbers = np.searchsorted(self.classes, y).clip(max=len(self.classes) - 1)
        unknown = np.unique(y[self.classes[numbers] != y])
        if len(unknown):
            raise ValueError(
                f"`data` must have labels of training in y_{part}. "
                f"Received: {unknown[:5].tolist()}"
            )
        return numbers.astype(np.int32)


def center(x, event_shape):
    """The middle of images `[rows, height, width, channels]`, or x if it is of the size."""
    if x is None or x.shape[1:] == tuple(event_shape):
        return x
    if isinstance(x, RowsOnDisk):
        raise ValueError(
            "`crop` must be left out for test images that take too much memory. Received: "
            f"images of shape {x.shape}"
        )
    height, width = event_shape[:2]
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]


def permuted(rows, count):
    """Splits `range(rows)` at random, always alike: (all but `count`, `count` of them)."""
    order = np.random.RandomState(0).permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])


def with_test_rows(name, x, y=None, fraction=0.2, **more):
    """A `Dataset` of data without a split: a fifth of the rows are for testing.

    Of `RowsOnDisk` they are 10,000 at most.
    """
    rows = len(x)
    if rows < 2:
        raise ValueError(
            f"`data` must have at least 2 rows, to train and to test on. Received: {rows} "
            f"in {name}"
        )
    train, test = permuted(rows, _held(x, max(1, round(rows * fraction))))
    ys = (None, None) if y is None else (y[train], y[test])
    return Dataset(name, _part(x, train), x[test], None, *ys, **more)


def _held(x, count):
    """How many of `count` rows of x are held in memory: all, unless x is on the disk."""
    if not isinstance(x, RowsOnDisk):
        return count
    size = x.dtype.itemsize * math.prod(x.shape[1:])
    return min(count, MOST_ROWS, max(1, MOST_BYTES // size))


def _part(x, rows):
    return x.part(rows) if isinstance(x, RowsOnDisk) else x[rows]


@functools.lru_cache(maxsize=1)
def _some(x):
    return x[np.linspace(0, len(x) - 1, _held(x, len(x))).astype(np.int64)]
