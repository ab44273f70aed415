"""AffineGrid as a sum of products with a constant grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass


class AffineGridAsSum(NodePass):
    """Replaces AffineGrid by a constant grid, multiplied by theta and summed.

    What it does: The points of the grid, with a 1 behind their coordinates, are a constant [points, 1, n + 1]; times
    theta [N, 1, n, n + 1], summed over the last axis, they are the result. A MatMul would be the same, but TensorRT
    may round its operands to TF32, which moves points by more than a pixel in a large image.

    Why TensorRT wants it: It has no AffineGrid.

    Example: AffineGrid of [N, 2, 3] with size [N, C, H, W] becomes Unsqueeze → Mul [H * W, 1, 3] → ReduceSum →
    Reshape [N, H, W, 2].

    When it declines: The size is only known at run time, and the declared shape of the output does not tell it.
    """

    name = "affine_grid_as_sum"
    operators = frozenset({"AffineGrid"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        theta = node.inputs[0]
        dtype = emit.edit.dtype(theta)
        if dtype is None:
            raise DeclinedError("the type of theta is not known")
        sizes = _sizes(node, emit.edit)
        points = _points(sizes, aligned=bool(node.attrs.get("align_corners", 0)))
        narrow = dtype in {"float16", "bfloat16"}
        wide = emit.cast(theta, "float32") if narrow else theta
        products = emit("Mul", emit.unsqueeze(wide, [1]), points.astype("float32" if narrow else dtype))
        grid = emit.reshape(emit.reduce("ReduceSum", products, [3], keepdims=False), [-1, *sizes, len(sizes)])
        return (emit.cast(grid, dtype) if narrow else grid,)


def _points(sizes: Sequence[int], *, aligned: bool) -> NDArray[np.float64]:
    """Coordinates from -1 to 1, the last axis first, and a 1: [points, 1, n + 1]."""
    axes = []
    for size in sizes:
        ends = 1.0 if aligned else 1 - 1 / size
        axes.append(np.linspace(-ends, ends, size) if size > 1 else np.zeros(1))
    meshes = np.meshgrid(*axes, indexing="ij")
    return np.stack([*reversed(meshes), np.ones(tuple(sizes))], axis=-1).reshape(-1, 1, len(sizes) + 1)


def _sizes(node: gs.Node, edit: GraphEdit) -> list[int]:
    """The spatial sizes of the grid."""
    given = edit.value(node.inputs[1])
    if given is not None:
        return [int(size) for size in given[2:]]
    declared = edit.declared_shape(node.outputs[0])
    if declared is not None:
        sizes = [size for size in declared[1:-1] if size is not None]
        if len(sizes) == len(declared) - 2:
            return sizes
    raise DeclinedError(f"its size is only known at run time: --freeze-input {node.inputs[1].name}=…")
