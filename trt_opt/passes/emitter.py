"""Writing new nodes in the words of the model's own opset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto

from trt_opt.graph.edit import label
from trt_opt.passes.base import GraphEdit

_AXES_AS_INPUT = {"ReduceSum": 13, "Squeeze": 13, "Unsqueeze": 13}
_AXES_OF_OTHER_REDUCTIONS_AS_INPUT = 18
_SPLIT_SIZES_AS_INPUT = 13

Operand: TypeAlias = "gs.Tensor | NDArray[np.generic] | np.generic | None"
"""What a new node may read: a tensor of the graph, an array that becomes a constant, or None for an input left out."""


class Emitter:
    """Collects the nodes that are to take the place of one node; nothing enters the graph before all of them are made.

    Calling it appends a node of any operator and returns its outputs:

        product = emit("Mul", x, np.float32(2))
        values, indices = emit("TopK", x, np.array([3]), outputs=2, axis=1)

    Where an operator takes its axes as an attribute in one opset and as an input in another, the methods below write
    whichever the model's opset wants. New nodes are named after the node they stand for.
    """

    def __init__(self, edit: GraphEdit, node: gs.Node) -> None:
        self.edit = edit
        self.nodes: list[gs.Node] = []
        self._base = label(node)

    def __call__(self, op: str, *inputs: Operand, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Appends a node.

        Args:
            op: The operator.
            inputs: Its inputs; trailing ones may be left out.
            outputs: How many outputs it has.
            domain: Of the operator.
            attributes: Plain values, lists or arrays; None leaves an attribute out.

        Returns:
            The output tensor, or a tuple of them where there are several.
        """
        made = [gs.Variable(self.edit.fresh_name(f"{self._base}/{op}_out")) for _ in range(outputs)]
        given = {name: value for name, value in attributes.items() if value is not None}
        node = gs.Node(
            op=op,
            name=self.edit.fresh_node_name(f"{self._base}/{op}"),
            attrs=given,
            inputs=[self._tensor(value) for value in inputs],
            outputs=made,
            domain=domain or None,
        )
        self.nodes.append(node)
        return made[0] if outputs == 1 else tuple(made)

    def constant(self, values: ArrayLike, dtype: str | None = None) -> gs.Constant:
        """A new constant; `dtype` is NumPy's name of a type."""
        array = np.asarray(values, dtype)
        return gs.Constant(self.edit.fresh_name(f"{self._base}/constant"), np.array(array, order="C"))

    def cast(self, tensor: Operand, dtype: str) -> gs.Variable:
        """The tensor in another element type: NumPy's name, or onnx's in lower case ("bfloat16")."""
        names = {"float32": "FLOAT", "float64": "DOUBLE"}
        made: gs.Variable = self("Cast", tensor, to=TensorProto.DataType.Value(names.get(dtype, dtype.upper())))
        return made

    def reduce(self, op: str, tensor: Operand, axes: Sequence[int] | None, *, keepdims: bool = True) -> gs.Variable:
        """A reduction such as "ReduceSum" over axes; None reduces all of them."""
        first = _AXES_AS_INPUT.get(op, _AXES_OF_OTHER_REDUCTIONS_AS_INPUT)
        made: gs.Variable = self._over_axes(op, tensor, axes, first, keepdims=int(keepdims))
        return made

    def squeeze(self, tensor: Operand, axes: Sequence[int]) -> gs.Variable:
        """The tensor without these dimensions of size 1."""
        made: gs.Variable = self._over_axes("Squeeze", tensor, axes, _AXES_AS_INPUT["Squeeze"])
        return made

    def unsqueeze(self, tensor: Operand, axes: Sequence[int]) -> gs.Variable:
        """The tensor with dimensions of size 1 at these positions of the result."""
        made: gs.Variable = self._over_axes("Unsqueeze", tensor, axes, _AXES_AS_INPUT["Unsqueeze"])
        return made

    def reshape(self, tensor: Operand, shape: Sequence[int]) -> gs.Variable:
        """The tensor in another shape; 0 keeps a size, -1 is what is left."""
        made: gs.Variable = self("Reshape", tensor, np.asarray(shape, np.int64))
        return made

    def slice(
        self, tensor: Operand, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]
    ) -> gs.Variable:
        """A slice with constant bounds (opset 10 or later)."""
        bounds = [np.asarray(values, np.int64) for values in (starts, ends, axes, steps)]
        made: gs.Variable = self("Slice", tensor, *bounds)
        return made

    def split(self, tensor: Operand, sizes: Sequence[int], axis: int) -> tuple[gs.Variable, ...]:
        """The tensor in pieces of these sizes."""
        if self.edit.opset >= _SPLIT_SIZES_AS_INPUT:
            made = self("Split", tensor, np.asarray(sizes, np.int64), outputs=len(sizes), axis=axis)
        else:
            made = self("Split", tensor, outputs=len(sizes), axis=axis, split=list(sizes))
        return made if len(sizes) > 1 else (made,)

    def _over_axes(self, op: str, tensor: Operand, axes: Sequence[int] | None, first: int, **attributes: Any) -> Any:
        if axes is None:
            return self(op, tensor, **attributes)
        if self.edit.opset >= first:
            return self(op, tensor, np.asarray(axes, np.int64), **attributes)
        return self(op, tensor, axes=list(axes), **attributes)

    def _tensor(self, value: Operand) -> gs.Tensor:
        if value is None:
            return gs.Variable.empty()
        return value if isinstance(value, gs.Tensor) else self.constant(np.asarray(value))
