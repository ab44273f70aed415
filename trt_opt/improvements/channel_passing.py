"""The operators through which a positive factor per channel passes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import onnx

from trt_opt.graph.index import attribute_of
from trt_opt.improvements.channel_flow import ChannelFlow, ConstantUse, Rule
from trt_opt.improvements.channel_layers import LAYER_RULES, float_constant
from trt_opt.improvements.channel_movement import MOVEMENT_RULES
from trt_opt.improvements.channel_unknowns import Ids, shaped


def same(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """f(s·x) = s·f(x), element by element: Relu, LeakyRelu, PRelu, Abs and others."""
    flow.ids[node.output[0]] = flow.of(node.input[0])
    for name in node.input[1:]:
        if name and not flow.is_constant(name):
            flow.unknowns.pin(flow.of(name), f"{node.op_type} {node.name!r} reads it beside what it works on")


def pool(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """Pooling over the axes behind the channels."""
    ids = flow.of(node.input[0])
    if ids.ndim > 2 and all(size == 1 for size in ids.shape[2:]):
        flow.ids[node.output[0]] = ids


def reduction(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """A mean, sum or extreme along axes on which the factors are the same."""
    ids = flow.of(node.input[0])
    axes = attribute_of(node, "axes")
    if len(node.input) > 1 and node.input[1]:
        found = flow.index.constant(node.input[1])
        axes = None if found is None else found.tolist()
    if not isinstance(axes, list) or ids.ndim == 0:
        return
    gone = {int(axis) % ids.ndim for axis in axes}
    if any(ids.shape[axis] > 1 for axis in gone):
        return
    flow.ids[node.output[0]] = ids if attribute_of(node, "keepdims", 1) else np.squeeze(ids, tuple(gone))


def common(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """Add, Sub, Sum, Mean, Max, Min: all operands must have the same factor; constants get it."""
    running = [name for name in node.input if name and not flow.is_constant(name)]
    if not running:
        return
    ids = flow.agreed([flow.of(name) for name in running])
    for position, name in enumerate(node.input):
        if not flow.is_constant(name):
            continue
        if float_constant(flow, node, position) is None:
            flow.unknowns.pin(ids, f"{node.op_type} {node.name!r} has a constant that is not float32")
        flow.uses.append(ConstantUse(node.name, position, ids, -1))
    flow.ids[node.output[0]] = ids


def product(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """Mul and Div: a constant takes up the factors on both sides; of two activations one must stay as it is."""
    constants = [position for position, name in enumerate(node.input) if flow.is_constant(name)]
    if len(constants) == 1 and (node.op_type == "Mul" or constants == [1]):
        _constant_product(flow, node, constants[0])
        return
    if constants:
        return
    kept = 0
    if node.op_type == "Mul":
        sizes = [math.prod(size or 1 for size in flow.index.shape(name) or ()) for name in node.input]
        kept = int(sizes[1] > sizes[0])
    flow.unknowns.pin(
        flow.of(node.input[1 - kept]), f"{node.op_type} {node.name!r} multiplies or divides another tensor by it"
    )
    flow.ids[node.output[0]] = _at_rank(flow.of(node.input[kept]), len(flow.index.shape(node.output[0]) or ()))


def clip(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """Clip: its bounds become one per channel, in operators of their own."""
    bounds = [name for name in node.input[1:] if name]
    if all(flow.is_constant(name) for name in bounds) and flow.of(node.input[0]).ndim:
        flow.ids[node.output[0]] = flow.clips[node.name] = flow.of(node.input[0])


def looked_at(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """Shape and Size do not see numbers at all."""
    flow.of(node.output[0])


def _constant_product(flow: ChannelFlow, node: onnx.NodeProto, position: int) -> None:
    constant = float_constant(flow, node, position)
    ids = flow.of(node.input[1 - position])
    rank = len(flow.index.shape(node.output[0]) or ())
    if rank == 0:
        return
    shape = () if constant is None else constant.shape
    long = [axis - len(shape) for axis, size in enumerate(shape) if size > 1]
    if constant is None or len(long) != 1:
        flow.ids[node.output[0]] = _at_rank(ids, rank)
        return
    made = shaped(flow.unknowns.fresh(constant.shape[long[0]]), long[0], rank)
    sign = 1 if node.op_type == "Mul" else -1
    flow.uses.extend((ConstantUse(node.name, position, ids, sign), ConstantUse(node.name, position, made, -sign)))
    flow.made(node, made)


def _at_rank(ids: Ids, rank: int) -> Ids:
    return ids.reshape([1] * (rank - ids.ndim) + list(ids.shape)) if rank > ids.ndim else ids


def _of(rule: Rule, *operators: str) -> dict[str, Rule]:
    return dict.fromkeys(operators, rule)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **LAYER_RULES,
        **MOVEMENT_RULES,
        **_of(same, "Relu", "LeakyRelu", "PRelu", "Abs", "Neg", "Identity", "Dropout"),
        **_of(pool, "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
        **_of(reduction, "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"),
        **_of(common, "Add", "Sub", "Sum", "Mean", "Max", "Min"),
        **_of(product, "Mul", "Div"),
        "Clip": clip,
        **_of(looked_at, "Shape", "Size"),
    }
)
"""Everything that a factor passes through, or that takes it up."""
