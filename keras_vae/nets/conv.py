"""Convolutional networks for images of any size."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_vae import checks


def ConvEncoder(
    filters: Sequence[int],
    kernel_size: int = 3,
    activation: Any = "relu",
    name: str | None = None,
) -> keras.Sequential:
    """Makes convolutions of stride 2. Each halves height and width, rounded up.

    Args:
        filters: sequence of ints, the number of channels of each layer.
        kernel_size: int.
        activation: activation function of each layer.
        name: str, optional.

    Returns:
        `keras.Sequential`, `[batch, height, width, channels]` ->
        `[batch, ceil(height / 2**n), ceil(width / 2**n), filters[-1]]`.

    Raises:
        ValueError: if `filters` is not a sequence of positive ints.
    """
    layers = [
        keras.layers.Conv2D(n, kernel_size, 2, "same", activation=activation)
        for n in checks.shape(filters, "filters")
    ]
    return keras.Sequential(layers, name=name)


def ConvDecoder(
    filters: Sequence[int],
    image_shape: Sequence[int],
    kernel_size: int = 3,
    activation: Any = "relu",
    name: str | None = None,
) -> keras.Sequential:
    """Makes a dense layer to the smallest map, then transposed convolutions of stride 2.

    Any image size works: the last map is cropped if height or width are not multiples of
    `2**len(filters)`. The likelihood's head projects to the channels of the image.

    Args:
        filters: sequence of ints, the number of channels of each map, from the smallest
            map to the largest: the reverse of the encoder's.
        image_shape: (height, width, channels), the event shape of the likelihood.
        kernel_size: int.
        activation: activation function of each layer.
        name: str, optional.

    Returns:
        `keras.Sequential`, `[batch, latent] -> [batch, height, width, filters[-1]]`.

    Raises:
        ValueError: if `filters` or `image_shape` is not a sequence of positive ints, or
            `image_shape` does not have three elements.
    """
    filters = checks.shape(filters, "filters")
    image_shape = checks.shape(image_shape, "image_shape")
    expected = "(height, width, channels)"
    checks.require(len(image_shape) == 3, "image_shape", expected, image_shape)
    factor = 2 ** len(filters)
    height, width = image_shape[:2]
    rows, columns = -(-height // factor), -(-width // factor)
    layers = [
        keras.layers.Flatten(),
        keras.layers.Dense(rows * columns * filters[0], activation),
        keras.layers.Reshape((rows, columns, filters[0])),
    ]
    for n in filters:
        layers.append(
            keras.layers.Conv2DTranspose(n, kernel_size, 2, "same", activation=activation)
        )
    crop = ((0, rows * factor - height), (0, columns * factor - width))
    layers.append(keras.layers.Cropping2D(crop))
    return keras.Sequential(layers, name=name)
