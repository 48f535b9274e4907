"""The policy at the pad of your own game: wings that a command opens."""

# Without this file an installed package of the same name could come first.
