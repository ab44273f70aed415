"""What is known of every tensor's type and shape, nested graphs included, without trusting what a file says of them."""

from __future__ import annotations

from onnx import ModelProto

from trt_opt.graph.inference import inferred
from trt_opt.graph.query import dtype_name, spec_of
from trt_opt.graph.tensors import graphs_of, without_large_tensors
from trt_opt.values.tensors import TensorSpec


def inferred_types(model: ModelProto) -> tuple[dict[str, TensorSpec], ...]:
    """For every graph of the model (the main one first, then nested ones, depth first): tensor name → type and shape.

    Types and shapes follow from the graph's inputs and constants; what the file declares of inner tensors and outputs
    is not used, because converters leave wrong shapes behind. Names a nested graph reads from outside are not repeated.
    """
    light = without_large_tensors(model)
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
