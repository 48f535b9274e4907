"""NVIDIA's checkpoint and dataset, in and out: wings that a command opens."""

# Without this file an installed package of the same name could come first.
