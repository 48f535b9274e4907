"""A gamepad or a screen."""

from __future__ import annotations


class Device:
    """A gamepad or a screen: what most of them leave as it is."""

    environment: dict = {}
    ready = True  # of a gamepad: the game has taken it

    def attach(self) -> None:
        """The clock runs."""

    def close(self) -> None:
        """Nothing of it is ours: it goes with the game."""
