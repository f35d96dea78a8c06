"""The rendezvous of the workers before they train together.

TensorFlow's workers wait for each other without a timeout, and do not compare their
options. So they first connect here, before TensorFlow opens the same ports. This rendezvous
has a timeout, and compares facts that must be equal on all workers. Messages of others are
dropped, see `keras_vae.cluster.messages`. It uses only the standard library.
"""

import collections
import contextlib
import ipaddress
import json
import socket
import time

from keras_vae.cluster import messages
from keras_vae.cluster.connections import Connections

TIMEOUT = 300.0  # seconds that a worker waits for the others


def tf_config(text: str | None) -> tuple[list[str], int]:
    """Reads the workers in TensorFlow's environment variable TF_CONFIG.

    Args:
        text: the value of TF_CONFIG, JSON; empty or None if it is not set.

    Returns:
        (cluster, index): list of "host:port", the chief first, and this worker's index
        in it; ([], 0) without a cluster.

    Raises:
        ValueError: for an invalid value, and for other kinds of tasks.
    """
    try:
        config = json.loads(text or "{}")
        jobs, task = dict(config.get("cluster", {})), config.get("task", {})
        if not jobs:
            return [], 0
        tasks = {"chief": jobs.pop("chief", []), "worker": jobs.pop("worker", [])}
        cluster, kind = [*tasks["chief"], *tasks["worker"]], task["type"]
        number = int(task["index"])
        index = number + len(tasks["chief"]) * (kind == "worker")
        in_range = 0 <= number < len(tasks[kind])
        valid = not jobs and in_range and len(set(cluster)) == len(cluster)
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
    """Splits `"host:port"` into (host, port)."""
    host, port = address.rsplit(":", 1)
    if not host or not 0 < int(port) < 2**16:
        raise ValueError(address)
    return host.strip("[]"), int(port)


def rendezvous(
    cluster: list[str],
    index: int,
    facts: dict[str, str],
    timeout: float = TIMEOUT,
    token: bytes = b"",
) -> None:
    """Waits for all workers, and compares the facts of their training.

    The chief listens on its own port, and closes it before this function returns. A worker
    may disconnect and connect again. When the timeout of one worker expires, the rendezvous
    ends for all. The chief warns of the first message with another token.

    Args:
        cluster: list of "host:port" of all workers, the chief first, the same for all.
        index: int, this worker's index in it.
        facts: dict of str by name, which must be equal on all workers.
        timeout: float, seconds.
        token: bytes, the same for all, which signs the messages.

    Raises:
        ValueError: on every worker, if the facts differ, naming the worker and the facts;
            or if two processes connect as the same worker.
        TimeoutError: if a worker did not connect, naming it; or, on the chief, if its port
            was never free.
    """
    if len(cluster) < 2:
        return
    deadline = time.monotonic() + timeout
    facts = {"cluster": ", ".join(cluster), **facts}
    if index == 0:
        answer = _serve(cluster, facts, deadline, token)
    else:
        answer = _join(cluster, index, facts, deadline, token)
    if "late" in answer:
        raise TimeoutError(
            f"{answer['late']} within {timeout:g} seconds{answer.get('note', '')}"
        )
    if "refused" in answer:
        raise ValueError(answer["refused"])


def _join(cluster, index, facts, deadline, token):
    """Returns the chief's answer; retries until the chief answers."""
    reason: object = "no answer"
    note = ""
    while time.monotonic() < deadline:
        try:
            # At the deadline, the chief answers with the missing workers.
            if answer := _ask(cluster, index, facts, deadline, deadline + 1, token):
                return answer
            note = "; answers with another token were dropped"
        except OSError as error:
            reason = error
            if isinstance(error, ConnectionResetError):
                note = "; it closed a connection, as it does after a wrong token"
        time.sleep(0.2)
    late = f"{_describe(cluster, [0])} did not answer ({reason})"
    return {"late": late, "note": note}


