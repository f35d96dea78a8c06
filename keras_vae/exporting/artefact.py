"""Steps that all formats of an export share: checking its path, tracing its signatures."""

import functools
import os
import pathlib
from typing import Any

import tensorflow as tf

from keras_vae import checks
from keras_vae.exporting import card
from keras_vae.exporting.signatures import Signature, Specs

# Operators that call Python.
_PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


def new_path(filepath: Any, file: bool) -> pathlib.Path:
    """Checks the path of an export, before any slow step.

    Args:
        filepath: path that must not exist.
        file: bool, True for a .tflite file, False for a folder.

    Returns:
        `pathlib.Path` to write to.

    Raises:
        ValueError: for a path that exists, has the wrong suffix or cannot be written.
    """
    path = checks.path(filepath, "filepath")
    if file and path.suffix != ".tflite":
        raise ValueError(
            f'`filepath` must end with .tflite for format="litert". Received: {path}'
        )
    if not file and path.suffix == ".tflite":
        raise ValueError(
            '`filepath` must not end with .tflite, except for format="litert". Received: '
            f"{path} for a folder"
        )
    if path.exists() or path.is_symlink():
        raise ValueError(
            "`filepath` must not exist: exports never overwrite. Received: "
            f"{path}, a {'folder' if path.is_dir() else 'file'} that exists"
        )
    cards = [p for p in card.paths(path) if file and p.exists()]
    if cards:
        raise ValueError(
            "`filepath` must not have a model card already: exports never overwrite. "
            f"Received: {path}, but {cards[0].name} exists"
        )
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir():
        raise ValueError(
            f"`filepath` must be in a folder. Received: {path}, where {parent} is a file"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(
            f"`filepath` must be in a folder that can be written. Received: {path}"
        )
    return path


def trace(
    signature: Signature, seed_dtype: str, batch_size: int | None = None
) -> tuple[Any, Any, tuple[Specs, Specs]]:
    """Traces a signature to a graph.

    Args:
        signature: `keras_vae.exporting.signatures.Signature`.
        seed_dtype: `"int32"` or `"int64"`.
        batch_size: int, or None for any number of rows.

    Returns:
        (function, concrete function, (inputs, outputs)): the last are dicts of
        `tf.TensorSpec` by name.

    Raises:
        ValueError: if the graph calls Python, which cannot be exported.
    """
    inputs = {
        name: tf.TensorSpec(
            (batch_size, *shape), seed_dtype if dtype == "int" else dtype, name=name
        )
        for name, (dtype, shape) in signature.inputs.items()
    }
    # Without autograph, as in Keras' own steps. `partial`: TensorFlow counts the traces of
    # a function over all models, and warns.
    function = tf.function(functools.partial(signature.function), autograph=False)
    concrete = function.get_concrete_function(*inputs.values())
    graph = concrete.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    if found := _PYTHON & {node.op for node in nodes}:
        raise ValueError(
            "`model` must not call Python (tf.py_function, tf.numpy_function), which "
            f"cannot be exported. Received: the operators {sorted(found)}"
        )
    outputs = {
        name: tf.TensorSpec(value.shape, value.dtype)
        for name, value in concrete.structured_outputs.items()
    }
    return function, concrete, (inputs, outputs)
