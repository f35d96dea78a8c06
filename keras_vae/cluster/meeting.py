"""The meeting of the workers before they train together.

TensorFlow's workers wait for each other without a limit, whatever each was started with.
So they meet here first, before TensorFlow opens the same ports: with a timeout, and with
facts that must be equal on all workers. Only the standard library is used.
"""

import collections
import contextlib
import json
import selectors
import socket
import time

TIMEOUT = 300.0  # seconds that a worker waits for the others
_LINE = 2**20  # bytes, at most, that are read of what comes to the port


def tf_config(text: str | None) -> tuple[list[str], int]:
    """Reads the workers that TensorFlow's environment variable TF_CONFIG names.

    Args:
        text: its value, JSON; empty or None where it is not set.

    Returns:
        (cluster, index): list of "host:port", the chief first, and this worker's index
        in it; ([], 0) if no cluster is named.

    Raises:
        ValueError: for JSON that TensorFlow does not read, and for other kinds of tasks.
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
        valid = not jobs and 0 <= place < len(part) and len(set(cluster)) == len(cluster)
        for address in cluster:
            _split(address)
    except (ValueError, TypeError, AttributeError, KeyError):
        valid = False
    if not valid:
        raise ValueError(
            "`TF_CONFIG` must name the workers and the index of this one, such as "
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


def rendezvous(
    cluster: list[str], index: int, facts: dict[str, str], timeout: float = TIMEOUT
) -> None:
    """Waits until all workers are there, and compares the facts of their training.

    The chief listens on its own port, which is free again when this returns. A worker may
    leave and return while the meeting lasts. The meeting ends, for all, when the timeout of
    the first worker is over.

    Args:
        cluster: list of "host:port" of all workers, the chief first, the same for all.
        index: int, this worker's index in it.
        facts: dict of str by name, which must be equal on all workers.
        timeout: float, seconds.

    Raises:
        ValueError: on every worker, if the facts differ, naming the worker and the facts;
            or if two processes came as the same worker.
        TimeoutError: if a worker did not come, naming it; or, on the chief, if its port
            was never free.
    """
    if len(cluster) < 2:
        return
    deadline = time.monotonic() + timeout
    facts = {"cluster": ", ".join(cluster), **facts}
    if index == 0:
        answer = _serve(cluster, facts, deadline)
    else:
        answer = _join(cluster, index, facts, deadline)
    if "late" in answer:
        raise TimeoutError(f"{answer['late']} within {timeout:g} seconds")
    if "refused" in answer:
        raise ValueError(answer["refused"])


def _join(cluster, index, facts, deadline):
    """Returns the chief's answer; tries again while the chief is not there, or leaves."""
    reason: object = "no answer"
    while time.monotonic() < deadline:
        try:
            # At the end of the time, the chief answers with the missing workers.
            if answer := _ask(cluster, index, facts, deadline, deadline + 1):
                return answer
        except OSError as error:
            reason = error
        time.sleep(0.2)
    return {"late": f"{_describe(cluster, [0])} did not answer ({reason})"}


def _serve(cluster, facts, deadline):
    """Collects all workers on the chief; returns the answer that it sent to them."""
    while True:
        try:
            server = _listen(cluster[0])
            break
        except OSError as error:
            if time.monotonic() > deadline:
                return {"late": f"{_describe(cluster, [0])} did not get its port ({error})"}
        # The port belongs to an earlier job that is ending, or to a second chief, which the
        # answer says.
        with contextlib.suppress(OSError):
            if answer := _ask(cluster, 0, facts, deadline, time.monotonic() + 1):
                return answer
        time.sleep(0.2)
    with contextlib.ExitStack() as stack:
        stack.enter_context(server)
        selector = stack.enter_context(selectors.DefaultSelector())
        selector.register(server, selectors.EVENT_READ)
        visits: dict[socket.socket, dict] = {}  # the hello of each worker that is here
        while not (answer := _verdict(cluster, facts, deadline, visits)):
            ends = [deadline, *(visit["ends"] for visit in visits.values())]
            for key, _ in selector.select(max(0, min(ends) - time.monotonic())):
                if key.data is None:
                    visitor, _ = server.accept()
                    stack.enter_context(visitor).setblocking(False)
                    selector.register(visitor, selectors.EVENT_READ, (visitor, bytearray()))
                elif not _receive(key.data[0], key.data[1], visits):
                    selector.unregister(key.fileobj)
        for visitor in visits:
            visitor.settimeout(1)
            with contextlib.suppress(OSError):
                visitor.sendall(json.dumps(answer).encode() + b"\n")
    return answer


