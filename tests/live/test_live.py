"""eval.py play on your own game: plans that overlap, real time, a person at the pad, a policy on
another machine, and what may go wrong.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from common import ROOT, artefact
from common.pictures import read_video

import numpy as np
import pytest

import eval as evaluation
import sim
from clock.base import GameError, read_text
from devices import sandbox
from devices.linux import Keyboard
from live import messages, open_games, pilot, play, server
from live.brain import Local, Remote

RIDGE = (sys.executable, str(ROOT / "games" / "ridge.py"), "--seed", "{seed}", "--fps", "{fps}")
RATE = 30.0
hooked = pytest.mark.skipif(bool(sim.hook_fault()), reason=str(sim.hook_fault()))


class Scripted:
    """A policy that says chunk after chunk what the test wants, each after `delay` seconds."""

    about = {"rate": RATE, "shift": 1, "horizon": 16, "actions": artefact.BUTTONS + artefact.STICKS}

    def __init__(self, *pressed, length=16, delay=0.0, **sticks):
        row = [n in pressed for n in artefact.BUTTONS] + [sticks.get(n, 0) for n in artefact.STICKS]
        self.chunk, self.delay, self.seen = np.float32([row] * length), delay, []

    def think(self, frame):
        self.seen.append(frame.copy())
        time.sleep(self.delay)
        return self.chunk

    def close(self):
        pass


def config(**options):
    return play.Config(**{"command": RIDGE, "fps": 30, "seconds": 1.0, **options})


@contextlib.contextmanager
def playing(brain, person=None, **options):
    """(env, frames of the game that the policy plays)"""
    c = config(**options)
    with sim.launch(c) as env, contextlib.closing(pilot.Pilot(brain, c)) as agent:
        yield env, agent, pilot.frames(env, agent, c, person)


def pad_of(env):
    """What the game's pad says now."""
    held = (
        env.pad.fields["pad_buttons"][env.pad.buttons],
        env.pad.fields["pad_sticks"][env.pad.sticks],
    )
    return {n for n, v in zip(artefact.BUTTONS, held[0], strict=False) if v}, dict(
        zip(artefact.STICKS, held[1].tolist(), strict=False)
    )


