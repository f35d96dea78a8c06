"""Commands on run folders of strangers: one line, no traceback, nothing written outside."""

import contextlib
import os
import pathlib
import shutil
import signal

import numpy as np
import pytest

from keras_vae.runs import contents
from keras_vae.runs.report import charts, figures
from keras_vae.runs.report.pictures import PictureView
from tests import odd_files
from tests.refusals import (
    assert_command_refused,
    assert_succeeds,
    run_command,
    skip_report,
    train_eagerly,
    tree,
)

RESUME = "train t.csv --out run --resume --epochs 2"
WRITE = ["evaluate run", "report run", "export run --to onnx", RESUME]
COMMANDS = [*WRITE, "report run --baselines 1", "encode run", "score run", "sample run"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return odd_files.make_run(tmp_path_factory.mktemp("source"))


@pytest.fixture(autouse=True)
def folder(source, tmp_path, monkeypatch):
    """A working folder with a copy of the run and of its data."""
    shutil.copytree(source.parent, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    pathlib.Path("outside").mkdir()
    pathlib.Path("outside/precious").write_text("precious")
    train_eagerly(monkeypatch)
    skip_report(monkeypatch)
    data = str(source.parent / "t.csv")  # RESUME compares the path
    pathlib.Path("t.csv").unlink()
    pathlib.Path("t.csv").symlink_to(data)


@pytest.mark.parametrize(
    "name", ["figures", "serving", "onnx", "tensorboard/train", "backup/x", "new"]
)
def test_a_link_in_a_run_is_refused_by_commands_that_write(name):
    path = pathlib.Path("run", name)
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        shutil.rmtree(path)
    for target in (os.path.abspath("outside"), "/no/such/folder", path.name, "/dev/null"):
        path.symlink_to(target)
        for command in WRITE:
            argument = "--out" if command == RESUME else "RUN"
            assert_command_refused(command, argument, received=(str(path), target))
        path.unlink()


def test_the_run_itself_may_be_a_link():
    pathlib.Path("run").rename("real")
    pathlib.Path("run").symlink_to("real")
    assert_succeeds("evaluate run --num-samples 2")


def test_figures_are_not_written_through_links(tmp_path):
    precious = pathlib.Path("outside/precious")
    for name in ("kl-light.png", "kl-dark.png", "x-0.png"):
        (tmp_path / name).symlink_to(precious.resolve())
    charts.chart(tmp_path / "kl", charts.kl_bars, np.ones(2))
    view = PictureView.__new__(PictureView)
    view.folder, view.low, view.high, view.note = tmp_path, 0, 1, ""
    view._figure("x", "", "", [("", np.zeros((1, 4, 4, 1)), 1)])
    assert precious.read_text() == "precious"
    assert not any(path.is_symlink() for path in tmp_path.iterdir())


# All files, with all kinds of odd contents. The reader is tested in `tests/runs`.


@contextlib.contextmanager
def time_limit(seconds):
    """Raises an error in a command that waits, such as for the writer of a pipe."""

    def stop(*_):
        raise AssertionError(f"the command took more than {seconds} s")

    former = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def assert_handled(command, source):
    """Asserts exit code 0, or 2 with one line, and that no file outside has changed."""
    outside = tree("outside"), tree(source)
    with time_limit(400):
        result = run_command(command)
    lines = [text for text in result.stderr.splitlines() if "Warning" not in text]
    assert result.exit_code in (0, 2), result.output
    assert len(lines) == (result.exit_code == 2), result.stderr
    assert (tree("outside"), tree(source)) == outside


def failures_of(source, name, odd, commands):
    """Runs each command on runs with odd contents of a file; returns what went wrong.

    Args:
        source: the folder of the run.
        name: name of the file.
        odd: pairs of a description and bytes, or a function that makes the file.
        commands: list of commands.
    """
    failures, path = {}, pathlib.Path("run", name)
    for what, content in odd:
        for command in commands:
            shutil.rmtree("run")
            shutil.copytree(source, "run")
            path.unlink()
            content(path) if callable(content) else path.write_bytes(content)
            try:
                assert_handled(command, source)
            except AssertionError as error:
                cause = error.__cause__ or error
                failures[what, command] = f"{type(cause).__name__}: {cause}"[:300]
    return failures


@pytest.mark.slow
@pytest.mark.parametrize("name", [*contents.FILES, "model.keras", "report.html"])
def test_no_command_fails_for_what_is_no_file(source, name):
    commands = COMMANDS
    if name == "report.html":  # only written
        commands = ["report run", RESUME]
        pathlib.Path(source, name).touch()
    assert not failures_of(source, name, odd_files.ODD_NODES.items(), commands)


# The commands that use the values of a file.
USERS = {
    "run.json": [RESUME, "report run"],
    "metrics.csv": ["report run"],
    "evaluation.json": ["report run"],
    "baselines.json": ["report run --baselines 1"],
    "scaler.json": ["encode run"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", contents.FILES)
def test_no_command_fails_for_a_value_that_is_read(source, name, monkeypatch):
    def curves(run, model, data, folder):
        best = run.info.get("early_stopping", {}).get("best_epoch")
        yield figures.training_curves(folder, run.metrics(), best)

    monkeypatch.setattr(figures, "_figures", curves)
    odd = [
        (what, content)
        for what, content in odd_files.odd_contents(source / name)
        if _is_read(pathlib.Path("run", name), content)
    ]
    assert len(odd) > 5
    # Some values of each entry: all of them would take many minutes.
    assert not failures_of(source, name, odd[::4], USERS[name])


def _is_read(path, content):
    with odd_files.replaced(path, content), contextlib.suppress(ValueError):
        return contents.read(path) is not None