def _receive(visitor, said, visits):
    """Reads from a visitor; closes it and returns false if it leaves or sends no hello."""
    part = b""
    with contextlib.suppress(OSError):
        part = visitor.recv(2**16)
    said += part
    if part and visitor not in visits and b"\n" in said:
        visits[visitor] = _parse_hello(said)
    if part and len(said) <= _LINE and visits.get(visitor, True):
        return True
    visits.pop(visitor, None)
    visitor.close()
    return False


def _parse_hello(line):
    """Parses a worker's hello; None for anything malformed."""
    # Everything that json, dict and float raise on malformed input.
    with contextlib.suppress(
        ValueError, LookupError, TypeError, ArithmeticError, RuntimeError
    ):
        said = json.loads(line)
        worker, facts, left = said["worker"], dict(said["facts"]), float(said["left"])
        texts = all(isinstance(value, str) for value in facts.values())
        if type(worker) is int and 0 <= worker < 1e6 and texts and abs(left) < 1e9:
            return {"worker": worker, "facts": facts, "ends": time.monotonic() + left}
    return None


def _verdict(cluster, facts, deadline, visits):
    """The chief's answer to all workers, or None while it waits."""
    came = collections.Counter(visit["worker"] for visit in visits.values())
    twice = [worker for worker, times in came.items() if times > 1 or worker == 0]
    if twice:
        return {
            "refused": "each worker must have its own index in `TF_CONFIG`. "
            f"Received: two processes that are {_describe(cluster, twice[:1])}"
        }
    missing = sorted({*range(1, len(cluster))} - came.keys())
    now = time.monotonic()
    late = now > deadline or any(now > visit["ends"] for visit in visits.values())
    if missing and not late:
        return None
    unlike = [
        _difference(cluster, facts, visit)
        for visit in visits.values()
        if visit["facts"] != facts
    ]
    if unlike:
        return {"refused": f"all workers must agree. Received: {'; '.join(sorted(unlike))}"}
    return (
        {"late": f"{_describe(cluster, missing)} did not come"} if missing else {"go": True}
    )


def _difference(cluster, facts, visit):
    """Describes the facts in which a worker differs from the chief."""
    theirs = visit["facts"]
    names = [n for n in {**facts, **theirs} if facts.get(n) != theirs.get(n)]
    values = [
        ", ".join(f"`{name}` {some.get(name, 'missing')[:200]}" for name in names)
        for some in (theirs, facts)
    ]
    worker = _describe(cluster, [visit["worker"]])
    return f"{worker} has {values[0]}; the chief has {values[1]}"


def _ask(cluster, index, facts, deadline, patience):
    """Sends a hello to the chief; returns its answer, or None for any other answer."""
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
    """Opens a listening socket on the port, on all network interfaces.

    A host's name may resolve to a proxy, so the port is not bound to one address;
    TensorFlow's server does the same. A local address stays local.
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


def _describe(cluster, workers):
    """Names workers by index and address: `"worker 1 (host:port)"`."""
    return ", ".join(
        f"worker {i} ({cluster[i] if i < len(cluster) else 'unknown'})" for i in workers
    )


def wait_until_closed(address: str) -> None:
    """Waits until nothing listens at "host:port" any more."""
    with contextlib.suppress(OSError):
        while True:
            with socket.create_connection(_split(address), 5) as other:
                other.settimeout(30)
                with contextlib.suppress(TimeoutError):
                    while other.recv(2**16):  # until it closes the connection
                        pass
            time.sleep(0.1)