def run(*args):
    return [sys.executable, "eval.py", *args]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A network too small to play well, in a file."""
    import torch

    import model

    torch.manual_seed(0)
    net = model.NitroGen(
        dataclasses.replace(
            model.CONFIGS["tiny"],
            image=16,
            width=32,
            head_width=16,
            vision_layers=1,
            dit_layers=2,
            steps=2,
        )
    )
    path = tmp_path_factory.mktemp("policy") / "model.safetensors"
    model.save(path, net.state_dict(), net)
    return str(path)


# ---- plans


def rows(*values):
    return np.float32([[v] * 20 for v in values])


def test_a_plan_follows_the_clock():
    plan = pilot.Plan(30.0, 1)
    assert plan.at(0.0) is None
    assert plan.add(rows(1, 2, 3), seen=10.0, now=10.0 + 1 / 30, fade=0) == 3
    # at 60 frames a second each action holds for two
    moments = 10 + np.array([1, 1.5, 2, 3, 3.9, 4]) / 30
    assert [None if plan.at(t) is None else plan.at(t)[0] for t in moments] == [1, 1, 2, 3, 3, None]
    assert plan.at(10.0 + 0.5 / 30)[0] == 1  # the frame before its moment: there is nothing better


def test_late_chunks_are_cut_to_the_present_and_fade_in():
    plan = pilot.Plan(30.0, 1)
    plan.add(rows(*[0] * 16), seen=0.0, now=1 / 30, fade=0)
    # actions for 9, 10 and 11 are over
    assert plan.add(rows(*[8] * 16), seen=8 / 30, now=12 / 30, fade=3) == 13
    # a quarter, a half, three quarters, all of it
    assert [float(plan.at(k / 30)[0]) for k in range(12, 19)] == [2, 4, 6, 8, 8, 8, 8]
    assert plan.at(24 / 30)[0] == 8 and plan.at(25 / 30) is None
    # too late altogether: as it was
    assert plan.add(rows(1, 1), seen=0.0, now=20 / 30, fade=3) == 0 and plan.at(20 / 30)[0] == 8


def test_old_actions_beyond_the_old_plan_are_not_blended():
    plan = pilot.Plan(30.0, 1)
    plan.add(rows(0, 0), seen=0.0, now=1 / 30, fade=0)
    plan.add(rows(8, 8, 8), seen=1 / 30, now=2 / 30, fade=3)
    assert [float(plan.at(k / 30)[0]) for k in (2, 3, 4)] == [2, 8, 8]


# ---- games


@hooked
def test_the_game_waits_and_the_menu_is_locked():
    brain = Scripted("SOUTH", "START", "BACK", LEFT_X=0.5, delay=0.05)
    with playing(brain, seconds=1.0) as (env, agent, steps):
        pads = [pad_of(env) for _ in steps][1:]
    assert len(pads) == 30 and all(
        p == ({"SOUTH"}, {"LEFT_X": 0.5, "LEFT_Y": 0, "RIGHT_X": 0, "RIGHT_Y": 0}) for p in pads
    )
    # at frames 0, 8, 16, 24
    assert len(brain.seen) == 4 and brain.seen[0].shape == (256, 256, 3) and agent.empty == 0
    with playing(brain, seconds=0.1, menu=True) as (env, agent, steps):
        assert [pad_of(env)[0] for _ in steps][1:] == [{"SOUTH", "START", "BACK"}] * 3


@hooked
@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_real_time_does_not_wait(speed, capsys):
    """The game keeps its pace while the policy thinks for longer than eight actions last."""
    brain = Scripted("SOUTH", delay=0.3 / speed)
    with playing(brain, seconds=3.0, realtime=True, speed=speed) as (env, agent, steps):
        next(steps)
        begin = time.perf_counter()
        held = [pad_of(env)[0] for _ in steps]
        spent = time.perf_counter() - begin
    # never faster; how much slower depends on this machine
    assert len(held) == 90 and spent >= 0.95 * 3 / speed
    # it thought back to back, and not frame by frame
    assert held.count({"SOUTH"}) > 60 and 3 <= len(brain.seen) <= 12
    report = agent.report()
    assert (
        290 / speed <= report["median"] <= report["p90"] <= report["p99"] <= report["most"]
        and "of the frames came late" in capsys.readouterr().out
    )


@hooked
def test_a_policy_slower_than_the_game_is_told():
    with playing(Scripted("SOUTH", length=4, delay=0.4), seconds=60.0, realtime=True) as (
        env,
        agent,
        steps,
    ):
        with pytest.raises(
            GameError,
            match=r"^the policy is slower than the game: 0\.\d+ s for a chunk that is over 0.17 s "
            r".* --speed 0\.\d+, or no --realtime[^\n]*$",
        ):
            list(steps)


@hooked
def test_a_game_that_shows_no_frame_is_told():
    with playing(Scripted(), command=("tail", "-f", "/dev/null"), timeout=1.0) as (
        env,
        agent,
        steps,
    ):
        with pytest.raises(
            GameError, match=r"^tail -f /dev/null: no frame in [^\n]* it has opened no window$"
        ):
            list(steps)


def test_an_action_layout_that_the_keys_cannot_express(capsys):
    keyboard = Keyboard.__new__(Keyboard)
    keyboard.keys = {"SOUTH": "space", "LEFT_X-": "Left"}
    pilot.check_layout(keyboard, ("SOUTH", "LEFT_X"))
    assert capsys.readouterr().err == ""
    pilot.check_layout(keyboard, ("SOUTH", "NORTH", "RIGHT_Y", "GUIDE"))
    assert (
        capsys.readouterr().err
        == "no key for NORTH, RIGHT_Y: what the policy does with them is lost (--keys NORTH=...)\n"
    )
    with pytest.raises(
        GameError,
        match=r"^the policy's actions \(NORTH, RIGHT_Y\S* \.\.\.\) have no place on this game's "
        r"keys \(--keys\)$",
    ):
        pilot.check_layout(keyboard, ("NORTH", "RIGHT_Y"))
    with pytest.raises(GameError, match="no place on this game's pad"):
        pilot.check_layout(object(), ("JUMP", "DUCK"))


def test_key_maps():
    assert (
        pilot.key_map("SOUTH=z,LEFT_X-=a") == {"SOUTH": "z", "LEFT_X-": "a"}
        and pilot.key_map("") == {}
    )
    with pytest.raises(SystemExit, match="expected BUTTON=key"):
        pilot.key_map("SOUTH")


# ---- a person


@hooked
def test_a_person_takes_the_pad_and_gives_it_back(capsys):
    hands, now = iter([{}] * 5 + [{"LEFT_X": 0.2}] * 2 + [{"EAST": 1}] * 2 + [{}] * 100), [0.0]

    def person(picture):
        assert picture.shape == (270, 480, 3)
        now[0] += 0.1  # seconds per frame, of the clock below
        held = next(hands)
        return np.int8([held.get(n, 0) for n in artefact.BUTTONS]), np.float32(
            [held.get(n, 0) for n in artefact.STICKS]
        )

    takeover = pilot.Takeover(person, idle=0.5)
    takeover.clock = lambda: now[0]
    begin = time.perf_counter()
    with playing(Scripted("SOUTH"), takeover, seconds=1.0) as (env, agent, steps):
        held = [pad_of(env)[0] for _ in steps][1:]
    assert held == [{"SOUTH"}] * 7 + [{"EAST"}] * 2 + [set()] * 4 + [{"SOUTH"}] * 17
    assert capsys.readouterr().out == "you play\nthe policy plays\n"
    assert time.perf_counter() - begin >= 0.95  # at a pace that a person can follow


@hooked
def test_closing_the_window_ends_the_game():
    with playing(Scripted(), pilot.Takeover(lambda picture: None, 1.0), seconds=0) as (
        env,
        agent,
        steps,
    ):
        assert len(list(steps)) == 1


@pytest.mark.slow
@hooked
@pytest.mark.skipif(
    not importlib.util.find_spec("pygame") or not shutil.which("Xvfb"),
    reason="needs pygame and Xvfb (pip install pygame; sudo apt install xvfb)",
)
def test_a_person_at_the_real_window(policy):
    """Keys that the X server sends to the window of `play --window`, as if a person pressed one."""
    with contextlib.ExitStack() as stack:
        stage = sandbox.Stage("1000x600")
        stack.callback(stage.remove)
        client = subprocess.Popen(
            run(
                "play",
                "--policy",
                policy,
                "--device",
                "cpu",
                "--fps",
                "30",
                "--seconds",
                "0",
                "--window",
                "--idle",
                "0.5",
                "--",
                *RIDGE,
            ),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"DISPLAY": stage.display.name, "SDL_VIDEODRIVER": "x11"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

        def told(line):
            return next(said for said in client.stdout if said == line)

        while not stage.display.windows():
            assert client.poll() is None
            time.sleep(0.1)
        stage.display.focus(stage.display.windows()[0][0])
        stage.display.key("c", True)
        told("you play\n")
        stage.display.key("c", False)
        told("the policy plays\n")
        client.send_signal(signal.SIGINT)
        assert " chunks; latency" in client.communicate(timeout=60)[0] and client.returncode == 0


# ---- another machine


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
    remote.close()


def test_wrong_token(served):
    with pytest.raises(SystemExit, match=r"^--remote 127.0.0.1:\d+: wrong token$"):
        Remote(served[0], "open barley", 5.0)
    assert first(served[3]) == "client: refused: wrong token" and not served[1].seen


def test_versions(served, monkeypatch):
    real = messages.send
    monkeypatch.setattr(
        messages,
        "send",
        lambda peer, tensors=None, **about: real(
            peer, tensors, **(about | ({"protocol": "nitrogen.play/0"} if "proof" in about else {}))
        ),
    )
    with pytest.raises(
        SystemExit,
        match=r"^[^\n]*the client speaks 'nitrogen.play/0', this server 'nitrogen.play/1': "
        r"use one version[^\n]*$",
    ):
        Remote(served[0], "open sesame", 5.0)
    monkeypatch.setattr(
        messages,
        "send",
        lambda peer, tensors=None, **about: real(
            peer, tensors, **(about | ({"protocol": "nitrogen.play/2"} if "nonce" in about else {}))
        ),
    )
    with pytest.raises(
        SystemExit,
        match=r"^[^\n]*the server speaks 'nitrogen.play/2', this client 'nitrogen.play/1': "
        r"use one version[^\n]*$",
    ):
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


@hooked
def test_the_same_play_twice(policy, tmp_path):
    """The game waits, so play is exact: the same film to the byte, and the first chunk is the
    network's own.
    """
    films = []
    for name in "ab":
        play.main(config(policy=policy, device="cpu", video=str(tmp_path / f"{name}.mp4"), seed=3))
        films.append([frame for _, _, frame in read_video(tmp_path / f"{name}.mp4")])
    assert len(films[0]) == 31 and np.array_equal(*films)


def test_bad_input(policy, tmp_path):
    for options, why in (
        (
            {"command": (), "policy": policy, "video": "a.mp4"},
            "^--video and --window go with -- COMMAND",
        ),
        ({"suite": "open", "window": True}, "^--video and --window go with -- COMMAND"),
        ({"policy": "nowhere"}, "^nowhere: no such file; make it anew: python train.py"),
        ({"command": (), "realtime": True, "policy": policy}, "no game given: add -- COMMAND"),
        ({"speed": 0.0, "realtime": True}, "^--speed 0: expected more than 0"),
        ({"speed": 0.5}, "^--speed 0.5: expected .* with --realtime"),
        (
            {"policy": policy, "execute": 17},
            "^--execute 17: this policy's chunks hold 16 actions; give 1 to 16$",
        ),
        (
            {"remote": "here:1", "token": str(tmp_path / "none")},
            r"^--token \S+none: no such file; copy it from the machine that serves$",
        ),
        ({"remote": "here", "token": __file__}, "^--remote here: expected HOST:PORT"),
        (
            {"remote": "127.0.0.1:1", "token": __file__},
            r"^--remote 127.0.0.1:1: .*refused; is `python eval.py serve` running there\?$",
        ),
        ({"policy": policy, "keys": "SOUTH"}, "^--keys SOUTH: expected"),
    ):
        with pytest.raises(SystemExit, match=why):
            play.main(config(**options))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit, match="in use"):
        server.main(
            server.Config(
                policy=policy,
                device="cpu",
                port=taken.getsockname()[1],
                token=str(tmp_path / "token"),
            )
        )


# ---- a table of tasks

CLEAR = (
    "import sys, time; print('far 3', 'far 12', file=sys.stderr, sep=chr(10)); "
    "open(sys.argv[1] + '/save', 'wb').write(bytes([7, 0, 0, 0, 5])); "
)


def table(tmp_path, name="a", **task):
    task = {
        "goal": "a goal",
        "command": [sys.executable, "-c", CLEAR + "time.sleep(1000)", "{home}"],
        "seconds": 1,
        **task,
    }
    (tmp_path / f"{name}.json").write_text(json.dumps({name: task}))
    return str(tmp_path / f"{name}.json")


@pytest.mark.parametrize(
    "rule, value",
    [
        ({"stderr": r"far (\d+)", "goal": 24}, 0.5),
        ({"stderr": r"far (\d+)", "from": 10, "goal": 14}, 0.5),
        ({"stderr": r"near (\d+)", "goal": 2}, 0.0),
        ({"file": "save", "struct": "<4xB", "goal": 10}, 0.5),
        ({"file": "save", "struct": "<B", "goal": 2}, 1.0),
        ({"file": "save", "struct": "<8xi", "goal": 2}, 0.0),
        ({"file": "none", "struct": "<i", "goal": 2}, 0.0),
        ({"exit": 3}, 1.0),
        ({"exit": 0}, 0.0),
    ],
)
def test_scores_are_what_the_game_wrote(rule, value, tmp_path):
    from types import SimpleNamespace

    (tmp_path / "stderr").write_text("far 3\nfar 12\nfar 4\n")
    (tmp_path / "save").write_bytes(bytes([7, 0, 0, 0, 5]))
    env = SimpleNamespace(stage=SimpleNamespace(path=tmp_path), clock=SimpleNamespace(returncode=3))
    assert open_games.task_score(rule, env, tmp_path, str(tmp_path)) == value


def test_scores_are_what_the_game_shows(tmp_path):
    from types import SimpleNamespace

    import cv2

    frame = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "won.png"), frame[20:60, 30:80, ::-1])
    rule, found = (
        {"picture": "won.png", "like": 0.9},
        lambda picture: open_games.task_score(
            rule, SimpleNamespace(render=lambda: picture), tmp_path, ""
        ),
    )
    assert found(frame) == 1 and found(np.roll(frame, 7, 1)) == 1 and found(frame[::-1].copy()) == 0
    with pytest.raises(SystemExit, match="won.png: larger than a frame of 160 x 30"):
        found(frame[:30])


@pytest.mark.parametrize(
    "change, why",
    [
        ({"score": {"stderr": r"a (b) (\d+)", "goal": 5}}, "one group, and numbers"),
        ({"score": {"file": "x", "struct": "<4s", "goal": 2}}, "one group, and numbers"),
        ({"score": {"picture": "none.png"}}, "none.png: no such picture"),
        ({"files": {"/etc/passwd": "x"}}, "no path below the game's home"),
        ({"files": {"a/../../b": "x"}}, "no path below the game's home"),
        ({"files": {"a": {"from": "b"}}}, "is made of another file"),
        ({"files": {"a": {}}}, "is made of another file"),
        ({"files": {"": "x"}}, "no path below the game's home"),
        ({"gamepad": "nope"}, "gamepad 'nope': there is auto"),
        ({"screen": "nope"}, "screen 'nope': there is auto"),
    ],
)
def test_a_wrong_task_is_named_before_anything_runs(tmp_path, change, why):
    good = {
        "goal": "a goal",
        "command": ["x"],
        "seconds": 1,
        "score": {"stderr": r"far (\d+)", "goal": 5},
        "files": {"a/b": "x"},
    }
    (tmp_path / "t.json").write_text(json.dumps({"a": good}))
    assert "a" in open_games.open_table(str(tmp_path / "t.json"))[0]
    (tmp_path / "t.json").write_text(json.dumps({"a": good | change}))
    with pytest.raises(SystemExit, match=rf"t.json: a: .*{why}"):
        open_games.open_table(str(tmp_path / "t.json"))


def test_the_table_that_is_shipped_and_others(tmp_path):
    tasks, folder = open_games.open_table("open")
    assert {"tux-reach", "tux-finish", "doom-kills", "doom-items", "doom-exit"} <= set(
        tasks
    ) and folder == ROOT / "assets"
    for text in ("[]", "{", "{}"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(SystemExit, match=r"bad.json: not a table of tasks \([^\n]*$"):
            open_games.open_table(str(tmp_path / "bad.json"))
    with pytest.raises(SystemExit, match="nowhere.json: not a table of tasks .*No such file"):
        open_games.open_table(str(tmp_path / "nowhere.json"))


@pytest.mark.parametrize(
    "task, why",
    [
        ({"goal": ""}, "goal is ''"),
        ({"command": "game"}, "it: 'command' should be a list of 1 or more, found 'game'"),
        ({"fsp": 60}, "a task has goal, command, seconds, score, and perhaps install, fps"),
        ({"seconds": 0}, "seconds is 0"),
        ({"score": {}}, "score is {}"),
        ({"score": {"stdout": "x", "goal": 1}}, "its score is one of"),
        ({"score": {"stderr": "x"}}, "its score: 'goal' should be a number"),
        ({"fps": "60"}, "it: 'fps' should be a number in 1..1000, found '60'"),
        ({"score": {"exit": 0, "picture": "won.png"}}, "its score is one of"),
        ({"score": {"picture": "won.png"}}, "won.png: no such picture"),
        ({"score": {"stderr": "(x", "goal": 1}}, "unterminated subpattern"),
        ({"score": {"file": "a", "struct": "<k", "goal": 1}}, "bad char in struct format"),
        ({"score": {"stderr": "x", "goal": 1, "from": 1}}, "division by zero"),
        ({"keys": {"SOTUH": "z"}}, "SOTUH=z in keys is no button"),
        ({"keys": {"LEFT_X": "z"}}, "LEFT_X=z in keys"),
        ({"keys": {"SOUTH": "Retrun"}}, "SOUTH=Retrun in keys"),
        (
            {"start": [1, "STRAT"]},
            "'STRAT' in a macro is no number of seconds, no button and no key",
        ),
    ],
)
def test_mistakes_in_a_table_are_named(task, why, tmp_path):
    with pytest.raises(
        SystemExit, match=rf"a.json: a: .*{re.escape(why)}[^\n]* \(line 1\); see assets/open.json$"
    ):
        open_games.open_table(table(tmp_path, **{"score": {"exit": 0}, **task}))


def test_the_line_of_a_mistake_is_named(tmp_path):
    path = tmp_path / "a.json"
    good = {"goal": "a goal", "command": ["x"], "seconds": 1, "score": {"exit": 0}}
    for wrong in ({"fsp": 60}, {"seconds": "1"}, {"keys": {"SOTUH": "z"}}):
        path.write_text(json.dumps({"b": good, "a": {**good, **wrong}}, indent=1))
        (field,) = wrong
        lines = path.read_text().splitlines()
        second = lines.index(' "a": {')
        wanted = next(i for i in range(second, 99) if f'"{field}"' in lines[i]) + 1
        with pytest.raises(SystemExit, match=rf"a.json: a: .*{field}.* \(line {wanted}\); see"):
            open_games.open_table(str(path))


def test_the_table_in_the_docs(tmp_path):
    import cv2

    (tmp_path / "mine.json").write_text(
        re.search(r'\{"boss": .*?\}\}\}', (ROOT / "docs" / "real-games.md").read_text(), re.S)[0]
    )
    cv2.imwrite(str(tmp_path / "victory.png"), np.zeros((9, 9, 3), np.uint8))
    task = open_games.open_table(str(tmp_path / "mine.json"))[0]["boss"]
    assert task["keys"]["LEFT_X-"] == "a" and all(
        json.loads(line)
        for line in re.findall(
            r'`(\{"(?:stderr|file|exit)".*?\})`', (ROOT / "docs" / "real-games.md").read_text()
        )
    )


def test_files_for_the_game(tmp_path):
    """Text, another file with a part replaced, a copy of one that is no text: a savegame, say."""
    (tmp_path / "level").write_text("goal goal")
    (tmp_path / "save").write_bytes(bytes(range(256)))
    open_games.fill(
        tmp_path / "home",
        {
            "a/b.txt": "text",
            "c.txt": {"of": str(tmp_path / "level"), "find": "goal", "put": "end"},
            "d": {"of": str(tmp_path / "save")},
        },
    )
    assert [(tmp_path / "home" / n).read_bytes() for n in ("a/b.txt", "c.txt", "d")] == [
        b"text",
        b"end goal",
        bytes(range(256)),
    ]
    with pytest.raises(SystemExit, match="'nothing' is not in it"):
        open_games.fill(
            tmp_path, {"c.txt": {"of": str(tmp_path / "level"), "find": "nothing", "put": ""}}
        )


@hooked
def test_a_task_of_your_own(policy, tmp_path, capsys, monkeypatch):
    """A built-in game as somebody's own: command, start macro, success picture; three players, a
    table, and a line about what is missing.
    """
    import cv2

    command = [
        sys.executable,
        str(ROOT / "games" / "ridge.py"),
        "--seed",
        "{seed}",
        "--fps",
        "{fps}",
    ]
    with sim.launch(config(command=tuple(command))) as env:
        env.reset(seed=0)
        for _ in range(20):
            env.step({"buttons": np.zeros(16), "sticks": np.float32([1, 0, 0, 0])})
        cv2.imwrite(str(tmp_path / "won.png"), env.render()[60:220, 200:400, ::-1])
    path = table(
        tmp_path,
        command=command,
        fps=30,
        start=[0.2, "WEST"],
        score={"picture": "won.png", "like": 0.95},
    )
    held = evaluation.ConstantPad
    # "none" runs to the right here, and gets there
    monkeypatch.setattr(evaluation, "ConstantPad", lambda: held(1, 0))
    out = play.main(
        config(
            command=(),
            suite=path,
            policy=policy,
            device="cpu",
            seeds=1,
            workers=0,
            out=str(tmp_path),
        )
    )
    assert out["a"]["none"]["success"][0] == out["a"]["none"]["progress"][0] == 1 and set(
        out["a"]
    ) == {"policy", "random", "none"}
    assert json.loads((tmp_path / "open.json").read_text()) == json.loads(json.dumps(out))
    said = capsys.readouterr().out
    assert "3 episodes, 0 are there" in said and re.search(
        r"^a  .* 100 \[21, 100\] \(1.00\)   a goal$", said, re.M
    )
    warning = "warning: a: the untouched pad completes it in 1 of 1 episodes: the task is too easy"
    assert warning in said and warning.removeprefix("warning: ") in (
        page := (tmp_path / "report.html").read_text()
    )
    (film,) = (tmp_path / "films").glob("*.mp4")  # of the policy
    assert f'href="films/{film.name}"' in page and (
        next(read_video(film))[2].shape == (270, 480 + 200, 3)
    )
    # best and worst of the policy are one episode here, and one of each of the others
    assert len(list((tmp_path / "films").glob("*.jpg"))) == 3
    assert page.count("data:image/jpeg;base64,") == 4
    assert not re.search(r"(src|href)=\"(?!data:|films/)", page)
    real, again = open_games.in_real_game, lambda *a: pytest.fail("played again")
    # what has been played is not played again
    monkeypatch.setattr(open_games, "in_real_game", again)
    assert (
        play.main(
            config(
                command=(),
                suite=path,
                policy=policy,
                device="cpu",
                seeds=1,
                workers=0,
                out=str(tmp_path),
            )
        )
        == out
    )
    assert "3 episodes, 3 are there" in capsys.readouterr().out
    monkeypatch.setattr(open_games, "in_real_game", real)
    # only the policy has to be in time
    fast = config(
        suite=table(tmp_path, command=command, fps=30, score={"exit": 0}), realtime=True, speed=1e6
    )
    assert open_games.in_real_game(evaluation.Job("random", "", "a", 0), fast)[
        "time"
    ] == pytest.approx(1, abs=0.05)
    with pytest.raises(
        GameError,
        match="^the macro's 'Return' is a key, and the game has no window to press it in$",
    ):
        open_games.in_real_game(
            evaluation.Job("none", "", "a", 0),
            config(
                suite=table(tmp_path, command=command, fps=30, start=["Return"], score={"exit": 0})
            ),
        )
    missing = table(tmp_path, "b", command=["no-such-game"], install="buy it", score={"exit": 0})
    with pytest.raises(SystemExit, match=r"^--tasks c: no task 'c' in this table \(there are a\)$"):
        play.main(config(command=(), suite=path, tasks="c", policy=policy, device="cpu"))
    with pytest.raises(SystemExit, match="no episodes given"):
        play.main(config(command=(), suite=missing, policy=policy, device="cpu"))
    assert "b: skipped, no-such-game is not installed (buy it)" in capsys.readouterr().err


def real(name):
    task = open_games.open_table("open")[0][name]
    return pytest.mark.skipif(
        not open_games.program(task["command"][0]) or bool(sim.hook_fault()),
        reason=f"{task['command'][0]} is not installed ({task['install']})",
    )


@real("tux-reach")
def test_supertux_says_how_far_it_came(monkeypatch):
    """By the number that the game itself writes: nothing at the start, something after a second and
    a half to the right.
    """
    seen, real, held = [], open_games.task_score, evaluation.ConstantPad
    monkeypatch.setattr(evaluation, "ConstantPad", lambda: held(1, 0))
    monkeypatch.setattr(open_games, "task_score", lambda *a: (seen.append(real(*a)), seen[-1])[1])
    tasks, folder = open_games.open_table("open")
    monkeypatch.setattr(
        open_games,
        "open_table",
        lambda suite: ({"tux-reach": {**tasks["tux-reach"], "seconds": 1.5}}, folder),
    )
    assert open_games.in_real_game(
        evaluation.Job("none", "open", "tux-reach", 0), config(suite="open")
    )["progress"] == max(seen)
    assert seen[0] == 0 and 0.08 < seen[-1] < 0.5, seen


# ---- for long (python -m pytest tests/live/test_live.py -m slow -s --soak 60)


@hooked
@pytest.mark.slow
def test_an_hour_in_real_time(policy, request):
    """Memory does not grow, latency does not drift; --soak says for how many minutes."""
    minutes, memory = request.config.getoption("--soak"), []
    brain = Local(policy, "cpu", 0, 0)
    with playing(brain, seconds=60 * minutes, realtime=True) as (env, agent, steps):
        for i, _ in enumerate(steps):
            if i % 300 == 0:
                memory.append(int(read_text("/proc/self/statm").split()[1]) * 4096 / 2**20)
    latency = 1e3 * np.array(agent.latency[1:])
    first, last = (
        np.median(part) for part in (latency[: len(latency) // 3], latency[-len(latency) // 3 :])
    )
    begin, end = memory[len(memory) // 5], memory[-1]
    report = agent.report()
    print(
        f"{minutes:g} minutes: {begin:.1f} -> {end:.1f} MiB; median latency {first:.1f} -> "
        f"{last:.1f} ms"
    )
    assert i >= 60 * 30 * minutes * 0.99 and end - begin < 10 and report["chunks"] > 60 * minutes
    assert last < 3 * first + 20  # a drift adds up; other work on the machine comes and goes


@pytest.mark.slow
@real("doom-kills")
@pytest.mark.parametrize("name, warp, value", [("doom-kills", "1", 1 / 3), ("doom-exit", "2", 1.0)])
def test_doom_says_what_was_done(name, warp, value):
    """By the savegame that the end macro makes: one kill of three, by a walk that is the same each
    time; and the level that it is in.
    """
    task = open_games.open_table("open")[0][name]
    with tempfile.TemporaryDirectory() as home:
        command = [
            warp if i and task["command"][i - 2] == "-warp" else part
            for i, part in enumerate(task["command"])
        ]
        c = config(command=(open_games.program(command[0]), *command[1:]), fps=35, home=home)
        with sim.launch(c) as env:
            env.reset(seed=0)
            pilot.press(env, [1, *"iddqd"], 35)  # not to be killed oneself
            rng, turn = np.random.default_rng(1), ""
            for i in range(1400 if name == "doom-kills" else 10):
                turn = rng.choice(["DPAD_LEFT", "DPAD_RIGHT", "", ""]) if i % 10 == 0 else turn
                held = [
                    "DPAD_UP",
                    turn,
                    "SOUTH" if i % 4 < 2 else "",
                    "EAST" if i % 35 == 0 else "",
                ]
                env.step({"buttons": np.isin(artefact.BUTTONS, held), "sticks": np.zeros(4)})
            assert open_games.task_score(task["score"], env, ROOT, home) == 0
            pilot.press(env, task["end"][-7:], 35)
            assert open_games.task_score(task["score"], env, ROOT, home) == pytest.approx(value)
