"""Loading a data set by its name or from files."""

import difflib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_vae import checks
from keras_vae.datasets.array_files import load_arrays
from keras_vae.datasets.dataset import Dataset, unsplit, with_split
from keras_vae.datasets.image_files import IMAGES
from keras_vae.datasets.image_folders import load_images
from keras_vae.datasets.named import NAMED
from keras_vae.datasets.tables import Scaler, is_table, read_table

# A line of Python that converts a file of another kind, by the end of its name.
CONVERSIONS = {
    (".h5", ".hdf5"): 'np.save("x.npy", h5py.File("{file}")["NAME"][:])',
    (".h5ad",): 'np.save("x.npy", anndata.read_h5ad("{file}").to_df())',
    (".mat",): 'np.save("x.npy", scipy.io.loadmat("{file}")["NAME"])',
    (".pt", ".pth"): 'np.save("x.npy", torch.load("{file}").numpy())',
    (".pkl", ".pickle"): 'np.save("x.npy", np.asarray(pandas.read_pickle("{file}")))',
    (".nii", ".nii.gz"): 'np.save("x.npy", np.stack([nibabel.load(file).get_fdata() for '
    "file in files]))",
    (".wav",): 'np.save("x.npy", np.lib.stride_tricks.sliding_window_view('
    'scipy.io.wavfile.read("{file}")[1], 1024, axis=0)[::512])',
    ("idx3-ubyte",): 'np.save("x.npy", np.fromfile("{file}", np.uint8)[16:].reshape('
    "-1, 28, 28))",
    (".xls", ".xlsx"): 'pandas.read_excel("{file}").to_csv("x.csv", index=False)',
    (".json",): 'pandas.read_json("{file}").to_csv("x.csv", index=False)',
    (".zip", ".tar", ".tar.gz", ".tgz"): 'shutil.unpack_archive("{file}", "folder")',
}


