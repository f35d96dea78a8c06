"""Convolutional networks for images of any size."""

import keras

from keras_vae import checks


def ConvEncoder(filters, kernel_size=3, activation="relu", name=None):
    """Convolutions of stride 2: each halves the image, rounding up.

    Args:
        filters: sequence of ints, the channels after each layer.
        kernel_size: int.
        activation: activation after each layer.
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


def ConvDecoder(filters, image_shape, kernel_size=3, activation="relu", name=None):
    """A dense layer to the smallest map, then transposed convolutions of stride 2.

    Sizes that are not multiples of `2**len(filters)` are reached by cropping the last
    map, so any size works. The likelihood's head makes the channels of the image.

    Args:
        filters: sequence of ints, the channels of each map, from the smallest map to the
            largest: the encoder's, reversed.
        image_shape: (height, width, channels), the event shape of the likelihood.
        kernel_size: int.
        activation: activation after each layer.
        name: str, optional.

    Returns:
        `keras.Sequential`, `[batch, latent] -> [batch, height, width, filters[-1]]`.

    Raises:
        ValueError: if `filters` or `image_shape` are not what is said above.
    """
    filters = checks.shape(filters, "filters")
    image_shape = checks.shape(image_shape, "image_shape")
    if len(image_shape) != 3:
        raise ValueError(
            "`image_shape` must be (height, width, channels). "
            f"Received: image_shape={tuple(image_shape)}"
        )
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
