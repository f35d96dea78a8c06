"""The output of the commands: lines, tables, a progress bar."""

import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from rich import progress
from rich.console import Console
from rich.table import Column
from rich.text import Text

from keras_vae.escapes import visible


class _Console(Console):
    r"""Console that shows control characters in strings, instead of sending them.

    Each string, also in a table, is one line after its leading line ends: line ends inside
    of it are shown, too. `print(*lines, sep="\n")` prints several lines.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        line = text.lstrip("\n")
        return super().render_str(text.removesuffix(line) + visible(line), **options)


_PLAIN: dict[str, Any] = {
    "highlight": False, "markup": False, "emoji": False, "soft_wrap": True,
}  # fmt: skip
out = _Console(**_PLAIN)
err = _Console(stderr=True, **_PLAIN)


class _TextColumn(progress.ProgressColumn):
    """Column of a progress bar with a text, which the console makes visible."""

    def __init__(self, text: Callable[[progress.Task], str]):
        super().__init__(Column(no_wrap=True))
        self.text = text

    def render(self, task: progress.Task) -> str:
        return self.text(task)


def progress_bar() -> progress.Progress:
    """Makes the progress bar of a long command; it is hidden without a terminal."""
    return progress.Progress(
        _TextColumn(lambda task: task.description),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        _TextColumn(lambda task: task.fields["text"]),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
        progress.TextColumn("left"),
        console=out,
        disable=not out.is_terminal,
    )


@contextlib.contextmanager
def progress_phases() -> Iterator[Callable[..., None]]:
    """Yields a function (text, done, total) that shows the progress of a phase.

    Without a terminal it prints the text of each phase once.
    """
    with progress_bar() as bar:
        task = bar.add_task("", total=None, text="")
        phases: list[str] = []

        def show(text: str, done: float = 0, total: float | None = None) -> None:
            if bar.disable and text not in phases:
                out.print(text)
            phases.append(text)
            bar.update(task, description=text, completed=done, total=total)

        yield show
        bar.update(task, visible=False)


def print_evaluation(run: Any, data: Any, numbers: dict[str, Any]) -> None:
    """Prints the numbers of `evaluate`, one per line, its settings and what they mean."""
    from keras_vae.runs import report

    for name, value in numbers.items():
        if name not in ("num_samples", "nll_rows", "steps", "data"):
            if name == "test_nll" and report.is_bound(numbers):
                name = "test_nll <="
            out.print(f"  {name:30} {value:12,.4f}".rstrip("0").rstrip("."))
    if "test_nll" in numbers:
        out.print(
            f"  The NLL is estimated on {numbers['nll_rows']:,.0f} rows, with "
            f"{numbers['num_samples']:,.0f} samples for each."
        )
    for text in report.caveats(numbers, data, run.options):
        out.print(f"\n{text}")
    for finding in report.findings(numbers, run.metrics(), run.options):
        out.print(f"\n{finding}")


def start_tensorflow() -> None:
    """Imports TensorFlow, without the messages that it prints at startup."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if "tensorflow" in sys.modules:
        return
    # TensorFlow's C++ code writes to the file descriptor before it reads its log level.
    with tempfile.TemporaryFile() as noise:
        stderr = os.dup(2)
        os.dup2(noise.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()  # searches for a GPU
        except Exception:
            noise.seek(0)
            os.write(stderr, noise.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def open_run(folder: pathlib.Path) -> Any:
    """Starts TensorFlow, and opens the run of a folder."""
    start_tensorflow()
    from keras_vae.runs.folder import Run

    return Run.open(folder)
