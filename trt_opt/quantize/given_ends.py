"""Inputs and outputs of a model that came with integer ones: on which grids they are."""

from __future__ import annotations

import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.quantize.end_reading import EIGHT_BITS, end_of
from trt_opt.quantize.importing.normal_form import normal_form
from trt_opt.values.integer_ends import IntegerEnds


def given_ends(model: onnx.ModelProto) -> IntegerEnds | None:
    """What the caller of a quantised model feeds and gets; None where no input or output is on a grid of 8 bits.

    Args:
        model: As it came.
    """
    if not any(spec.dtype in EIGHT_BITS for spec in (*graph_inputs(model), *graph_outputs(model))):
        return None
    index = GraphIndex(normal_form(model).model)
    graph = index.model.graph
    inputs = tuple(end_of(value, "input", index) for value in graph.input if value.name in index.inputs)
    outputs = tuple(end_of(value, "output", index) for value in graph.output)
    if all(end.scale is None for end in (*inputs, *outputs)):
        return None
    return IntegerEnds(inputs, outputs)
