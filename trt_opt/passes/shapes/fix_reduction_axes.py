"""Axes of reductions that follow from the shapes the model declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass
from trt_opt.passes.shapes.declared_sizes import Sizes, agree, has_runtime_axes, known_sizes, promised_sizes

MOST_ALTERNATIVES = 6
"""As many reductions are computed where the shapes leave several sets of axes; above this the pass declines."""

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")

_AxisSets = Mapping[tuple[int, ...], tuple[int, ...]]
"""The axes of a set that are not of size 1 → the set; without those of size 1 it is the same reduction."""


class FixReductionAxes(NodePass):
    """Gives constant axes to reductions whose axes are known at run time only, as far as the declared shapes tell.

    What it does: An axes input of declared length 0 means all axes, or none with noop_with_empty_axes. Otherwise every
    set of axes is tried that is as long as the axes input. If just one leads from the shape of the input to the shape
    the model declares for the output, it becomes a constant, and nobody reads the axes input any more. If several do,
    each is computed and the axes input selects one. The declared output may be reached through operators that keep
    shapes, such as Sqrt or Cast.

    Why TensorRT wants it: Axes must be build-time constants.

    Example: ReduceSum(x [3, 2, 2], axes [1]) → y [3, 1, 2] becomes ReduceSum(x, [1]).

    When it declines: No shape is declared for the output; more than 6 sets of axes fit it, or several of different
    length or dynamic sizes; --freeze-input fixes the axes then.
    """

    name = "fix_reduction_axes"
    operators = frozenset(f"Reduce{kind}" for kind in _REDUCTIONS)

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """TensorRT takes constant axes."""
        return super().wants(node, edit) and has_runtime_axes(node, edit)

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        axes = node.inputs[1]
        known = emit.edit.shape(axes)
        count = known[0] if known else None
        if count == 0:
            return (_reduction(node, (), emit),)
        fitting = _fitting_axes(node, count, emit)
        if len(fitting) == 1:
            [found] = fitting.values()
            return (_reduction(node, found, emit),)
        return (_selected_reduction(node, fitting, emit),)


def _may_reduce_nothing(node: gs.Node) -> bool:
    return bool(node.attrs.get("noop_with_empty_axes", 0))


def _reduction(node: gs.Node, axes: Sequence[int], emit: Emitter) -> gs.Tensor:
    if not axes and _may_reduce_nothing(node):
        return _without_reduction(node, emit)
    return emit.reduce(node.op, node.inputs[0], axes or None, keepdims=bool(node.attrs.get("keepdims", 1)))


def _without_reduction(node: gs.Node, emit: Emitter) -> gs.Tensor:
    """A reduction over no axes at all: what the operator does besides summing still happens."""
    source: gs.Tensor = node.inputs[0]
    match node.op:
        case "ReduceL1" | "ReduceL2":
            made = emit("Abs", source)
        case "ReduceLogSum":
            made = emit("Log", source)
        case "ReduceSumSquare":
            made = emit("Mul", source, source)
        case _:
            return source
    result: gs.Tensor = made
    return result


def _fitting_axes(node: gs.Node, count: int | None, emit: Emitter) -> _AxisSets:
    freeze = f"--freeze-input {node.inputs[1].name}=… gives it constant axes"
    sizes = known_sizes(node.inputs[0], emit.edit)
    wanted = promised_sizes(node.outputs[0], emit.edit)
    if sizes is None or wanted is None:
        raise DeclinedError(f"its axes are only known at run time, and no declared output shape tells them: {freeze}")
    keepdims = bool(node.attrs.get("keepdims", 1))
    fitting: dict[tuple[int, ...], tuple[int, ...]] = {}
    shapes = set()
    shortest = 0 if _may_reduce_nothing(node) else 1
    lengths = range(shortest, len(sizes) + 1) if count is None else (count,)
    for chosen in (chosen for length in lengths for chosen in combinations(range(len(sizes)), length)):
        reduced = _reduced(sizes, chosen, keepdims=keepdims)
        if agree(reduced, wanted):
            fitting.setdefault(tuple(axis for axis in chosen if sizes[axis] != 1), chosen)
            shapes.add(reduced)
    same_shape = len(shapes) == 1 and None not in next(iter(shapes))
    if len(fitting) == 1 or (count is not None and same_shape and len(fitting) <= MOST_ALTERNATIVES):
        return fitting
    told = " or ".join(str(list(chosen)) for chosen in fitting.values()) or "none"
    raise DeclinedError(f"its axes are only known at run time; by the declared shapes they may be {told}: {freeze}")


def _reduced(sizes: Sizes, axes: Sequence[int], *, keepdims: bool) -> Sizes:
    if keepdims:
        return tuple(1 if axis in axes else size for axis, size in enumerate(sizes))
    return tuple(size for axis, size in enumerate(sizes) if axis not in axes)


def _selected_reduction(node: gs.Node, fitting: _AxisSets, emit: Emitter) -> gs.Tensor:
    """All reductions there may be, and the one whose axes the axes input holds, told by a sum of powers of two."""
    source, axes = node.inputs[0], node.inputs[1]
    rank = emit.edit.rank(source) or 0
    relevant = {axis for key in fitting for axis in key}
    weights = np.array([1 << axis if axis in relevant else 0 for axis in range(rank)], np.int64)
    counted = emit("Where", emit("Less", axes, np.int64(0)), emit("Add", axes, np.int64(rank)), axes)
    told = emit.reduce("ReduceSum", emit("Gather", weights, counted), [0], keepdims=False)
    keys = list(fitting)
    chosen = _reduction(node, fitting[keys[0]], emit)
    for key in keys[1:]:
        code = np.int64(sum(1 << axis for axis in key))
        chosen = emit("Where", emit("Equal", told, code), _reduction(node, fitting[key], emit), chosen)
    return chosen
