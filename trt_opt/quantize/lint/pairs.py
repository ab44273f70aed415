"""Rules about where pairs stand."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from trt_opt.quantize.lint.linted_graph import SENSITIVE_OPS, LintedGraph
from trt_opt.quantize.lint.rule import Breach, Rule
from trt_opt.quantize.placement import ACTIVATION_OPS
from trt_opt.quantize.rules import moves_data_only
from trt_opt.values.lint import RuleDescription

BREAKS_FUSION = ACTIVATION_OPS | {"BatchNormalization"}
"""What TensorRT fuses into the layer before it, unless a pair stands in between."""

INSIDE_OPS = frozenset({"Exp", "Pow", "Sqrt", "Erf", "Reciprocal", "Log"})
"""What exporters write Softmax, LayerNorm and GELU with: their results are meant for the next part."""


def _orphans(graph: LintedGraph) -> Iterator[Breach]:
    for node in graph.quantizers():
        given_out = graph.index.is_read_elsewhere(node.output[0])
        if not graph.index.readers(node.output[0]) and not given_out:
            yield Breach(_pair(node, graph), "nobody reads it", "error")
        elif graph.is_dq(node) and len(_pair(node, graph)) == 2 and not _is_stored(node, graph):
            kinds = {reader.op_type for reader, _ in graph.readers(node.output[0])}
            if not graph.reaches_int8(node.output[0]) and not (kinds and kinds <= SENSITIVE_OPS):
                yield Breach(_pair(node, graph), f"nothing behind it runs in INT8: {_told(kinds)}")


def _is_stored(node: onnx.NodeProto, graph: LintedGraph) -> bool:
    """Whether it dequantises constants, which saves memory whoever reads them."""
    return graph.is_build_time(node.output[0])


def _told(kinds: set[str]) -> str:
    return f"{', '.join(sorted(kinds)[:3])} read{'s' * (len(kinds) == 1)} it" if kinds else "it is given out"


def _pair(node: onnx.NodeProto, graph: LintedGraph) -> tuple[str, ...]:
    """The node, and its QuantizeLinear in front of it."""
    maker = graph.index.producer(node.input[0])
    return (maker.name, node.name) if maker is not None and graph.is_q(maker) and graph.is_dq(node) else (node.name,)


def _torn(graph: LintedGraph) -> Iterator[Breach]:
    for node in graph.quantizers():
        if graph.is_q(node):
            others = sorted({r.op_type for r, _ in graph.index.readers(node.output[0]) if not graph.is_dq(r)})
            if others or node.output[0] in graph.index.captured:
                yield Breach((node.name,), f"its integers are read by {', '.join(others) or 'a subgraph'}")
            continue
        maker = graph.index.producer(node.input[0])
        if maker is not None and not graph.is_q(maker) and not graph.is_build_time(node.input[0]):
            yield Breach((node.name,), f"its integers come from {maker.op_type}, not from a QuantizeLinear")


def _before_activation(graph: LintedGraph) -> Iterator[Breach]:
    for node in graph.quantizers():
        maker = graph.index.producer(node.input[0])
        if not graph.is_q(node) or maker is None or not graph.runs_in_int8(maker):
            continue
        for dequantizer, _ in graph.index.readers(node.output[0]):
            readers = [reader for reader, _ in graph.readers(dequantizer.output[0])]
            late = [reader for reader in readers if reader.op_type in BREAKS_FUSION]
            if late:
                message = f"it stands between {maker.op_type} {maker.name!r} and {late[0].op_type} {late[0].name!r}"
                yield Breach((node.name, dequantizer.name, maker.name, late[0].name), message)


def _twice(graph: LintedGraph) -> Iterator[Breach]:
    """Grids that are equal behind data movement are what TensorRT wants: the movement runs in INT8 then."""
    for node in graph.quantizers():
        if not graph.is_q(node):
            continue
        first = graph.dequantizer_of(node.input[0], moved=True)
        if first is None:
            continue
        is_direct = graph.dequantizer_of(node.input[0]) is not None
        is_same = graph.grid(first) is not None and graph.grid(first) == graph.grid(node)
        if is_direct or not is_same:
            between = "" if is_direct else " with nothing but data movement in between"
            grids = "the same grid" if is_same else "another grid"
            yield Breach((node.name, first.name), f"it quantises what {first.name!r} dequantised, on {grids}{between}")


def _inside_sensitive(graph: LintedGraph) -> Iterator[Breach]:
    for node in graph.quantizers():
        if not graph.is_dq(node) or _is_stored(node, graph):
            continue
        readers = [reader for reader, _ in graph.readers(node.output[0]) if reader.op_type in SENSITIVE_OPS]
        source = _source(node, graph)
        if readers:
            yield Breach(_pair(node, graph), f"{readers[0].op_type} {readers[0].name!r} reads it")
        elif source is not None and source.op_type in INSIDE_OPS:
            yield Breach(_pair(node, graph), f"it quantises the result of {source.op_type} {source.name!r}")


def _source(dequantizer: onnx.NodeProto, graph: LintedGraph) -> onnx.NodeProto | None:
    """What made the floats in front of the pair."""
    maker = graph.index.producer(dequantizer.input[0])
    source = graph.index.producer(maker.input[0]) if maker is not None and graph.is_q(maker) else None
    while source is not None and (graph.is_float_cast(source) or moves_data_only(source, graph.index)):
        source = graph.index.producer(source.input[0])
    return source


PAIR_RULES = (
    Rule(
        RuleDescription(
            "orphan-pair",
            "warning",
            "A pair without an INT8 consumer",
            'It rounds a tensor and costs a kernel, and nothing is gained ("Working with Quantized Types").',
            "take the pair out",
            "edit",
        ),
        _orphans,
    ),
    Rule(
        RuleDescription(
            "pair-torn",
            "error",
            "Integers are read or written by something else than the two halves of a pair",
            "TensorRT fuses what lies between DequantizeLinear and QuantizeLinear; it has few operators on integers.",
            "`trt-opt rewrite` moves the operator out of the pair",
            "import",
        ),
        _torn,
    ),
    Rule(
        RuleDescription(
            "pair-between-conv-and-activation",
            "warning",
            "A pair between a layer and the activation or normalisation that would fuse with it",
            'The fusion is lost: the activation becomes a kernel of its own ("Working with Quantized Types").',
            "quantise behind the activation",
            "edit",
        ),
        _before_activation,
    ),
    Rule(
        RuleDescription(
            "double-quantization",
            "warning",
            "A tensor is quantised twice in a row",
            "Each rounding costs accuracy, each change of grid a kernel.",
            "keep one of the pairs",
            "edit",
        ),
        _twice,
    ),
    Rule(
        RuleDescription(
            "quantized-inside-softmax-layernorm",
            "warning",
            "Quantisation inside or right before Softmax, a normalisation, GELU, an exponential or a root",
            'These run in float anyway, and enlarge small errors of what they read ("Working with Quantized Types").',
            "let them read floats",
            "edit",
        ),
        _inside_sensitive,
    ),
)
"""About pairs."""
