"""Reading of .npy and .npz files: arrays by name, without running code.

Object arrays are pickles, which can run code when they are loaded. `read_arrays` uses an
unpickler that creates only numbers and text.
"""

import contextlib
import pathlib
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_vae.datasets.array_names import split_name
from keras_vae.datasets.rows import too_large

# Names of the values of a sparse matrix that also has `indices` and `indptr`.
SPARSE_VALUES = ("data", "values", "counts")


class Header(NamedTuple):
    """Shape and dtype of an array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype


def read_header(path: pathlib.Path) -> Header:
    """Reads the shape and dtype of the array of a .npy file.

    Raises:
        ValueError: for a file that cannot be read.
    """
    with _readable(path), open(path, "rb") as file:
        return _read_header(file)


def read_array(path: pathlib.Path, mmap_mode: Any = None) -> np.ndarray:
    """Reads the array of a .npy file.

    Args:
        path: path of the file.
        mmap_mode: as for `np.load`.

    Raises:
        ValueError: for a file that cannot be read.
    """
    # Given a path, NumPy does not close a damaged file.
    with _readable(path), open(path, "rb") as file:
        source = path if mmap_mode else file
        return np.asanyarray(np.load(source, mmap_mode=mmap_mode, allow_pickle=False))


def read_headers(path: pathlib.Path) -> dict[str, Header]:
    """Reads the shapes and dtypes of the arrays of an .npz file, by name.

    Raises:
        ValueError: for a file that cannot be read.
    """
    with _archive(path) as archive:
        headers = {}
        for name in archive.files:
            with contextlib.suppress(KeyError), archive.zip.open(f"{name}.npy") as member:
                headers[name] = _read_header(member)
        return headers


def read_arrays(
    path: pathlib.Path, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Reads arrays of an .npz file by name.

    Args:
        path: path of the file.
        names: names of the arrays, or None for all except object arrays.

    Returns:
        Dict from names to arrays. In object arrays, numbers and text are restored; other
        objects are replaced.

    Raises:
        ValueError: for a file that cannot be read.
    """
    headers = read_headers(path)
    if names is None:
        names = [name for name in headers if not headers[name].dtype.hasobject]
    arrays = {}
    with _archive(path) as archive:
        for name in names:
            if headers[name].dtype.hasobject:
                with archive.zip.open(f"{name}.npy") as member:
                    arrays[name] = _read_objects(member)
            else:
                arrays[name] = archive[name]
    return arrays


def read_sparse(
    path: pathlib.Path, headers: dict[str, Header]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the sparse matrices of an .npz file as dense arrays.

    The file was written by `scipy.sparse.save_npz`, or has `indices`, `indptr`, `data` (or
    `values` or `counts`) and optionally `shape` of a CSR matrix. With several parts they
    are called `indices_train` and so on.

    Args:
        path: path of the file.
        headers: the result of `read_headers`.

    Returns:
        (x, headers): dict from `x`, or `x_train` and so on, to arrays `[rows, columns]`,
        empty without sparse matrices; and the headers with these arrays in place of their
        own parts.

    Raises:
        ValueError: for a matrix that cannot be read or does not fit into memory.
    """
    if {"format", "shape", "data"} <= {*headers}:
        with _readable(path):
            import scipy.sparse  # slow to import

            matrices = {"x": scipy.sparse.load_npz(path).tocsr()}
        used = {*headers}
    else:
        matrices, used = _read_csr(path, headers)
    # Without `shape`, the last columns of a part may be absent.
    columns = max((matrix.shape[1] for matrix in matrices.values()), default=0)
    rows = sum(matrix.shape[0] for matrix in matrices.values())
    if too_large(rows * columns * 4):
        raise ValueError(
            "`data` must fit into memory as a dense array: leave out rows or columns. "
            f"Received: {path}, a sparse matrix of {rows:,} x {columns:,} values"
        )
    dense = {}
    for name, matrix in matrices.items():
        matrix.resize(matrix.shape[0], columns)
        dense[name] = matrix.toarray()
    others = {name: header for name, header in headers.items() if name not in used}
    return dense, {**dense, **others}


def _read_csr(path, headers):
    """Reads the matrices in parts: (matrices by name, names of their arrays)."""
    groups: dict[str | None, dict[str, str]] = {}
    for name in headers:
        stem, part = split_name(name)
        groups.setdefault(part, {})[stem] = name
    matrices: dict[str, Any] = {}
    used: set[str] = set()
    for part, names in groups.items():
        values = [stem for stem in SPARSE_VALUES if stem in names]
        if values and {"indices", "indptr"} <= {*names}:
            stems = (values[0], "indices", "indptr", "shape")
            arrays = read_arrays(path, [names[stem] for stem in stems if stem in names])
            used |= {*arrays}
            with _readable(path):
                import scipy.sparse  # slow to import

                *matrix, shape = (*arrays.values(), None)[:4]
                matrices[f"x_{part}" if part else "x"] = scipy.sparse.csr_array(
                    tuple(matrix), None if shape is None else tuple(shape.tolist())
                )
    return matrices, used


@contextlib.contextmanager
def _readable(path: pathlib.Path) -> Iterator[None]:
    """Turns any error into a ValueError that names the file."""
    try:
        yield
    except Exception as error:  # damaged files raise many kinds of errors
        raise ValueError(
            f"`data` must be a readable NumPy file of numbers. Received: {path}: {error}"
        ) from error


@contextlib.contextmanager
def _archive(path: pathlib.Path) -> Iterator[Any]:
    with _readable(path), open(path, "rb") as file:
        yield np.load(file, allow_pickle=False)


def _read_header(file):
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:  # only for structured arrays
        return Header((), np.dtype("V1"))
    return Header(shape, dtype)


def _read_objects(file):
    """Reads an object array of numbers and text from an open .npy file."""
    header = _read_header(file)
    *_, values = _Unpickler(file).load().state
    return np.fromiter(values, object).reshape(header.shape)


class _Pickled:
    """Stands for any object in a pickle."""

    def __init__(self, *args):
        self.args = args

    def __setstate__(self, state):
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Reads pickled numbers and text. Nothing that a pickle names is imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns a new class that keeps its arguments, or a function for scalars."""
        if module.partition(".")[0] == "numpy" and name == "scalar":
            return lambda dtype, content: _scalar(dtype, content)
        return type(name, (_Pickled,), {})


def _scalar(dtype, content):
    """Returns a pickled NumPy scalar, a number or a text, as a Python object."""
    (code, *_), (_, order, *_) = dtype.args, dtype.state
    dtype = np.dtype(code).newbyteorder(order)
    if dtype.kind not in "buifSU":
        raise pickle.UnpicklingError(f"it contains a scalar of dtype {dtype}")
    return np.frombuffer(content, dtype)[0].item()
