"""Text from outside reaches the terminal with its control characters shown, not sent."""

import io
import pathlib
import shlex
import sys

import numpy as np
import pytest
from rich.table import Table

from keras_vae import cli
from keras_vae.cli import progress
from keras_vae.cluster import launcher
from tests.refusals import run_command

# The escape codes of 7 and of 8 bits, a change of direction, no width, a line end.
NAME = "图\x1b[31m\x9b1m\x07\x7f\u202e\u200b\u2028\nError: no"
SHOWN = r"图\x1b[31m\x9b1m\x07\x7f\u202e\u200b\u2028\nError: no"


def assert_shown(text, shown=SHOWN):
    assert shown in text
    assert text.replace("\n", "").isprintable()


def console():
    return progress._Console(file=io.StringIO(), width=200, **progress._PLAIN)


def test_lines_and_tables_show_control_characters():
    out, table = console(), Table(NAME, box=None)
    table.add_row(NAME)
    out.print(f"\n{NAME}")
    out.print(table)
    assert out.file.getvalue().count(SHOWN) == 3
    assert_shown(out.file.getvalue())


def test_a_progress_bar_shows_control_characters(monkeypatch):
    monkeypatch.setattr(progress, "out", console())
    with progress.progress_bar() as bar:
        bar.add_task(f"{NAME}[red]", text=NAME)
        progress.out.print(bar.get_renderable())
    assert_shown(progress.out.file.getvalue(), f"{SHOWN}[red]")


@pytest.mark.parametrize(
    "command",
    [
        f"train {shlex.quote(NAME)}.npy --out new",
        f"train a.npy --out {shlex.quote(NAME)} --resume",
        f"evaluate {shlex.quote(NAME)}",
    ],
)
def test_errors_show_control_characters_in_one_line(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.zeros((9, 4), "float32"))
    pathlib.Path(NAME).mkdir()
    pathlib.Path(NAME, "file").touch()
    result = run_command(command)
    assert result.exit_code == 2
    assert_shown(result.stderr)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command", ["train a --config c.yaml", "\x1b[31m", "--\x1b[31m", "evaluate --\x1b[31m"]
)
def test_errors_of_typer_show_control_characters(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("c.yaml").write_text('"\\e[31m": 1\n"\\e[31m": 1\n')
    result = run_command(command)
    assert result.exit_code == 2
    assert_shown(result.stderr, r"\x1b[31m")


def test_columns_of_a_table_show_control_characters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("t.csv").write_text("a,b\x1b[31m\n" + "1,x\n2,y\n" * 9)
    result = run_command("train t.csv --out new")
    assert_shown(result.stderr, r"b\x1b[31m")
    assert result.stderr.count("\n") > 2  # our own lines stay lines


def test_a_traceback_shows_control_characters(monkeypatch, capsys):
    def fail():
        raise KeyError from ZeroDivisionError(NAME)

    monkeypatch.setattr(sys.modules["keras_vae.cli.app"], "app", fail)
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    text = capsys.readouterr().err
    assert_shown(text, SHOWN.partition(r"\n")[0])
    assert "Traceback" in text and text.rstrip().endswith("KeyError")


def test_lines_of_workers_show_control_characters(monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    launcher._print(NAME)
    assert_shown(stderr.getvalue())
