"""Node names that occur once."""

from __future__ import annotations

from onnx import ModelProto

from trt_opt.graph.names import fresh_name
from trt_opt.graph.query import all_nodes
from trt_opt.passes.base import Pass
from trt_opt.values.rewriting import Change, PassReport


class UniqueNodeNames(Pass):
    """Gives nodes that share a name names of their own.

    What it does: The second and further nodes of a name get a number behind it. Nodes without a name keep none.

    Why TensorRT wants it: Its messages, layer names and precision settings go by node name; ONNX Runtime, which
    calibrates and judges the model, refuses to load names used twice.

    Example: two nodes named "relu" become "relu" and "relu_2".

    When it declines: Never.
    """

    name = "unique_node_names"

    def run(self, model: ModelProto) -> tuple[ModelProto, PassReport]:
        """Renames in a copy, where there is anything to rename."""
        names = [node.name for node in all_nodes(model) if node.name]
        if len(set(names)) == len(names):
            return model, PassReport(self.name)
        copy = ModelProto()
        copy.CopyFrom(model)
        changes = []
        taken: set[str] = set()
        later = set(names)
        for node in all_nodes(copy):
            if node.name and node.name in taken:
                changes.append(Change(node.name, "renamed: another node has this name"))
                node.name = fresh_name(node.name, later)
            taken.add(node.name)
        return copy, PassReport(self.name, tuple(changes))
