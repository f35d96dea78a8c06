"""What the tests of bad input share: to refuse in words, and to leave nothing behind.

A call that is refused raises an error that names the argument and shows, after the word
Received, what came. A command that is refused ends with exit code 2, names the option as
it is typed, and writes nothing. The tests look for names and values, not for sentences.
"""

import io
import json
import pathlib
import re
import shlex
import shutil
import warnings

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import keras_vae as kv
from keras_vae import cli
from keras_vae.cluster import meeting

READABLE = 1200  # characters: a message, not a stack of calls


# Calls.


def refused(call, *words, came=(), error=ValueError, received=True):
    """Assert that a call raises an error that says what is wrong.

    Args:
        call: function without arguments.
        *words: what the message must hold, such as the name of the argument.
        came: str or tuple of str, what must follow the word Received, in any case.
        error: the type of the error, and no subclass of it: those of ValueError are
            accidents, such as a UnicodeError.
        received: False for the errors of Keras and Python, which do not use the word.

    Returns:
        The message.
    """
    with pytest.raises(Exception) as caught:
        call()
    text = str(caught.value)
    assert caught.type is error, f"{caught.type.__name__}: {text}"
    _assert_says(text, words, came, received)
    return text


def each_refused(call, values, *words, came=None, **options):
    """Assert that `call(value)` refuses each of the values; see `refused`.

    Args:
        call: function of a value.
        values: list of bad values, or dict of them by what the message must show of each.
        *words: what each message must hold.
        came: str, what must be shown of all. Default: how Python writes the value.
        **options: of `refused`.
    """
    shown = values if isinstance(values, dict) else dict(enumerate(values))
    wrong = {}
    for key, value in shown.items():
        text = key if values is shown else repr(value).strip("'\"")[:12]
        try:
            refused(
                lambda value=value: call(value),
                *words,
                came=text if came is None else came,
                **options,
            )
        except (AssertionError, pytest.fail.Exception) as error:
            wrong[f"{key}: {value!r}"[:60]] = str(error)
    assert not wrong, wrong


def of_option(call, option, /, *args, **options):
    """Make a function of the value of one option of a call, for `each_refused`."""
    return lambda value: call(*args, **{**options, option: value})


def _assert_says(text, words, came, received):
    for word in words:
        assert word in text, f"{word!r} not in: {text}"
    _, found, after = text.partition("Received")
    assert found or not received, f"no Received in: {text}"
    for word in (came,) if isinstance(came, str) else came:
        assert word.lower() in after.lower(), f"{word!r} not received in: {text}"
    assert len(text) < READABLE, f"{len(text)} characters: {text}"


def rows(**named):
    """Parametrize a test of one argument, `row`, by named values."""
    values = [pytest.param(row, id=name) for name, row in named.items()]
    return pytest.mark.parametrize("row", values)


# Files.


def tree(folder="."):
    """Return the content of each file, and None for each folder, by path."""
    paths = sorted(pathlib.Path(folder).rglob("*"))
    return {str(p): p.read_bytes() if p.is_file() else None for p in paths}


def assert_unchanged(before, folder="."):
    """Assert that a folder holds what it held, hidden files too: see `tree`."""
    after = tree(folder)
    names = before.keys() | after.keys()
    changed = sorted(n for n in names if before.get(n, 0) != after.get(n, 0))
    assert not changed, f"changed or left behind: {changed}"


def leaves_no_file(call, *words, folder=".", **options):
    """Assert that a call is refused, see `refused`, and changes nothing in a folder."""
    before = tree(folder)
    refused(call, *words, **options)
    assert_unchanged(before, folder)


# Commands.

# Ahead of the options of a command, so that one that is not refused ends soon.
SMALL = {
    "train": "--network mlp --hidden 4 --latent 2 --epochs 1 --batch 8 --no-xla "
    "--baselines none --num-samples 2",
    "evaluate": "--num-samples 2",
    "report": "--baselines none --num-samples 2",
}


