"""Which node a builder dislikes, where it does not say so itself."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.index import GraphIndex, captured_names
from trt_opt.graph.query import infer_shapes, node_label
from trt_opt.graph.tensors import model_without_graph

Builds = Callable[[onnx.ModelProto], bool]


def guilty_node(model: onnx.ModelProto, builds: Builds) -> onnx.NodeProto | None:
    """The node with which a growing prefix of the graph stops building, found by bisection.

    Costs log2(nodes) builds. A builder that fails on a prefix but not on a longer one leads it astray, so the answer
    is checked: the prefix without the node builds, the one with it does not.

    Args:
        model: A model that does not build, its nodes in order.
        builds: Tries to build a model.

    Returns:
        The node, or None if even the first one alone does not build or no prefix fails.
    """
    index = GraphIndex(infer_shapes(model))
    good, bad = 0, len(model.graph.node)
    while bad - good > 1:
        middle = (good + bad) // 2
        if builds(prefix_of(index, middle)):
            good = middle
        else:
            bad = middle
    found: onnx.NodeProto = model.graph.node[bad - 1]
    return found if good > 0 else None


def prefix_of(index: GraphIndex, count: int) -> onnx.ModelProto:
    """The model's first nodes, with everything the rest would read as outputs."""
    model = index.model
    prefix = model_without_graph(model)
    nodes = list(model.graph.node)
    prefix.graph.name = model.graph.name
    prefix.graph.node.extend(nodes[:count])
    prefix.graph.input.extend(model.graph.input)
    read = {name for node in nodes[:count] for name in (*node.input, *captured_names(node))}
    prefix.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in read)
    wanted = {name for node in nodes[count:] for name in (*node.input, *captured_names(node))} | index.outputs
    for node in nodes[:count]:
        for name in node.output:
            kind = index.element_type(name) if name in wanted else None
            if kind is not None:
                prefix.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, index.shape(name)))
    return prefix


def with_guilty_node(error: UnsupportedModelError, model: onnx.ModelProto, builds: Builds) -> UnsupportedModelError:
    """The builder's refusal with the node it is about; the refusal itself if that cannot be found."""
    node = guilty_node(model, builds)
    if node is None:
        return error
    name = node_label(node)
    reason = error.nodes[0][2] if error.nodes else error.what
    return UnsupportedModelError(
        error.what,
        where=f"node {name!r} ({node.op_type})",
        hint=f"the graph builds up to this node; --exclude or rewrite it, or cut the model before {name!r}",
        nodes=((name, node.op_type, reason),),
    )
