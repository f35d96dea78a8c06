"""The files of a backup: the model, the state of the training, and checksums."""

import hashlib
import json
import pathlib
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import typed_files
from keras_vae.training.keras_private import CALLBACK_STATE
from keras_vae.typed_files import Fields, Rule

FORMAT = 1  # version of a backup's files
_FILES = Fields({"format": int, "files": dict[str, list[int | str]]})
_STATE = Fields(
    {
        "epoch": Annotated[int, Rule("0 or more", lambda epoch: epoch >= 0)],
        "stopped": bool,
        "history": Fields({"epoch": list[int], "history": dict[str, list[Any]]}),
        "callbacks": list[dict[str, Any]],
        "facts": dict[str, str],
        "moved": dict[str, str],
    }
)


def callback_state(callback: keras.callbacks.Callback) -> dict | None:
    """Returns the state of a callback, or None if it has no state to back up."""
    if hasattr(callback, "get_state"):
        return callback.get_state()
    for kind, names in CALLBACK_STATE.items():
        if isinstance(callback, kind):
            return {name: getattr(callback, name, None) for name in names}
    return None


def set_callback_state(callback: keras.callbacks.Callback, state: dict) -> None:
    """Restores a state that `callback_state` returned."""
    if hasattr(callback, "set_state"):
        callback.set_state(state)
    else:
        for name in callback_state(callback) or {}:
            setattr(callback, name, state.get(name))


def write_state(folder: pathlib.Path, state: dict) -> None:
    """Writes the state to the folder of the model, then the checksums of all files.

    Raises:
        ValueError: if the state of a callback is not made of JSON values and arrays.
    """
    arrays: dict = {}
    try:
        text = json.dumps(_without_arrays(state, arrays))
    except TypeError as error:
        raise ValueError(
            "`get_state` of a callback must return a dict of JSON values and arrays. "
            f"Received: {state['callbacks']}: {error}"
        ) from error
    (folder / "state.json").write_text(text)
    np.savez(folder / "arrays.npz", **arrays)
    files = {p.name: [p.stat().st_size, _digest(p)] for p in sorted(folder.iterdir())}
    (folder / "backup.json").write_text(json.dumps({"format": FORMAT, "files": files}))


def read_state(folder: pathlib.Path) -> dict:
    """Reads the state of a backup, after comparing all checksums.

    Raises:
        Exception: for a backup that is damaged, also of zipfile and NumPy.
    """
    about = typed_files.read_json(folder / "backup.json", _FILES)
    if about["format"] > FORMAT:
        raise ValueError(
            f"it was written by a newer keras_vae, format {about['format']}; this version "
            f"reads {FORMAT}"
        )
    for name, (size, digest) in about["files"].items():
        path = folder / name
        if path.stat().st_size != size:
            raise ValueError(f"{name} has {path.stat().st_size} bytes instead of {size}")
        if _digest(path) != digest:
            raise ValueError(f"{name} has another checksum")
    with np.load(folder / "arrays.npz") as file:
        arrays = dict(file)
    state = typed_files.parse_json(folder / "state.json")
    state = _with_arrays(state, arrays)
    typed_files.check(state, _STATE)
    return state


def _without_arrays(value, arrays):
    """Returns JSON values; moves arrays to the dict `arrays`."""
    if isinstance(value, dict):
        return {key: _without_arrays(v, arrays) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_arrays(v, arrays) for v in value]
    if isinstance(value, (np.ndarray, np.generic)) or tf.is_tensor(value):
        name, array = f"array_{len(arrays)}", np.asarray(value)
        arrays[name] = array
        # By name, because .npz does not support bfloat16.
        return {"array": name, "dtype": array.dtype.name}
    return value


def _with_arrays(value, arrays):
    """Reverses `_without_arrays`."""
    if isinstance(value, list):
        return [_with_arrays(v, arrays) for v in value]
    if isinstance(value, dict) and value.keys() == {"array", "dtype"}:
        array = arrays[value["array"]].view(value["dtype"])
        return array[()]  # a 0-d array becomes a scalar
    if isinstance(value, dict):
        return {key: _with_arrays(v, arrays) for key, v in value.items()}
    return value


def _digest(path):
    with typed_files.open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
