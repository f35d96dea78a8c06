"""The folder of a run that a command writes: chosen, made, checked and locked."""

import contextlib
import itertools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import typer

from keras_vae.cli.progress import open_run
from keras_vae.cluster import meeting
from keras_vae.runs import lock


def is_first_worker(strategy: str) -> bool:
    """Returns True in one worker, which locks the run, of all that train together.

    Args:
        strategy: the option `strategy` of `train`.
    """
    cluster, index = meeting.tf_config(os.environ.get("TF_CONFIG"))
    if strategy == "multi-worker" and not cluster:
        # Usually the chief; only TensorFlow, which starts later, knows which task that is.
        return os.environ.get("SLURM_PROCID", "0") == "0"
    return index == 0


@contextlib.contextmanager
def claim(
    data: str, folder: pathlib.Path | None, resume: bool, locked: bool = True
) -> Iterator[pathlib.Path]:
    """Yields the folder of a run, which no other command writes meanwhile.

    A new folder is removed at the end if it is still empty.

    Args:
        data: the argument DATA, which names the folder if it is not given.
        folder: path, or None for the next `runs/DATA-N` that does not exist.
        resume: bool, whether the folder may have a run.
        locked: bool, whether this process locks the folder.

    Raises:
        ValueError: if the folder is in use, cannot be written, or holds other files.
    """
    if resume and folder is None:
        raise ValueError("--resume needs --out, the folder of the run. Received: no --out")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_made(data, folder))
        if locked:
            stack.enter_context(lock.hold(folder, "out"))
        _check(folder, resume)
        yield folder


@contextlib.contextmanager
def _made(data, folder):
    """Makes the folder, or the next `runs/DATA-N`; at the end, removes what is empty."""
    numbered = folder is None
    stem, numbers = pathlib.Path(data).name.split(".")[0] or "data", itertools.count(1)
    while True:
        if numbered:
            folder = pathlib.Path("runs", f"{stem}-{next(numbers)}")
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=not numbered)
            break
        except FileExistsError:
            if not numbered:
                raise ValueError(
                    f"--out must be a folder. Received: {folder}, which is a file"
                ) from None
        except OSError as error:
            raise ValueError(
                f"`out` must be a folder that can be written. Received: {folder}: {error}"
            ) from error
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # not empty
            for path in missing:
                path.rmdir()


def _check(folder, resume):
    """Raises a ValueError unless the folder is empty or, to resume it, has a run."""
    # A process that was killed while it started a run may leave scaler.json.
    paths = folder.iterdir()
    used = any(path.name != "scaler.json" and path.name[0] != "." for path in paths)
    has_run = (folder / "run.json").is_file()
    if used and not resume:
        hint = ", or --resume to continue" if has_run else ""
        raise ValueError(
            f"--out must be a new or empty folder{hint}. Received: {folder}, which is "
            "not empty"
        )
    if used and not has_run:
        raise ValueError(
            f"--out must be a run, to resume it. Received: {folder}, which is not empty "
            "and has no run.json"
        )


def open_locked(context: typer.Context, folder: pathlib.Path) -> Any:
    """Opens a run, which no other command writes before this one ends.

    Raises:
        ValueError: if the folder is in use, has no run, or has links inside it.
    """
    # A folder without a run is not locked, because `train` may be about to start one.
    if not (folder / "run.json").is_file():
        fault = "has no run.json" if folder.exists() else "does not exist"
        raise ValueError(
            "`run` must be a folder made by `keras-vae train`. Received: "
            f"{folder}, which {fault}"
        )
    context.with_resource(lock.hold(folder, "run"))
    run = open_run(folder)
    run.check_links()
    return run
