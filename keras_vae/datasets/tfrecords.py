"""The rows of TFRecord files, read in any order."""

import array
import os
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_vae import checks
from keras_vae.datasets.rows import (
    RowsOnDisk,
    cast,
    check_paths,
    fill_rows,
    read_bytes,
    returned_dtype,
)


class TFRecords(RowsOnDisk):
    """Rows of TFRecord files: one feature of each `tf.train.Example`.

    The files are read once to find the positions of their records; then rows are read in
    any order. The checksums of the records are not verified.

    Args:
        paths: list of paths, in the order of the rows; not compressed.
        feature: str, the feature's name.
        shape: ints, the shape of one row.
        dtype: NumPy dtype. A feature of bytes holds one row in C order, as
            `x.tobytes()` returns it; the values of a float or int64 list are converted.

    Attributes:
        shape: `(rows, *shape)`.
        dtype: NumPy dtype of the rows that are returned: float64 becomes float32.

    Raises:
        ValueError: for no path, an incomplete file, or a record without the feature.

    Example:

    >>> import tempfile, tensorflow as tf
    >>> path = tempfile.mkdtemp() + "/x.tfrecord"
    >>> with tf.io.TFRecordWriter(path) as writer:
    ...     for row in np.zeros((10, 8), "uint8"):
    ...         value = tf.train.Feature(bytes_list={"value": [row.tobytes()]})
    ...         example = tf.train.Example(features={"feature": {"x": value}})
    ...         writer.write(example.SerializeToString())
    >>> TFRecords([path], "x", (8,), "uint8").shape
    (10, 8)
    """

    def __init__(self, paths: Sequence, feature: str, shape: Sequence, dtype: Any):
        self.files = [_Records(path) for path in check_paths(paths, "TFRecord")]
        self.feature, event = feature, checks.shape(shape, "shape")
        try:
            self.stored = np.dtype(dtype)
        except TypeError:
            self.stored = np.dtype(object)
        self.dtype = returned_dtype(self.stored, "dtype")
        self.starts = np.cumsum([0, *(len(file.ends) - 1 for file in self.files)])
        self.shape = (int(self.starts[-1]), *event)
        self.kind = self._kind()
        self.rows(self.starts[:-1])  # checks the first row of each file

    def _kind(self):
        import tensorflow as tf  # slow; the package's other data are loaded without it

        try:
            (first,) = self.files[0].rows(np.array([0]))
            features = tf.train.Example.FromString(first).features.feature
        except Exception as error:  # protobuf raises its own exceptions
            raise ValueError(
                "`paths` must be TFRecord files of tf.train.Example. Received: "
                f"{self.files[0].path}: {error}"
            ) from error
        kinds = {name: value.WhichOneof("kind") for name, value in features.items()}
        expected = f"one of the features {', '.join(sorted(kinds)) or '(no features)'}"
        checks.require(kinds.get(self.feature), "feature", expected, self.feature)
        return kinds[self.feature]

    def rows(self, index: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        records = np.empty(len(index), object)
        fill_rows(records, index, self.starts, [file.rows for file in self.files])
        event, raw = self.shape[1:], self.kind == "bytes_list"
        dtype = {"bytes_list": tf.string, "float_list": tf.float32, "int64_list": tf.int64}
        spec = tf.io.FixedLenFeature(() if raw else event, dtype[self.kind])
        try:
            with tf.device("CPU"):
                records = tf.constant(records, tf.string)
                parsed = tf.io.parse_example(records, {self.feature: spec})
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(
                f"`paths` must have `{self.feature}` of shape {event} in each record. "
                f"Received: {error.message.split('}} ')[-1]}"
            ) from error
        values = parsed[self.feature].numpy()
        if not raw:
            rows = values.astype(self.stored)
            changed = self.stored.kind in "bui" and (rows != values).any()
            expected = "a dtype that represents all values exactly"
            checks.require(not changed, "dtype", expected, str(self.stored))
            return cast(self.dtype, rows)
        size = self.stored.itemsize * int(np.prod(event))
        for number, value in zip(index, values, strict=True):
            if len(value) != size:
                raise ValueError(
                    f"`paths` must have {size} bytes of `{self.feature}` in each record, "
                    f"for shape {event} of {self.stored}. Received: {len(value)} bytes in "
                    f"record {number}"
                )
        rows = np.frombuffer(bytearray().join(values), self.stored)
        return cast(self.dtype, rows.reshape(len(index), *event))


class _Records:
    """The records of one TFRecord file, as bytes.

    A record: length (8 bytes), its checksum (4), the data, their checksum (4).
    """

    def __init__(self, path):
        self.path, end = path, 0
        ends = array.array("q", [0])
        try:
            size = os.path.getsize(path)
            with open(path, "rb") as file:
                while end < size:
                    header = file.read(12)
                    complete = len(header) == 12
                    end += 16 + (struct.unpack("<QI", header)[0] if complete else size)
                    ends.append(min(end, 2**62))
                    file.seek(min(end, size))
        except OSError as error:
            raise ValueError(
                f"`paths` must be TFRecord files. Received: {path}: {error}"
            ) from error
        if end != size or not end:
            raise ValueError(
                "`paths` must be complete, uncompressed TFRecord files of one record or "
                f"more. Received: {path} of {size} bytes, where record "
                f"{max(0, len(ends) - 2)} is incomplete"
            )
        self.ends = np.frombuffer(ends, np.int64)

    def rows(self, index):
        begins = self.ends[index]
        records = read_bytes(self.path, begins, self.ends[index + 1] - begins)
        return np.array([record[12:-4] for record in records], object)
