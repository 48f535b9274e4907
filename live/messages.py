"""The protocol between live/brain.py's Remote and live/server.py.

A message is its length (4 bytes, big-endian) and a safetensors file: arrays, and JSON in its
metadata.  The server begins with its version and a nonce.  The client proves that it has the token
(HMAC-SHA256 of the nonce: the token itself never travels).  Then each frame is answered by a chunk.
Nothing is encrypted: use ssh -L, or a network of your own.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import struct
from pathlib import Path

PROTOCOL = "nitrogen.play/1"  # of both sides; another one is refused
SAME = "use one version of this project on both sides"
MESSAGE = 1 << 22  # bytes of a message, at most: 16 frames
HELLO = 1 << 12  # bytes of one from a client that has proved nothing yet, at most
CLIENTS = 8  # at the same time, at most


def send(peer, tensors=None, **about) -> None:
    from safetensors.numpy import save

    body = save(tensors or {}, {"json": json.dumps(about)})
    peer.sendall(struct.pack(">I", len(body)) + body)


def receive(peer, limit: int = MESSAGE) -> tuple[dict, dict]:
    """(arrays, JSON).  OSError if the peer is gone, silent, or says anything else."""
    from safetensors.numpy import load

    (size,) = struct.unpack(">I", exactly(peer, 4))
    if size > limit:
        raise ConnectionError(f"a message of {size:,} bytes, at most {limit:,} are taken")
    body = exactly(peer, size)
    try:
        header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
        return load(body), dict(json.loads(header["__metadata__"]["json"]))
    except Exception:  # whatever strangers send
        raise ConnectionError("a message that is no safetensors file with JSON metadata") from None


def exactly(peer, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = peer.recv(size - len(data))
        if not part:
            raise ConnectionError("the other side has gone")
        data += part
    return bytes(data)


def proof(token: str, nonce) -> str:
    return hmac.new(token.encode(), ascii(nonce).encode(), "sha256").hexdigest()


def secret(path: str) -> str:
    """The token in a file that only its owner can read; a random one is made the first time."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(made, "w") as file:
            file.write(secrets.token_urlsafe(32))
    if os.stat(path).st_mode & 0o077:
        raise SystemExit(f"{path}: others can read this token; remove the file for a new one")
    return Path(path).read_text().strip()
