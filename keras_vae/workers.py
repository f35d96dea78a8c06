"""Several workers of one training: how they meet, and how a host starts and restarts them.

TensorFlow's workers wait for each other for ever, each whatever it was started with. So
they meet here first, before TensorFlow opens the same ports: with a time limit, and with
facts that must be the same for all. Only the standard library is used, and nothing of
TensorFlow is imported.
"""

import collections
import contextlib
import ctypes
import json
import os
import pathlib
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time

REFUSED, GONE, PREEMPTED, INTERRUPTED = 2, 69, 75, 130  # exit codes of a worker
TIMEOUT = 300.0  # seconds that a worker waits for the others
GRACE = 10.0  # seconds to end after a signal

_LAUNCHER = "KERAS_VAE_LAUNCHER"  # environment variable: process id of the launcher
_LINE = 2**20  # bytes, at most, that are read of what comes to the port
_ROOT = str(pathlib.Path(__file__).parent.parent)
# As the script does: the package is then imported only when it is needed.
_PROGRAM = (
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {_ROOT!r}); sys.argv[0] = 'keras-vae'; "
    "from keras_vae import cli; cli.main()",
)


def tf_config(text):
    """The workers that TensorFlow's environment variable TF_CONFIG names.

    Args:
        text: its value, JSON; empty or None where it is not set.

    Returns:
        (cluster, index): list of "host:port", the chief first, and this worker's place
        in it; ([], 0) if no cluster is named.

    Raises:
        ValueError: if it is not what TensorFlow reads, or names other kinds of tasks.
    """
    try:
        config = json.loads(text or "{}")
        jobs, task = dict(config.get("cluster", {})), config.get("task", {})
        if not jobs:
            return [], 0
        chief, rest = jobs.pop("chief", []), jobs.pop("worker", [])
        cluster, place = [*chief, *rest], int(task["index"])
        index = place + len(chief) * (task["type"] == "worker")
        part = {"chief": chief, "worker": rest}[task["type"]]
        fits = not jobs and 0 <= place < len(part) and len(set(cluster)) == len(cluster)
        for address in cluster:
            _split(address)
    except (ValueError, TypeError, AttributeError, KeyError):
        fits = False
    if not fits:
        raise ValueError(
            "`TF_CONFIG` must name the workers and this one's place among them, such as "
            '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", '
            f'"index": 0}}}}. Received: {text}'
        )
    return cluster, index


def _split(address):
    """`"host:port"` -> (host, port)."""
    host, port = address.rsplit(":", 1)
    if not host or not 0 < int(port) < 2**16:
        raise ValueError(address)
    return host.strip("[]"), int(port)


def meet(cluster, index, facts, timeout=TIMEOUT):
    """Waits until all workers are there, and compares what they are about to do.

    The chief listens on its own port, which is free again when this returns. A worker
    may leave and come again as long as the meeting lasts. It ends, for all, when the time
    of the first one is up.

    Args:
        cluster: list of "host:port" of all workers, the chief first, the same for all.
        index: int, this worker's place in it.
        facts: dict of str by name, which must be equal on all workers.
        timeout: float, seconds.

    Raises:
        ValueError: on every worker, if they differ, naming who differs in what; or if two
            processes came as the same worker.
        TimeoutError: if somebody never came, naming who; or, on the chief, if its port was
            never free.
    """
    if len(cluster) < 2:
        return
    deadline = time.monotonic() + timeout
    facts = {"cluster": ", ".join(cluster), **facts}
    if index == 0:
        answer = _host(cluster, facts, deadline)
    else:
        answer = _visit(cluster, index, facts, deadline)
    if "late" in answer:
        raise TimeoutError(f"{answer['late']} within {timeout:g} seconds")
    if "refused" in answer:
        raise ValueError(answer["refused"])


def _visit(cluster, index, facts, deadline):
    """What the chief answers; tries again whenever it is not there, or leaves."""
    why: object = "no answer"
    while time.monotonic() < deadline:
        try:
            # Who is missing, the chief says when the time is up.
            if answer := _ask(cluster, index, facts, deadline, deadline + 1):
                return answer
        except OSError as error:
            why = error
        time.sleep(0.2)
    return {"late": f"{_named(cluster, [0])} did not answer ({why})"}


def _host(cluster, facts, deadline):
    """What the chief finds, and answers to all."""
    while True:
        try:
            server = _listen(cluster[0])
            break
        except OSError as error:
            if time.monotonic() > deadline:
                return {"late": f"{_named(cluster, [0])} did not get its port ({error})"}
        # A former job, which is on its way out; or a second chief, which is then told so.
        with contextlib.suppress(OSError):
            if answer := _ask(cluster, 0, facts, deadline, time.monotonic() + 1):
                return answer
        time.sleep(0.2)
    with contextlib.ExitStack() as stack:
        stack.enter_context(server)
        selector = stack.enter_context(selectors.DefaultSelector())
        selector.register(server, selectors.EVENT_READ)
        visits: dict[socket.socket, dict] = {}  # what each of those who are here said
        while not (answer := _judge(cluster, facts, deadline, visits)):
            ends = [deadline, *(visit["ends"] for visit in visits.values())]
            for key, _ in selector.select(max(0, min(ends) - time.monotonic())):
                if key.data is None:
                    visitor, _ = server.accept()
                    stack.enter_context(visitor).setblocking(False)
                    selector.register(visitor, selectors.EVENT_READ, (visitor, bytearray()))
                elif not _listen_to(key.data[0], key.data[1], visits):
                    selector.unregister(key.fileobj)
        for visitor in visits:
            visitor.settimeout(1)
            with contextlib.suppress(OSError):
                visitor.sendall(json.dumps(answer).encode() + b"\n")
    return answer


