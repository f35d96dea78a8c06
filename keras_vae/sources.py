"""Rows that stay on the disk: read when a batch needs them, never all at once.

Read, not mapped: the pages of a mapped file count as the memory of the process. What is
read once stays in the page cache of the system, as far as it has room.
"""

import array
import concurrent.futures
import contextlib
import os
import pathlib
import struct

import numpy as np
import tensorflow as tf

from keras_vae import checks

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class Source:
    """What `Shards`, `TFRecords` and `ImageFiles` share.

    `fit`, `evaluate` and the other methods of a model take one where they take an array,
    and give what they give for the array: the same order of rows, the same numbers, for
    one device and for many workers, each of which reads its own share of a batch only. The
    values are not all checked beforehand, but some rows are. `np.asarray` reads all.

    A subclass sets `shape` and `dtype` and writes `rows`.

    Attributes:
        shape: `(rows, *event)`.
        dtype: NumPy dtype of the rows as they are given out: float64 becomes float32.
    """

    shape: tuple
    dtype: np.dtype
    most_looked_at = 1000

    def rows(self, index):
        """The rows of an int64 array `[n]` of their numbers, a new NumPy array."""
        raise NotImplementedError

    @property
    def ndim(self):
        """The number of axes."""
        return len(self.shape)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        """The rows of a slice or of an array of numbers, a NumPy array."""
        return self.rows(self._numbers(rows))

    def __array__(self, dtype=None, copy=None):
        return self[:].astype(dtype or self.dtype, copy=False)

    def part(self, rows):
        """The rows of a slice or of an array of numbers, a `Source`: nothing is read."""
        return _Part(self, self._numbers(rows))

    def _numbers(self, rows):
        if isinstance(rows, slice):
            return np.arange(*rows.indices(len(self)))
        rows = np.asarray(rows)
        # Not an IndexError, by which iteration would end without a word.
        fits = rows.ndim == 1 and rows.dtype.kind in "iu"
        fits = fits and ((-len(self) <= rows) & (rows < len(self))).all()
        checks.that(fits, "rows", f"a slice or an int array [n] below {len(self)}", rows)
        return rows % len(self)

    def look(self):
        """Some rows from all over the data, to be checked instead of all."""
        size = max(1, self.dtype.itemsize * int(np.prod(self.shape[1:])))
        count = max(1, min(len(self), self.most_looked_at, 2**24 // size))
        return self.rows(np.linspace(0, len(self) - 1, count).astype(np.int64))

    def gather(self, index):
        """As `rows`, of tensors."""
        rows = tf.numpy_function(self.rows, [index], tf.as_dtype(self.dtype))
        return tf.ensure_shape(rows, (None, *self.shape[1:]))


class _Part(Source):
    """Some rows of another source."""

    def __init__(self, whole, index):
        self.whole = whole
        self.index = index.astype(np.min_scalar_type(len(whole)))
        self.shape, self.dtype = (len(index), *whole.shape[1:]), whole.dtype
        self.most_looked_at = whole.most_looked_at

    def rows(self, index):
        return self.whole.rows(self.index[index].astype(np.int64))


class Mapped(Source):
    """The rows of an array that is mapped from a file, `np.load(path, mmap_mode="r")`.

    Args:
        mapped: `np.memmap` of numbers, or a slice of one.
        name: str, the argument's name for errors.

    Raises:
        ValueError: unless the file has its rows as they are, each in one piece.
    """

    def __init__(self, mapped, name):
        if mapped.mode == "c":
            raise ValueError(
                f"`{name}` must be mapped from a file in mode 'r' or 'r+': changes made "
                f"in mode 'c' are not in the file. Received: {name} of {mapped.filename}"
            )
        if not mapped.size or not mapped.ndim:
            raise ValueError(f"`{name}` is empty. Received: shape {mapped.shape}")
        if not mapped[:1].flags.c_contiguous:
            raise ValueError(
                f"`{name}` must have each row in one piece (C order): write it anew with "
                f"np.save(path, np.ascontiguousarray(x)). Received: {mapped.filename} with "
                f"strides {mapped.strides}"
            )
        root = mapped
        while isinstance(root.base, np.memmap):
            root = root.base
        self.path = mapped.filename
        self.offset = root.offset + mapped.ctypes.data - root.ctypes.data
        self.stride, self.stored = mapped.strides[0], mapped.dtype
        self.shape, self.dtype = mapped.shape, _given_out(mapped.dtype, name)

    def rows(self, index):
        size = self.stored.itemsize * int(np.prod(self.shape[1:]))
        begins = np.diff(index, prepend=-2) != 1  # of runs, which are read at once
        begins[:: max(1, 2**30 // size)] = True  # the system's limit is 2 GiB
        if self.stride != size:
            begins[:] = True
        (begins,) = np.nonzero(begins)
        sizes = np.diff(begins, append=len(index)) * size
        parts = _read(self.path, self.offset + index[begins] * self.stride, sizes)
        rows = np.frombuffer(bytearray().join(parts), self.stored)
        return _as(self.dtype, rows.reshape(len(index), *self.shape[1:]))


class Shards(Source):
    """The rows of several .npy files, one file after the other, read as they are needed.

    For data that do not fit into memory. For a single file `np.load(path, mmap_mode="r")`
    will do: it is read in the same way.

    Args:
        paths: list of paths, in the order of the rows.

    Attributes:
        shape: `(rows, *event)`.
        dtype: NumPy dtype of the rows as they are given out: float64 becomes float32.

    Raises:
        ValueError: if there are none, or they do not have rows of one shape and dtype, in
            C order.

    Example:

    >>> import tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for i in range(3):
    ...     np.save(folder / f"{i}.npy", np.zeros((10, 8), "uint8"))
    >>> Shards(sorted(folder.glob("*.npy"))).shape
    (30, 8)
    """

    def __init__(self, paths):
        paths = _paths(paths, ".npy")
        self.files = [self._open(path) for path in paths]
        kinds = {
            (file.stored, file.shape[1:]): path
            for file, path in zip(self.files, paths, strict=True)
        }
        if len(kinds) > 1:
            seen = ", ".join(f"{p} {dtype} {shape}" for (dtype, shape), p in kinds.items())
            raise ValueError(
                f"`paths` must hold rows of one dtype and shape. Received: {seen}"
            )
        self.dtype = self.files[0].dtype
        self.starts = np.cumsum([0, *map(len, self.files)])
        self.shape = (int(self.starts[-1]), *self.files[0].shape[1:])

    @staticmethod
    def _open(path):
        try:
            file = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(
                f"`paths` must be .npy files. Received: {path}: {error}"
            ) from error
        if not isinstance(file, np.memmap) or not file.ndim or not file.size:
            shape = getattr(file, "shape", "several arrays")
            raise ValueError(
                "`paths` must be .npy files of one row or more. "
                f"Received: {path} with {shape}"
            )
        return Mapped(file, "paths")

    def rows(self, index):
        rows = np.empty((len(index), *self.shape[1:]), self.dtype)
        return _fill(rows, index, self.starts, [file.rows for file in self.files])


class TFRecords(Source):
    """The rows of TFRecord files, one feature of each `tf.train.Example`.

    The files are gone through once, for the places of their records; then rows are read
    in any order. The checksums of the records are not looked at.

    Args:
        paths: list of paths, in the order of the rows; not compressed.
        feature: str, the feature's name.
        shape: ints, the shape of one row.
        dtype: NumPy dtype. A feature of bytes holds one row of it in C order, as of
            `x.tobytes()`; the values of a float or int64 list are converted to it.

    Attributes:
        shape: `(rows, *shape)`.
        dtype: NumPy dtype of the rows as they are given out: float64 becomes float32.

    Raises:
        ValueError: if there are none, a file is not whole, or a record that is read does
            not hold such a row.

    Example:

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/x.tfrecord"
    >>> with tf.io.TFRecordWriter(path) as writer:
    ...     for row in np.zeros((10, 8), "uint8"):
    ...         value = tf.train.Feature(bytes_list={"value": [row.tobytes()]})
    ...         example = tf.train.Example(features={"feature": {"x": value}})
    ...         writer.write(example.SerializeToString())
    >>> TFRecords([path], "x", (8,), "uint8").shape
    (10, 8)
    """

    def __init__(self, paths, feature, shape, dtype):
        self.files = [_Records(path) for path in _paths(paths, "TFRecord")]
        self.feature, event = feature, checks.shape(shape, "shape")
        try:
            self.stored = np.dtype(dtype)
        except TypeError:
            self.stored = np.dtype(object)
        self.dtype = _given_out(self.stored, "dtype")
        self.starts = np.cumsum([0, *(len(file.ends) - 1 for file in self.files)])
        self.shape = (int(self.starts[-1]), *event)
        self.kind = self._kind()
        self.rows(self.starts[:-1])  # the first of each file

    def _kind(self):
        try:
            (first,) = self.files[0].rows(np.array([0]))
            features = tf.train.Example.FromString(first).features.feature
        except Exception as error:  # of protobuf, which has its own
            raise ValueError(
                "`paths` must be TFRecord files of tf.train.Example. Received: "
                f"{self.files[0].path}: {error}"
            ) from error
        kinds = {name: value.WhichOneof("kind") for name, value in features.items()}
        expected = f"one of the features {', '.join(sorted(kinds)) or '(there are none)'}"
        checks.that(kinds.get(self.feature), "feature", expected, self.feature)
        return kinds[self.feature]

    def rows(self, index):
        records = np.empty(len(index), object)
        _fill(records, index, self.starts, [file.rows for file in self.files])
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
            wrong = self.stored.kind in "bui" and (rows != values).any()
            checks.that(not wrong, "dtype", "one that holds the values", str(self.stored))
            return _as(self.dtype, rows)
        size = self.stored.itemsize * int(np.prod(event))
        for number, value in zip(index, values, strict=True):
            if len(value) != size:
                raise ValueError(
                    f"`paths` must have {size} bytes of `{self.feature}` in each record, "
                    f"for shape {event} of {self.stored}. Received: {len(value)} bytes in "
                    f"record {number}"
                )
        rows = np.frombuffer(bytearray().join(values), self.stored)
        return _as(self.dtype, rows.reshape(len(index), *event))


class _Records:
    """The records of one TFRecord file, as bytes.

    Each is its length (8 bytes), a checksum of that (4), the data and their checksum (4).
    """

    def __init__(self, path):
        self.path, end = path, 0
        ends = array.array("q", [0])
        try:
            size = os.path.getsize(path)
            with open(path, "rb") as file:
                while end < size:
                    header = file.read(12)
                    whole = len(header) == 12
                    end += 16 + (struct.unpack("<QI", header)[0] if whole else size)
                    ends.append(min(end, 2**62))
                    file.seek(min(end, size))
        except OSError as error:
            raise ValueError(
                f"`paths` must be TFRecord files. Received: {path}: {error}"
            ) from error
        if end != size or not end:
            raise ValueError(
                "`paths` must be TFRecord files of one record or more, whole and not "
                f"compressed. Received: {path} of {size} bytes, whose record "
                f"{max(0, len(ends) - 2)} does not end there"
            )
        self.ends = np.frombuffer(ends, np.int64)

    def rows(self, index):
        begins = self.ends[index]
        records = _read(self.path, begins, self.ends[index + 1] - begins)
        return np.array([record[12:-4] for record in records], object)


class ImageFiles(Source):
    """Image files, decoded when they are needed, several at a time.

    Args:
        paths: list of paths, in the order of the rows; or a folder, for the images in it
            and in the folders in it, in the order of their names.
        shape: (height, width, channels). All are resized to it; with 1 channel colours
            become grey, with 3 channels what is grey stays so. What is transparent is lost.

    Attributes:
        shape: `(rows, height, width, channels)`.
        dtype: uint8.

    Raises:
        ValueError: if there are none; when they are read, if one cannot be decoded.

    Example:

    >>> import keras, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for i in range(3):
    ...     keras.utils.save_img(folder / f"{i}.png", np.zeros((10, 8, 3)))
    >>> ImageFiles(folder, shape=(5, 4, 3)).shape
    (3, 5, 4, 3)
    """

    most_looked_at = 100
    name = "paths"  # the argument's name for errors

    def __init__(self, paths, shape):
        if isinstance(paths, (str, os.PathLike)):
            paths = images_in(pathlib.Path(paths))
        self.paths = _paths(paths, "image")
        event = checks.shape(shape, "shape")
        fits = len(event) == 3 and event[2] in (1, 3)
        checks.that(fits, "shape", "(height, width, 1 or 3)", shape)
        self.shape, self.dtype = (len(self.paths), *event), np.dtype(np.uint8)

    def rows(self, index):
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


def images_in(folder):
    """The paths of the images in a folder and in the folders in it, sorted."""
    return sorted(
        p
        for p in (*folder.glob("*"), *folder.glob("*/*"))
        if p.suffix.lower() in IMAGES and not p.name.startswith(".")
    )


@contextlib.contextmanager
def open_image(path, name):
    """The image of a file, as PIL opens it: its size and mode are known, no more is read.

    Args:
        path: its path.
        name: str, the argument's name for errors, also for those of its decoding.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise OSError(f"more than 8 bits per channel (mode {image.mode})")
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"`{name}` must have images of 8 bits that can be read. Received: {path}: "
            f"{error}"
        ) from error


def too_large(size):
    """Whether so many bytes are more than a quarter of the memory of this machine."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on every system
        return False
    with contextlib.suppress(OSError, ValueError):  # what a container may have
        limit = pathlib.Path("/sys/fs/cgroup/memory.max").read_text()
        memory = min(memory, int(limit))
    return size > memory / 4


def _paths(paths, kind):
    several = not isinstance(paths, (str, os.PathLike))
    checks.that(several, "paths", f"a list of {kind} files", paths)
    paths = [pathlib.Path(path) for path in paths]
    checks.that(paths, "paths", f"one {kind} file or more", paths)
    return paths


def _given_out(dtype, name):
    """The dtype in which stored rows are given out, in the byte order of this machine."""
    if dtype.kind not in "buif":
        raise ValueError(
            f"`{name}` must hold numbers: bool, an integer type or a float type. "
            f"Received: {name} of dtype {dtype}"
        )
    return dtype.newbyteorder("=") if dtype.kind in "bui" else np.dtype(np.float32)


def _as(dtype, rows):
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        return rows.astype(dtype, copy=False)


def _fill(rows, index, starts, readers):
    """Fills `rows` with those of the numbers `index`, each from the file it lies in."""
    files = np.searchsorted(starts, index, side="right") - 1
    for i in np.unique(files):
        here = files == i
        rows[here] = readers[i](index[here] - starts[i])
    return rows


def _read(path, offsets, sizes):
    """The bytes at these places of a file, a list.

    The file is open no longer than that: thousands of files reach no limit.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        places = [*zip(offsets.tolist(), sizes.tolist(), strict=True)]
        if len(places) > 1 and hasattr(os, "posix_fadvise"):  # not on macOS
            for place in places:  # the disk serves many at once: four times as fast
                os.posix_fadvise(file, *place, os.POSIX_FADV_WILLNEED)
        parts = [os.pread(file, size, offset) for offset, size in places]
    finally:
        os.close(file)
    if sum(map(len, parts)) != sizes.sum():
        raise ValueError(f"Data must stay as they are. Received: {path}, cut short since")
    return parts
