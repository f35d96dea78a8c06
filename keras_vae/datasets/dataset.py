"""`Dataset`: the arrays of a data set, split into training, validation and test."""

import functools
import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_vae.datasets.rows import RowsOnDisk
from keras_vae.datasets.tables import Scaler

# Limits on the rows of a `RowsOnDisk` that are copied to memory, such as validation rows.
MOST_ROWS, MOST_BYTES = 10_000, 2**28


class Dataset(NamedTuple):
    """Arrays ready for `fit`, and the scaling that maps them back to raw values.

    Images are `[rows, height, width, channels]`, volumes `[rows, depth, height, width,
    channels]`, signals `[rows, time, channels]`, tables and vectors `[rows, columns]`;
    uint8 is left unchanged, everything else is float32 or bool.

    Attributes:
        name: str, the name or path that was loaded.
        x_train: array `[rows, *event]`, or a `RowsOnDisk` if an array would take too
            much memory.
        x_test: array `[rows, *event]`, or `RowsOnDisk`.
        x_val: array `[rows, *event]` or `RowsOnDisk` for validation, or None.
        y_train: labels `[rows]`, or None.
        y_test: labels `[rows]`, or None.
        y_val: labels `[rows]`, or None.
        value_range: (low, high) of the raw values that were scaled to [0, 1]; (0, 255) for
            uint8, which the training step scales; None if nothing is scaled.
        scaler: `Scaler` of a table, or None.
        notes: strings, a sentence for each thing that was noticed when the data were
            read and that changes what the values mean, such as a separator or a dropped
            column.
        axes: the axes of a row in the file of an array, see `datasets.axes.AXES`, or None.
        columns: names of the columns of a table, or None.
        ids_train: row numbers in the file, int `[rows]`, or paths of the images; None if
            they are the row numbers of `x_train`.
        ids_test: the same for `x_test`.
        ids_val: the same for `x_val`.
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
    notes: tuple[str, ...] = ()
    axes: str | None = None
    columns: tuple[str, ...] | None = None
    ids_train: Any = None
    ids_test: Any = None
    ids_val: Any = None

    def __repr__(self) -> str:
        parts = {name: getattr(self, f"x_{name}") for name in ("train", "val", "test")}
        rows = ", ".join(f"{len(x):,} {n}" for n, x in parts.items() if x is not None)
        labels = "" if self.y_train is None else ", labels"
        return f"<Dataset {self.name}: {rows} rows of {self.event_shape}{labels}>"

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return (self.x_train if self.x_test is None else self.x_test).shape[1:]

    @property
    def streamed(self) -> bool:
        """Returns True if the training rows stay on the disk."""
        return isinstance(self.x_train, RowsOnDisk)

    @property
    def x_seen(self) -> np.ndarray:
        """The training rows, or at most 10,000 of them if they stay on the disk."""
        return _sample(self.x_train) if self.streamed else self.x_train

    @property
    def x_fit(self) -> np.ndarray:
        """`x_seen`, cropped to the event shape if training crops images at random."""
        return center(self.x_seen, self.event_shape)

    def mean(self, axis: int | tuple[int, ...]) -> np.ndarray:
        """Computes the mean of the training rows over `axis`, in model units, flattened."""
        return self.x_fit.mean(axis, dtype=np.float64).ravel() / self._unit

    @property
    def spread(self) -> float:
        """The standard deviation over about 5,000 training rows, averaged over elements."""
        x = self.x_fit[:: max(1, len(self.x_fit) // 5000)]
        return float(x.std(0, dtype=np.float64).mean()) / self._unit

    @property
    def _unit(self):
        """The raw value that corresponds to 1 in model units: 255 for uint8."""
        return 255 if self.x_train.dtype == np.uint8 else 1

    @property
    def shown_range(self) -> tuple[float, float]:
        """(low, high): the range of values, in model units, that pictures show."""
        x = self.x_test
        if self.scaler is not None:
            return -3.0, 3.0  # standard deviations
        if x.dtype in (np.uint8, bool) or (x.min() >= 0 and x.max() <= 1):
            return 0.0, 1.0
        return float(x.min()), float(x.max())

    def fingerprint(self, labels: bool = False) -> str:
        """Computes a hash of the data, of sampled rows only for a `RowsOnDisk`.

        Args:
            labels: bool, whether to include the labels.
        """
        digest = hashlib.sha256()
        for array in (self.x_train, self.x_val, self.x_test):
            if array is not None:
                digest.update(f"{array.dtype}{array.shape}".encode())
                rows = array.sample_rows() if isinstance(array, RowsOnDisk) else array
                digest.update(np.ascontiguousarray(rows).data)
        if labels:
            parts = (self.y_train, self.y_val, self.y_test)
            lists = [None if y is None else np.asarray(y).tolist() for y in parts]
            digest.update(repr(lists).encode())
        return digest.hexdigest()[:16]

    def hold_out(self, fraction: float) -> "Dataset":
        """Moves a random fraction of the training rows to `x_val`.

        The rows depend only on the number of training rows, except that each class keeps a
        training row. A data set with validation rows is returned unchanged.

        Args:
            fraction: float in [0, 1), the share of the training rows.

        Raises:
            ValueError: if no training row would be left.
        """
        rows = len(self.x_train)
        count = _rows_in_memory(self.x_train, round(rows * fraction))
        if self.x_val is not None or not count:
            return self
        if count >= rows:
            raise ValueError(
                "`validation` must leave at least one training row. "
                f"Received: validation={fraction} of {rows} rows"
            )
        y, ids = self.y_train, self.ids_train
        train, held_out = permuted(rows, count, y)
        return self._replace(
            x_train=_select(self.x_train, train),
            x_val=self.x_train[held_out],
            y_train=None if y is None else y[train],
            y_val=None if y is None else y[held_out],
            ids_train=train if ids is None else ids[train],
            ids_val=held_out if ids is None else ids[held_out],
        )

    @property
    def has_classes(self) -> bool:
        """Returns True if the labels are 2 to 100 classes: integers or text, not floats."""
        return not self.class_problem

    @property
    def class_problem(self) -> str:
        """The reason why the training labels are not classes, or an empty text."""
        return _class_problem(self.y_train)

    @property
    def classes(self) -> np.ndarray:
        """The distinct labels of the training rows, sorted."""
        return np.unique(self.y_train)

    def class_numbers(self, part: str) -> np.ndarray:
        """Returns the labels as indices into `classes`: int32 `[rows]`.

        Args:
            part: `"train"`, `"val"` or `"test"`.

        Raises:
            ValueError: for a part without labels, or a label that no training row has.
        """
        y = getattr(self, f"y_{part}")
        if y is None:
            raise ValueError(
                f"`data` must have labels y_{part}. Received: none in {self.name}"
            )
        numbers = np.searchsorted(self.classes, y).clip(max=len(self.classes) - 1)
        unknown = np.unique(y[self.classes[numbers] != y])
        if len(unknown):
            raise ValueError(
                f"`data` must have no labels in y_{part} that are not in y_train: remove "
                f"these rows, or add training rows. Received: {unknown[:5].tolist()}"
            )
        return numbers.astype(np.int32)


def center(x: Any, event_shape: Sequence[int]) -> Any:
    """Crops images `[rows, height, width, channels]` to their centre.

    Args:
        x: array, `RowsOnDisk` or None.
        event_shape: (height, width, channels) of the crop; if rows have this shape already,
            or x is None, x is returned unchanged.

    Raises:
        ValueError: for a `RowsOnDisk` that would have to be cropped.
    """
    if x is None or x.shape[1:] == tuple(event_shape):
        return x
    if isinstance(x, RowsOnDisk):
        raise ValueError(
            "`crop` must be left out if the test images do not fit into memory. Received: "
            f"images of shape {x.shape}"
        )
    height, width = event_shape[:2]
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]


def permuted(
    rows: int, count: int, y: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Splits `range(rows)` with a fixed seed: (rows - count numbers, count numbers).

    If y `[rows]` are classes, a row of each class that is not in the first part moves to
    it, unless the second part would be empty.
    """
    order = np.random.RandomState(0).permutation(rows)
    train, held_out = np.sort(order[count:]), np.sort(order[:count])
    if y is None or _class_problem(y):
        return train, held_out
    missing = held_out[~np.isin(y[held_out], y[train])]
    moved = missing[np.unique(y[missing], return_index=True)[1]]
    if len(moved) == count:
        return train, held_out
    return np.union1d(train, moved), np.setdiff1d(held_out, moved)


