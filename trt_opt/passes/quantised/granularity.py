"""Which elements of a tensor share a scale and a zero-point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter, Operand
from trt_opt.passes.node_pass import DeclinedError
from trt_opt.passes.quantised import exact_integers


@dataclass(frozen=True)
class Granularity:
    """How the scale of a QuantizeLinear or DequantizeLinear is laid along its tensor.

    Attributes:
        vector_shape: The shape in which one number per slice of the axis broadcasts.
        axis: Of the slices or blocks.
        block: Elements of a block; 0 where there are none.
        length: Of the axis, where there are blocks.
    """

    vector_shape: Sequence[int]
    axis: int
    block: int
    length: int

    @classmethod
    def of(cls, node: gs.Node, emit: Emitter) -> Granularity:
        """The granularity of a node.

        Raises:
            DeclinedError: The rank of its tensor is not known, or the length of a blocked axis is not static.
        """
        shape = emit.edit.shape(node.inputs[0])
        if shape is None:
            raise DeclinedError("the rank of its input is not known")
        axis = int(node.attrs.get("axis", 1))
        axis += len(shape) if axis < 0 else 0
        block = int(node.attrs.get("block_size", 0))
        length = shape[axis] if block else 0
        if length is None:
            raise DeclinedError(f"the length of axis {axis}, which is quantised in blocks, is not static")
        return cls((-1, *(1 for _ in shape[axis + 1 :])), axis, block, length)

    def zero_point(self, tensor: gs.Tensor | None, emit: Emitter) -> Operand:
        """The zero-points in FLOAT, so that they broadcast; None where there are none."""
        found = exact_integers.zero_point(tensor, self.vector_shape, emit)
        return found if tensor is None else self.spread(found, tensor, emit)

    def spread(self, values: Operand, tensor: gs.Tensor, emit: Emitter) -> Operand:
        """One number per block becomes one per element of the axis; anything else stays.

        Args:
            values: The numbers, in any type TensorRT can gather.
            tensor: The input they come from.
            emit: Where nodes are written.
        """
        if not self.block or values is None or emit.edit.rank(tensor) in {0, None}:
            return values
        positions = np.arange(self.length) // self.block
        if isinstance(values, gs.Tensor):
            gathered: gs.Variable = emit("Gather", values, positions, axis=self.axis)
            return gathered
        return np.take(np.asarray(values), positions, self.axis)
