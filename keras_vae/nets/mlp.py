"""Multilayer perceptrons."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_vae import checks


def MLP(
    units: Sequence[int], activation: Any = "relu", name: str | None = None
) -> keras.Sequential:
    """Makes dense layers on the flattened input.

    Args:
        units: sequence of ints, the width of each layer.
        activation: activation function of each layer.
        name: str, optional.

    Returns:
        `keras.Sequential`, `[batch, ...] -> [batch, units[-1]]`.

    Raises:
        ValueError: if `units` is not a sequence of positive ints.
    """
    units = checks.shape(units, "units")
    layers = [keras.layers.Dense(n, activation) for n in units]
    return keras.Sequential([keras.layers.Flatten(), *layers], name=name)