def _class_problem(y):
    """Returns the reason why labels are not classes, or an empty text."""
    if y is None:
        return "no labels"
    if y.dtype.kind == "f":
        return f"labels of dtype {y.dtype} that are not whole numbers"
    count = len(np.unique(y))
    return "" if 2 <= count <= 100 else f"{count:,} different labels"


def with_test_rows(
    name: str, x: Any, y: np.ndarray | None = None, fraction: float = 0.2, ids: Any = None,
    **fields: Any,
) -> Dataset:  # fmt: skip
    """Makes a `Dataset` of data without a test split, by holding out random rows.

    Args:
        name: str.
        x: array `[rows, *event]`, or `RowsOnDisk`, of which at most 10,000 rows are held
            out.
        y: labels `[rows]`, or None.
        fraction: float, the share of the rows that becomes the test split.
        ids: paths of the rows, or None for their numbers.
        **fields: other fields of `Dataset`.

    Raises:
        ValueError: for fewer than two rows.
    """
    rows = len(x)
    if rows < 2:
        raise ValueError(
            "`data` must have at least 2 rows, for training and for testing. Received: "
            f"{rows} in {name}"
        )
    train, test = permuted(rows, _rows_in_memory(x, max(1, round(rows * fraction))), y)
    ys = (None, None) if y is None else (y[train], y[test])
    fields["ids_train"] = train if ids is None else ids[train]
    fields["ids_test"] = test if ids is None else ids[test]
    return Dataset(name, _select(x, train), x[test], None, *ys, **fields)


