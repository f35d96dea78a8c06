"""The chief's connections during the rendezvous."""

import contextlib
import json
import selectors
import socket
import time
import warnings
from typing import Any

from keras_vae.cluster import messages

_STRANGERS = 64  # maximum number of connections that have not sent a hello


class Connections:
    """The chief's connections: those of workers, which sent a hello, and of strangers.

    Each new stranger replaces the oldest one if there are many. A worker sends its hello at
    once, and connects again if its connection is closed.

    Args:
        server: listening socket, which does not block.
        token: bytes, with which the workers sign their messages.

    Attributes:
        hellos: dict of the hello of each connected worker: `worker`, its index; `facts`;
            `ends`, the time of its timeout; `line`, as it was received.
        dropped: int, number of messages that were not signed with the token.
    """

    def __init__(self, server: socket.socket, token: bytes):
        self.server, self.token = server, token
        self.selector = selectors.DefaultSelector()
        self.selector.register(server, selectors.EVENT_READ)
        self.hellos: dict[socket.socket, Any] = {}
        self.strangers: dict[socket.socket, bytearray] = {}  # what each sent, oldest first
        self.dropped = 0

    def receive(self, seconds: float) -> None:
        """Waits for connections and messages."""
        for key, _ in self.selector.select(seconds):
            connection: Any = key.fileobj
            if connection is self.server:
                self._accept()
            elif connection.fileno() >= 0:  # not closed since `select`
                self._read(connection, key.data)

    def _accept(self):
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, address = self.server.accept()
            connection.setblocking(False)
            self.selector.register(connection, selectors.EVENT_READ, address[0])
            self.strangers[connection] = bytearray()
        if len(self.strangers) > _STRANGERS:
            self._close(next(iter(self.strangers)))

    def _read(self, connection, address):
        """Reads a part of a hello; closes a connection that ends or sends anything else."""
        part = b""
        with contextlib.suppress(OSError):
            part = connection.recv(2**16)
        line = self.strangers.get(connection)
        if not part or line is None:
            self._close(connection)
            return
        line += part
        if b"\n" in part:
            self.hellos[connection] = _parse_hello(bytes(line), self.token)
            del self.strangers[connection]
        if len(line) > messages.LINE or not self.hellos.get(connection, True):
            self._drop(connection, address)

    def _drop(self, connection, address):
        if not self.dropped:
            warnings.warn(
                "Messages that are not signed with the token of this training are "
                f"dropped. Received: one from {address}",
                stacklevel=2,
            )
        self.dropped += 1
        self._close(connection)

    def _close(self, connection):
        self.selector.unregister(connection)
        self.hellos.pop(connection, None)
        self.strangers.pop(connection, None)
        connection.close()

    def send(self, answer: dict[str, Any]) -> None:
        """Sends the answer to all workers."""
        for connection, hello in self.hellos.items():
            connection.settimeout(1)
            with contextlib.suppress(OSError):
                connection.sendall(messages.seal(answer, self.token, hello["line"]))

    def close(self) -> None:
        """Closes the port and all connections."""
        self.selector.close()
        for connection in (self.server, *self.hellos, *self.strangers):
            connection.close()


def _parse_hello(line, token):
    """Parses a worker's hello; returns None for other messages."""
    # Everything that json, dict and float raise on malformed input.
    with contextlib.suppress(
        ValueError, LookupError, TypeError, ArithmeticError, RuntimeError
    ):
        hello = json.loads(messages.unseal(line, token))
        worker, facts, left = hello["worker"], dict(hello["facts"]), float(hello["left"])
        are_texts = all(isinstance(value, str) for value in facts.values())
        if type(worker) is int and 0 <= worker < 1e6 and are_texts and abs(left) < 1e9:
            ends = time.monotonic() + left
            return {"worker": worker, "facts": facts, "ends": ends, "line": line}
    return None
