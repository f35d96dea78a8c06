"""Data that yield batches: the first batch, which is checked, and all batches."""

import collections.abc
import types
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks


def read_first(data: Any, name: str) -> tuple[Any, Any]:
    """Reads the first batch of data that yield batches.

    Args:
        data: `tf.data.Dataset`, `keras.utils.PyDataset`, generator, or another iterable.
        name: str, the argument's name for errors.

    Returns:
        (batch, data): a structure of NumPy arrays, or None if the data are no iterable,
        which Keras refuses; and the data to train on. A generator is replaced by one that
        begins with the same batch.

    Raises:
        ValueError: if there is no batch.
    """
    if isinstance(data, types.GeneratorType):
        batches: Any = data
    elif isinstance(data, keras.utils.PyDataset):
        batches = iter([] if data.num_batches == 0 else [data[0]])
    elif isinstance(data, collections.abc.Iterable) and iter(data) is not data:
        batches = iter(data.take(1) if isinstance(data, tf.data.Dataset) else data)
    else:
        return None, data
    for batch in batches:
        if batches is data:
            data = _chain(batch, data)
        return tf.nest.map_structure(_as_numpy, batch), data
    raise ValueError(
        f"`{name}` is empty. Received: a {type(data).__name__} without batches"
    )


def iterate(data: Any, name: str) -> Iterator:
    """Iterates once over data that yield batches.

    Raises:
        ValueError: if the data are no iterable, or endless.
    """
    if isinstance(data, keras.utils.PyDataset):
        endless = data.num_batches is None
    elif isinstance(data, tf.data.Dataset):
        endless = bool(data.cardinality() == tf.data.INFINITE_CARDINALITY)
    else:
        endless = not isinstance(data, collections.abc.Iterable)
    expected = "an array, or a dataset or generator with an end"
    checks.require(not endless, name, expected, type(data).__name__)
    return iter(data)


def _chain(first: Any, rest: Iterator) -> Iterator:
    yield first
    # Not `yield from`, which would close the user's generator at the end of `fit`.
    for batch in rest:  # noqa: UP028
        yield batch


def _as_numpy(value: Any) -> Any:
    if isinstance(value, tf.distribute.DistributedValues):
        value = value.values[0]  # the first replica
    is_dense = hasattr(value, "__array__") and not isinstance(value, tf.RaggedTensor)
    return np.asarray(value) if is_dense else value
