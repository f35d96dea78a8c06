"""Facts that identify a training: its model, data and options, for comparison.

A backup is resumed only by the training that wrote it, and workers train together only if
their facts are equal.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae.datasets.rows import RowsOnDisk
from keras_vae.training.arrays import as_array, is_mapped, yields_batches
from keras_vae.training.tables import is_sparse


def data_facts(**arguments: Any) -> dict[str, str]:
    """Describes arguments of `fit` that affect the weights; arrays by checksum."""
    return {
        name: ", ".join(_describe(part) for part in tf.nest.flatten(value))
        for name, value in arguments.items()
    }


def model_facts(model: keras.Model) -> dict[str, str]:
    """Describes a compiled model and its training: a dict of strings by option."""
    config = keras.saving.serialize_keras_object(model)
    compiled = config.pop("compile_config")
    for name in ("optimizer", "objective", "global_clipnorm"):
        config[name] = compiled[name]
    # Keras numbers the names of layers (dense_3), so equal models may differ in them.
    text = re.sub(r'_[0-9]+"', '"', json.dumps(config))
    return dict(_flat(json.loads(text)))


def fingerprint(model: keras.Model) -> str:
    """Computes the SHA-256 of all weights of a model and its optimizer, in hexadecimal."""
    digest = hashlib.sha256()
    for variable in (*model.variables, *model.optimizer.variables):
        digest.update(np.ascontiguousarray(variable).tobytes())
    return digest.hexdigest()


def _flat(value, path="") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _flat(part, path if name == "config" else f"{path}.{name}")
    elif isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
        for i, part in enumerate(value):
            yield from _flat(part, f"{path}.{i}")
    elif value is not None:
        yield path[1:], json.dumps(value)


def _describe(value):
    if isinstance(value, tf.data.Dataset):
        return f"{value.element_spec}, {int(value.cardinality())} batches"
    # Labels are read completely.
    if is_sparse(value) or (is_mapped(value) and value.ndim > 1):
        value = as_array(value, "x")
    if isinstance(value, RowsOnDisk):
        return f"{value.shape}, some rows {_describe(value.sample_rows())}"
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        array = array.astype(str) if array.dtype.hasobject else array
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data)
        return f"{array.dtype} {array.shape}, checksum {crc:08x}"
    if isinstance(value, keras.layers.Layer):  # without its name, which Keras numbers
        config = keras.saving.serialize_keras_object(value)["config"]
        return f"{type(value).__name__} {config | {'name': None}}"
    return type(value).__name__ if yields_batches(value) else repr(value)
