"""A policy on another machine, and what may go wrong."""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from common import ROOT, artefact

import numpy as np
import pytest

from live import messages, server
from live.brain import Remote
from piloting import RIDGE, Scripted, hooked, pad_of, playing, run


@pytest.fixture
def served(monkeypatch):
    """A server in this process: (its address, its brain, its open connections, the lines that it
    says).
    """
    brain, said = Scripted("SOUTH", LEFT_X=-0.5), []
    listener, peers, threads = socket.create_server(("127.0.0.1", 0)), [], []
    # Its threads may speak between two phases of a test, when what pytest captures with is closed.
    monkeypatch.setattr(
        server,
        "print",
        lambda line, file=None, flush=False: print(line, file=file) if file else said.append(line),
        raising=False,
    )

    def accept():
        with contextlib.suppress(OSError):
            while True:
                peer, (host, port) = listener.accept()
                peers.append(peer)
                threads.append(
                    threading.Thread(
                        target=server.attend,
                        args=(peer, "client", brain, "open sesame", threading.Lock()),
                        daemon=True,
                    )
                )
                threads[-1].start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", brain, peers, said
    for each in (listener, *peers):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
    for each in threads:
        each.join(10)


def test_a_policy_on_another_machine_is_the_same(served):
    address, brain, *_ = served
    remote = Remote(address, "open sesame", 5.0)
    frame = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    assert np.array_equal(remote.think(frame), brain.chunk) and np.array_equal(brain.seen[0], frame)
    assert remote.about == {**brain.about, "actions": list(brain.about["actions"])}
    under_way = np.float32(np.random.default_rng(1).random((3, 20)))
    remote.think(frame, under_way)
    assert brain.given[0] is None and np.array_equal(brain.given[1], under_way)
    with pytest.raises(SystemExit, match="expected actions under way, finite float32 \\[d, 20\\]"):
        remote.think(frame, under_way[:, :19])
    remote.close()


def test_wrong_token(served):
    with pytest.raises(SystemExit, match=r"^--remote 127.0.0.1:\d+: wrong token$"):
        Remote(served[0], "open barley", 5.0)
    assert first(served[3]) == "client: refused: wrong token" and not served[1].seen


@pytest.mark.parametrize(
    "greeting, version, said",
    [
        ("proof", 0, "the client speaks 'nitrogen.play/0', this server 'nitrogen.play/1'"),
        ("nonce", 2, "the server speaks 'nitrogen.play/2', this client 'nitrogen.play/1'"),
    ],
)
def test_versions(served, monkeypatch, greeting, version, said):
    real = messages.send

    def send(peer, tensors=None, **about):
        if greeting in about:
            about["protocol"] = f"nitrogen.play/{version}"
        real(peer, tensors, **about)

    monkeypatch.setattr(messages, "send", send)
    with pytest.raises(SystemExit, match=rf"^[^\n]*{said}: use one version[^\n]*$"):
        Remote(served[0], "open sesame", 5.0)


def test_the_token_does_not_travel(served, monkeypatch):
    said = []
    monkeypatch.setattr(
        messages,
        "send",
        lambda peer, tensors=None, real=messages.send, **about: (
            said.append(repr(about)),
            real(peer, tensors, **about),
        ),
    )
    proofs = []
    for _ in range(2):
        Remote(served[0], "open sesame", 5.0).close()
        proofs.append(re.search(r"'proof': '(\w{64})'", "".join(said))[1])
        assert said and "sesame" not in "".join(said)
        said.clear()
    assert proofs[0] != proofs[1]  # nor can what was said be said again


def first(said: list) -> str:
    """The first line that the server's thread says."""
    until = time.monotonic() + 20
    while not said and time.monotonic() < until:
        time.sleep(0.01)
    return said[0]


