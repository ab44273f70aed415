"""What is known of a tensor without running anything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A graph input's or output's name, element type and shape.

    Attributes:
        name: The tensor's name.
        dtype: NumPy's name of the element type ("float32", "bool"), or onnx's for types NumPy lacks ("bfloat16").
        shape: One entry per dimension: a size, or the symbol of a dynamic one ("?" where it has none);
            None when even the rank is unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None

    @property
    def is_static(self) -> bool:
        """Whether every dimension is a number."""
        return self.shape is not None and all(isinstance(size, int) for size in self.shape)

    @property
    def is_float(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return "float" in self.dtype

    def __str__(self) -> str:
        shape = "?" if self.shape is None else "x".join(str(size) for size in self.shape) or "scalar"
        return f"{self.name}: {self.dtype} [{shape}]"
