"""A model file at a glance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from trt_opt.graph.fingerprint import fingerprint
from trt_opt.graph.query import (
    STANDARD_DOMAINS,
    all_nodes,
    count_nodes,
    count_operators,
    count_parameters,
    graph_inputs,
    graph_outputs,
    opset_or_none,
)
from trt_opt.values.summary import ModelSummary
from trt_opt.values.tensors import TensorSpec

BYTES_PER_WEIGHT = {"fp32": 4, "fp16": 2, "int8": 1}


def summary_of(path: Path, model: onnx.ModelProto) -> ModelSummary:
    """Operators, parameters, sizes and dynamic axes of a model that was read from `path`."""
    parameters = count_parameters(model)
    domains = {node.domain for node in all_nodes(model)} - STANDARD_DOMAINS
    return ModelSummary(
        path=str(path),
        sha256=fingerprint(model),
        producer=f"{model.producer_name} {model.producer_version}".strip() or "unknown",
        ir_version=model.ir_version,
        opset=opset_or_none(model) or 0,
        custom_domains=tuple(sorted(domains)),
        inputs=graph_inputs(model),
        outputs=graph_outputs(model),
        operators=dict(count_operators(model).most_common()),
        nodes=count_nodes(model),
        parameters=parameters,
        weight_bytes={name: size * parameters for name, size in BYTES_PER_WEIGHT.items()},
        dynamic_axes=tuple(_dynamic_axes(graph_inputs(model))),
    )


def _dynamic_axes(inputs: tuple[TensorSpec, ...]) -> Iterator[str]:
    for spec in inputs:
        if spec.shape is None:
            yield f"{spec.name}: rank unknown"
            continue
        for axis, size in enumerate(spec.shape):
            if not isinstance(size, int):
                yield f"{spec.name}[{axis}] {size}"
