"""The inputs of a model that decide what TensorRT wants to know when it builds: axes, scales, sizes, trip counts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onnx import GraphProto, ModelProto, NodeProto

from trt_opt.graph.query import graph_inputs
from trt_opt.graph.tensors import subgraphs_of

_AXES = dict.fromkeys(
    [f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")]
    + ["Squeeze", "Unsqueeze", "CumSum", "CumProd", "Split", "SplitToSequence", "SequenceAt", "SequenceErase", "Trilu"]
    + ["Reshape", "Expand", "Tile", "TopK", "OneHot", "CenterCropPad", "AffineGrid", "Upsample"],
    (1,),
)

BUILD_TIME_INPUTS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        **_AXES,
        "BlackmanWindow": (0,),
        "Col2Im": (1, 2),
        "ConstantOfShape": (0,),
        "DFT": (1, 2),
        "Dropout": (1, 2),
        "HammingWindow": (0,),
        "HannWindow": (0,),
        "If": (0,),
        "Loop": (0, 1),
        "MaxUnpool": (2,),
        "MelWeightMatrix": (0, 1, 2, 3, 4),
        "Pad": (1, 3),
        "Range": (0, 1, 2),
        "Resize": (1, 2, 3),
        "SequenceInsert": (2,),
        "Slice": (1, 2, 3, 4),
        "STFT": (1, 3),
    }
)
"""Operator → the positions of its inputs that decide the shape of its result, or which computation it is."""


def build_time_inputs(model: ModelProto) -> tuple[str, ...]:
    """The graph inputs from which a build-time operand of any node is computed, in order.

    The values of a tensor whose Shape or Size is taken play no part. Freezing these inputs (`FreezeInputs`) is what
    makes a model buildable whose refusals come from operands known at run time only.
    """
    wanted: set[str] = set()
    producers: dict[str, NodeProto] = {}
    _collect(model.graph, wanted, producers)
    waiting, found = list(wanted), set(wanted)
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or node.op_type in {"Shape", "Size"}:
            continue
        read = set(_read_by(node)) - found
        found |= read
        waiting += read
    return tuple(spec.name for spec in graph_inputs(model) if spec.name in found)


def _collect(graph: GraphProto, wanted: set[str], producers: dict[str, NodeProto]) -> None:
    for node in graph.node:
        producers.update((name, node) for name in node.output if name)
        positions = BUILD_TIME_INPUTS.get(node.op_type, ()) if node.domain in {"", "ai.onnx"} else ()
        wanted.update(node.input[position] for position in positions if position < len(node.input))
        for inner in subgraphs_of(node):
            _collect(inner, wanted, producers)
    wanted.discard("")


def _read_by(node: NodeProto) -> list[str]:
    """What the values of a node's results depend on; CastLike takes no more than the type of its second input."""
    if node.op_type == "CastLike":
        return [node.input[0]]
    names = [name for name in node.input if name]
    for graph in subgraphs_of(node):
        names += [name for inner in graph.node for name in _read_by(inner)]
        names += [value.name for value in graph.output]
    return names
