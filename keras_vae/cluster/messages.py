"""Messages of the rendezvous, signed with a token that all workers have.

A message is one line: JSON, a space, and its HMAC-SHA256 in hexadecimal digits. The token
is the key and is never sent. Without a token the key is empty: the lines of other programs
are still recognised, but not those of somebody who knows this format.

Messages are not encrypted. Who reads the network can send a copy of a worker's hello, but
cannot change it, and cannot answer as the chief.
"""

import hashlib
import hmac
import json
import os
import pathlib
from typing import Any

TOKEN = "KERAS_VAE_TOKEN"  # environment variable in which the launcher passes the token
LINE = 2**20  # maximum number of bytes that are read from a connection
_SHORTEST, _LONGEST = 16, 4096  # bytes of a token


def read_token(path: pathlib.Path | None = None) -> bytes:
    """Reads the token from a file; without a file, the one that the launcher made.

    White space at the end is removed. As in ssh, a file of this user must not be
    accessible to other users.

    Args:
        path: the file. Default: none.

    Returns:
        The token; empty if there is neither a file nor a launcher.

    Raises:
        ValueError: if the token is too short or too long, or others can access the file.
        OSError: if the file cannot be read.
    """
    token = os.environ.pop(TOKEN, "").encode()  # not for child processes
    if path is None:
        return token
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        token = file.read(_LONGEST + 1).rstrip()
    shared = status.st_uid == os.getuid() and status.st_mode & 0o077
    if shared or not _SHORTEST <= len(token) <= _LONGEST:
        problem = f"{len(token)} bytes"
        if shared:
            problem = f"mode {status.st_mode & 0o777:o}"
        raise ValueError(
            f"`token_file` must be a file of {_SHORTEST} to {_LONGEST:,} bytes that other "
            f"users cannot access. Received: {path} with {problem}"
        )
    return token


def seal(message: dict[str, Any], token: bytes, question: bytes = b"") -> bytes:
    """Returns a message as a signed line.

    Args:
        message: dict, for JSON.
        token: bytes.
        question: the line that the message answers. The answer is valid for it only.

    Returns:
        The line, with its newline.
    """
    text = json.dumps(message).encode()
    return text + b" " + _sign(text, token, question) + b"\n"


def unseal(line: bytes, token: bytes, question: bytes = b"") -> bytes:
    """Returns the JSON of a signed line; empty if the signature is wrong."""
    text, _, signature = line.removesuffix(b"\n").rpartition(b" ")
    signed = hmac.compare_digest(signature, _sign(text, token, question))
    return text if signed else b""


def _sign(text, token, question):
    return hmac.new(token, question + text, hashlib.sha256).hexdigest().encode()
