"""What decides: the policy on this machine, or on another one."""

from __future__ import annotations

import contextlib
import socket
import sys
import time

from common import playing
from common.plan import think

import numpy as np

import eval as evaluation
from live import messages

ABOUT = ("rate", "shift", "horizon", "actions")  # what a brain says of its model
MORE = ("prefix", "frames", "frame_stride")  # what an older one does not say


class Local:
    """A policy on this machine.  about: ABOUT of its model.Config."""

    def __init__(self, path: str, device: str, steps: int, seed: int):
        self.net = evaluation.network(path, device, steps)
        self.steps = steps or None
        self.rng = playing.generator(self.net, seed)
        self.about = {name: getattr(self.net.c, name) for name in (*ABOUT, *MORE)}

    def think(self, frame, under_way=()):
        """uint8 [256, 256, 3], or what History makes of it -> float32 [K, 20]: probabilities of
        BUTTONS, then STICKS in [-1, 1], y down. under_way: float32 [d, 20], rows that will have
        been played when the chunk is there.
        """
        return think(self.net, frame, self.rng, self.steps, under_way)

    def close(self):
        pass


class Remote:
    """As Local, but at `python eval.py serve` on another machine."""

    def __init__(self, address: str, token: str, timeout: float):
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise SystemExit(f"--remote {address}: expected HOST:PORT")
        self.address = address
        self.at = host, int(port)
        self.token = token
        self.timeout = timeout  # s to wait for an answer
        self.peer = None
        self.unanswered = 0  # frames in a row without a chunk
        try:
            self.connect()
        except OSError as e:
            raise SystemExit(
                f"--remote {address}: {e}; is `python eval.py serve` running there?"
            ) from None

    def connect(self):
        self.close()
        self.peer = socket.create_connection(self.at, 5)
        self.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        said = self._answer()[1]
        if said.get("protocol") != messages.PROTOCOL:
            raise SystemExit(
                f"--remote {self.address}: the server speaks {ascii(said.get('protocol'))[:40]}, "
                f"this client {messages.PROTOCOL!r}: {messages.SAME}"
            )
        proof = messages.proof(self.token, said.get("nonce"))
        messages.send(self.peer, protocol=messages.PROTOCOL, proof=proof)
        self.peer.settimeout(self.timeout)
        self.about = self._answer()[1]
        if not set(ABOUT) <= set(self.about):
            raise ConnectionError("it does not say what its policy does")

    def _answer(self):
        tensors, about = messages.receive(self.peer)
        if "error" in about:
            raise SystemExit(f"--remote {self.address}: {about['error']}")
        return tensors, about

    def think(self, frame, under_way=()):
        given = {"under_way": under_way} if len(under_way) else {}
        messages.send(self.peer, {"frame": frame, **given})
        actions = self._answer()[0].get("actions")
        if not is_chunk(actions):
            raise ConnectionError("its answer is no chunk of actions")
        self.unanswered = 0
        return actions

    def reconnect(self, why, patience: float):
        """Connect again, for at most `patience` s; SystemExit if that fails."""
        self.unanswered += 1
        if self.unanswered == 4:  # the server is there, and answers no frame in time
            raise SystemExit(
                f"--remote {self.address}: connected again three times, and no chunk came ({why}); "
                "is the policy there too slow? Fewer --steps or a faster --device there, or no "
                "--realtime here"
            )
        print(
            f"lost the connection to {self.address} ({why}): the pad is released and the game "
            f"stands still; trying for {patience:g} s",
            file=sys.stderr,
        )
        end = time.perf_counter() + patience
        while True:
            try:
                self.connect()
                return print("connected again", file=sys.stderr)
            except OSError as e:
                if time.perf_counter() > end:
                    raise SystemExit(
                        f"--remote {self.address}: {e}; gave up after {patience:g} s, and ended "
                        "the game"
                    ) from None
                time.sleep(0.5)

    def close(self):
        if self.peer:
            with contextlib.suppress(OSError):
                self.peer.shutdown(socket.SHUT_RDWR)  # also for the thread that waits for an answer
            self.peer.close()


def is_chunk(actions) -> bool:
    """Whether it is finite float32 [K, 20]."""
    if actions is None or actions.dtype != np.float32:
        return False
    return actions.ndim == 2 and actions.shape[1] == 20 and bool(np.isfinite(actions).all())
