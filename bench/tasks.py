"""The thirty tasks of the built-in games, by genre and category: python eval.py tasks"""

from __future__ import annotations

import functools

from common.command_line import Common

import eval as evaluation

CATEGORIES = ("combat", "navigation", "specific")
# groups of the paper's figure, and the genres in each
GROUPS = {
    "3D": ("open world", "action RPG", "sports"),
    "2D top-down": ("roguelike",),
    "2D side-scroller": ("2D side-scroller",),
}
Config = Common


def main(c: Config) -> None:
    counts = dict.fromkeys(CATEGORIES, 0)
    for name in sorted(evaluation.game_names(), key=genre_order):
        kind = " / ".join(dict.fromkeys((group_of(name), genre(name))))
        print(f"{kind}: {(evaluation.game(name).__doc__ or '').strip().splitlines()[0]}")
        for key, t in evaluation.game(name).TASKS.items():
            counts[t.category] += 1
            print(f"  {key:10s} {t.category:10s} {t.seconds:4.0f} s  {t.goal}")
    each = ", ".join(f"{n} {category}" for category, n in counts.items())
    print(f"{sum(counts.values())} tasks: {each}")


@functools.cache
def genre(name: str) -> str:
    return evaluation.game(name).Game.genre


def group_of(name: str) -> str:
    return next(group for group, genres in GROUPS.items() if genre(name) in genres)


def genre_order(name: str) -> tuple[int, str]:
    """For sorting games as in GROUPS, then by the alphabet."""
    order = [g for genres in GROUPS.values() for g in genres]
    return order.index(genre(name)), name
