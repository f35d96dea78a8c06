"""The launcher: starts several workers on this host, and restarts them if one dies.

Each worker sends heartbeats from a thread of its own, so that a worker that is stopped
counts as dead. A worker whose other threads wait for something does not.

The launcher uses little but the standard library and does not import TensorFlow.
"""

import array
import collections
import contextlib
import ctypes
import json
import math
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from keras_vae.cluster import messages
from keras_vae.escapes import visible

REFUSED, GONE, PREEMPTED, INTERRUPTED = 2, 69, 75, 130  # exit codes of a worker
GRACE = 10.0  # seconds from a signal until a worker is killed
SILENCE = 60.0  # seconds without a heartbeat until a worker counts as dead
_BEATS = 60  # heartbeats in that time
# Environment variable: process id of the launcher, pipe of heartbeats, index of the worker,
# seconds between two heartbeats.
_LAUNCHER = "KERAS_VAE_LAUNCHER"
_ROOT = str(pathlib.Path(__file__).parent.parent.parent)
# Like the console script `keras-vae`.
_PROGRAM = (
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {_ROOT!r}); sys.argv[0] = 'keras-vae'; "
    "from keras_vae import cli; cli.main()",
)


def launch(
    command: Sequence[str],
    workers: int,
    restarts: int = 3,
    grace: float = GRACE,
    silence: float = SILENCE,
    program: Sequence[str] = _PROGRAM,
) -> int:
    """Runs local workers until all finish; restarts all of them when one dies or freezes.

    Each worker has a TF_CONFIG with the addresses of all workers, on free ports of this
    host. The chief's output is passed through; lines of the other workers are written to
    stderr, after the name of the worker. SIGINT and SIGTERM are forwarded to the workers; a
    second signal kills them.

    Args:
        command: arguments of `keras-vae`, the first of which is "train". Restarts add
            "--resume".
        workers: int, number of workers.
        restarts: int, maximum number of restarts.
        grace: float, seconds from a signal until a worker is killed.
        silence: float, seconds without a heartbeat until a worker is killed.
        program: the executable and its first arguments, which `command` follows.

    Returns:
        The exit code: 0 if all workers finished; 130 after SIGINT, 75 after SIGTERM;
        otherwise the exit code of the worker that failed first. After codes 2, 75 and 130
        there is no restart, because it would not help.
    """
    received: list[int] = []
    former = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup and shells ignore signals
    }
    try:
        for start in range(restarts + 1):
            resume = ["--resume"] * (start > 0 and "--resume" not in command)
            arguments = [*program, command[0], *resume, *command[1:]]
            failed = _run(arguments, workers, grace, silence, received)
            if failed is None:
                return 0
            if received:
                return INTERRUPTED if received[0] == signal.SIGINT else PREEMPTED
            code, failure = failed.process.returncode, failed.describe()
            if code in (REFUSED, PREEMPTED, INTERRUPTED):
                return code
            if start < restarts:
                count = f"{start + 1} of {restarts}"
                _print(f"{failure}: restarting all workers from the last backup ({count})")
        _print(
            f"{failure}, after {restarts} restarts. Its last lines:",
            *(failed.last_lines or ["none"]),
        )
        return code if code > 0 else 128 - code
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _run(command, workers, grace, silence, received):
    """Runs the workers; returns the one that failed first, or None if all finished."""
    started: list[_Worker] = []
    token, beats = secrets.token_hex(), os.pipe()
    os.set_blocking(beats[0], False)
    try:
        cluster = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
        for index in range(workers):
            heartbeats = f"{beats[1]} {index} {silence / _BEATS}"
            started.append(_Worker(command, cluster, index, token, heartbeats))
        now = time.monotonic()
        while not (failed := _find_failed(started, silence)) and not received:
            if all(worker.process.returncode == 0 for worker in started):
                return None
            time.sleep(0.1)
            before, now = now, time.monotonic()
            # If the launcher itself was stopped, this time does not count.
            _read_heartbeats(beats[0], started, min(now - before, 1))
        _end(started, received[0] if received else signal.SIGTERM, grace, received)
        failed += _find_failed(started, silence)
        return failed[0] if failed else None
    finally:
        _end(started, signal.SIGKILL, 0, received)
        for end in beats:
            os.close(end)


