"""Atomic writes: a file or folder appears complete on the disk, or not at all.

Everything is written next to its final path, flushed to the disk (fsync), and renamed.
A process that is killed leaves hidden files or folders, never a half-written result.
"""

import contextlib
import glob
import os
import pathlib
import secrets
import shutil
import time
import uuid
from collections.abc import Iterator

from keras_vae import disks

_HIDDEN = ".keras-vae-"
DAY = 24 * 3600.0  # seconds


@contextlib.contextmanager
def replacing(path: pathlib.Path, sole_writer: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary path; the file written there replaces `path` at the end.

    The temporary file has the suffix of `path`. If an error is raised, `path` is unchanged.

    Args:
        path: path of a file that may exist, in a folder that exists.
        sole_writer: bool, whether no other process writes this file: then temporary files
            of killed processes are removed at once.
    """
    # The name cannot be guessed, so that there is no link of that name.
    part = path.with_name(f".{path.stem}-{secrets.token_hex(8)}{path.suffix}")
    if sole_writer:
        start, end = glob.escape(f".{path.stem}-"), glob.escape(path.suffix)
        for old in path.parent.glob(start + "[0-9a-f]" * 16 + end):
            with contextlib.suppress(OSError):
                old.unlink()
    try:
        with disks.writing(path):
            yield part
            sync(part)
            part.replace(path)
            sync(path.parent)
    finally:
        # Also after success: a rename to another hard link of the same file does nothing.
        part.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str, sole_writer: bool = False) -> None:
    """Writes a text file in UTF-8, with the line ends of `text`; see `replacing`."""
    with replacing(path, sole_writer) as part:
        part.write_text(text, encoding="utf-8", newline="")


@contextlib.contextmanager
def creating(path: pathlib.Path, stale_after: float = DAY) -> Iterator[pathlib.Path]:
    """Yields a temporary path, which is renamed to `path` at the end.

    The temporary path is in its own hidden folder next to `path`. Other files in that
    folder are moved next to `path` first. Nothing is overwritten.

    Args:
        path: path of a file or folder that does not exist.
        stale_after: float, seconds after which hidden folders of killed processes are
            removed. Process ids are not used: several hosts may share the disk.

    Raises:
        FileExistsError: if `path`, or a file to move next to it, was created meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path.parent, stale_after)
    folder = path.parent / f"{_HIDDEN}{os.getpid()}-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    moved = []
    try:
        with disks.writing(path):
            yield folder / path.name
            sync_tree(folder)
            for name in sorted(os.listdir(folder), key=lambda name: name == path.name):
                _move(folder / name, path.parent / name)
                moved.append(path.parent / name)
            sync(path.parent)
    except BaseException:
        if path not in moved:  # it is moved last: the export is complete if it exists
            for other in moved:
                other.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(source, target):
    """Moves a file or folder to a path that does not exist."""
    try:
        if source.is_dir():
            os.rename(source, target)  # fails for a folder that is not empty
        else:
            os.link(source, target)  # fails for a file; a rename would replace it
    except OSError as error:
        if target.exists():
            raise FileExistsError(f"{target} was created meanwhile") from error
        if source.is_dir():
            raise
        os.rename(source, target)  # a file system without hard links


def _remove_stale(parent, age):
    for folder in parent.glob(f"{_HIDDEN}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime >= age:
                shutil.rmtree(folder)


def sync_tree(folder: pathlib.Path) -> None:
    """Flushes a folder and all files in it to the disk."""
    for top, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(pathlib.Path(top, name))
        sync(pathlib.Path(top))


def sync(path: pathlib.Path) -> None:
    """Flushes a file, or the names in a folder, to the disk.

    Raises:
        OSError: if a file cannot be written, such as on a full disk.
    """
    # Some systems and disks cannot do it for a folder, and Windows only for a file that is
    # open for writing.
    is_folder = path.is_dir()
    quiet = contextlib.suppress(OSError) if is_folder else contextlib.nullcontext()
    with quiet:
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
