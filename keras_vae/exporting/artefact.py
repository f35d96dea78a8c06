"""What all formats of an export share: the check of its path, and the traced signatures."""

import os

import tensorflow as tf

from keras_vae import checks
from keras_vae.exporting import card

_PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}  # operators


def new_path(filepath, file):
    """The path to write to, checked before anything slow is done.

    Args:
        filepath: path.
        file: bool, whether it will be a .tflite file rather than a folder.
    """
    path = checks.path(filepath, "filepath")
    if file and path.suffix != ".tflite":
        raise ValueError(
            f'`filepath` must end with .tflite for format="litert". Received: {path}'
        )
    if not file and path.suffix == ".tflite":
        raise ValueError(
            '`filepath` ends with .tflite, which is for format="litert". Received: '
            f"{path} for a folder"
        )
    if path.exists() or path.is_symlink():
        raise ValueError(
            f"`filepath` must not exist: nothing is overwritten. Received: {path}, a "
            f"{'folder' if path.is_dir() else 'file'} that is there already"
        )
    beside = [p for p in card.paths(path) if file and p.exists()]
    if beside:
        raise ValueError(
            "`filepath` must not have a model card beside it: nothing is overwritten. "
            f"Received: {path}, where {beside[0].name} is"
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


def trace(signature, seed_dtype, batch_size=None):
    """A signature as a graph.

    Args:
        signature: `keras_vae.exporting.signatures.Signature`.
        seed_dtype: `"int32"` or `"int64"`.
        batch_size: int, or None for any number of rows.

    Returns:
        (function, concrete function, (inputs, outputs)): the last are dicts of
        `tf.TensorSpec` by name.

    Raises:
        ValueError: if it calls Python, which the artefact would not have with it.
    """
    inputs = {
        name: tf.TensorSpec(
            (batch_size, *shape), seed_dtype if dtype == "int" else dtype, name=name
        )
        for name, (dtype, shape) in signature.inputs.items()
    }
    function = tf.function(signature.function, autograph=False)  # as Keras' own steps
    concrete = function.get_concrete_function(*inputs.values())
    graph = concrete.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    if found := _PYTHON & {node.op for node in nodes}:
        raise ValueError(
            "`model` must not call Python (tf.py_function, tf.numpy_function), which only "
            f"the process has that built it. Received: the operators {sorted(found)}"
        )
    outputs = {
        name: tf.TensorSpec(value.shape, value.dtype)
        for name, value in concrete.structured_outputs.items()
    }
    return function, concrete, (inputs, outputs)
