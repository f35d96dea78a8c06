"""Samples and reconstructions as files: a picture, an array or a table."""

import pathlib

import numpy as np

from keras_vae import atomic
from keras_vae.datasets import Scaler
from keras_vae.runs.report import figures


def saver(run, model, path, name, overwrite):
    """Checks where to write, before anything is computed.

    Args:
        run: `keras_vae.runs.folder.Run`.
        model: its model.
        path: `pathlib.Path` with the suffix .png, .npz or .csv, or None for one in the run.
        name: str, the name of the file in the run.
        overwrite: bool, whether to replace a file.

    Returns:
        Function: dict of arrays `[rows, *event]` by name -> the path that was written.

    Raises:
        ValueError: if the file is there, has another suffix, or the data have no such form.
    """
    shape = model.likelihood.event_shape
    images, table = len(shape) == 3, run.path("scaler.json").is_file()
    if path is None:
        path = run.path(name + (".png" if images else ".csv" if table else ".npz"))
    forms = {".npz": _save_npz}
    if images:
        forms[".png"] = _save_png
    else:
        forms[".csv"] = _save_csv
    path = pathlib.Path(path)
    if path.suffix not in forms:
        raise ValueError(
            f"`out` must end with {' or '.join(sorted(forms))} for rows of shape {shape}. "
            f"Received: out={path}"
        )
    if path.is_dir():
        raise ValueError(f"`out` must be a file. Received: out={path}, which is a folder")
    if path.exists() and not overwrite:
        raise ValueError(
            "`out` must be a new file, or give `overwrite`. "
            f"Received: out={path}, which exists"
        )
    if not path.parent.is_dir():
        raise ValueError(f"`out` must be in a folder that exists. Received: out={path}")
    scaler = _scaler(run) if table else None

    def save(arrays):
        arrays = {key: np.asarray(x) for key, x in arrays.items()}
        if scaler is not None:
            arrays = {key: scaler.inverse(x) for key, x in arrays.items()}
        with atomic.replacing(path) as part:
            forms[path.suffix](part, arrays, run)
        return path

    return save


def _scaler(run):
    try:
        return Scaler.from_dict(run.read_json("scaler.json"))
    except (KeyError, TypeError) as error:
        raise run.unreadable("scaler.json", f"{type(error).__name__} {error}") from error


def _save_npz(path, arrays, run):
    np.savez_compressed(path, **arrays)


def _save_png(path, arrays, run):
    """A grid; several arrays stand below each other, row by row."""
    x = np.stack(list(arrays.values()), axis=1)  # [rows, arrays, *event]
    rows, kinds, *shape = x.shape
    columns = min(16, rows)
    missing = [(0, -rows % columns), *[(0, 0)] * (x.ndim - 1)]
    x = np.pad(x, missing, mode="edge").reshape(-1, columns, kinds, *shape)
    x = x.swapaxes(1, 2).reshape(-1, *shape)
    pictures = figures.Pictures(shape, run.info["data"]["shown_range"])
    pictures.save(path, x, columns)


def _save_csv(path, arrays, run):
    columns = next(iter(arrays.values())).shape[1]
    table = run.path("scaler.json").is_file()
    names = _scaler(run).columns if table else [f"x{i}" for i in range(columns)]
    if len(arrays) > 1:
        names = [f"{key}.{name}" for key in arrays for name in names]
    values = np.concatenate(list(arrays.values()), axis=1)
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    np.savetxt(
        path, values, "%.9g", ",", header=",".join(quoted), comments="", encoding="utf-8"
    )
