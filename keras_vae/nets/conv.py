"""Convolutional networks for signals, images and volumes of any size."""

import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_vae import checks

# The layers for events of one, two and three axes besides the channels.
_CONVOLUTIONS: list[Any] = [
    keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D
]  # fmt: skip
_TRANSPOSED: list[Any] = [
    keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose
]  # fmt: skip
_CROPPING: list[Any] = [
    keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.Cropping3D
]  # fmt: skip


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
    return _encoder(2, filters, kernel_size, activation, name)


def Conv1DEncoder(
    filters: Sequence[int],
    kernel_size: int = 3,
    activation: Any = "relu",
    name: str | None = None,
) -> keras.Sequential:
    """Makes convolutions of stride 2 for signals, as `ConvEncoder` does for images.

    Args:
        filters: see `ConvEncoder`.
        kernel_size: int.
        activation: activation function of each layer.
        name: str, optional.

    Returns:
        `keras.Sequential`, `[batch, steps, channels]` ->
        `[batch, ceil(steps / 2**n), filters[-1]]`.

    Raises:
        ValueError: if `filters` is not a sequence of positive ints.
    """
    return _encoder(1, filters, kernel_size, activation, name)


def Conv3DEncoder(
    filters: Sequence[int],
    kernel_size: int = 3,
    activation: Any = "relu",
    name: str | None = None,
) -> keras.Sequential:
    """Makes convolutions of stride 2 for volumes, as `ConvEncoder` does for images.

    Args:
        filters: see `ConvEncoder`.
        kernel_size: int.
        activation: activation function of each layer.
        name: str, optional.

    Returns:
        `keras.Sequential`, `[batch, depth, height, width, channels]` ->
        `[batch, ceil(depth / 2**n), ..., filters[-1]]`.

    Raises:
        ValueError: if `filters` is not a sequence of positive ints.
    """
    return _encoder(3, filters, kernel_size, activation, name)


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
    shape = checks.shape(image_shape, "image_shape")
    expected = "(height, width, channels)"
    checks.require(len(shape) == 3, "image_shape", expected, shape)
    return _decoder(filters, shape, kernel_size, activation, name)


def Conv1DDecoder(
    filters: Sequence[int],
    signal_shape: Sequence[int],
    kernel_size: int = 3,
    activation: Any = "relu",
    name: str | None = None,
) -> keras.Sequential:
    """Makes a decoder of signals of any length, as `ConvDecoder` does for images.

    Args:
        filters: see `ConvDecoder`.
        signal_shape: (steps, channels), the event shape of the likelihood.
        kernel_size: int.
        activation: activation function of each layer.
        name: str, optional.

    Returns:
        `keras.Sequential`, `[batch, latent] -> [batch, steps, filters[-1]]`.

    Raises:
        ValueError: as `ConvDecoder`.
    """
    shape = checks.shape(signal_shape, "signal_shape")
    checks.require(len(shape) == 2, "signal_shape", "(steps, channels)", shape)
    return _decoder(filters, shape, kernel_size, activation, name)


def Conv3DDecoder(
    filters: Sequence[int],
    volume_shape: Sequence[int],
    kernel_size: int = 3,
    activation: Any = "relu",
    name: str | None = None,
) -> keras.Sequential:
    """Makes a decoder of volumes of any size, as `ConvDecoder` does for images.

    Args:
        filters: see `ConvDecoder`.
        volume_shape: (depth, height, width, channels), the event shape of the likelihood.
        kernel_size: int.
        activation: activation function of each layer.
        name: str, optional.

    Returns:
        `keras.Sequential`, `[batch, latent] -> [batch, depth, height, width, filters[-1]]`.

    Raises:
        ValueError: as `ConvDecoder`.
    """
    shape = checks.shape(volume_shape, "volume_shape")
    expected = "(depth, height, width, channels)"
    checks.require(len(shape) == 4, "volume_shape", expected, shape)
    return _decoder(filters, shape, kernel_size, activation, name)


def _encoder(
    rank: int, filters: Any, kernel_size: int, activation: Any, name: str | None
) -> keras.Sequential:
    """Makes a convolution of `rank` axes for each number of filters."""
    layers = [
        _CONVOLUTIONS[rank - 1](n, kernel_size, 2, "same", activation=activation)
        for n in checks.shape(filters, "filters")
    ]
    return keras.Sequential(layers, name=name)


def _decoder(
    filters: Any,
    shape: tuple[int, ...],
    kernel_size: int,
    activation: Any,
    name: str | None,
) -> keras.Sequential:
    """Makes the layers from a vector to maps of the size of an event of this shape."""
    filters = checks.shape(filters, "filters")
    size, kind, factor = shape[:-1], len(shape) - 2, 2 ** len(filters)
    smallest = [-(-n // factor) for n in size]
    layers = [
        keras.layers.Flatten(),
        keras.layers.Dense(math.prod(smallest) * filters[0], activation),
        keras.layers.Reshape((*smallest, filters[0])),
    ]
    for n in filters:
        layers.append(_TRANSPOSED[kind](n, kernel_size, 2, "same", activation=activation))
    crop = [(0, small * factor - n) for small, n in zip(smallest, size, strict=True)]
    layers.append(_CROPPING[kind](crop if kind else crop[0]))
    return keras.Sequential(layers, name=name)
