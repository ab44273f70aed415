"""What is known of every tensor's type and shape, nested graphs included, without trusting what a file says of them."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, ModelProto, TensorProto

from trt_opt.graph.inference import inferred
from trt_opt.graph.query import dtype_name, spec_of
from trt_opt.graph.tensors import graphs_of, subgraphs_of, without_large_tensors
from trt_opt.values.tensors import TensorSpec


def inferred_types(model: ModelProto) -> tuple[dict[str, TensorSpec], ...]:
    """For every graph of the model (the main one first, then nested ones, depth first): tensor name → type and shape.

    Types and shapes follow from the graph's inputs and constants; what the file declares of inner tensors and outputs
    is not used, because converters leave wrong shapes behind. Names a nested graph reads from outside are not repeated.
    """
    light = without_large_tensors(model)
    _show_outer_constants(light.graph, {})
    for graph in graphs_of(light.graph):
        del graph.value_info[:]
        for value in graph.output:
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.ClearField("shape")
    found = []
    for graph in graphs_of(inferred(light).graph):
        known = {value.name: spec_of(value) for value in (*graph.value_info, *graph.output, *graph.input)}
        for tensor in graph.initializer:
            known[tensor.name] = TensorSpec(tensor.name, dtype_name(tensor.data_type), tuple(tensor.dims))
        found.append({name: spec for name, spec in known.items() if spec.dtype != "undefined"})
    return tuple(found)


def _show_outer_constants(graph: GraphProto, outer: Mapping[str, TensorProto]) -> None:
    """Copies the outer constants that a nested graph reads into it: onnx's inference does not look for them outside."""
    visible = {**outer, **{tensor.name: tensor for tensor in graph.initializer}}
    for node in graph.node:
        for inner in subgraphs_of(node):
            own = {tensor.name for tensor in inner.initializer} | {value.name for value in inner.input}
            own |= {name for entry in inner.node for name in entry.output}
            read = {name for entry in inner.node for name in entry.input} - own
            inner.initializer.extend(visible[name] for name in sorted(read & visible.keys()))
            _show_outer_constants(inner, visible)
