"""Helpers for the tests of bad input.

A refused call raises an error that names the argument and shows the value after the word
Received. A refused command ends with exit code 2, names the option as it is typed, and
writes nothing. The tests look for names and values, not for sentences.
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

MAX_MESSAGE_LENGTH = 1200  # characters: a message is not a stack trace


# Calls.


def assert_refused(call, *words, received=(), error=ValueError):
    """Assert that a call raises an error that names the fault.

    Args:
        call: function without arguments.
        *words: text that the message must contain, such as the name of the argument.
        received: str or tuple of str that must follow the word Received, in any case.
            None for the errors of Keras and Python, which do not use this word.
        error: the exact type of the error. Subclasses of ValueError are accidents, such
            as a UnicodeError.

    Returns:
        The message.
    """
    with pytest.raises(Exception) as caught:
        call()
    text = str(caught.value)
    assert caught.type is error, f"{caught.type.__name__}: {text}"
    _assert_message(text, words, received)
    return text


def assert_each_refused(call, values, *words, received=None, **options):
    """Assert that `call(value)` refuses each of the values; see `assert_refused`.

    Args:
        call: function of a value.
        values: list of bad values, or dict from the text that the message must show to
            the bad value.
        *words: text that each message must contain.
        received: str that each message must show. Default: the start of the value's repr.
        **options: of `assert_refused`.
    """
    named_values = values if isinstance(values, dict) else dict(enumerate(values))
    failures = {}
    for key, value in named_values.items():
        text = key if values is named_values else repr(value).strip("'\"")[:12]
        try:
            assert_refused(
                lambda value=value: call(value),
                *words,
                received=text if received is None else received,
                **options,
            )
        except (AssertionError, pytest.fail.Exception) as error:
            failures[f"{key}: {value!r}"[:60]] = str(error)
    assert not failures, failures


def vary_option(call, option, /, *args, **options):
    """Return a function that calls `call` with a value for one option."""
    return lambda value: call(*args, **{**options, option: value})


def _assert_message(text, words, received):
    for word in words:
        assert word in text, f"{word!r} not in: {text}"
    _, marker, shown = text.partition("Received")
    assert marker or received is None, f"no Received in: {text}"
    for word in (received,) if isinstance(received, str) else received or ():
        assert word.lower() in shown.lower(), f"{word!r} not received in: {text}"
    assert len(text) < MAX_MESSAGE_LENGTH, f"{len(text)} characters: {text}"


def rows(**values):
    """Parametrize the argument `row` of a test; the names are the ids."""
    params = [pytest.param(row, id=name) for name, row in values.items()]
    return pytest.mark.parametrize("row", params)


# Files.


def tree(folder="."):
    """Return the content of each file, and None for each folder, by path."""
    paths = sorted(pathlib.Path(folder).rglob("*"))
    return {str(p): p.read_bytes() if p.is_file() else None for p in paths}


def assert_unchanged(before, folder="."):
    """Assert that no file, hidden ones included, differs from `before`; see `tree`."""
    after = tree(folder)
    names = before.keys() | after.keys()
    changed = sorted(n for n in names if before.get(n, 0) != after.get(n, 0))
    assert not changed, f"changed or left behind: {changed}"


def assert_refused_without_writing(call, *words, folder=".", **options):
    """Assert that a call is refused and changes no file; see `assert_refused`."""
    before = tree(folder)
    assert_refused(call, *words, **options)
    assert_unchanged(before, folder)


# Commands.

# Options put before those of a command, so that it ends soon if it is not refused.
FAST_OPTIONS = {
    "train": "--network mlp --hidden 4 --latent 2 --epochs 1 --batch 8 --no-xla "
    "--baselines none --num-samples 2",
    "evaluate": "--num-samples 2",
    "report": "--baselines none --num-samples 2",
}


def run_command(command):
    """Run a command of `keras-vae` in this process."""
    name, *args = shlex.split(command)
    fast = shlex.split(FAST_OPTIONS.get(name, ""))
    with warnings.catch_warnings():
        # Outside of the tests, a warning is printed and does not end the command.
        warnings.simplefilter("default")
        for kind in (DeprecationWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        result = CliRunner().invoke(cli.app, [name, *fast, *args])
    if not isinstance(result.exception, SystemExit | None):
        raise AssertionError(f"traceback of {command!r}") from result.exception
    return result


def assert_succeeds(command):
    """Run a command, assert exit code 0 and return the result."""
    result = run_command(command)
    assert result.exit_code == 0, result.output
    return result


def assert_fails(command, *words, received=(), warned=False):
    """Assert that a command ends with exit code 2 and a message; see `assert_refused`."""
    result = run_command(command)
    text = re.sub(r"[\s│╭╮╰╯─]+", " ", result.stderr)  # without the box and its line breaks
    assert result.exit_code == 2, f"exit code {result.exit_code}: {text}"
    assert "Traceback" not in text, text
    assert ("Warning" in text) == warned, text
    _, *message = re.split(r"\bError\b", text, maxsplit=1)  # the usage before names DATA
    assert message, text
    _assert_message(text if warned else message[0], words, received)


def assert_command_refused(command, *words, **options):
    """Assert that a command fails and changes no file; see `assert_fails`."""
    before = tree()
    try:
        assert_fails(command, *words, **options)
    finally:
        assert_unchanged(before)


def assert_commands_refused(rows, **options):
    """Assert that each command is refused: rows of (command, words)."""
    failures = {}
    for command, *words in rows:
        try:
            assert_command_refused(command, *words, **options)
        except AssertionError as error:
            failures[command] = str(error)
    assert not failures, failures


def skip_report(patch):
    """Skip the report at the end of `train`, which takes longer than the training."""
    patch.setattr(cli.train, "write_report", lambda *_: None)


def train_eagerly(patch):
    """Train without graphs: tracing takes longer than the few steps of these tests."""
    compile = kv.VAE.compile
    eager = {"run_eagerly": True}
    patch.setattr(kv.VAE, "compile", lambda *a, **kw: compile(*a, **{**kw, **eager}))


def replace_rendezvous(patch, replacement):
    """Replace the rendezvous by `replacement(cluster, index, facts, timeout)`.

    Returns:
        The original function.
    """
    original = meeting.rendezvous
    patch.setattr(meeting, "rendezvous", replacement)
    return original


# A working folder, and damage to its files.

ROWS = np.random.RandomState(0).normal(size=(12, 4)).astype("float32")
GREY = np.random.RandomState(0).randint(0, 256, (8, 8), dtype="uint8")


def work_in_copy(source, folder, patch):
    """Copy runs into a new folder, change to it and update the paths in run.json."""
    shutil.copytree(source, folder)
    for path in folder.glob("*/run.json"):
        path.write_text(path.read_text().replace(str(source), str(folder)))
    patch.chdir(folder)
    patch.delenv("KERAS_VAE_DATA", raising=False)
    return folder


def write_file(name, content):
    """Write a file: an array, arrays by name, pixels, text or bytes; None deletes it.

    A function maps the present bytes to the new ones.
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


