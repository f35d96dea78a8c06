"""Named data sets, from scikit-learn, from a local folder or downloaded by Keras."""

import os
import pathlib

import numpy as np

from keras_vae.datasets.archives import read_arrays
from keras_vae.datasets.dataset import Dataset, with_test_rows


def digits() -> Dataset:
    """Loads scikit-learn's 1,797 handwritten digits of 8 x 8 pixels.

    Their grey values, 0 to 16, are divided by 16.
    """
    from sklearn.datasets import load_digits  # slow to import

    images, labels = load_digits(return_X_y=True)
    x = (images / 16.0).astype(np.float32).reshape(-1, 8, 8, 1)
    return with_test_rows("digits", x, labels, value_range=(0, 16))


def mnist() -> Dataset:
    """Loads MNIST: 60,000 and 10,000 digits of 28 x 28 pixels (LeCun et al., 1998)."""
    return _published("mnist")


def fashion_mnist() -> Dataset:
    """Loads Fashion-MNIST: 60,000 and 10,000 images of clothes (Xiao et al., 2017)."""
    return _published("fashion_mnist")


def frey_faces() -> Dataset:
    """Loads Frey Face: 1,965 video frames of one face, 28 x 20 pixels; 200 for testing."""
    arrays = _file("frey_faces", {"x": (1965, 28, 20)})
    x = arrays["x"][..., None]
    return with_test_rows("frey_faces", x, fraction=200 / len(x), value_range=(0, 255))


def mnist_static_binary() -> Dataset:
    """Loads statically binarised MNIST (Larochelle and Murray, 2011), bool."""
    rows = {"train": 50000, "test": 10000, "valid": 10000}
    shapes = {f"packed_{part}": (count, 98) for part, count in rows.items()}
    arrays = _file("mnist_static_binary", shapes)
    train, test, valid = (
        np.unpackbits(arrays[f"packed_{part}"], axis=1).reshape(-1, 28, 28, 1) > 0
        for part in ("train", "test", "valid")
    )
    return Dataset("mnist_static_binary", train, test, valid)


NAMED = {
    f.__name__: f for f in (digits, fashion_mnist, frey_faces, mnist, mnist_static_binary)
}


def _published(name):
    shapes = {
        "x_train": (60000, 28, 28),
        "x_test": (10000, 28, 28),
        "y_train": (60000,),
        "y_test": (10000,),
    }
    arrays = _file(name, shapes, download=True)
    return Dataset(
        name,
        x_train=arrays["x_train"][..., None],
        x_test=arrays["x_test"][..., None],
        y_train=arrays["y_train"],
        y_test=arrays["y_test"],
        value_range=(0, 255),
    )


def _file(name, shapes, download=False):
    """Reads the arrays of `name`.npz in KERAS_VAE_DATA, or downloads them with Keras."""
    folder = os.environ.get("KERAS_VAE_DATA")
    contents = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
    hint = (
        f"put {name}.npz (uint8 arrays {contents}) into a folder and set KERAS_VAE_DATA to "
        "the path of the folder"
    )
    if folder:
        path = pathlib.Path(folder, f"{name}.npz")
        if not path.is_file():
            raise ValueError(
                f"`data` {name} was not found: {hint}. Received: KERAS_VAE_DATA={folder} "
                f"without {name}.npz"
            )
        arrays = read_arrays(path)
        for key, shape in shapes.items():
            array = arrays.get(key)
            if array is None or array.shape != shape or array.dtype != np.uint8:
                received = "missing" if array is None else f"{array.shape} {array.dtype}"
                raise ValueError(
                    f"`data` {name} must be the published data set: {hint}. Received: "
                    f"{path}, whose {key} is {received}"
                )
        return arrays
    if not download:
        raise ValueError(
            f"`data` {name} cannot be downloaded: {hint}. Received: KERAS_VAE_DATA, not set"
        )
    import keras

    try:
        train, test = getattr(keras.datasets, name).load_data()
    except Exception as error:  # without a network, Keras raises a bare Exception
        raise ValueError(
            f"`data` {name} could not be downloaded: {hint}. Received: {error}"
        ) from error
    return dict(
        zip(("x_train", "y_train", "x_test", "y_test"), (*train, *test), strict=True)
    )
