"""Rules about sums and concatenations, whose operands have to agree."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from trt_opt.quantize.lint.linted_graph import STANDARD, LintedGraph
from trt_opt.quantize.lint.rule import Breach, Rule
from trt_opt.values.lint import RuleDescription


def _residual(graph: LintedGraph) -> Iterator[Breach]:
    for node in graph.nodes:
        if node.op_type not in ("Add", "Sum") or node.domain not in STANDARD or len(node.input) != 2:
            continue
        shapes = [graph.index.shape(name) for name in node.input]
        if shapes[0] is None or shapes[0] != shapes[1] or not graph.reaches_int8(node.output[0]):
            continue
        for layer, skip in ((node.input[1], node.input[0]), (node.input[0], node.input[1])):
            made_by = _own_int8_layer(layer, graph)
            if made_by is not None and _is_in_float(skip, graph):
                message = f"{made_by.name!r} runs in INT8 and could fuse with this sum, the branch {skip!r} is in float"
                yield Breach((node.name, made_by.name), message)
                break


def _own_int8_layer(tensor: str, graph: LintedGraph) -> onnx.NodeProto | None:
    """The INT8 layer that makes the tensor for one reader alone."""
    made_by = graph.index.producer(tensor)
    alone = len(graph.index.readers(tensor)) == 1 and not graph.index.is_read_elsewhere(tensor)
    if made_by is None or not alone or not graph.runs_in_int8(made_by):
        return None
    return made_by if graph.holds_integers(graph.dequantizer_of(made_by.input[0], moved=True)) else None


def _is_in_float(tensor: str, graph: LintedGraph) -> bool:
    return graph.dequantizer_of(tensor, moved=True) is None and not graph.is_build_time(tensor)


def _concat_branch(graph: LintedGraph) -> Iterator[Breach]:
    for node, inputs in _concats(graph):
        floats = [name for name in inputs if graph.dequantizer_of(name, moved=True) is None]
        if floats and len(floats) < len(inputs):
            yield Breach((node.name,), f"{len(floats)} of its {len(inputs)} inputs are in float: {floats[0]!r}")


def _concat_scales(graph: LintedGraph) -> Iterator[Breach]:
    for node, inputs in _concats(graph):
        makers = [graph.dequantizer_of(name, moved=True) for name in inputs]
        scales = [graph.scale(maker) for maker in makers if maker is not None]
        found = {float(scale[0]) for scale in scales if scale is not None and scale.size == 1}
        if None not in makers and len(found) > 1:
            yield Breach((node.name,), f"its inputs have {len(found)} scales, {min(found):.3g} to {max(found):.3g}")


def _concats(graph: LintedGraph) -> Iterator[tuple[onnx.NodeProto, list[str]]]:
    """Each Concat, and those of its inputs that are no constants."""
    for node in graph.nodes:
        if node.op_type == "Concat" and node.domain in STANDARD:
            yield node, [name for name in node.input if not graph.is_build_time(name)]


_QUANTIZE_AGAIN = "quantise the float model with `trt-opt quantize`, whose placement sees to it"

BRANCH_RULES = (
    Rule(
        RuleDescription(
            "residual-branch-not-quantized",
            "warning",
            "A sum of an INT8 layer's output and a branch in float, whose result is INT8 again",
            "TensorRT fuses layer and sum into one INT8 kernel only if the branch is quantised too "
            '("Working with Quantized Types").',
            _QUANTIZE_AGAIN,
        ),
        _residual,
    ),
    Rule(
        RuleDescription(
            "concat-branch-not-quantized",
            "warning",
            "A Concat of INT8 and float inputs",
            "It runs in float then, and the pairs in front of it are for nothing.",
            _QUANTIZE_AGAIN,
        ),
        _concat_branch,
    ),
    Rule(
        RuleDescription(
            "concat-scales-differ",
            "warning",
            "A Concat whose inputs have different scales",
            "Each input is converted to a common scale first, a kernel each.",
            _QUANTIZE_AGAIN,
        ),
        _concat_scales,
    ),
)
"""About branches that meet."""