def truncate(count):
    """Return a function that keeps the first bytes, as after an interrupted write."""
    return lambda content: content[:count]


def change_json(change):
    """Return a function that applies `change(value)` to the value of a JSON file."""

    def rewrite(content):
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    return rewrite


def delete_key(*path):
    """Return a function that deletes an entry of a JSON file, at this path of keys."""

    def change(value):
        *parents, last = path
        for key in parents:
            value = value[key]
        del value[last]

    return change_json(change)


def other_model(_):
    """Return the bytes of a .keras file that holds no VAE."""
    path = pathlib.Path("other.keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]).save(path)
    content = path.read_bytes()
    path.unlink()
    return content


def damaged_npz():
    """Return the bytes of an .npz file with damaged compressed data."""
    file = io.BytesIO()
    np.savez_compressed(file, x=np.random.RandomState(0).randint(0, 9, (99, 9), "uint8"))
    content = bytearray(file.getvalue())
    content[200:260] = bytes(255 - byte for byte in content[200:260])
    return bytes(content)


# Damage that any file can have: its name and the content of the damaged file.
DAMAGES = {
    "empty": b"",
    "text": "404: Not Found",
    "binary": b"\xff\xfe\x00",
    "cut": truncate(90),
}


def assert_each_damage_refused(name, damages, command, *words):
    """Damage a file in each way; assert that the command refuses it and writes nothing."""
    path, failures = pathlib.Path(name), {}
    original = path.read_bytes() if path.exists() else None
    for damage, content in damages.items():
        if original is None and callable(content):
            continue
        write_file(name, content)
        try:
            assert_command_refused(command, *words)
        except AssertionError as error:
            failures[damage] = str(error)
        finally:
            if original is not None:
                write_file(name, original)
    if original is None:
        write_file(name, None)
    assert not failures, failures