def _read_heartbeats(beats, workers, seconds):
    """Reads the heartbeats; adds the seconds to the silence of workers that sent none."""
    for worker in workers:
        worker.silent += seconds
    with contextlib.suppress(BlockingIOError):
        for index in array.array("H", os.read(beats, 2**16)):
            workers[index].silent = 0.0


def _find_failed(workers, silence):
    """Returns the workers that failed, the cause first; kills those that are silent."""
    codes = [(worker, worker.process.poll()) for worker in workers]
    gone = [worker for worker, code in codes if code == GONE]
    # Workers that ended because they lost another one are not the cause. TensorFlow
    # notices a frozen one after 10 s.
    limit = 5 * silence / _BEATS if gone else silence
    failed = [worker for worker, code in codes if code not in (None, 0, GONE)]
    frozen = [worker for worker, code in codes if code is None and worker.silent > limit]
    for worker in frozen:
        worker.frozen = True
        worker.kill()
    return failed + frozen + gone


def _end(workers, number, grace, received):
    """Sends a signal to all workers; kills them after `grace`, or after another signal."""
    count, deadline = len(received), time.monotonic() + grace
    for worker in workers:
        worker.process.send_signal(number)
    while time.monotonic() < deadline and len(received) == count:
        codes = [worker.process.poll() for worker in workers]
        if None not in codes:
            break
        if codes[0] is not None:
            # Only the chief writes. Workers that wait for it inside TensorFlow do not
            # handle signals.
            deadline = min(deadline, time.monotonic() + 1)
        time.sleep(0.05)
    for worker in workers:
        worker.kill()
        worker.reader.join(1)


def _free_ports(count):
    """Finds `count` different free ports: all are opened before the first is closed.

    They must be free on all interfaces, because TensorFlow's server uses all of them.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("", 0))
        return [free.getsockname()[1] for free in sockets]


class _Worker:
    """A process, and the thread that forwards its output.

    `silent` is the number of seconds since its last heartbeat, below 0 before the first.
    """

    def __init__(self, command, cluster, index, token, heartbeats):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": cluster}, "task": task}
        variables = {
            "TF_CONFIG": json.dumps(config),
            _LAUNCHER: f"{os.getpid()} {heartbeats}",
            messages.TOKEN: token,
        }
        self.index, self.prefix = index, f"[worker {index}] " if index else ""
        self.silent, self.frozen = -math.inf, False
        self.last_lines: collections.deque = collections.deque(maxlen=10)
        self.process = subprocess.Popen(
            command,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE
            if index
            else None,  # the chief's progress bar needs the terminal
            stderr=subprocess.STDOUT if index else subprocess.PIPE,
            process_group=0,  # Ctrl-C reaches only the launcher, which forwards it
            pass_fds=[int(heartbeats.split()[0])],
        )
        pipe = self.process.stdout or self.process.stderr
        self.reader = threading.Thread(target=self._read, args=[pipe], daemon=True)
        self.reader.start()

    def kill(self):
        """Kills the process and its child processes, also if they are stopped."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def describe(self):
        """Describes how the process failed."""
        if self.frozen:
            return f"worker {self.index} did not respond for {self.silent:.0f} s"
        code = self.process.returncode
        status = f"code {code}" if code > 0 else signal.Signals(-code).name
        return f"worker {self.index} ended with {status}"

    def _read(self, pipe):
        with pipe:
            for line in pipe:
                self.last_lines.append(line.decode(errors="replace").rstrip())
                _print(self.prefix + self.last_lines[-1])


def _print(*lines):
    """Writes lines to stderr; shows the control characters in them."""
    # If stderr is closed, the workers must continue.
    with contextlib.suppress(OSError):
        sys.stderr.write("".join(f"{visible(line, keep=chr(9))}\n" for line in lines))
        sys.stderr.flush()


def end_with_launcher() -> None:
    """Kills this process when its launcher ends for any reason; sends it heartbeats.

    Does nothing in a process that `launch` did not start.
    """
    text = os.environ.pop(_LAUNCHER, None)  # not for child processes
    if text is None:
        return
    *numbers, seconds = text.split()
    launcher, beat, index = map(int, numbers)
    os.set_inheritable(beat, False)

    def watch():
        while os.getppid() == launcher:
            with contextlib.suppress(OSError):
                os.write(beat, array.array("H", [index]))
            time.sleep(float(seconds))
        os.kill(os.getpid(), signal.SIGKILL)

    # On Linux the kernel does this (PR_SET_PDEATHSIG), even while Python's GIL is held.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    threading.Thread(target=watch, daemon=True).start()
