"""From a quantised model in normal form to one whose every pair is INT8 around zero, which is what TensorRT takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx

from trt_opt.graph.index import GraphIndex, captured_names
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.opset import converted_to_opset
from trt_opt.graph.query import PAIR_OPS, infer_shapes, opset
from trt_opt.graph.writer import drop_unread
from trt_opt.quantize.importing.grid_choice import symmetric_scales
from trt_opt.quantize.importing.grid_reading import Pair, pairs_of
from trt_opt.quantize.importing.shift_folding import Plan, ShiftFolding
from trt_opt.quantize.importing.symmetric_weights import with_symmetric_weights
from trt_opt.values.importing import ImportedTensor, ImportedWeights, ZeroPoints
from trt_opt.values.rewriting import Change, Decline

LEAST_OPSET = 13
"""Before it neither weights with a scale per channel nor Pad and Clip in their present forms exist."""


@dataclass(frozen=True, slots=True, eq=False)
class SymmetricForm:
    """A model whose pairs are symmetric, as far as that goes.

    Attributes:
        model: The model; the very one that was given where nothing had to change.
        changed: What was done.
        declined: What was left alone, and why.
        tensors: What became of each quantised activation.
        weights: What became of each quantised weight.
        notes: What else is worth knowing.
    """

    model: onnx.ModelProto
    changed: tuple[Change, ...] = ()
    declined: tuple[Decline, ...] = ()
    tensors: tuple[ImportedTensor, ...] = ()
    weights: tuple[ImportedWeights, ...] = ()
    notes: tuple[str, ...] = ()


def symmetric_form(
    model: onnx.ModelProto,
    *,
    zero_points: ZeroPoints,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> SymmetricForm:
    """Makes every pair symmetric INT8.

    Args:
        model: In normal form: QuantizeLinear and DequantizeLinear of the standard alone, each activation's
            QuantizeLinear read by one DequantizeLinear of the same grid.
        zero_points: "fold" keeps the scales and gives the same numbers up to rounding ties; "regrid" chooses scales
            that reach what the old grid reaches, and changes nothing around the pairs.
        ranges: With "regrid": tensor → lowest and highest number seen in data. Only ever makes grids finer.

    Raises:
        UnsupportedModelError: The model's opset is below 13 and cannot be raised.
    """
    if not any(node.op_type in PAIR_OPS for node in model.graph.node):
        return SymmetricForm(model)
    ready = with_unique_node_names(model if opset(model) >= LEAST_OPSET else converted_to_opset(model, LEAST_OPSET))
    weights = with_symmetric_weights(ready)
    index = GraphIndex(infer_shapes(weights.model))
    pairs, unreadable = pairs_of(index)
    plans, left = _plans(pairs, index, zero_points, ranges or {})
    declined = (*weights.declined, *unreadable, *left)
    if all(plan.becomes == "kept" for plan in plans):
        kept = tuple(_kept(plan) for plan in plans)
        result = weights.model if weights.changed else model
        return SymmetricForm(result, weights.changed, declined, kept, weights.weights)
    folding = ShiftFolding(index, plans)
    folding.run()
    result = _without_unread_pairs(folding.writer.finished())
    return SymmetricForm(
        model=result,
        changed=(*weights.changed, *_regridded(plans), *folding.writer.changed),
        declined=(*declined, *folding.declined),
        tensors=tuple(_imported(plan, folding, _written(result)) for plan in plans),
        weights=weights.weights,
        notes=tuple(_notes(plans, folding)),
    )


def _plans(
    pairs: tuple[Pair, ...], index: GraphIndex, zero_points: ZeroPoints, ranges: Mapping[str, tuple[float, float]]
) -> tuple[tuple[Plan, ...], list[Decline]]:
    asymmetric = [pair for pair in pairs if not pair.grid.is_symmetric and not pair.grid.is_wide and pair.dequantize]
    scales = symmetric_scales(asymmetric, ranges, index) if zero_points == "regrid" else {}
    plans: list[Plan] = []
    declined: list[Decline] = []
    for pair in pairs:
        if pair.grid.is_symmetric:
            plans.append(Plan(pair, "kept"))
        elif pair.grid.is_wide and _is_at_an_end(pair, index):
            plans.append(Plan(pair, "kept"))
            declined.append(Decline(pair.tensor, f"{pair.grid.dtype.upper()} integers are fed or given out"))
        elif pair.grid.is_wide:
            plans.append(Plan(pair, "float"))
        elif pair.dequantize is not None and zero_points == "regrid":
            plans.append(Plan(pair, "regridded", scales[pair.grid]))
        else:
            plans.append(Plan(pair, "folded"))
    return tuple(plans), declined


def _is_at_an_end(pair: Pair, index: GraphIndex) -> bool:
    return pair.quantize is None or pair.dequantize is None or pair.quantize.output[0] in index.outputs


def _kept(plan: Plan) -> ImportedTensor:
    grid = plan.pair.grid
    return ImportedTensor(
        plan.pair.tensor, grid.scale, grid.zero_point, grid.dtype, "kept", grid.scale, 0.0, plan.pair.tensor
    )


def _imported(plan: Plan, folding: ShiftFolding, written: frozenset[str]) -> ImportedTensor:
    """What stands for the tensor: the pair's own result, or the padded one where that is all that is read."""
    pair, grid = plan.pair, plan.pair.grid
    if plan.becomes == "kept" or pair.dequantize is None:
        return _kept(plan)
    held = folding.writer.held(pair.tensor)
    now, pads = held.name, tuple[int, ...]()
    if now not in written and folding.writer.padded.get(pair.tensor):
        now, pads = folding.writer.padded[pair.tensor][0]
    return ImportedTensor(
        pair.tensor, grid.scale, grid.zero_point, grid.dtype, plan.becomes, plan.step, held.shift, now, pads
    )


def _regridded(plans: tuple[Plan, ...]) -> Iterator[Change]:
    for plan in plans:
        if plan.becomes == "regridded":
            grid = plan.pair.grid
            what = f"grid of scale {grid.scale:.6g}, zero-point {grid.zero_point} became one of scale {plan.step:.6g}"
            yield Change(plan.pair.tensor, what)


def _notes(plans: tuple[Plan, ...], folding: ShiftFolding) -> Iterator[str]:
    if folding.padded:
        several = folding.padded > 1
        yield (
            f"{folding.padded} convolution{'s' * several} with padding read{'s' * (not several)} a Pad: what is padded "
            "is no longer 0; `trt-opt rewrite --zero-points regrid` does without"
        )
    coarse = [plan for plan in plans if plan.new_scale is not None and plan.new_scale > 1.5 * plan.pair.grid.scale]
    if coarse:
        yield (
            f"{len(coarse)} tensors of one sign lost up to one bit: half of a symmetric grid is unused; "
            "--zero-points fold keeps their grids"
        )


def _written(model: onnx.ModelProto) -> frozenset[str]:
    return frozenset(name for node in model.graph.node for name in node.output)


def _without_unread_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Takes out, in place, the pairs whose every reader reads a padded form or nothing at all."""
    graph = model.graph
    read = {value.name for value in graph.output}
    read.update(name for node in graph.node for name in captured_names(node))
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if node.op_type in PAIR_OPS and not read.intersection(node.output):
            continue
        read.update(node.input)
        kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    drop_unread(model)
    return model
