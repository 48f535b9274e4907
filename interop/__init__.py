"""What others made, in and out: NVIDIA's checkpoint and dataset, LeRobot datasets. Wings that a
command opens.
"""

# Without this file an installed package of the same name could come first.
