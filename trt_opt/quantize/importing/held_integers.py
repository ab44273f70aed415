"""What is known of tensors of integers: the floats they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from trt_opt.quantize.importing.constants import Array

ACTIVATION_TYPES = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16})


class UnreadableError(Exception):
    """A node that cannot be brought to normal form; says why. Never leaves this folder."""


@dataclass(frozen=True, slots=True)
class ConstantGrid:
    """scale · (q - zero_point), known without running the model.

    Attributes:
        scale: Above zero.
        zero_point: In the type.
        element: The integers' `TensorProto` type.
        float_element: The floats'.
    """

    scale: float
    zero_point: int
    element: int
    float_element: int = TensorProto.FLOAT

    @property
    def step(self) -> Array:
        """The scale, a scalar of the floats' type."""
        return np.asarray(self.scale, helper.tensor_dtype_to_np_dtype(self.float_element))

    @property
    def offset(self) -> Array:
        """The zero-point, a scalar of the integers' type."""
        return np.asarray(self.zero_point, helper.tensor_dtype_to_np_dtype(self.element))

    def float_of(self, integer: float) -> NDArray[np.generic]:
        """The number an integer stands for, a scalar of the floats' type."""
        exact = np.float32(integer - self.zero_point) * np.float32(self.scale)
        return np.asarray(exact, helper.tensor_dtype_to_np_dtype(self.float_element))


@dataclass(frozen=True, slots=True)
class RunTimeGrid:
    """A grid that a DynamicQuantizeLinear finds as the model runs.

    Attributes:
        scale: Its output of that meaning, which also tells grids apart.
        zero_point: Likewise.
    """

    scale: str
    zero_point: str


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of a tensor of integers.

    Attributes:
        grid: What they stand for.
        float_name: The tensor in the new graph that holds these floats; None while nothing needs them.
        unquantized: What the QuantizeLinear reads that makes the integers.
        parameters: The scale and the zero-point in the new graph; None where nothing has written them yet.
        is_written: Whether a node of the new graph, or its caller, gives the integers under their own name.
    """

    grid: ConstantGrid | RunTimeGrid
    float_name: str | None = None
    unquantized: str | None = None
    parameters: tuple[str, str] | None = None
    is_written: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class StoredConstant:
    """Integers of the model behind a DequantizeLinear.

    Attributes:
        integers: Of the shape of the floats.
        scale: No dimension, [slices of the axis], or one per block.
        zero: Of the integers' type and the scale's shape.
        axis: Of slices or blocks.
        block: Elements of a block; 0 where there are none.
    """

    integers: Array
    scale: Array
    zero: Array
    axis: int = 1
    block: int = 0

    @property
    def attributes(self) -> dict[str, int]:
        """Of the DequantizeLinear."""
        if self.scale.ndim == 0:
            return {}
        return {"axis": self.axis, **({"block_size": self.block} if self.block else {})}
