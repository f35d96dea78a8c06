"""Several workers on this host: started, watched, and restarted when one dies.

Only the standard library is used: nothing of TensorFlow is imported.
"""

import collections
import contextlib
import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

REFUSED, GONE, PREEMPTED, INTERRUPTED = 2, 69, 75, 130  # exit codes of a worker
GRACE = 10.0  # seconds to end after a signal
_LAUNCHER = "KERAS_VAE_LAUNCHER"  # environment variable: process id of the launcher
_ROOT = str(pathlib.Path(__file__).parent.parent.parent)
# As the script does: the package is then imported only when it is needed.
_PROGRAM = (
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {_ROOT!r}); sys.argv[0] = 'keras-vae'; "
    "from keras_vae import cli; cli.main()",
)


def launch(command, workers, restarts=3, grace=GRACE, program=_PROGRAM):
    """Runs local workers to their end, and starts all again when one of them dies.

    Each gets a TF_CONFIG that names all of them, on free ports of this host. The output of
    the chief passes through; what the others write follows their name, on stderr. SIGINT
    and SIGTERM are passed on, and a second one kills.

    Args:
        command: list of str, the arguments of `keras-vae`, beginning with "train"; from
            the second start on with "--resume" behind it.
        workers: int.
        restarts: int, how often all are started again, at most.
        grace: float, seconds from the signal to end until a worker is killed.
        program: what takes the arguments, a list of str.

    Returns:
        The exit code: 0 if all finished; 130 after SIGINT, 75 after SIGTERM; else that of
        the worker that failed first: at once where a new start would not help (2, 69, 75,
        130), else once the restarts are used up.
    """
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN  # as nohup and shells set it
    }
    try:
        for start in range(restarts + 1):
            again = ["--resume"] * (start > 0 and "--resume" not in command)
            failed = _run(
                [*program, command[0], *again, *command[1:]], workers, grace, received
            )
            if failed is None:
                return 0
            if received:
                return INTERRUPTED if received[0] == signal.SIGINT else PREEMPTED
            code = failed.process.returncode
            if code in (REFUSED, GONE, PREEMPTED, INTERRUPTED):
                return code
            how = f"code {code}" if code > 0 else signal.Signals(-code).name
            said = f"worker {failed.index} ended with {how}"
            if start < restarts:
                turn = f"{start + 1} of {restarts}"
                _say(f"{said}: starting all again from the last backup ({turn})")
        _say(
            f"{said}, after {restarts} restarts. Its last lines:",
            *(failed.tail or ["none"]),
        )
        return code if code > 0 else 128 - code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(command, workers, grace, received):
    """Runs the workers; returns the one that failed first, or None if all finished."""
    team: list[_Worker] = []
    try:
        cluster = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
        for index in range(workers):
            team.append(_Worker(command, cluster, index))
        while True:
            codes = [worker.process.poll() for worker in team]
            failed = [worker for worker, code in zip(team, codes, strict=True) if code]
            if failed or received or not any(code is None for code in codes):
                break
            time.sleep(0.1)
        # Those who miss another one are not the cause.
        failed.sort(key=lambda worker: worker.process.returncode == GONE)
        _end(team, received[0] if received else signal.SIGTERM, grace, received)
        failed += [worker for worker in team if worker.process.returncode]
        return failed[0] if failed else None
    finally:
        _end(team, signal.SIGKILL, 0, received)


def _end(team, number, grace, received):
    """Ends who still runs by the signal, and after the grace, or another signal, kills."""
    heard, deadline = len(received), time.monotonic() + grace
    for worker in team:
        worker.process.send_signal(number)
    while time.monotonic() < deadline and len(received) == heard:
        codes = [worker.process.poll() for worker in team]
        if None not in codes:
            break
        if codes[0] is not None:
            # It alone writes. Those that wait for it inside TensorFlow hear no signal.
            deadline = min(deadline, time.monotonic() + 1)
        time.sleep(0.05)
    for worker in team:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)  # and what it has started
        worker.process.wait()
        worker.reader.join(1)


def _free_ports(count):
    """So many free ports: all are held before any is given back."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


class _Worker:
    """A process, and the thread that passes on what it writes."""

    def __init__(self, command, cluster, index):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": cluster}, "task": task}
        self.index, self.prefix = index, f"[worker {index}] " if index else ""
        self.tail: collections.deque = collections.deque(maxlen=10)  # its last lines
        self.process = subprocess.Popen(
            command,
            env=os.environ | {"TF_CONFIG": json.dumps(config), _LAUNCHER: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if index else None,  # the chief's bar needs the terminal
            stderr=subprocess.STDOUT if index else subprocess.PIPE,
            process_group=0,  # Ctrl-C comes to the launcher alone, which passes it on
        )
        piped = self.process.stdout or self.process.stderr
        self.reader = threading.Thread(target=self._read, args=[piped], daemon=True)
        self.reader.start()

    def _read(self, piped):
        with piped:
            for line in piped:
                self.tail.append(line.decode(errors="replace").rstrip())
                _say(self.prefix + self.tail[-1])


def _say(*lines):
    # Whoever read it may have gone; the workers must go on writing.
    with contextlib.suppress(OSError):
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.stderr.flush()


def end_with_launcher():
    """Makes this process end with the one that launched it, however that ends.

    Does nothing in a process that was not started by `launch`.
    """
    launcher = os.environ.pop(_LAUNCHER, None)  # children are not the launcher's
    if launcher is None:
        return

    def watch():
        while os.getppid() == int(launcher):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    # The kernel's own way (PR_SET_PDEATHSIG, Linux), which no lock of Python's holds up.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    threading.Thread(target=watch, daemon=True).start()
