"""Multilayer perceptrons."""

import keras

from keras_vae import checks


def MLP(units, activation="relu", name=None):
    """Flattens its input and passes it through dense layers.

    Args:
        units: sequence of ints, the width of each layer.
        activation: activation after each layer.
        name: str, optional.

    Returns:
        `keras.Sequential`, `[batch, ...] -> [batch, units[-1]]`.

    Raises:
        ValueError: if `units` is not a sequence of positive ints.
    """
    units = checks.shape(units, "units")
    layers = [keras.layers.Dense(n, activation) for n in units]
    return keras.Sequential([keras.layers.Flatten(), *layers], name=name)
