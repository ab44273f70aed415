"""Models with operators of ONNX Runtime's own domain."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto
from passes_models import model_of

from trt_opt.graph.query import custom_domain_nodes, graph_inputs, unknown_nodes
from trt_opt.values.samples import Sample


def contrib_model(text: str, *, opset: int = 17, ir_version: int = 8, **weights: np.ndarray) -> ModelProto:
    """A model from ONNX's text notation, in which "com.microsoft.X(…)" stands for an operator of that domain."""
    model = model_of(text, ir_version=ir_version, opset=opset, **weights)
    model.opset_import.add(domain="com.microsoft", version=1)
    return model


def is_standard(model: ModelProto) -> bool:
    """Whether all operators are ONNX's own."""
    return not custom_domain_nodes(model) and not unknown_nodes(model)


def feeds_of(model: ModelProto, seed: int = 0, **given: np.ndarray) -> list[Sample]:
    """One feed: the arrays given, and random ones for all other inputs; dynamic sizes are 2."""
    rng = np.random.default_rng(seed)
    feed = {}
    for spec in graph_inputs(model):
        shape = [size if isinstance(size, int) else 2 for size in spec.shape or ()]
        feed[spec.name] = given.get(spec.name, rng.normal(size=shape).astype(spec.dtype))
    return [Sample("given", feed)]
