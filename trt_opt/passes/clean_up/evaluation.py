"""The values of nodes whose inputs are constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator

from trt_opt.backends.onnxruntime import ORT_ERRORS, session_for
from trt_opt.graph.edit import label
from trt_opt.graph.surgeon import model_from_graph
from trt_opt.graph.tensors import model_without_graph

REFERENCE_ERRORS = (
    *(RuntimeError, ValueError, TypeError, NotImplementedError, IndexError, AttributeError, KeyError),
    MemoryError,
)
"""What onnx's reference implementation raises where it has no kernel, one that does not take what it is given, or too
little memory for a result."""

Array = NDArray[np.generic]


def evaluate(
    nodes: Sequence[gs.Node], wanted: Sequence[gs.Tensor], like: ModelProto
) -> tuple[dict[int, Array], dict[int, str]]:
    """The values of the wanted tensors, from one run of all nodes in ONNX Runtime, unoptimised.

    Where that run fails, each node is tried alone, in ONNX Runtime and then in onnx's reference implementation.

    Args:
        nodes: In order; what they read is constant or made by an earlier one.
        wanted: Outputs of these nodes.
        like: The model they come from, for opsets and IR version.

    Returns:
        id of a tensor → its value, and id of a node → why it has none.
    """
    try:
        values = _run(nodes, wanted, {}, like)
    except ORT_ERRORS:
        return _one_by_one(nodes, like)
    return {id(tensor): value for tensor, value in zip(wanted, values, strict=True)}, {}


def model_of(
    nodes: Sequence[gs.Node], wanted: Sequence[gs.Tensor], feed: dict[str, Array], like: ModelProto
) -> ModelProto:
    """The nodes as a model of their own, fed with `feed`; types are left to whoever reads it to infer."""
    inputs = [gs.Variable(name, value.dtype, value.shape) for name, value in feed.items()]
    # Declared types of the outputs may be wrong or missing; the runtimes infer them.
    outputs = [gs.Variable(tensor.name) for tensor in wanted]
    graph = gs.Graph(list(nodes), inputs, outputs, name="constants", import_domains=list(like.opset_import))
    header = model_without_graph(like)
    header.ir_version = max(like.ir_version, 4)
    model = model_from_graph(graph, like=header)
    del model.graph.value_info[:]
    return model


def _one_by_one(nodes: Sequence[gs.Node], like: ModelProto) -> tuple[dict[int, Array], dict[int, str]]:
    values: dict[int, Array] = {}
    failures: dict[int, str] = {}
    for node in nodes:
        made = [tensor for tensor in node.outputs if tensor.name]
        computed = [tensor for tensor in node.inputs if not isinstance(tensor, gs.Constant) and tensor.name]
        if any(id(tensor) not in values for tensor in computed):
            failures[id(node)] = "what it reads could not be computed"
            continue
        feed = {tensor.name: values[id(tensor)] for tensor in computed}
        try:
            results = _run((node,), made, feed, like)
        except ORT_ERRORS:
            try:
                results = _run_reference(node, made, feed, like)
            except REFERENCE_ERRORS as error:
                failures[id(node)] = f"neither ONNX Runtime nor onnx can compute it: {str(error).splitlines()[0:1]}"
                continue
        values.update((id(tensor), value) for tensor, value in zip(made, results, strict=True))
    return values, failures


def _run(
    nodes: Sequence[gs.Node], wanted: Sequence[gs.Tensor], feed: dict[str, Array], like: ModelProto
) -> list[Array]:
    session = session_for(model_of(nodes, wanted, feed, like), optimised=False)
    results: list[Array] = session.run([tensor.name for tensor in wanted], feed)
    return results


def _run_reference(node: gs.Node, wanted: Sequence[gs.Tensor], feed: dict[str, Array], like: ModelProto) -> list[Array]:
    evaluator = ReferenceEvaluator(model_of((node,), wanted, feed, like))
    results = evaluator.run([tensor.name for tensor in wanted], feed)
    if not all(isinstance(value, (np.ndarray, np.generic)) for value in results):
        raise TypeError(f"{label(node)} gives no tensor")
    return [np.asarray(value) for value in results]