def _serve(cluster, facts, deadline, token):
    """Waits for all workers on the chief; returns the answer that it sent to them."""
    while True:
        try:
            server = _listen(cluster[0])
            break
        except OSError as error:
            if time.monotonic() > deadline:
                return {"late": f"{_describe(cluster, [0])} did not get its port ({error})"}
        # The port is used by an earlier job that is ending, or by a second chief, which
        # answers with an error.
        with contextlib.suppress(OSError):
            if answer := _ask(cluster, 0, facts, deadline, time.monotonic() + 1, token):
                return answer
        time.sleep(0.2)
    with contextlib.closing(Connections(server, token)) as connections:
        hellos = connections.hellos
        while not (answer := _decide(cluster, facts, deadline, hellos)):
            ends = [deadline, *(hello["ends"] for hello in hellos.values())]
            connections.receive(max(0, min(ends) - time.monotonic()))
        if connections.dropped:
            answer["note"] = f"; messages with another token dropped: {connections.dropped}"
        connections.send(answer)
    return answer


def _decide(cluster, facts, deadline, hellos):
    """Returns the chief's answer to all workers, or None while it waits."""
    present = collections.Counter(hello["worker"] for hello in hellos.values())
    duplicates = [i for i, count in present.items() if count > 1 or i == 0]
    if duplicates:
        return {
            "refused": "each worker must have its own index in `TF_CONFIG`. "
            f"Received: two processes that are {_describe(cluster, duplicates[:1])}"
        }
    missing = sorted({*range(1, len(cluster))} - present.keys())
    now = time.monotonic()
    late = now > deadline or any(now > hello["ends"] for hello in hellos.values())
    if missing and not late:
        return None
    differences = [
        _difference(cluster, facts, hello)
        for hello in hellos.values()
        if hello["facts"] != facts
    ]
    if differences:
        listed = "; ".join(sorted(differences))
        return {"refused": f"all workers must agree. Received: {listed}"}
    if missing:
        return {"late": f"{_describe(cluster, missing)} did not connect"}
    return {"go": True}


def _difference(cluster, facts, hello):
    """Describes the facts in which a worker differs from the chief."""
    other = hello["facts"]
    names = [n for n in {**facts, **other} if facts.get(n) != other.get(n)]
    texts = [
        ", ".join(f"`{name}` {values.get(name, 'missing')[:200]}" for name in names)
        for values in (other, facts)
    ]
    worker = _describe(cluster, [hello["worker"]])
    return f"{worker} has {texts[0]}; the chief has {texts[1]}"


def _ask(cluster, index, facts, deadline, answer_deadline, token):
    """Sends a hello to the chief; returns its answer, or None for any other answer."""
    left = deadline - time.monotonic()
    hello = messages.seal({"worker": index, "facts": facts, "left": left}, token)
    with socket.create_connection(_split(cluster[0]), max(0.01, min(left, 5))) as chief:
        chief.sendall(hello)
        line = b""
        while not line.endswith(b"\n") and len(line) < messages.LINE:
            chief.settimeout(max(0.01, answer_deadline - time.monotonic()))
            if not (part := chief.recv(2**16)):
                raise ConnectionResetError("the connection was closed")
            line += part
    with contextlib.suppress(ValueError, RecursionError):
        answer = json.loads(messages.unseal(line, token, hello))
        if isinstance(answer, dict) and answer.keys() & {"go", "late", "refused"}:
            return answer
    return None


def _listen(address):
    """Opens a listening socket on the port, on all network interfaces.

    A host's name may resolve to a proxy, so the port is not bound to one address;
    TensorFlow's server does the same. A local address stays local.
    """
    host, port = _split(address)
    host = "127.0.0.1" if host == "localhost" else host
    local = _is_loopback(host)
    both = not local and socket.has_dualstack_ipv6()
    server = socket.create_server(
        (host if local else "", port),
        family=socket.AF_INET6 if both or (local and ":" in host) else socket.AF_INET,
        dualstack_ipv6=both,
    )
    server.setblocking(False)
    return server


def _is_loopback(host):
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _describe(cluster, workers):
    """Lists workers by index and address: `"worker 1 (host:port)"`."""
    return ", ".join(
        f"worker {i} ({cluster[i] if i < len(cluster) else 'unknown'})" for i in workers
    )


def wait_until_closed(address: str) -> None:
    """Waits until no process listens at "host:port" any more."""
    with contextlib.suppress(OSError):
        while True:
            with socket.create_connection(_split(address), 5) as other:
                other.settimeout(30)
                with contextlib.suppress(TimeoutError):
                    while other.recv(2**16):  # until it closes the connection
                        pass
            time.sleep(0.1)
