"""templates/decoys.py: what streams show beside a game and is no controller overlay, and two kinds
of games made mostly of it.

The localization benchmark (bench/locate.py) draws them: under overlays, and alone in clips in which
nothing may be found.  A decoy paints on a part of the picture, uint8 [h, w, 3] RGB, as it is at
frame t; `rng` is the same at every t.
"""

from __future__ import annotations

import cv2
import numpy as np

SIZE = (1280, 720)  # px, of a whole picture


def words(rng, n: int) -> str:
    letters = list("aeioubcdfglmnprstvw")
    return " ".join("".join(rng.choice(letters, rng.integers(2, 8))) for _ in range(n))


def some_color(rng, low, high):
    return rng.integers(low, high, 3).tolist()


def write_text(p, text, x, y, size=0.5, ink=(240, 240, 240), thick=1):
    at, ink = (int(x), int(y)), tuple(map(int, ink))
    cv2.putText(p, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, ink, thick, cv2.LINE_AA)


def disc(p, at, r, color, thick=-1):
    cv2.circle(p, at, r, color, thick, cv2.LINE_AA)


def oval(p, at, axes, color, start=0):
    """Filled, from the angle `start` to 360 degrees."""
    cv2.ellipse(p, at, axes, 0, start, 360, color, -1, cv2.LINE_AA)


