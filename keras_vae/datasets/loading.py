"""Loading a data set by its name or from files."""

import pathlib

from keras_vae.datasets.dataset import with_test_rows
from keras_vae.datasets.files import load_arrays, load_images
from keras_vae.datasets.named import NAMED
from keras_vae.datasets.tables import Scaler, is_table, read_table


def load(data, label=None, drop=(), resize=None, value_range=None):
    """Loads a data set by its name or from files.

    Args:
        data: one of

            * `"digits"`, `"mnist"`, `"fashion_mnist"`, `"frey_faces"` or
              `"mnist_static_binary"`: `digits` ships with scikit-learn; the others are read
              from the folder that the environment variable KERAS_VAE_DATA names, else
              downloaded by Keras where it can;
            * a `.npy` file of rows, or a `.npz` file of `x`, or of `x_train`, `x_test` and
              optionally `y_train`, `y_test`. A grey image without channel axis gets one;
            * a folder of images of one size. Folders inside it are classes, or are named
              `train` and `test`;
            * a `.csv`, `.csv.gz` or `.parquet` table of numbers, which is standardised.

            Data without a split give a fifth of their rows, always the same, to the test.
        label: str, the column of a table that holds labels, which are not modelled.
        drop: names of columns of a table to leave out.
        resize: (height, width), for images.
        value_range: (low, high) of arrays that are to be scaled to [0, 1].

    Returns:
        `Dataset`.

    Raises:
        ValueError: if it is not found, cannot be read or does not hold what is said above.

    Example:

    >>> digits = load("digits")
    >>> digits.x_train.shape, digits.value_range
    ((1438, 8, 8, 1), (0, 16))
    """
    if not str(data):
        raise ValueError("`data` must be a name or a path. Received: nothing")
    path = pathlib.Path(data)
    drop = (drop,) if isinstance(drop, str) else tuple(drop)
    _check_pair("resize", resize, lambda h, w: int(h) == h > 0 and int(w) == w > 0)
    _check_pair("value_range", value_range, lambda low, high: low < high)
    options = {"label": label, "drop": drop, "resize": resize, "value_range": value_range}
    if data in NAMED:
        _refuse(options, data)
        return NAMED[data]()
    if not path.exists():
        raise ValueError(
            f"`data` must be a file, a folder or one of {', '.join(NAMED)}. "
            f"Received: data={data}, which does not exist"
        )
    if path.is_dir():
        _refuse(options, "a folder of images", "resize")
        return load_images(path, resize)
    if is_table(path):
        _refuse(options, "a table", "label", "drop")
        columns, x, y = read_table(path, label, drop)
        raw = with_test_rows(str(path), x, y)
        scaler = Scaler.of(columns, raw.x_train)
        parts = {
            part: scaler.transform(getattr(raw, part)) for part in ("x_train", "x_test")
        }
        return raw._replace(**parts, scaler=scaler)
    if path.suffix.lower() in (".npy", ".npz"):
        _refuse(options, "an array", "value_range")
        return load_arrays(path, value_range)
    raise ValueError(
        "`data` must be a .npy, .npz, .csv, .csv.gz or .parquet file or a folder of "
        f"images. Received: data={data}"
    )


def _check_pair(name, pair, fits):
    expected = {"resize": "(height, width)", "value_range": "(low, high), low below high"}
    try:
        right = pair is None or fits(*pair)
    except (TypeError, ValueError):
        right = False
    if not right:
        raise ValueError(f"`{name}` must be {expected[name]}. Received: {name}={pair!r}")


def _refuse(options, kind, *allowed):
    for name, value in options.items():
        if value not in (None, (), []) and name not in allowed:
            raise ValueError(
                f"`{name}` has no meaning for {kind}. Received: {name}={value}"
            )
