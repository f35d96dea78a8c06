"""Samples and reconstructions as files: a picture, an array or a table."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_vae import atomic
from keras_vae.datasets import Scaler
from keras_vae.models import VAE
from keras_vae.runs.folder import Run
from keras_vae.runs.report.pictures import Pictures


def saver(
    run: Run, model: VAE, path: pathlib.Path | None, name: str, overwrite: bool
) -> Callable[[dict[str, Any]], pathlib.Path]:
    """Checks the output path before any computation, and returns a save function.

    Args:
        run: the run.
        model: the model of the run.
        path: path with the suffix .png, .npz or .csv, or None for a file in the folder of
            the run.
        name: str, the name of that file, without suffix.
        overwrite: bool, whether to replace an existing file.

    Returns:
        Function: dict of arrays `[rows, *event]` by name -> the written path.

    Raises:
        ValueError: if the file exists, or its suffix is not possible for the data.
    """
    shape = model.likelihood.event_shape
    images, table = len(shape) == 3, run.path("scaler.json").is_file()
    if path is None:
        path = run.path(name + (".png" if images else ".csv" if table else ".npz"))
    writers = {".npz": _save_npz}
    if images:
        writers[".png"] = _save_png
    else:
        writers[".csv"] = _save_csv
    path = pathlib.Path(path)
    if path.suffix not in writers:
        raise ValueError(
            f"`out` must end with {' or '.join(sorted(writers))} for rows of shape "
            f"{shape}. Received: out={path}"
        )
    if path.is_dir():
        raise ValueError(f"`out` must be a file. Received: out={path}, which is a folder")
    if path.exists() and not overwrite:
        raise ValueError(
            "`out` must be a new file, unless `overwrite` is set. "
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
            writers[path.suffix](part, arrays, run)
        return path

    return save


def _scaler(run):
    """Reads the scaler of a table."""
    try:
        return Scaler.from_dict(run.read_json("scaler.json"))
    except (KeyError, TypeError) as error:
        raise run.unreadable("scaler.json", f"{type(error).__name__} {error}") from error


def _save_npz(path, arrays, run):
    np.savez_compressed(path, **arrays)


def _save_png(path, arrays, run):
    """Saves a grid; the same row of several arrays is shown one below the other."""
    x = np.stack(list(arrays.values()), axis=1)  # [rows, arrays, *event]
    rows, kinds, *shape = x.shape
    columns = min(16, rows)
    missing = [(0, -rows % columns), *[(0, 0)] * (x.ndim - 1)]
    x = np.pad(x, missing, mode="edge").reshape(-1, columns, kinds, *shape)
    x = x.swapaxes(1, 2).reshape(-1, *shape)
    pictures = Pictures(shape, run.info["data"]["shown_range"])
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