def panel(p, rng, t):
    """A box of text: a title, rows, a border."""
    h, w = p.shape[:2]
    p[:] = p // 3 + rng.integers(0, 50, 3).astype(np.uint8)
    cv2.rectangle(p, (1, 1), (w - 2, h - 2), some_color(rng, 120, 255), 2)
    write_text(p, words(rng, 2).title(), 12, 24, 0.6, some_color(rng, 160, 255), 2)
    for y in range(48, h - 8, 22):
        write_text(p, words(rng, 1 + w // 90) + f" {rng.integers(99)}/{t // 60 + y}", 12, y, 0.42)


def bars(p, rng, t):
    """Health and the like, with a row of numbered slots below."""
    h, w = p.shape[:2]
    for k, y in enumerate(range(4, h // 2, 20)):
        part = 0.5 + 0.45 * np.sin(t / rng.uniform(20, 60) + k)
        cv2.rectangle(p, (4, y), (w - 4, y + 14), (20, 20, 20), -1)
        end = 6 + int(part * (w - 12)), y + 12
        cv2.rectangle(p, (6, y + 2), end, some_color(rng, 60, 255), -1)
        write_text(p, f"{part * 900:.0f}", w // 2 - 12, y + 12, 0.4)
    side = h // 2 - 8
    for k in range(w // (side + 4)):
        x, y = 4 + k * (side + 4), h // 2 + 4
        cv2.rectangle(p, (x, y), (x + side, y + side), (35, 35, 40), -1)
        r = int(side * rng.uniform(0.2, 0.36))
        disc(p, (x + side // 2, y + side // 2), r, some_color(rng, 60, 255))
        cv2.rectangle(p, (x, y), (x + side, y + side), (190, 180, 140), 2)
        write_text(p, str((k + 1) % 10), x + 3, y + 12, 0.36)


def minimap(p, rng, t):
    h, w = p.shape[:2]
    r = min(h, w) // 2 - 4
    disc(p, (w // 2, h // 2), r, (40, 70, 50))
    for _ in range(14):
        a, d, speed = rng.uniform(0, 6.3), rng.uniform(0.1, 0.85) * r, rng.uniform(-0.03, 0.03)
        at = int(w / 2 + d * np.cos(a + speed * t)), int(h / 2 + d * np.sin(a + speed * t))
        disc(p, at, int(rng.integers(2, 6)), some_color(rng, 80, 255))
    disc(p, (w // 2, h // 2), r, (220, 210, 170), 3)
    write_text(p, "N", w // 2 - 5, h // 2 - r + 16, 0.5, thick=2)


def chat(p, rng, t):
    """Lines that move up, each with a coloured name."""
    p[:] = p // 2
    lines = []
    for _ in range(40):
        name, text = words(rng, 1), words(rng, int(rng.integers(1, 5)))
        lines.append((name, text, some_color(rng, 100, 255)))
    for k, y in enumerate(range(20, p.shape[0] - 4, 22)):
        name, text, ink = lines[(k + t // 25) % 40]
        write_text(p, name + ":", 8, y, 0.45, ink)
        write_text(p, text, 16 + 10 * len(name), y, 0.45)


def webcam(p, rng, t):
    """Somebody in front of a wall, in a coloured frame."""
    h, w = p.shape[:2]
    skin = [int(v * rng.uniform(0.5, 1)) for v in (235, 190, 160)]
    p[:] = np.linspace(*rng.integers(20, 160, (2, 3)), w).astype(np.uint8)
    for _ in range(4):
        x, y = rng.integers(0, (w, h))
        end = int(x + w / 5), int(y + h / 3)
        cv2.rectangle(p, (int(x), int(y)), end, some_color(rng, 0, 200), -1)
    x, y = int(w / 2 + 0.04 * w * np.sin(t / 17)), int(h * 0.45 + 0.02 * h * np.sin(t / 9))
    oval(p, (x, h), (w // 3, int(h * 0.38)), some_color(rng, 0, 200))
    oval(p, (x, y), (w // 8, int(h * 0.2)), skin)
    oval(p, (x, y - h // 14), (w // 7, int(h * 0.17)), some_color(rng, 0, 90), start=180)
    for side in (-1, 1):
        disc(p, (x + side * w // 22, y), max(2, w // 70), (30, 25, 25))
    cv2.rectangle(p, (2, 2), (w - 3, h - 3), some_color(rng, 60, 255), 5)


def logo(p, rng, t):
    h = len(p)
    ink, text = some_color(rng, 100, 255), words(rng, 1).upper()
    a = np.arange(rng.integers(3, 8)) * 0.9 + 0.2
    points = np.array([h * 0.4, h / 2]) + h * 0.38 * np.stack([np.cos(a), np.sin(a)], 1)
    cv2.fillPoly(p, [points.astype(np.int32)], ink, cv2.LINE_AA)
    for color, thick in (((10, 10, 10), 9), (ink[::-1], 3)):
        write_text(p, text, h * 0.8, h * 0.65, h / 60, color, thick)


def touch(p, rng, t):
    """A mobile game's controls: a floating stick at the left, round buttons at the right."""
    h, w = p.shape[:2]
    c = p.copy()
    r = min(h // 2, w // 5) - 4
    disc(c, (r + 4, h - r - 4), r, (255, 255, 255), 3)
    at = int(r + 4 + 0.5 * r * np.sin(t / 11)), int(h - r - 4 + 0.4 * r * np.cos(t / 13))
    disc(c, at, r // 2, (230, 230, 230))
    for k in range(int(rng.integers(3, 6))):
        a, size = np.pi * (1 + k / 6), int(r * rng.uniform(0.3, 0.42))
        at = int(w - r * 0.6 + 1.2 * r * np.cos(a)), int(h - r * 0.5 + 1.2 * r * np.sin(a) * 0.8)
        color = some_color(rng, 90, 255)
        full = rng.random() < 0.5 or (t // 20 + k) % 7 == 0
        disc(c, at, size, color, -1 if full else 3)
        write_text(c, "JFQER"[k], at[0] - 7, at[1] + 7, 0.7, (40, 40, 40), 2)
    cv2.addWeighted(c, 0.7, p, 0.3, 0, p)


def keyboard(p, rng, t):
    """The keys of somebody who plays without a gamepad."""
    side = min(p.shape[0] // 3, p.shape[1] // 5) - 4
    colors = rng.integers(30, 255, (2, 3))  # up, down
    for row, keys in enumerate(("1234", "QWER", "ASDF")):
        for k, key in enumerate(keys):
            x, y = int(2 + (k + row * 0.35) * (side + 4)), 2 + row * (side + 4)
            down = (t // 9 * 7 + k * 5 + row * 3) % 11 == 0
            color = colors[int(down)]
            cv2.rectangle(p, (x, y), (x + side, y + side), color.tolist(), -1)
            cv2.rectangle(p, (x, y), (x + side, y + side), (230, 230, 230), 2)
            ink = (255, 255, 255) if color.mean() < 140 else (10, 10, 10)
            write_text(p, key, x + side * 0.3, y + side * 0.65, side / 55, ink, 2)


DECOYS = {  # w, h in px, give or take a quarter
    panel: (260, 190),
    bars: (420, 120),
    minimap: (190, 190),
    chat: (330, 220),
    webcam: (300, 200),
    logo: (330, 110),
    touch: (520, 190),
    keyboard: (280, 150),
}


def show(picture, decoy, x, y, w, h, seed, t) -> None:
    decoy(picture[y : y + h, x : x + w], np.random.default_rng(seed), t)


def hud(rng):
    """A world from above that scrolls under panels: frame number -> picture."""
    W, H = SIZE
    world = map_from_above(rng)
    speed, seed = rng.uniform(0.006, 0.02, 2), int(rng.integers(1 << 30))
    places = (
        (panel, 14, 14, 270, 200),
        (minimap, W - 204, 10, 190, 190),
        (bars, 400, H - 130, 480, 120),
        (chat, 14, H - 190, 340, 176),
    )
    steps = rng.uniform(-3, 3, (12, 2))

    def frame(t):
        x = int((1 + np.sin(speed[0] * t)) / 2 * (world.shape[1] - W))
        y = int((1 + np.sin(speed[1] * t + 1)) / 2 * (world.shape[0] - H))
        out = world[y : y + H, x : x + W].copy()
        for k, step in enumerate(steps):
            cx, cy = (np.array([k * 271 % W, k * 173 % H]) + step * t).astype(int) % (W, H)
            disc(out, (int(cx), int(cy)), 16, (210 - 15 * k, 60, 15 * k))
            write_text(out, f"Lv {k + 3}", cx - 18, cy - 22, 0.45)
        for k, place in enumerate(places):
            show(out, *place, seed + k, t)
        return out

    return frame


def map_from_above(rng):
    """Grounds of five colours with trees and rocks: uint8 [2560, 3200, 3]."""
    field = cv2.GaussianBlur(rng.normal(size=(80, 100)), (0, 0), 2.2)
    levels = np.digitize(field, np.quantile(field, [0.2, 0.45, 0.7, 0.9]))
    world = np.kron(rng.integers(30, 190, (5, 3))[levels], np.ones((32, 32, 1)))
    world += np.tile(rng.normal(0, 14, (64, 64, 1)), (40, 50, 1))
    world = world.clip(0, 255).astype(np.uint8)
    for x, y, r in rng.integers((0, 0, 8), (3200, 2560, 34), (420, 3)).tolist():
        color = some_color(rng, 20, 230)
        disc(world, (x, y), r, color)
        disc(world, (x - r // 4, y - r // 4), r // 2, [min(255, v + 40) for v in color])
    return world


def novel(rng):
    """A visual novel: a still picture, a speaker, text that is typed; no median takes this away.
    Frame number -> picture.
    """
    W, H = SIZE
    still = skyline(rng)
    x, hair = int(rng.integers(380, 900)), some_color(rng, 20, 220)
    skin = [int(v * rng.uniform(0.55, 1)) for v in (250, 215, 190)]
    oval(still, (x, 290), (118, 170), hair)
    oval(still, (x, 720), (210, 300), some_color(rng, 30, 220))
    oval(still, (x, 280), (84, 112), skin)
    oval(still, (x, 235), (100, 90), hair, start=180)
    still[520:690, 60:-60] = still[520:690, 60:-60] // 4 + rng.integers(0, 50, 3).astype(np.uint8)
    cv2.rectangle(still, (60, 520), (W - 60, 690), (230, 220, 200), 3)
    write_text(still, words(rng, 1).title(), 90, 556, 0.9, (250, 220, 120), 2)
    for k, name in enumerate(("Save", "Load", "Auto", "Skip", "Log")):
        write_text(still, name, W - 480 + 80 * k, 680, 0.5, (200, 200, 200))
    text = words(rng, 34)

    def frame(t):
        out = still.copy()
        for side in (-34, 34):
            oval(out, (x + side, 285), (13, 2 if t % 80 < 5 else 17), (40, 30, 40))
        mouth = 3 + t // 3 % 3 * 3 * (t < 200)
        oval(out, (x, 345), (16, mouth), (150, 60, 60))
        for k in range(3):
            write_text(out, text[:t][70 * k : 70 * (k + 1)], 90, 596 + 32 * k, 0.75, thick=2)
        return out

    return frame


def skyline(rng):
    """Houses, some of their windows lit: uint8 [h, w, 3]."""
    W, H = SIZE
    picture = cv2.resize(rng.integers(60, 255, (2, 2, 3)).astype(np.uint8), SIZE)
    for x in range(-40, W, 90):
        top, w = int(rng.integers(120, 420)), int(rng.integers(60, 130))
        cv2.rectangle(picture, (x, top), (x + w, H), some_color(rng, 40, 150), -1)
        for v in range(top + 14, 540, 30):
            for u in range(x + 10, x + w - 14, 24):
                color = (60, 70, 90) if rng.random() < 0.5 else (250, 220, 130)
                cv2.rectangle(picture, (u, v), (u + 12, v + 16), color, -1)
    return picture