def run(command):
    """Run a command of `keras-vae` in this process."""
    name, *args = shlex.split(command)
    small = shlex.split(SMALL.get(name, ""))
    with warnings.catch_warnings():
        # As outside of the tests, where a warning is a line and does not end the command.
        warnings.simplefilter("default")
        for kind in (DeprecationWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        result = CliRunner().invoke(cli.app, [name, *small, *args])
    if not isinstance(result.exception, SystemExit | None):
        raise AssertionError(f"traceback of {command!r}") from result.exception
    return result


def succeeds(command):
    """Run a command that must do what it is asked for."""
    result = run(command)
    assert result.exit_code == 0, result.output
    return result


def fails(command, *words, came=(), received=True, warned=False):
    """Run a command that must end with exit code 2 and say why; see `refused`."""
    result = run(command)
    text = re.sub(r"[\s│╭╮╰╯─]+", " ", result.stderr)  # without the box and its line breaks
    assert result.exit_code == 2, f"exit code {result.exit_code}: {text}"
    assert "Traceback" not in text, text
    assert ("Warning" in text) == warned, text
    _, *said = re.split(r"\bError\b", text, maxsplit=1)  # the usage before it names DATA
    assert said, text
    _assert_says(text if warned else said[0], words, came, received)


def command_refused(command, *words, **options):
    """Run a command that must fail in words, see `fails`, and leave all files alone."""
    before = tree()
    try:
        fails(command, *words, **options)
    finally:
        assert_unchanged(before)


def commands_refused(rows, **options):
    """Assert that each command is refused: rows of (command, words)."""
    wrong = {}
    for command, *words in rows:
        try:
            command_refused(command, *words, **options)
        except AssertionError as error:
            wrong[command] = str(error)
    assert not wrong, wrong


def without_report(patch):
    """Leave out the report at the end of `train`, which takes longer than the rest."""
    patch.setattr(cli.train, "write_report", lambda *_: None)


def without_graphs(patch):
    """Train a step at a time: to make a graph takes longer than the few steps here."""
    compile = kv.VAE.compile
    eager = {"run_eagerly": True}
    patch.setattr(kv.VAE, "compile", lambda *a, **kw: compile(*a, **{**kw, **eager}))


def meet(patch, chief):
    """Let `chief(cluster, index, facts, timeout)` stand for the meeting of the workers.

    Returns:
        The function that it stands for.
    """
    former = meeting.rendezvous
    patch.setattr(meeting, "rendezvous", chief)
    return former


# A folder to work in, and how to damage what it holds.

ROWS = np.random.RandomState(0).normal(size=(12, 4)).astype("float32")
GREY = np.random.RandomState(0).randint(0, 256, (8, 8), dtype="uint8")


def work_in_a_copy(made, folder, patch):
    """Copy runs into a new folder and work in it; the runs know it by its new place."""
    shutil.copytree(made, folder)
    for path in folder.glob("*/run.json"):
        path.write_text(path.read_text().replace(str(made), str(folder)))
    patch.chdir(folder)
    patch.delenv("KERAS_VAE_DATA", raising=False)
    return folder


def put(name, content):
    """Write a file: an array, arrays by name, pixels, text or bytes; None deletes it.

    A function gets the bytes that are there and returns the new ones.
    """
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.unlink()
    elif callable(content):
        path.write_bytes(content(path.read_bytes() if path.exists() else None))
    elif isinstance(content, dict):
        np.savez_compressed(path, **content)
    elif isinstance(content, np.ndarray) and path.suffix == ".npy":
        np.save(path, content)
    elif isinstance(content, np.ndarray):
        Image.fromarray(content).save(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def first(count):
    """Cut a file short, as when its writing was stopped."""
    return lambda content: content[:count]


def json_with(change):
    """Apply `change(value)` to the value of a JSON file."""

    def changed(content):
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    return changed


def without(*keys):
    """Take the value that the keys lead to out of a JSON file."""

    def change(value):
        *parents, last = keys
        for key in parents:
            value = value[key]
        del value[last]

    return json_with(change)


def other_model(_):
    """Return the bytes of a .keras file that holds no VAE."""
    path = pathlib.Path("other.keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]).save(path)
    content = path.read_bytes()
    path.unlink()
    return content


def damaged_npz():
    """Return the bytes of an .npz file, some of them no longer what zlib wrote."""
    file = io.BytesIO()
    np.savez_compressed(file, x=np.random.RandomState(0).randint(0, 9, (99, 9), "uint8"))
    content = bytearray(file.getvalue())
    content[200:260] = bytes(255 - byte for byte in content[200:260])
    return bytes(content)


# What damages any file: its name and what is then in it.
DAMAGES = {
    "empty": b"",
    "text": "404: Not Found",
    "binary": b"\xff\xfe\x00",
    "cut": first(90),
}


def each_damage_refused(name, damages, command, *words):
    """Damage a file in each way; assert that the command says so and writes nothing."""
    path, wrong = pathlib.Path(name), {}
    whole = path.read_bytes() if path.exists() else None
    for damage, content in damages.items():
        if whole is None and callable(content):
            continue
        put(name, content)
        try:
            command_refused(command, *words)
        except AssertionError as error:
            wrong[damage] = str(error)
        finally:
            if whole is not None:
                put(name, whole)
    if whole is None:
        put(name, None)
    assert not wrong, wrong
