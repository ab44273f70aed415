"""The nearest thing that would work, for a node that a target refuses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from onnx import ModelProto

from trt_opt.blame import OF_ONNX_RUNTIME_ALONE
from trt_opt.graph.build_time_inputs import BUILD_TIME_INPUTS, build_time_inputs
from trt_opt.passes import PASSES
from trt_opt.values.rewriting import PassReport
from trt_opt.values.summary import RefusedNode

NARROW_INTEGERS = ("int16", "uint16", "uint32", "uint64")

_BY_TYPE = {
    "string": "TensorRT has no strings: do this part before or after the engine, and cut it off when exporting",
    "sequence": "engines take and give tensors: export the model with one input or output per element",
    "optional": "engines take and give tensors: export the model with the optional value there, or without it",
    "float8": "FLOAT8E4M3FN is the one 8-bit float TensorRT has: export the model with that, or with float16",
    "int4": "4-bit numbers may be constants alone, behind a DequantizeLinear: export the model with int8 there",
    "int2": "TensorRT has no 2-bit numbers: export the model with int8 there",
    "float4": "4-bit floats may be constants alone: export the model with float16 there",
    "complex": "TensorRT has no complex numbers: export real and imaginary parts as a last axis of 2",
}

_FP8 = "8-bit floats need compute capability 8.9 (--target rtx:8.9), and Casts to them --fp8-as-qdq"

_WITHOUT_ONNX_RUNTIME = (
    "export the model without ONNX Runtime's fusions; a quantised one with QuantizeLinear and DequantizeLinear "
    "(quant_format=QDQ), not as QOperator"
)

_BY_OPERATOR = {
    "NonMaxSuppression": "--nms split cuts it out, and what follows becomes a model of its own; TensorRT proper has it",
    "Compress": "the size of its result depends on data: do this part after the engine",
    "Unique": "the size of its result depends on data: do this part after the engine",
    "NonZero": "the size of its result depends on data: TensorRT proper takes it, TensorRT-RTX does not",
    "ImageDecoder": "decode images before the engine",
    "Bernoulli": "its result is random: draw the numbers before the engine, and make them an input",
    "Gradient": "export the model for inference",
    "RoiAlign": "its plugin needs a GPU when it is made: build on a machine with one",
}


def with_hints(
    refused: Sequence[RefusedNode], reports: Iterable[PassReport], model: ModelProto
) -> tuple[RefusedNode, ...]:
    """The refused nodes, each with what would work: what a pass said when it declined the node, or what is known of it.

    Args:
        refused: What the target refuses.
        reports: Of the passes that ran.
        model: As far as they brought it.
    """
    undone = {
        change.node: f"the pass {report.name} could do it, but was undone: {report.rolled_back}"
        for report in reports
        if report.rolled_back is not None
        for change in report.undone
    }
    declined = {
        decline.node: f"{report.name}: {decline.why}"
        for report in reports
        if report.name not in PASSES
        for decline in report.declined
    }
    told = {**declined, **undone}
    decisive = build_time_inputs(model)
    if decisive:
        freeze = f"--freeze-input {decisive[0]}=… makes what decides the result's shape a constant"
        told = {entry.node: freeze for entry in refused if entry.op_type in BUILD_TIME_INPUTS} | told
    return tuple(replace(entry, hint=_hint(entry, told)) for entry in refused)


def _hint(entry: RefusedNode, told: dict[str, str]) -> str:
    if entry.op_type.startswith("graph "):
        return _hint_for_end(entry)
    if "fp8" in entry.reason.lower():
        return _FP8
    if entry.op_type in _BY_OPERATOR:
        return _BY_OPERATOR[entry.op_type]
    if entry.node in told:
        return told[entry.node]
    if OF_ONNX_RUNTIME_ALONE in entry.reason:
        return _WITHOUT_ONNX_RUNTIME
    if not entry.node:
        return "cut the model in parts to find what it is about, and export that part differently"
    return f"export the model without this operator, or cut it before {entry.node!r} and run the rest on ONNX Runtime"


def _hint_for_end(entry: RefusedNode) -> str:
    if any(f" {name} " in f" {entry.reason} " for name in NARROW_INTEGERS):
        return "--widen-io makes it int32 or int64"
    known = (text for key, text in _BY_TYPE.items() if key in entry.reason)
    return next(known, "export the model with float32, float16, int32, int64 or bool there")
