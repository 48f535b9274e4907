"""What decides: the policy in a thread here, or on another machine."""

from __future__ import annotations

import contextlib
import socket
import sys
import time

from common import artefact

import numpy as np

import eval as evaluation
from live import messages


class Local:
    """A policy on this machine.  about: rate, shift, horizon and actions of its model.Config."""

    def __init__(self, path: str, device: str, steps: int, seed: int):
        import torch

        self.net, self.steps, self.rng = (
            evaluation.network(path, device),
            steps or None,
            torch.Generator().manual_seed(seed),
        )
        self.about = {
            name: getattr(self.net.c, name) for name in ("rate", "shift", "horizon", "actions")
        }

    def think(self, frame):
        """uint8 [256, 256, 3] -> float32 [K, 20]: probabilities of BUTTONS, then STICKS in [-1, 1],
        y down.
        """
        import torch

        c = self.net.c
        raw = (
            self.net.sample(
                frame[None],
                torch.randn(1, c.horizon, len(c.actions), generator=self.rng),
                self.steps,
            )[0]
            .cpu()
            .numpy()
        )
        values, absent = dict(zip(c.actions, raw.T)), np.zeros(c.horizon, np.float32)
        return np.stack(
            [
                *(values.get(n, absent) for n in artefact.BUTTONS),
                *(2 * values.get(n, absent + 0.5) - 1 for n in artefact.STICKS),
            ],
            1,
        )

    def close(self):
        pass


class Remote:
    """As Local, but at `python eval.py serve` on another machine."""

    def __init__(self, address: str, token: str, timeout: float):
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise SystemExit(f"--remote {address}: expected HOST:PORT")
        self.address, self.at, self.timeout, self.token, self.peer, self.unanswered = (
            address,
            (host, int(port)),
            timeout,
            token,
            None,
            0,
        )
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
                f"--remote {self.address}: the server speaks {ascii(said.get('protocol'))[:40]}, this client {messages.PROTOCOL!r}: {messages.SAME}"
            )
        messages.send(
            self.peer,
            protocol=messages.PROTOCOL,
            proof=messages.proof(self.token, said.get("nonce")),
        )
        self.peer.settimeout(self.timeout)
        self.about = self._answer()[1]
        if not {"rate", "shift", "horizon", "actions"} <= set(self.about):
            raise ConnectionError("it does not say what its policy does")

    def _answer(self):
        tensors, about = messages.receive(self.peer)
        if "error" in about:
            raise SystemExit(f"--remote {self.address}: {about['error']}")
        return tensors, about

    def think(self, frame):
        messages.send(self.peer, {"frame": frame})
        actions = self._answer()[0].get("actions")
        if (
            actions is None
            or actions.dtype != np.float32
            or actions.ndim != 2
            or actions.shape[1] != 20
            or not np.isfinite(actions).all()
        ):
            raise ConnectionError("its answer is no chunk of actions")
        self.unanswered = 0
        return actions

    def reconnect(self, why, patience: float):
        self.unanswered += 1
        # it is there, but each time it says nothing for as long as we wait
        if self.unanswered == 4:
            raise SystemExit(
                f"--remote {self.address}: connected again three times, and no chunk came ({why}); is the policy there too slow? "
                "Fewer --steps or a faster --device there, or no --realtime here"
            )
        print(
            f"lost the connection to {self.address} ({why}): the pad is released and the game stands still; trying for {patience:g} s",
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
                        f"--remote {self.address}: {e}; gave up after {patience:g} s, and ended the game"
                    ) from None
                time.sleep(0.5)

    def close(self):
        if self.peer:
            with contextlib.suppress(OSError):
                self.peer.shutdown(socket.SHUT_RDWR)  # also for the thread that waits for an answer
            self.peer.close()
