"""The data sets with a name: they ship with a library, or lie in a folder of yours."""

import os
import pathlib

import numpy as np

from keras_vae.datasets.dataset import Dataset, with_test_rows
from keras_vae.datasets.files import read_arrays


def digits():
    """1,797 handwritten digits of 8 x 8 pixels, which ship with scikit-learn.

    Their grey values end at 16, and are divided by it.
    """
    from sklearn.datasets import load_digits  # slow to import

    images, labels = load_digits(return_X_y=True)
    x = (images / 16.0).astype(np.float32).reshape(-1, 8, 8, 1)
    return with_test_rows("digits", x, labels, value_range=(0, 16))


def mnist():
    """MNIST: 60,000 and 10,000 digits of 28 x 28 pixels (LeCun et al., 1998)."""
    return _published("mnist")


def fashion_mnist():
    """Fashion-MNIST: 60,000 and 10,000 pieces of clothing (Xiao et al., 2017)."""
    return _published("fashion_mnist")


def frey_faces():
    """Frey Face: 1,965 video frames of one face, 28 x 20 pixels; 200 of them to test on."""
    arrays = _file("frey_faces", {"x": (1965, 28, 20)})
    x = arrays["x"][..., None]
    return with_test_rows("frey_faces", x, fraction=200 / len(x), value_range=(0, 255))


def mnist_static_binary():
    """MNIST binarised once and for all (Larochelle and Murray, 2011), bool."""
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
    """The arrays of `name`.npz: from KERAS_VAE_DATA, else by Keras' own download."""
    folder = os.environ.get("KERAS_VAE_DATA")
    what = ", ".join(f"{key} {shape}" for key, shape in shapes.items()) + " of uint8"
    put = f"put {name}.npz (arrays {what}) into a folder and let KERAS_VAE_DATA name it"
    if folder:
        path = pathlib.Path(folder, f"{name}.npz")
        if not path.is_file():
            raise ValueError(
                f"`data` {name} was not found: {put}. Received: KERAS_VAE_DATA={folder}, "
                "which has no such file"
            )
        arrays = read_arrays(path)
        for key, shape in shapes.items():
            found = arrays[key] if key in arrays else np.zeros(0)
            if found.shape != shape or found.dtype != np.uint8:
                came = (
                    f"{key} {found.shape} of {found.dtype}"
                    if key in arrays
                    else f"no {key}"
                )
                raise ValueError(
                    f"`data` {name} must be the file of that name: {put}. Received: {path} "
                    f"with {came}"
                )
        return arrays
    if not download:
        raise ValueError(
            f"`data` {name} cannot be downloaded: {put}. Received: no KERAS_VAE_DATA"
        )
    import keras

    try:
        train, test = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception where there is no network
        raise ValueError(
            f"`data` {name} could not be downloaded: {put}. Received: {error}"
        ) from error
    return dict(
        zip(("x_train", "y_train", "x_test", "y_test"), (*train, *test), strict=True)
    )
