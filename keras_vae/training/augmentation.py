"""Data augmentation by Keras' image layers, with seeds that resume exactly."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_vae import checks
from keras_vae.training import keras_private


def check_augmentation(layers: Any) -> list:
    """Returns the augmentation layers as a list, or raises a ValueError.

    None becomes an empty list.
    """
    if layers is None:
        return []
    layers = list(layers) if isinstance(layers, (list, tuple)) else [layers]
    for layer in layers:
        # Sublayers (of RandAugment, RandomColorJitter) would draw from their own seeds.
        checks.require(
            hasattr(layer, "get_random_transformation")
            and not keras_private.has_sublayers(layer),
            "augmentation",
            "image preprocessing layers of Keras, one by one, such as "
            "keras.layers.RandomRotation(0.1)",
            layer,
        )
    return layers


def augment(layers: Sequence, x: tf.Tensor, seeds: keras.random.SeedGenerator) -> tf.Tensor:
    """Transforms a batch of images as in training.

    Args:
        layers: list of Keras' image preprocessing layers. They draw from `seeds`, not from
            their own generators, whose state would have to be saved.
        x: `[batch, height, width, channels]`.
        seeds: `keras.random.SeedGenerator`.

    Returns:
        A tensor with the dtype of x, and the height and width that the layers return.
    """
    images = x
    for layer in layers:
        transformation = layer.get_random_transformation(images, training=True, seed=seeds)
        images = layer.transform_images(images, transformation, training=True)
    if tf.as_dtype(x.dtype).is_bool:
        return images >= 0.5
    if tf.as_dtype(x.dtype).is_integer:
        return tf.saturate_cast(tf.round(images), x.dtype)
    return tf.cast(images, x.dtype)
