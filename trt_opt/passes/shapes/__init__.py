"""Axes, sizes and lengths that TensorRT must know when it builds, read off what is declared."""