def unsplit(
    name: str, x: Any, y: np.ndarray | None = None, ids: Any = None, **fields: Any
) -> Dataset:
    """Makes a `Dataset` of all rows in the order of the file: `x_test` is None.

    Args:
        name: str.
        x: array `[rows, *event]` or `RowsOnDisk`.
        y: labels `[rows]`, or None.
        ids: paths of the rows, or None for their numbers.
        **fields: other fields of `Dataset`.
    """
    return Dataset(name, x, None, y_train=y, ids_train=ids, **fields)


def with_split(data: Dataset) -> Dataset:
    """Holds out test rows of a data set made by `unsplit`; returns others unchanged."""
    if data.x_test is not None:
        return data
    parts = with_test_rows(data.name, data.x_train, data.y_train, ids=data.ids_train)
    names = [f"{kind}_{part}" for kind in ("x", "y", "ids") for part in ("train", "test")]
    return data._replace(**{name: getattr(parts, name) for name in names})


def _rows_in_memory(x, count):
    """Limits `count` rows of x to the number that may be copied to memory."""
    if not isinstance(x, RowsOnDisk):
        return count
    size = x.dtype.itemsize * math.prod(x.shape[1:])
    return min(count, MOST_ROWS, max(1, MOST_BYTES // size))


def _select(x, rows):
    return x.part(rows) if isinstance(x, RowsOnDisk) else x[rows]


@functools.lru_cache(maxsize=1)
def _sample(x):
    """Reads evenly spaced rows of a `RowsOnDisk`, as many as memory limits allow."""
    return x[np.linspace(0, len(x) - 1, _rows_in_memory(x, len(x))).astype(np.int64)]
