"""The policy for games on other machines: python eval.py serve"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import socket
import threading
from dataclasses import dataclass

from common import artefact
from common.command_line import Common, shipped

import numpy as np

import eval as evaluation
from live import messages
from live.brain import Local, is_chunk


@dataclass(frozen=True)
class Config(Common):
    policy: str = evaluation.Play.policy  # what train.py or model.py convert made
    steps: int = 0  # denoising steps (0: as the model says)
    host: str = "127.0.0.1"  # address to listen on; 0.0.0.0: any, so that other machines reach it
    port: int = 5599  # 0: any that is free
    token: str = "data/serve.token"  # file of the token; made, with a random one, if it is missing


def main(c: Config) -> None:
    """The policy for games on other machines, until Ctrl-C."""
    policy = shipped(c.policy)
    token = messages.secret(c.token)
    lock = threading.Lock()  # one client thinks at a time
    brain = Local(policy, c.device, c.steps, c.seed)
    brain.about["policy"] = artefact.source(policy)["sha256"]  # so that results say whose they are
    brain.think(np.zeros(frame_shape(brain), np.uint8))  # compiled and warm
    try:
        server = socket.create_server((c.host, c.port))
    except OSError as e:
        raise SystemExit(f"--host {c.host} --port {c.port}: {e.strerror or e}") from None
    with server, contextlib.suppress(KeyboardInterrupt):
        near = c.host == "127.0.0.1"
        warning = "" if near else "; not encrypted: anybody on the way sees the game"
        where = f"{c.host}:{server.getsockname()[1]}"
        print(f"{policy} at {where}; the token is in {c.token}{warning}", flush=True)
        while True:
            peer, (host, port, *_) = server.accept()
            if threading.active_count() > messages.CLIENTS:
                with peer, contextlib.suppress(OSError):
                    refuse(peer, f"{messages.CLIENTS} clients already")
                continue
            client = peer, f"{host}:{port}", brain, token, lock
            threading.Thread(target=attend, args=client, daemon=True).start()


def attend(peer, name: str, brain, token: str, lock) -> None:
    """One client, until it goes."""
    try:
        with peer:
            peer.settimeout(10)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            check_client(peer, token)
            messages.send(peer, **brain.about)
            print(f"{name}: plays", flush=True)
            peer.settimeout(600)
            while True:
                said = messages.receive(peer)[0]
                frame = said.get("frame")
                shape = frame_shape(brain)
                if frame is None or frame.dtype != np.uint8 or frame.shape != shape:
                    refuse(peer, f"expected a frame, uint8 {list(shape)}")
                under_way = [said[name] for name in said if name == "under_way"]
                if under_way and not is_chunk(*under_way):
                    refuse(peer, "expected actions under way, finite float32 [d, 20]")
                with lock:
                    actions = brain.think(frame, *under_way)
                messages.send(peer, {"actions": actions})
    except OSError as e:
        print(f"{name}: {e}", flush=True)


def frame_shape(brain) -> tuple:
    """Of what the client sends: the last frame, or a policy's several."""
    frames = brain.about.get("frames", 1)
    return ((frames,) if frames > 1 else ()) + (256, 256, 3)


def check_client(peer, token: str) -> None:
    """ConnectionError if the client speaks another protocol or does not have the token."""
    nonce = secrets.token_hex(16)
    messages.send(peer, protocol=messages.PROTOCOL, nonce=nonce)
    said = messages.receive(peer, messages.HELLO)[1]
    if said.get("protocol") != messages.PROTOCOL:
        refuse(
            peer,
            f"the client speaks {ascii(said.get('protocol'))[:40]}, this server "
            f"{messages.PROTOCOL!r}: {messages.SAME}",
        )
    proof = messages.proof(token, nonce)
    if not hmac.compare_digest(ascii(said.get("proof")), ascii(proof)):
        refuse(peer, "wrong token")


def refuse(peer, why: str):
    messages.send(peer, error=why)
    raise ConnectionError(f"refused: {why}")
