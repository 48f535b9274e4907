"""The overlays: drawn, read, invented, recognised."""

# Without this file an installed package of the same name could come first.
