"""What is known of a Loop before it runs."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.node_pass import DeclinedError, optional_input
from trt_opt.passes.shapes.declared_sizes import promised_sizes


def carried_count(node: gs.Node) -> int:
    """How many values a Loop hands from one turn to the next."""
    return max(0, len(node.inputs) - 2)


def turns(node: gs.Node, edit: GraphEdit) -> int:
    """How often the body of a Loop runs.

    The trip count and the condition are constant, or an output that gains one row per turn has a promised length.

    Raises:
        DeclinedError: That is only known at run time.
    """
    trips, condition = optional_input(node, 0), optional_input(node, 1)
    count, start = edit.value(trips), edit.value(condition)
    if start is not None and not start.any():
        return 0
    if not _goes_on(node.attrs["body"], edit):
        raise DeclinedError("its body decides at run time when it ends")
    starts = condition is None or start is not None
    if starts and count is not None:
        return max(0, int(count.reshape(())))
    if trips is None:
        raise DeclinedError("it never ends")
    rows = _promised_rows(node, edit)
    if rows is None:
        unknown = [tensor.name for tensor in (trips, condition) if tensor is not None and edit.value(tensor) is None]
        why = "how often it runs is only known at run time, and no declared output shape tells"
        raise DeclinedError(f"{why}: --freeze-input fixes what {' and '.join(unknown)} come from")
    return rows


def _promised_rows(node: gs.Node, edit: GraphEdit) -> int | None:
    for output in node.outputs[carried_count(node) :]:
        sizes = promised_sizes(output, edit) if output.name else None
        if sizes and isinstance(sizes[0], int):
            return sizes[0]
    return None


def _goes_on(body: gs.Graph, edit: GraphEdit) -> bool:
    """Whether the condition the body gives back is always true: a constant, or the one it was given."""
    tensor = body.outputs[0]
    inside = {id(made): node for node in body.nodes for made in node.outputs}
    while tensor is not body.inputs[1]:
        value = edit.value(tensor)
        if value is not None:
            return bool(value.any())
        node = inside.get(id(tensor))
        if node is None or node.op not in {"Identity", "Cast"}:
            return False
        tensor = node.inputs[0]
    return True
