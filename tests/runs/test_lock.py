"""The lock of a run folder: one process writes, and a killed process blocks nothing."""

import contextlib
import errno
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from keras_vae.runs import lock

pytestmark = pytest.mark.skipif(lock.fcntl is None, reason="no flock")
# Holds the lock of a folder until stdin ends; starts a child process in the given way.
OWNER = """
import os, pathlib, subprocess, sys, time
folder, children = sys.argv.pop(1), sys.argv.pop(1)
from keras_vae.runs import lock

with lock.hold(pathlib.Path(folder), "out"):
    if children == "fork" and not os.fork():
        print("held", flush=True)
        time.sleep(60)
        os._exit(0)
    if children == "program":
        subprocess.Popen(["sleep", "60"], close_fds=False)
    if children != "fork":
        print("held", flush=True)
    sys.stdin.read()
"""
# Four processes take the lock in turn; in it, each makes and removes the same file.
TURNS = """
import os, pathlib, sys, time
from keras_vae.runs import lock

folder, children = pathlib.Path(sys.argv[1]), []
for _ in range(4):
    children.append(os.fork())
    if not children[-1]:
        turns = 0
        while turns < 100:
            try:
                with lock.hold(folder, "out"):
                    os.close(os.open(folder / "one", os.O_CREAT | os.O_EXCL))
                    time.sleep(0)
                    os.unlink(folder / "one")
                    turns += 1
            except ValueError as error:
                assert "in use" in str(error), error
        os._exit(0)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


@pytest.fixture
def start_owner(tmp_path):
    """A function that starts a process that holds the lock of `tmp_path`."""
    owners = []

    def start(children="none"):
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, tmp_path, children, "train", "two words"],
            cwd=pathlib.Path(__file__).parents[2], text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        owners.append(owner)
        assert owner.stdout.readline() == "held\n"
        return owner

    yield start
    for owner in owners:
        with owner, contextlib.suppress(ProcessLookupError):
            os.killpg(owner.pid, signal.SIGKILL)  # also its children


def refusal(folder):
    """Returns the error for a folder that cannot be locked."""
    with pytest.raises(ValueError) as caught, lock.hold(folder, "out"):
        pass
    text = str(caught.value)
    assert text.startswith("`out` must ") and f"Received: {folder}" in text
    assert text.isprintable()
    return text


def test_a_second_process_is_refused_and_told_the_owner(start_owner, tmp_path):
    owner = start_owner()
    text = refusal(tmp_path)
    assert "in use" in text and f"process {owner.pid} on" in text
    assert "(keras-vae train 'two words')" in text
    owner.stdin.close()
    owner.wait()
    assert os.listdir(tmp_path) == []
    with lock.hold(tmp_path, "out"):
        refusal(tmp_path)  # also to another thread of the same process


@pytest.mark.parametrize("children", ["none", "fork", "program"])
def test_a_killed_process_blocks_nothing(start_owner, tmp_path, children):
    owner = start_owner(children)
    owner.kill()
    owner.wait()
    assert os.listdir(tmp_path) == [".lock"]
    with lock.hold(tmp_path, "out"):
        assert f"process {os.getpid()} on" in refusal(tmp_path)
    assert os.listdir(tmp_path) == []


def test_processes_take_turns_although_each_removes_the_file(tmp_path):
    subprocess.run([sys.executable, "-c", TURNS, tmp_path], check=True, timeout=60)
    assert os.listdir(tmp_path) == []


def test_a_lock_on_a_removed_file_is_no_lock(tmp_path, monkeypatch):
    flock, path, removed = lock.fcntl.flock, tmp_path / ".lock", []

    def remove_and_lock(descriptor, flags):
        if not removed:
            removed.append(path.unlink())
        flock(descriptor, flags)

    monkeypatch.setattr(lock.fcntl, "flock", remove_and_lock)
    with lock.hold(tmp_path, "out"):
        assert removed and "in use" in refusal(tmp_path)


def test_the_lock_of_another_process_is_not_removed(tmp_path):
    path = tmp_path / ".lock"
    with lock.hold(tmp_path, "out"):
        path.unlink()
        path.write_text("theirs")
    assert path.read_text() == "theirs"


OBSTACLES = {
    "link": lambda path: path.symlink_to(path.with_name("mine")),
    "dangling link": lambda path: path.symlink_to("missing"),
    "hard link": lambda path: path.hardlink_to(path.with_name("mine")),
    "FIFO": os.mkfifo,
    "folder": pathlib.Path.mkdir,
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_only_a_plain_file_is_locked(tmp_path, obstacle):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    OBSTACLES[obstacle](tmp_path / ".lock")
    assert ".lock" in refusal(tmp_path)
    assert mine.read_text() == "mine" and not (tmp_path / "missing").exists()


@pytest.mark.parametrize("text", [b"\x1b[2Jx\ny\x00", b"\xff" * 5000, b""], ids=repr)
def test_the_content_of_the_file_is_shown_as_one_short_line(tmp_path, text):
    with lock.hold(tmp_path, "out"):
        (tmp_path / ".lock").write_bytes(text)
        assert len(refusal(tmp_path)) < len(str(tmp_path)) + 350


@pytest.mark.parametrize("number", lock._UNSUPPORTED)
def test_without_support_of_the_file_system_there_is_no_lock(tmp_path, monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", fail)
    with lock.hold(tmp_path, "out"), lock.hold(tmp_path, "out"):
        pass
    assert os.listdir(tmp_path) == []


def test_other_errors_of_the_file_system_are_raised(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(lock.fcntl, "flock", fail)
    assert os.strerror(errno.EIO) in refusal(tmp_path)


def test_a_folder_that_cannot_be_written_needs_no_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root can write everywhere
    with lock.hold(tmp_path, "out"):
        assert os.listdir(tmp_path) == []
