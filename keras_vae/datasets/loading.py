"""Loading a data set by its name or from files."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_vae import checks
from keras_vae.datasets.dataset import Dataset, with_test_rows
from keras_vae.datasets.files import load_arrays
from keras_vae.datasets.image_folders import load_images
from keras_vae.datasets.named import NAMED
from keras_vae.datasets.tables import Scaler, is_table, read_table


def load(
    data: Any,
    label: str | None = None,
    drop: str | Sequence[str] = (),
    resize: Any = None,
    value_range: Any = None,
    header: bool | None = None,
    skip_broken: bool = False,
) -> Dataset:
    """Loads a data set by its name or from files.

    Args:
        data: one of

            * `"digits"`, `"mnist"`, `"fashion_mnist"`, `"frey_faces"` or
              `"mnist_static_binary"`: `digits` ships with scikit-learn; the others are read
              from the folder in the environment variable KERAS_VAE_DATA. If it is not set,
              Keras downloads `mnist` and `fashion_mnist`;
            * a `.npy` file of rows, or a `.npz` file with `x`, or with `x_train`, `x_test`
              and optionally `y_train`, `y_test`. A channel axis is added to grey images
              without one;
            * a folder of images of one size. Its subfolders are classes, or
              `train`, `test` and `val`;
            * a table of numbers, which is standardised: `.parquet`, `.feather`, or text
              (`.csv`, `.tsv`, `.txt`, `.dat`, `.data`), which may be compressed (`.gz`,
              `.bz2`, `.xz`, `.zip`). Separator, decimal mark, header and other parts of
              the layout of text are noticed; see `notes` of the result.

            Without a test split, 20 % of the rows are held out, always the same ones.
        label: str, the column of a table that holds labels, which are not modelled.
        drop: names of columns of a table to leave out.
        resize: (height, width) to which images of a folder are resized.
        value_range: (low, high) of arrays or images, which is scaled to [0, 1].
        header: bool, whether the first line of a table in text has the column names; None
            notices it.
        skip_broken: bool, whether to leave out images of a folder that cannot be read.

    Returns:
        `Dataset`.

    Raises:
        ValueError: for data that do not exist, cannot be read or are not supported, and
            for an option that does not apply to them.

    Example:

    >>> digits = load("digits")
    >>> digits.x_train.shape, digits.value_range
    ((1438, 8, 8, 1), (0, 16))
    """
    if not isinstance(data, (str, os.PathLike)) or not str(data):
        received = repr(data) if isinstance(data, str) else f"a {type(data).__name__}"
        raise ValueError(
            "`data` must be a name or a path. Save a DataFrame with to_parquet or to_csv; "
            f"`fit` also accepts arrays. Received: data={received}"
        )
    path = pathlib.Path(data)
    drop = (drop,) if isinstance(drop, str) else tuple(drop)
    _check_pair("resize", resize, lambda h, w: int(h) == h > 0 and int(w) == w > 0)
    _check_pair("value_range", value_range, lambda low, high: low < high)
    options = {
        "label": label,
        "drop": drop,
        "header": header,
        "resize": resize,
        "value_range": value_range,
        "skip_broken": skip_broken or None,
    }
    if data in NAMED:
        _refuse_options(options, data)
        return NAMED[data]()
    if not path.exists():
        raise ValueError(
            f"`data` must be a file, a folder or one of {', '.join(NAMED)}. "
            f"Received: data={data}, which does not exist"
        )
    if path.is_dir() and path.suffix.lower() in (".csv", ".tsv", ".feather"):
        raise ValueError(
            f"`data` must be a file, to be read as a table. Received: {path}, a folder"
        )
    if path.is_dir() and path.suffix.lower() != ".parquet":
        allowed = ("resize", "value_range", "skip_broken")
        _refuse_options(options, "a folder of images", *allowed)
        return load_images(path, resize, value_range, skip_broken)
    if is_table(path):
        _refuse_options(options, "a table", "label", "drop", "header")
        table = read_table(path, label, drop, header)
        raw = with_test_rows(str(path), table.x, table.y, notes=table.notes)
        scaler = Scaler.fit(table.columns, raw.x_train)
        return raw._replace(
            x_train=scaler.transform(raw.x_train),
            x_test=scaler.transform(raw.x_test),
            scaler=scaler,
        )
    if path.suffix.lower() in (".npy", ".npz"):
        _refuse_options(options, "an array", "value_range")
        return load_arrays(path, value_range)
    raise ValueError(
        "`data` must be a .npy or .npz file, a folder of images or a table (.csv, .tsv, "
        f".txt, .dat, .data, .parquet, .feather). Received: data={data}"
    )


def _check_pair(name, pair, is_valid):
    expected = {"resize": "(height, width)", "value_range": "(low, high), low below high"}
    try:
        valid = pair is None or is_valid(*pair)
    except (TypeError, ValueError):
        valid = False
    checks.require(valid, name, expected[name], pair)


def _refuse_options(options, kind, *allowed):
    """Raises a ValueError for an option that does not apply to this kind of data."""
    for name, value in options.items():
        if value not in (None, (), []) and name not in allowed:
            raise ValueError(
                f"`{name}` must be left out for {kind}. Received: {name}={value}"
            )
