"""What others made, in and out: NVIDIA's checkpoint and dataset. Wings that a command opens."""

# Without this file an installed package of the same name could come first.