def _listen_to(visitor, said, visits):
    """Takes in what a visitor says; false, and hung up, if it leaves or says no hello."""
    part = b""
    with contextlib.suppress(OSError):
        part = visitor.recv(2**16)
    said += part
    if part and visitor not in visits and b"\n" in said:
        visits[visitor] = _hello(said)
    if part and len(said) <= _LINE and visits.get(visitor, True):
        return True
    visits.pop(visitor, None)
    visitor.close()
    return False


def _hello(line):
    """What a worker says of itself, or None for rubbish."""
    # Of what json, dict and float say to rubbish, nothing is forgotten.
    with contextlib.suppress(
        ValueError, LookupError, TypeError, ArithmeticError, RuntimeError
    ):
        said = json.loads(line)
        worker, facts, left = said["worker"], dict(said["facts"]), float(said["left"])
        texts = all(isinstance(value, str) for value in facts.values())
        if type(worker) is int and 0 <= worker < 1e6 and texts and abs(left) < 1e9:
            return {"worker": worker, "facts": facts, "ends": time.monotonic() + left}
    return None


def _judge(cluster, facts, deadline, visits):
    """The answer to all, once there is one."""
    came = collections.Counter(visit["worker"] for visit in visits.values())
    twice = [worker for worker, times in came.items() if times > 1 or worker == 0]
    if twice:
        return {
            "refused": "each worker must have a place of its own in `TF_CONFIG`. "
            f"Received: two processes that are {_named(cluster, twice[:1])}"
        }
    missing = sorted({*range(1, len(cluster))} - came.keys())
    now = time.monotonic()
    late = now > deadline or any(now > visit["ends"] for visit in visits.values())
    if missing and not late:
        return None
    unlike = [
        _unlike(cluster, facts, visit)
        for visit in visits.values()
        if visit["facts"] != facts
    ]
    if unlike:
        return {"refused": f"all workers must agree. Received: {'; '.join(sorted(unlike))}"}
    return {"late": f"{_named(cluster, missing)} did not come"} if missing else {"go": True}


def _unlike(cluster, facts, visit):
    """In what a worker differs from the chief."""
    theirs = visit["facts"]
    names = [n for n in {**facts, **theirs} if facts.get(n) != theirs.get(n)]
    values = [
        ", ".join(f"`{name}` {some.get(name, 'missing')[:200]}" for name in names)
        for some in (theirs, facts)
    ]
    return (
        f"{_named(cluster, [visit['worker']])} has {values[0]}; the chief has {values[1]}"
    )


def _ask(cluster, index, facts, deadline, patience):
    """What the chief answers, or None if something else does."""
    left = deadline - time.monotonic()
    said = {"worker": index, "facts": facts, "left": left}
    with socket.create_connection(_split(cluster[0]), max(0.01, min(left, 5))) as chief:
        chief.sendall(json.dumps(said).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n") and len(line) < _LINE:
            chief.settimeout(max(0.01, patience - time.monotonic()))
            if not (part := chief.recv(2**16)):
                raise ConnectionResetError("the connection was closed")
            line += part
    with contextlib.suppress(ValueError, RecursionError):
        answer = json.loads(line)
        if isinstance(answer, dict) and answer.keys() & {"go", "late", "refused"}:
            return answer
    return None


def _listen(address):
    """A socket on the port, everywhere: a host may have its name from a proxy before it.

    TensorFlow's server does the same. What is local stays so.
    """
    host, port = _split(address)
    local = host == "localhost" or host.startswith("127.")
    both = not local and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    server = socket.create_server(
        ("127.0.0.1" if local else "", port), family=family, dualstack_ipv6=both
    )
    server.setblocking(False)
    return server


def _named(cluster, workers):
    """`"worker 1 (host:port)"`; of another cluster there may be more of them."""
    return ", ".join(
        f"worker {i} ({cluster[i] if i < len(cluster) else 'unknown'})" for i in workers
    )


def outstay(address):
    """Waits until nobody listens at "host:port" any more."""
    with contextlib.suppress(OSError):
        while True:
            with socket.create_connection(_split(address), 5) as other:
                other.settimeout(30)
                with contextlib.suppress(TimeoutError):
                    while other.recv(2**16):  # until it hangs up, perhaps on a stranger
                        pass
            time.sleep(0.1)


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
