"""The lock of a run folder: only one process at a time writes a run.

The lock is an operating-system lock (`flock`) on the file `.lock` in the folder. It is
released when its process ends, also if that process is killed. The file names the process,
for the error of another one, and is removed at the end.

Windows and some network file systems have no `flock`. Runs are not locked there.
"""

import contextlib
import errno
import os
import pathlib
import shlex
import socket
import stat
import sys
from collections.abc import Iterator

from keras_vae.escapes import visible

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_held: set[int] = set()  # file descriptors of the locks of this process


@contextlib.contextmanager
def hold(folder: pathlib.Path, argument: str) -> Iterator[None]:
    """Locks the folder of a run, or raises an error at once.

    A folder that this process cannot write is not locked.

    Args:
        folder: path of an existing folder.
        argument: name of the argument with the folder, for the error.

    Raises:
        ValueError: if another process holds the lock, naming it; or if the lock file
            cannot be opened.
    """
    path = folder / ".lock"
    read_only = folder.is_dir() and not os.access(folder, os.W_OK)
    if fcntl is None or read_only:
        yield
        return
    try:
        descriptor = _acquire(path)
    except BlockingIOError as error:
        raise ValueError(
            f"`{argument}` must not be in use. Received: {folder}, which {error} is writing"
        ) from None
    except OSError as error:
        raise ValueError(
            f"`{argument}` must be a folder that can be written. Received: {folder}: "
            f"{error}"
        ) from error
    try:
        yield
    finally:
        _release(descriptor, path)


def _acquire(path):
    """Opens the lock file and locks it; returns its file descriptor.

    Raises:
        BlockingIOError: with the owner as its text, if another process holds the lock.
        OSError: if the file cannot be opened, or is no plain file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(100):
        descriptor = os.open(path, flags, 0o666)  # closed in new programs (PEP 446)
        try:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
                raise OSError(errno.EINVAL, "not a plain file", str(path))
            _flock(descriptor)
            if _is_at(descriptor, path):  # the former owner may have removed it meanwhile
                _write_owner(descriptor)
                _held.add(descriptor)
                return descriptor
        finally:
            if descriptor not in _held:
                os.close(descriptor)
    raise BlockingIOError("another process")


def _flock(descriptor):
    """Locks an open file, if its file system supports it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(_read_owner(descriptor)) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _is_at(descriptor, path):
    """Returns True if the open file is still the one at the path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _write_owner(descriptor):
    """Describes this process in the lock file."""
    command = shlex.join(["keras-vae", *sys.argv[1:]])
    command = command if len(command) <= 80 else f"{command[:76]} ..."
    owner = f"process {os.getpid()} on {socket.gethostname()} ({command})"
    with contextlib.suppress(OSError):  # a full disk
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, owner.encode(errors="backslashreplace"), 0)


def _read_owner(descriptor):
    """Reads the owner, as one short line: the file may have any content."""
    text = os.pread(descriptor, 250, 0).decode(errors="replace")
    return visible(text) or "another process"


def _release(descriptor, path):
    """Removes the lock file and unlocks it."""
    if descriptor not in _held:  # in a child process that was forked meanwhile
        return
    with contextlib.suppress(OSError):
        if _is_at(descriptor, path):
            path.unlink()
    _held.remove(descriptor)
    os.close(descriptor)


def _leave_to_parent():
    """Closes the locks of the parent, so that a forked child does not keep them alive."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