def message(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


@pytest.mark.parametrize(
    "blob, why",
    [
        (b"GET / HTTP/1.1\r\n\r\n", "a message of 1,195,725,856 bytes, at most 4,096 are taken"),
        (struct.pack(">I", 5000), "a message of 5,000 bytes"),
        (message(b"\x80\x04cposix\nsystem\n(S'touch /tmp/owned'\ntR."), "no safetensors file"),
        (message(b""), "no safetensors file"),
        (message(struct.pack("<Q", 2) + b"{}"), "no safetensors file"),
        (message(struct.pack("<Q", 2**63) + b"{}"), "no safetensors file"),
        (b"\0", "the other side has gone"),
    ],
)
def test_what_strangers_send_is_refused(served, blob, why):
    host, port = served[0].split(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(blob)
        stranger.shutdown(socket.SHUT_WR)
    assert why in first(served[3]) and not served[1].seen
    remote = Remote(served[0], "open sesame", 5.0)  # and it serves on
    assert remote.think(np.zeros((256, 256, 3), np.uint8)).shape == (16, 20)
    remote.close()


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((256, 256, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((1000, 1000, 3), np.uint8),
    ],
)
def test_frames_of_another_shape_are_refused(served, frame):
    remote = Remote(served[0], "open sesame", 5.0)
    with pytest.raises((SystemExit, OSError), match="expected a frame, uint8|gone|reset|pipe"):
        remote.think(frame)
    assert not served[1].seen
    remote.close()


def test_answers_that_are_no_actions_are_refused(served):
    remote = Remote(served[0], "open sesame", 5.0)
    for wrong in (
        np.zeros((16, 19), np.float32),
        np.full((16, 20), np.nan, np.float32),
        np.zeros((16, 20)),
    ):
        served[1].chunk = wrong
        with pytest.raises(OSError, match="no chunk of actions"):
            remote.think(np.zeros((256, 256, 3), np.uint8))
    remote.close()


@hooked
def test_a_lost_connection_releases_the_pad_and_pauses_the_game(served, capfd):
    address, brain, peers, _ = served
    remote, seen = Remote(address, "open sesame", 5.0), []
    reconnect = remote.reconnect

    def watched(why, patience):
        first = pad_of(env), env.view.frame
        time.sleep(0.5)
        seen.append((first, (pad_of(env), env.view.frame)))
        reconnect(why, patience)

    remote.reconnect = watched
    with playing(remote, seconds=2.0) as (env, agent, steps):
        for i, _ in enumerate(steps):
            if i == 20:
                assert pad_of(env)[0] == {"SOUTH"}
                peers[0].shutdown(socket.SHUT_RDWR)
    (pad, frame), after = seen[0]
    # at once, and nothing moved
    assert (
        pad == (set(), dict.fromkeys(artefact.STICKS, 0.0)) and after == (pad, frame) and frame < 30
    )
    assert i == 60 and len(peers) == 2 and len(brain.seen) >= 8  # then it was played to its end
    said = capfd.readouterr().err
    assert re.match(
        r"lost the connection to 127.0.0.1:\d+ \(the other side has gone\): "
        r"the pad is released and the game stands still[^\n]*\nconnected again\n$",
        said,
    ), said
    remote.close()


@hooked
def test_a_remote_policy_that_never_answers_in_time_is_told(served):
    """It can be reached each time, so that waiting for it would go on for ever."""
    remote = Remote(served[0], "open sesame", 0.2)
    served[1].delay = 1.0
    with playing(remote, seconds=2.0, realtime=True) as (env, agent, steps):
        with pytest.raises(
            SystemExit,
            match=r"^--remote \S+: connected again three times, and no chunk came \(timed out\); "
            r"is the policy there too slow\? [^\n]*no --realtime here$",
        ):
            list(steps)
    remote.close()


def test_a_full_server_says_so(policy, tmp_path):
    token = tmp_path / "token"
    with (
        subprocess.Popen(
            run(
                "serve", "--policy", policy, "--token", str(token), "--port", "0", "--device", "cpu"
            ),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as server,
        contextlib.ExitStack() as stack,
    ):
        host, port = re.search(r"(127\.0\.0\.1):(\d+)", server.stdout.readline()).groups()
        for _ in range(messages.CLIENTS):
            stranger = stack.enter_context(socket.create_connection((host, int(port))))
            messages.receive(stranger)  # its greeting: this one is attended to
        with pytest.raises(SystemExit, match=r"^--remote \S+: 8 clients already$"):
            Remote(f"{host}:{port}", token.read_text(), 5.0)
        server.send_signal(signal.SIGINT)  # its ordinary end
        assert server.wait(60) == 0


@pytest.mark.slow
@hooked
def test_two_machines_by_their_commands(policy, tmp_path):
    """serve and play as a user runs them: Ctrl-C ends with the report; then the server is killed
    for good.
    """
    # background jobs ignore it
    token, ctrl_c = tmp_path / "token", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        run("serve", "--policy", policy, "--token", str(token), "--port", "0", "--device", "cpu"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        line = server.stdout.readline()
        address = re.search(r"127\.0\.0\.1:\d+", line)[0]
        assert (
            os.stat(token).st_mode & 0o777 == 0o600
            and len(token.read_text()) >= 43
            and token.read_text() not in line
            and "not encrypted" not in line
        )
        for last in (False, True):
            client = subprocess.Popen(
                run(
                    "play",
                    "--remote",
                    address,
                    "--token",
                    str(token),
                    "--seconds",
                    "0",
                    "--patience",
                    "1",
                    "--",
                    *RIDGE,
                ),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=ctrl_c,
            )
            assert server.stdout.readline().endswith(": plays\n")
            time.sleep(2)
            server.kill() if last else client.send_signal(signal.SIGINT)
            out, err = client.communicate(timeout=120)
            if last:
                lost, end = err.splitlines()
                assert (
                    client.returncode == 1
                    and lost.startswith(f"lost the connection to {address}")
                    and end.endswith("gave up after 1 s, and ended the game")
                )
            else:
                assert (
                    client.returncode == 0
                    and re.match(r"\d+ frames, \d+ chunks; latency [\d.n]+a?n? ms \(median\)", out)
                    and not err
                ), out + err
                assert server.stdout.readline().endswith("the other side has gone\n")


def test_the_client_needs_no_torch(served):
    code = (
        "import sys, numpy as np, live.play, live.brain; r = live.brain.Remote(sys.argv[1], 'open "
        "sesame', 30.0);"
        "print(r.think(np.zeros((256, 256, 3), np.uint8)).shape, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, served[0]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "(16, 20) False\n", done.stderr


def test_tokens_that_others_can_read_are_refused(tmp_path):
    token = tmp_path / "a" / "token"
    first = messages.secret(token)
    assert messages.secret(token) == first and os.stat(token).st_mode & 0o777 == 0o600
    token.chmod(0o644)
    with pytest.raises(SystemExit, match="others can read this token"):
        messages.secret(token)