def load(
    data: Any,
    label: str | None = None,
    drop: str | Sequence[str] = (),
    resize: Any = None,
    value_range: Any = None,
    header: bool | None = None,
    axes: str | None = None,
    array: str | None = None,
    skip_broken: bool = False,
    scaler: Scaler | None = None,
    channels: int | None = None,
) -> Dataset:
    """Loads a data set by its name or from files.

    Args:
        data: one of

            * `"digits"`, `"mnist"`, `"fashion_mnist"`, `"frey_faces"` or
              `"mnist_static_binary"`: `digits` ships with scikit-learn; the others are read
              from the folder in the environment variable KERAS_VAE_DATA. If it is not set,
              Keras downloads `mnist` and `fashion_mnist`;
            * a `.npy` file of rows, or a `.npz` file with `x`, or with `x_train`, `x_test`
              and optionally `y_train`, `y_test`, or with other usual names, such as
              `train_images` and `train_labels`. Channels become the last axis;
            * a folder of images of one size. Its subfolders are classes, or
              `train`, `test` and `val`;
            * a table of numbers, which is standardised: `.parquet`, `.feather`, or text
              (`.csv`, `.tsv`, `.txt`, `.dat`, `.data`), which may be compressed (`.gz`,
              `.bz2`, `.xz`, `.zip`). Separator, decimal mark, header and other parts of
              the layout of text are noticed; see `notes` of the result.

            Without a test split, 20 % of the rows are held out, always the same ones.
        label: str, the column of a table, or the array of a `.npz` file, that holds labels,
            which are not modelled.
        drop: names of columns of a table to leave out.
        resize: (height, width) to which images of a folder are resized.
        header: bool, whether the first line of a table in text has the column names; None
            notices it.
        value_range: (low, high) of arrays or images, which is scaled to [0, 1].
        axes: the axes of a row of an array: `"hw"`, `"hwc"` or `"chw"` for images, `"t"`,
            `"tc"` or `"ct"` for signals, `"dhw"`, `"dhwc"` or `"cdhw"` for volumes (depth,
            height, width, time, channels). None chooses them by the shape.
        array: str, the array of a `.npz` file that holds the data.
        skip_broken: bool, whether to leave out images of a folder that cannot be read.
        scaler: `Scaler` of another data set: its columns of a table are read and
            standardised by it. None fits a new one.
        channels: 1 or 3, the channels of images. None: 1 if all are grey.

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
    rows = read_rows(
        data, label, drop, resize, value_range, header, axes, array, skip_broken,
        columns=None if scaler is None else scaler.columns, channels=channels,
    )  # fmt: skip
    data = with_split(rows)
    return data if data.columns is None else _standardised(data, scaler)


def _standardised(data, scaler):
    """Standardises the rows of a table with a scaler, or with one of its training rows."""
    scaler = scaler or Scaler.fit(data.columns, data.x_train)
    x_train, x_test = scaler.transform(data.x_train), scaler.transform(data.x_test)
    return data._replace(x_train=x_train, x_test=x_test, scaler=scaler)


def read_rows(
    data: Any,
    label: str | None = None,
    drop: str | Sequence[str] = (),
    resize: Any = None,
    value_range: Any = None,
    header: bool | None = None,
    axes: str | None = None,
    array: str | None = None,
    skip_broken: bool = False,
    columns: Sequence[str] | None = None,
    channels: int | None = None,
    strict: bool = True,
) -> Dataset:
    """Reads data like `load`, without a new test split and without standardisation.

    Args:
        data: see `load`; also the path of one image.
        label: see `load`.
        drop: see `load`.
        resize: see `load`.
        value_range: see `load`.
        header: see `load`.
        axes: see `load`.
        array: see `load`.
        skip_broken: see `load`.
        columns: names of the columns of a table to read, in this order. None: all.
        channels: see `load`.
        strict: bool, whether to refuse options for another kind of data.

    Returns:
        `Dataset`: if the data have no test split, all rows are in `x_train`, in the order
        of the file, and `x_test` is None.

    Raises:
        ValueError: see `load`.
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
    value_range = None if value_range is None else tuple(value_range)
    options = {
        "label": label,
        "drop": drop,
        "header": header,
        "resize": resize,
        "value_range": value_range,
        "axes": axes,
        "array": array,
        "skip_broken": skip_broken or None,
    }
    options = options if strict else {}
    if data in NAMED:
        _refuse_options(options, data)
        return NAMED[data]()
    check_exists(data)
    suffix = path.suffix.lower()
    if path.is_dir() and suffix in (".csv", ".tsv", ".feather"):
        raise ValueError(
            f"`data` must be a file, to be read as a table. Received: {path}, a folder"
        )
    if (path.is_dir() and suffix != ".parquet") or suffix in IMAGES:
        allowed = ("resize", "value_range", "skip_broken")
        _refuse_options(options, "a folder of images", *allowed)
        return load_images(path, resize, value_range, skip_broken, channels)
    if is_table(path):
        _refuse_options(options, "a table", "label", "drop", "header")
        table = read_table(path, label, drop, header, columns)
        fields = {"columns": tuple(table.columns), "notes": table.notes}
        return unsplit(str(path), table.x, table.y, **fields)
    if suffix in (".npy", ".npz"):
        of_archive = ("array", "label") if suffix == ".npz" else ()
        _refuse_options(options, f"a {suffix} file", "value_range", "axes", *of_archive)
        return load_arrays(path, value_range, axes, array, label)
    lines = (
        f" Convert this file in Python: {line.format(file=path)}."
        for ends, line in CONVERSIONS.items()
        if path.name.lower().endswith(ends)
    )
    raise ValueError(
        "`data` must be a .npy or .npz file, a folder of images or a table (.csv, .tsv, "
        f".txt, .dat, .data, .parquet, .feather).{next(lines, '')} Received: data={data}"
    )


def check_exists(data: Any) -> None:
    """Raises a ValueError unless `data` is the name of a data set or a path that exists."""
    if data not in NAMED and not pathlib.Path(data).exists():
        similar = difflib.get_close_matches(str(data), NAMED, 1)
        hint = f". Did you mean {similar[0]}?" if similar else ""
        raise ValueError(
            f"`data` must be a file, a folder or one of {', '.join(NAMED)}. "
            f"Received: data={data}, which does not exist{hint}"
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
