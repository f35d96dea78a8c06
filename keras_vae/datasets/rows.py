"""Rows that stay on the disk: read when a batch needs them, never all at once.

Files are read, not mapped: the pages of a mapped file count as memory of the process. The
page cache of the system keeps the data, as far as there is free memory.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_vae import checks


class RowsOnDisk:
    """Base of `Shards`, `TFRecords` and `ImageFiles`: rows that are read when needed.

    `fit`, `evaluate` and the other methods of a model accept it in place of an array. The
    order of the rows and the results are the same, on one device and with several workers.
    A worker reads only its share of a batch. Only a sample of the rows is checked in
    advance. `np.asarray` reads all rows.

    A subclass sets `shape` and `dtype` and implements `rows`.

    Attributes:
        shape: `(rows, *event)`.
        dtype: NumPy dtype of the rows that are returned: float64 becomes float32.
    """

    shape: tuple
    dtype: np.dtype
    most_sampled = 1000

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Reads the rows with the numbers `index`, int64 `[n]`, into a new NumPy array."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Reads the rows of a slice or of an array of numbers: a NumPy array."""
        return self.rows(self._numbers(rows))

    def __array__(self, dtype=None, copy=None):
        return self[:].astype(dtype or self.dtype, copy=False)

    def part(self, rows: slice | np.ndarray) -> "RowsOnDisk":
        """Selects the rows of a slice or of an array of numbers, without reading them."""
        return _SelectedRows(self, self._numbers(rows))

    def _numbers(self, rows):
        if isinstance(rows, slice):
            return np.arange(*rows.indices(len(self)))
        rows = np.asarray(rows)
        # Not an IndexError, which would end an iteration silently.
        checks.require(
            rows.ndim == 1
            and rows.dtype.kind in "iu"
            and ((-len(self) <= rows) & (rows < len(self))).all(),
            "rows",
            f"a slice or an int array [n] below {len(self)}",
            rows,
        )
        return rows % len(self)

    def sample_rows(self) -> np.ndarray:
        """Reads evenly spaced rows, which are checked in place of all rows."""
        size = max(1, self.dtype.itemsize * int(np.prod(self.shape[1:])))
        count = max(1, min(len(self), self.most_sampled, 2**24 // size))
        return self.rows(np.linspace(0, len(self) - 1, count).astype(np.int64))

    def gather(self, index: Any) -> Any:
        """Reads rows inside a graph, like `rows`: int64 tensor `[n]` -> tensor."""
        import tensorflow as tf  # slow; files are checked without it

        rows = tf.numpy_function(self.rows, [index], tf.as_dtype(self.dtype))
        return tf.ensure_shape(rows, (None, *self.shape[1:]))


class _SelectedRows(RowsOnDisk):
    """Selected rows of another `RowsOnDisk`."""

    def __init__(self, source, index):
        self.source = source
        self.index = index.astype(np.min_scalar_type(len(source)))
        self.shape, self.dtype = (len(index), *source.shape[1:]), source.dtype
        self.most_sampled = source.most_sampled

    def rows(self, index: np.ndarray) -> np.ndarray:
        return self.source.rows(self.index[index].astype(np.int64))


class JoinedRows(RowsOnDisk):
    """The rows of several arrays or `RowsOnDisk` of one row shape, one after the other.

    Args:
        sources: list of arrays or `RowsOnDisk`.
    """

    def __init__(self, sources: Sequence[Any]):
        self.sources = sources
        self.ends = np.cumsum([len(source) for source in sources])
        self.shape = (int(self.ends[-1]), *sources[0].shape[1:])
        self.dtype = np.dtype(sources[0].dtype)

    def rows(self, index: np.ndarray) -> np.ndarray:
        rows = np.empty((len(index), *self.shape[1:]), self.dtype)
        source_numbers = np.searchsorted(self.ends, index, side="right")
        for number, source in enumerate(self.sources):
            chosen = source_numbers == number
            if chosen.any():
                start = self.ends[number] - len(source)
                rows[chosen] = source[index[chosen] - start]
        return rows


class MappedRows(RowsOnDisk):
    """Rows of a memory-mapped array, such as `np.load(path, mmap_mode="r")`.

    Args:
        mapped: `np.memmap` of numbers, or a slice of one.
        name: str, the argument's name for errors.

    Raises:
        ValueError: for copy-on-write mode, no rows, or rows that are not contiguous.
    """

    def __init__(self, mapped: np.memmap, name: str):
        if mapped.mode == "c":
            raise ValueError(
                f"`{name}` must be mapped from a file in mode 'r' or 'r+': changes made "
                f"in mode 'c' are not in the file. Received: {name} of {mapped.filename}"
            )
        if not mapped.size or not mapped.ndim:
            raise ValueError(f"`{name}` is empty. Received: shape {mapped.shape}")
        if not mapped[:1].flags.c_contiguous:
            raise ValueError(
                f"`{name}` must have contiguous rows (C order): save it again with "
                f"np.save(path, np.ascontiguousarray(x)). Received: {mapped.filename} with "
                f"strides {mapped.strides}"
            )
        root = mapped
        while isinstance(root.base, np.memmap):
            root = root.base
        self.path = mapped.filename
        self.offset = root.offset + mapped.ctypes.data - root.ctypes.data
        self.stride, self.stored = mapped.strides[0], mapped.dtype
        self.shape, self.dtype = mapped.shape, returned_dtype(mapped.dtype, name)

    def rows(self, index: np.ndarray) -> np.ndarray:
        size = self.stored.itemsize * int(np.prod(self.shape[1:]))
        # The first rows of consecutive rows, which are read in one call.
        begins = np.diff(index, prepend=-2) != 1
        begins[:: max(1, 2**30 // size)] = True  # the system's limit is 2 GiB
        if self.stride != size:
            begins[:] = True
        (begins,) = np.nonzero(begins)
        sizes = np.diff(begins, append=len(index)) * size
        parts = read_bytes(self.path, self.offset + index[begins] * self.stride, sizes)
        rows = np.frombuffer(bytearray().join(parts), self.stored)
        return cast(self.dtype, rows.reshape(len(index), *self.shape[1:]))


class Shards(RowsOnDisk):
    """Rows of several .npy files, one file after the other, read when they are needed.

    For data that do not fit into memory. A single file needs no `Shards`:
    `np.load(path, mmap_mode="r")` is read in the same way.

    Args:
        paths: list of paths, in the order of the rows.

    Attributes:
        shape: `(rows, *event)`.
        dtype: NumPy dtype of the rows that are returned: float64 becomes float32.

    Raises:
        ValueError: if there is no path, or if the files differ in dtype or shape of a row
            or are not in C order.

    Example:

    >>> import tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for i in range(3):
    ...     np.save(folder / f"{i}.npy", np.zeros((10, 8), "uint8"))
    >>> Shards(sorted(folder.glob("*.npy"))).shape
    (30, 8)
    """

    def __init__(self, paths: Sequence):
        paths = check_paths(paths, ".npy")
        self.files = [self._open(path) for path in paths]
        kinds = {
            (file.stored, file.shape[1:]): path
            for file, path in zip(self.files, paths, strict=True)
        }
        if len(kinds) > 1:
            listed = ", ".join(
                f"{p} {dtype} {shape}" for (dtype, shape), p in kinds.items()
            )
            raise ValueError(
                f"`paths` must have rows of one dtype and shape. Received: {listed}"
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
        return MappedRows(file, "paths")

    def rows(self, index: np.ndarray) -> np.ndarray:
        rows = np.empty((len(index), *self.shape[1:]), self.dtype)
        return fill_rows(rows, index, self.starts, [file.rows for file in self.files])


def too_large(size: int) -> bool:
    """Returns True if `size` bytes exceed a quarter of the memory of this machine."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on every system
        return False
    with contextlib.suppress(OSError, ValueError):  # the limit of a container
        limit = pathlib.Path("/sys/fs/cgroup/memory.max").read_text()
        memory = min(memory, int(limit))
    return size > memory / 4


def check_paths(paths: Any, kind: str) -> list[pathlib.Path]:
    """Returns a list of one or more paths, or raises a ValueError."""
    is_list = not isinstance(paths, (str, os.PathLike))
    checks.require(is_list, "paths", f"a list of {kind} files", paths)
    paths = [pathlib.Path(path) for path in paths]
    checks.require(paths, "paths", f"one {kind} file or more", paths)
    return paths


def returned_dtype(dtype: np.dtype, name: str) -> np.dtype:
    """Returns the dtype of returned rows, in the byte order of this machine."""
    checks.dtype(dtype, name)
    return dtype.newbyteorder("=") if dtype.kind in "bui" else np.dtype(np.float32)


def cast(dtype: np.dtype, rows: np.ndarray) -> np.ndarray:
    """Converts stored rows to the dtype of returned rows."""
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite
        return rows.astype(dtype, copy=False)


def fill_rows(
    rows: np.ndarray,
    index: np.ndarray,
    starts: np.ndarray,
    readers: Sequence[Callable[[np.ndarray], np.ndarray]],
) -> np.ndarray:
    """Fills `rows` with rows of several files, and returns it.

    Args:
        rows: array `[n, *event]` to fill.
        index: int64 `[n]`, row numbers, counted over all files.
        starts: int64, the number of the first row of each file.
        readers: function for each file: row numbers in the file -> rows.
    """
    files = np.searchsorted(starts, index, side="right") - 1
    for i in np.unique(files):
        in_file = files == i
        rows[in_file] = readers[i](index[in_file] - starts[i])
    return rows


def read_bytes(path: Any, offsets: np.ndarray, sizes: np.ndarray) -> list[bytes]:
    """Reads parts of a file; returns a list of bytes.

    The file is closed after each call: thousands of open files would exceed a limit.

    Raises:
        ValueError: if the file is shorter than when it was first opened.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        ranges = [*zip(offsets.tolist(), sizes.tolist(), strict=True)]
        if len(ranges) > 1 and hasattr(os, "posix_fadvise"):  # not on macOS
            for offset, size in ranges:  # parallel reads are four times as fast
                os.posix_fadvise(file, offset, size, os.POSIX_FADV_WILLNEED)
        parts = [os.pread(file, size, offset) for offset, size in ranges]
    finally:
        os.close(file)
    if sum(map(len, parts)) != sizes.sum():
        raise ValueError(
            f"`{path}` changed while it was being read: it is shorter than when it was "
            f"opened. Received: {sum(map(len, parts))} of {sizes.sum()} bytes"
        )
    return parts
