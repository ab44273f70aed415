"""ONNX Runtime's small operators in standard ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.contrib.layer_statistics import summed
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, is_used, optional_input
from trt_opt.passes.operand_facts import element_type, known_shape

MOST_DIFFERENCES = 1 << 24
"""CDist takes as many differences as rows · rows · columns; above this the pass declines."""

_GRID_SAMPLE = 16
_GRID_SAMPLE_MODES_RENAMED = 20
_TRILU = 14

Results = Sequence["gs.Tensor | None"]


def _bias_add(node: gs.Node, emit: Emitter) -> Results:
    return (summed(emit, node.inputs[:3]),)


def _bias_dropout(node: gs.Node, emit: Emitter) -> Results:
    training = optional_input(node, 4)
    if training is not None:
        value = emit.edit.value(training)
        if value is None or value.any():
            raise DeclinedError("it drops numbers at random, for training: export the model for inference")
    total = summed(emit, (node.inputs[0], node.inputs[1], optional_input(node, 2)))
    if len(node.outputs) < 2 or not is_used(node.outputs[1], emit.edit):
        return (total,)
    return total, emit("Expand", np.ones((), np.bool_), emit("Shape", total))


def _expand_dims(node: gs.Node, emit: Emitter) -> Results:
    axis = emit.edit.value(node.inputs[1])
    if axis is None:
        raise DeclinedError(f"its axis is only known at run time: --freeze-input {node.inputs[1].name}=…")
    return (emit.unsqueeze(node.inputs[0], [int(axis.reshape(()))]),)


def _complex_product(node: gs.Node, emit: Emitter) -> Results:
    """(a + bi)(c + di), or (a + bi)(c - di), of tensors whose last axis holds the two parts."""
    (a, b), (c, d) = (_parts(emit, tensor) for tensor in node.inputs[:2])
    straight = emit("Mul", a, c), emit("Mul", b, d)
    crossed = emit("Mul", b, c), emit("Mul", a, d)
    conjugate = node.op == "ComplexMulConj"
    real = emit("Add" if conjugate else "Sub", *straight)
    imaginary = emit("Sub" if conjugate else "Add", *crossed)
    return (emit("Concat", real, imaginary, axis=-1),)


def _parts(emit: Emitter, tensor: gs.Tensor) -> Sequence[gs.Tensor]:
    return emit.split(tensor, (1, 1), -1)


def _distance(node: gs.Node, emit: Emitter) -> Results:
    metric = node.attrs.get("metric", "sqeuclidean")
    if metric not in {"sqeuclidean", "euclidean"}:
        raise DeclinedError(f"the distance {metric!r} is not written out")
    one, other = node.inputs[:2]
    (rows, columns), (others, _) = known_shape(emit, one), known_shape(emit, other)
    if (rows or 1) * (others or 1) * (columns or 1) > MOST_DIFFERENCES:
        raise DeclinedError(f"the differences of {rows} and {others} rows of {columns} would be too many")
    apart = emit("Sub", emit.unsqueeze(one, [1]), emit.unsqueeze(other, [0]))
    squares = emit.reduce("ReduceSum", emit("Mul", apart, apart), [2], keepdims=False)
    return (squares if metric == "sqeuclidean" else emit("Sqrt", squares),)


def _unfold(node: gs.Node, emit: Emitter) -> Results:
    shape = known_shape(emit, node.inputs[0])
    along = int(node.attrs.get("dim", -1)) % len(shape)
    length, size = shape[along], int(node.attrs["size"])
    if length is None:
        raise DeclinedError(f"the length of axis {along} is not static")
    starts = np.arange(0, length - size + 1, int(node.attrs.get("step", 1)))
    windows = emit("Gather", node.inputs[0], starts[:, None] + np.arange(size), axis=along)
    order = [axis for axis in range(len(shape) + 1) if axis != along + 1]
    return (emit("Transpose", windows, perm=[*order, along + 1]),)


def _embedding(node: gs.Node, emit: Emitter) -> Results:
    return (emit("Gather", node.inputs[0], node.inputs[1], axis=0),)


def _nothing(node: gs.Node, emit: Emitter) -> Results:
    return (emit("Identity", node.inputs[0]),)


def _pad(node: gs.Node, emit: Emitter) -> Results:
    pads, fill = node.inputs[1], optional_input(node, 2)
    flat = pads if len(known_shape(emit, pads)) == 1 else emit.reshape(pads, [-1])
    if fill is not None and len(known_shape(emit, fill)) != 0:
        fill = emit.reshape(fill, [])
    return (emit("Pad", node.inputs[0], flat, fill, mode=node.attrs.get("mode", "constant")),)


def _range(node: gs.Node, emit: Emitter) -> Results:
    step: gs.Tensor | None = optional_input(node, 2)
    ends = [emit.reshape(tensor, []) if emit.edit.rank(tensor) != 0 else tensor for tensor in node.inputs[:2]]
    if step is None:
        step = emit.constant(1, element_type(emit, *node.inputs[:2]))
    elif emit.edit.rank(step) != 0:
        step = emit.reshape(step, [])
    return (emit("Range", *ends, step),)


def _gather_nd(node: gs.Node, emit: Emitter) -> Results:
    indices = node.inputs[1]
    wide = indices if emit.edit.dtype(indices) == "int64" else emit.cast(indices, "int64")
    return (emit("GatherND", node.inputs[0], wide),)


def _triangle(node: gs.Node, emit: Emitter) -> Results:
    _require_opset(emit, _TRILU)
    return (emit("Trilu", node.inputs[0], optional_input(node, 1), upper=int(node.attrs.get("upper", 1))),)


def _grid_sample(node: gs.Node, emit: Emitter) -> Results:
    _require_opset(emit, _GRID_SAMPLE)
    mode = node.attrs.get("mode", "bilinear")
    if emit.edit.opset >= _GRID_SAMPLE_MODES_RENAMED:
        mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    given = {name: node.attrs.get(name) for name in ("align_corners", "padding_mode")}
    return (emit("GridSample", *node.inputs[:2], mode=mode, **given),)


def _require_opset(emit: Emitter, first: int) -> None:
    if emit.edit.opset < first:
        raise DeclinedError(f"the model's opset {emit.edit.opset} has no such operator, {first} has")


_WRITERS: Mapping[str, Callable[[gs.Node, Emitter], Results]] = MappingProxyType(
    {
        "BiasAdd": _bias_add,
        "BiasDropout": _bias_dropout,
        "CDist": _distance,
        "ComplexMul": _complex_product,
        "ComplexMulConj": _complex_product,
        "ExpandDims": _expand_dims,
        "GatherND": _gather_nd,
        "GridSample": _grid_sample,
        "Pad": _pad,
        "Range": _range,
        "SampleOp": _nothing,
        "TorchEmbedding": _embedding,
        "Trilu": _triangle,
        "UnfoldTensor": _unfold,
    }
)


class DecomposeSmallContribOperators(NodePass):
    """Writes small operators of ONNX Runtime's own domain out in standard ones.

    What it does: BiasAdd and BiasDropout (which drops nothing in inference) become Adds, ExpandDims Unsqueeze,
    ComplexMul and ComplexMulConj products of the two parts, CDist the sum of squared differences, UnfoldTensor Gather
    and Transpose, TorchEmbedding Gather. SampleOp does nothing. Pad, GatherND, Range, Trilu and GridSample become the
    standard operators of the same name, where the opset has them.

    Why TensorRT wants it: It has importers for those alone that share their name with a standard operator, and models
    with custom operators cannot be raised to the opset it wants.

    Example: com.microsoft::ExpandDims(x, 1) becomes Unsqueeze(x, axes=[1]).

    When it declines: Dropout in training; an axis or a length that is not constant; a distance other than the
    euclidean; too many differences; an opset without the operator.
    """

    name = "decompose_small_contrib_operators"
    operators = frozenset(f"com.microsoft::{name}" for name in _WRITERS)
    oldest_opset = 11

    def replacement(self, node: gs.Node, emit: Emitter) -> Results:
        """See the class."""
        return _WRITERS[node.op](node, emit)
