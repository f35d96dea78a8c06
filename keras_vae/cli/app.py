"""The application: its commands and its error messages."""

import contextlib
import errno
import io
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import typer

from keras_vae import disks
from keras_vae.cli import rows, train, use
from keras_vae.cli.progress import err
from keras_vae.cluster import launcher
from keras_vae.escapes import Lines, visible


class _Group(typer.core.TyperGroup):
    def make_context(self, *args, **kwargs):
        with _readable_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, context):
        with _readable_errors():
            return super().invoke(context)


app = typer.Typer(
    name="keras-vae",
    help="Train, evaluate, sample, report and export variational autoencoders.",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(train.train)
app.command(context_settings={"allow_interspersed_args": False})(train.launch)
for _command in (
    use.evaluate, rows.encode, rows.score, rows.reconstruct, rows.sample, use.report,
    use.export, use.verify,
):  # fmt: skip
    app.command()(_command)


def main() -> None:
    """Runs the command line: the entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # its encoding may lack letters of names
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except Exception:  # an error in this package: its names are not trusted, either
        sys.stderr.write(visible(traceback.format_exc(), keep="\n\t"))
        sys.exit(1)


@contextlib.contextmanager
def _readable_errors() -> Iterator[None]:
    """Turns errors that a user can correct into one line, and warnings into lines."""

    def show(message, category, *_, **__):
        err.print(f"Warning: {message}")

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.showwarning = show
        try:
            yield
        except (typer.Exit, typer.Abort):  # both are RuntimeErrors
            raise
        except Exception as error:
            if hasattr(error, "format_message"):  # Typer prints its errors itself
                error.message = visible(error.message, keep="\n")  # type: ignore[attr-defined]
                raise
            if not _correctable(error) or "KERAS_VAE_TRACEBACK" in os.environ:
                raise
            first, *others = _lines(error)
            err.print(f"Error: {first}", *others, sep="\n")
            raise typer.Exit(launcher.GONE if _lost_worker(error) else 2) from None


def _lines(error):
    """Returns the message of an error as a list of lines."""
    text = str(error) or type(error).__name__
    kept = " ".join(getattr(error, "__notes__", ()))  # what exists after the error
    if _lost_worker(error):
        lost = "another worker ended: restart all workers with --resume"
        return [text if isinstance(error, TimeoutError) else lost]
    if full := disks.full_disk(error):
        return [_full_disk_message(full, kept)]
    if isinstance(error, MemoryError):  # of Python, NumPy and Arrow
        text = (
            "out of memory for the data: use fewer rows, or save them as one .npy file, "
            f"which is read from the disk when it is large. {text}"
        )
    elif "ResourceExhausted" in type(error).__name__:
        text = (
            "out of memory for the model and its batches: try a smaller --batch, --hidden "
            f"or --filters. {text}"
        )
    elif "No usable temporary directory" in text:  # of `tempfile`
        text = f"{text}. {_OTHER_TMPDIR}."
    several = not isinstance(error, (ValueError, OSError))  # TensorFlow's messages
    several |= any(isinstance(argument, Lines) for argument in error.args)
    text = _with_option_names(f"{text} {kept}".rstrip())
    return text.split("\n") if several else [text]


_OTHER_TMPDIR = "Free some space, or set TMPDIR to a folder on another disk"


def _full_disk_message(full, kept):
    # Not `gettempdir`, which raises an error if the disk is full.
    temporary = os.path.join(os.environ.get("TMPDIR", "/tmp"), tempfile.gettempprefix())
    path = full.filename or temporary  # only temporary files are written without their path
    advice = "Free some space"
    if full.errno == errno.EFBIG:
        advice = "Raise the limit on the size of files (ulimit -f)"
    elif path.startswith(temporary):
        advice = _OTHER_TMPDIR
    kept = kept or "Files that existed are unchanged; start the same command again."
    return f"{full.strerror}: {path}. {advice}. {kept}"


def _correctable(error):
    """Returns True if a user can act on an error; all others keep their traceback."""
    if isinstance(error, ImportError):
        return "keras-vae[" in str(error)  # an extra to install
    kinds: tuple[Any, ...] = (ValueError, OSError, RuntimeError, MemoryError)
    if "tensorflow" in sys.modules:
        kinds = (*kinds, sys.modules["tensorflow"].errors.OpError)
    return isinstance(error, kinds)


def _lost_worker(error):
    """Returns True if the cause is another worker, which did not connect or has ended."""
    has_workers = {"TF_CONFIG", "SLURM_JOB_ID"} & os.environ.keys()
    if not has_workers or "tensorflow" not in sys.modules:
        return False
    errors = sys.modules["tensorflow"].errors
    kinds = (errors.UnavailableError, errors.AbortedError, errors.CancelledError)
    return isinstance(error, (TimeoutError, errors.DeadlineExceededError, *kinds))


_ARGUMENTS = {name: name.upper() for name in ("data", "run", "artefact", "command")}
_ARGUMENTS["file"] = "NEWFILE"
# Arguments in Python and their options on the command line.
_RENAMED = {"filepath": "out", "folder": "out", "format": "to"}


def _with_option_names(message: str) -> str:
    """Replaces the names of arguments by those of options: `value_range`: --value-range."""
    flags = {
        flag.removeprefix("--").replace("-", "_")
        for command in typer.main.get_group(app).commands.values()
        for parameter in command.params
        for flag in parameter.opts
        if flag.startswith("--")
    }

    def option_name(match):
        name = match[1]
        if name in _ARGUMENTS:
            return _ARGUMENTS[name]
        name = _RENAMED.get(name, name)
        return f"--{name.replace('_', '-')}" if name in flags else match[0]

    return re.sub(r"`(\w+)`", option_name, message)
