"""Full disks: libraries report them with errors of many types, often without a path."""

import contextlib
import errno
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator

# A full disk, a full quota, and the limit on the size of a file (ulimit -f).
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# The path in a message of TensorFlow, or of HDF5.
_PATH = re.compile(r"(/[^;}]*); \w|filename = '([^']*)'")
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # the message of NumPy


def full_disk(error: BaseException | None) -> OSError | None:
    """Returns the error of a full disk that `error` is or is caused by, or None.

    Args:
        error: error of any library.
    """
    found = None
    while error is not None and (found is None or found.filename is None):
        found = _as_os_error(error) or found
        error = error.__cause__ or error.__context__  # Keras hides causes
    return found


def _as_os_error(error):
    text, match = str(error), _PATH.search(str(error))
    path = match and (match[1] or match[2])
    if isinstance(name := getattr(error, "filename", None), (str, os.PathLike)):
        path = str(name)  # it may also be the number of an open file
    for code in _FULL:
        if getattr(error, "errno", None) == code or os.strerror(code) in text:
            return OSError(code, os.strerror(code), path)
    if _SHORT_WRITE.search(text):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return None


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turns the error of a full disk into an `OSError` with the path that is written.

    A path on another disk, such as in TMPDIR, is kept.

    Args:
        path: path of a file or folder; temporary files next to it are reported as `path`.

    Raises:
        OSError: if a disk is full.
    """
    try:
        yield
    except Exception as error:
        full = full_disk(error)
        if full is None:
            raise
        reported = pathlib.Path(full.filename or path).absolute()
        if path.absolute().parent in reported.parents:
            full.filename = str(path)
        raise full from error


@contextlib.contextmanager
def temporary_folder() -> Iterator[pathlib.Path]:
    """Yields a folder in TMPDIR, which is deleted at the end."""
    with tempfile.TemporaryDirectory() as name, writing(pathlib.Path(name)):
        yield pathlib.Path(name)
