"""The process that runs an artefact ends: in time, when interrupted, with its parent."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_vae.exporting import process, runtimes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

# Writes its id and that of a child to a file, and does not end.
FROZEN = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
file = pathlib.Path(__file__).with_name("ids")
file.with_name("part").write_text(f"{os.getpid()} {child.pid}")
file.with_name("part").rename(file)
time.sleep(600)
"""


@pytest.fixture
def frozen(tmp_path, monkeypatch):
    script = tmp_path / "frozen.py"
    script.write_text(FROZEN)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    return script


def run(script, **options):
    job = {"runtime": "onnx", "artefact": "m", "feeds": {"a/x": np.zeros(1)}}
    return process.run([job], script=script, **options)


def ids(script, seconds=30):
    """Waits for the ids of the process and its child."""
    file, end = script.with_name("ids"), time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    return [int(number) for number in file.read_text().split()]


def alive(pid):
    with contextlib.suppress(OSError):
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


def assert_all_ended(script):
    end = time.monotonic() + 10
    while any(map(alive, ids(script))):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert not list((script.parent / "tmp").iterdir())


def test_a_process_that_takes_longer_is_killed(frozen):
    with pytest.raises(ValueError, match="`artefact` must run .* longer than 3 seconds"):
        run(frozen, timeout=3.0)
    assert_all_ended(frozen)
    with pytest.raises(ChildProcessError):  # no zombie
        os.waitpid(-1, os.WNOHANG)


def test_an_interruption_kills_the_process(frozen):
    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 3.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(frozen, timeout=60.0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert_all_ended(frozen)


def test_a_runtime_ends_with_its_standard_input(tmp_path):
    (tmp_path / "wait.py").write_text(
        f"import runpy, time\nrunpy.run_path({runtimes.__file__!r})['end_with_stdin']()\n"
        "print('started', flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "wait.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as waiting:  # fmt: skip
        assert waiting.stdout.readline() == b"started\n"
        waiting.stdin.close()
        assert waiting.wait(20) == 1


def test_a_signal_and_the_last_line_of_a_failure_are_named(tmp_path):
    script = tmp_path / "fail.py"
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(ValueError, match=r"must run with onnx.*m: killed by signal 11$"):
        run(script)
    script.write_text("print('a'); raise SystemExit('the reason')")
    with pytest.raises(ValueError, match=r"m: the reason$"):
        run(script)
