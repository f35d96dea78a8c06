"""What all exported forms share: graphs of the signatures, written whole or not at all."""

import contextlib
import os
import shutil
import time
import uuid

import tensorflow as tf

from keras_vae import checks
from keras_vae.exporting import card

_HIDDEN = ".keras-vae-"
_DAY = 24 * 3600
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


@contextlib.contextmanager
def whole(path):
    """Gives a path to write to, a new hidden folder, whose content is then put in place.

    What is written as `folder / path.name` becomes `path`; all beside it goes beside it,
    first. A reader, such as a server that polls, sees nothing before all is there, and
    nothing is overwritten. Killed processes leave hidden folders, which exports of
    later days beside them remove.

    Args:
        path: `pathlib.Path` that does not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    folder = path.parent / f"{_HIDDEN}{os.getpid()}-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    placed = []
    try:
        yield folder / path.name
        _sync(folder)
        for name in sorted(os.listdir(folder), key=lambda name: name == path.name):
            _place(folder / name, path.parent / name)
            placed.append(path.parent / name)
        _sync_one(path.parent)
    except BaseException:
        if path not in placed:  # which comes last: with it, all is there and stays
            for beside in placed:
                beside.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place(source, target):
    """Moves a file or folder to a place where nothing is."""
    try:
        if source.is_dir():
            os.rename(source, target)  # fails where a folder is that is not empty
        else:
            os.link(source, target)  # fails where a file is; a rename would replace it
    except OSError as error:
        if target.exists():  # since it was checked
            raise ValueError(
                f"`filepath` must not exist. Received: {target}, which was made by another "
                "while this was exported"
            ) from error
        if source.is_dir():
            raise
        os.rename(source, target)  # a file system without links


def _sweep(parent):
    # By their age: process numbers mean nothing on a disk that several machines share.
    for folder in parent.glob(f"{_HIDDEN}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _DAY:
                shutil.rmtree(folder)


def _sync(folder):
    """Writes all of a folder to the disk: a rename must not come before its content."""
    for top, _, files in os.walk(folder, topdown=False):
        for path in [*(os.path.join(top, name) for name in files), top]:
            _sync_one(path)


def _sync_one(path):
    with contextlib.suppress(OSError):  # where the system or the disk does not have it
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def trace(signature, seed_dtype, batch_size=None):
    """A signature as a graph.

    Args:
        signature: `keras_vae.signatures.Signature`.
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
