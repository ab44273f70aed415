"""Integers of types that TensorRT lacks, carried in INT32 and INT64."""

from __future__ import annotations

from onnx import ModelProto

from trt_opt.graph.edit import every_graph, label
from trt_opt.graph.types import inferred_types
from trt_opt.passes.base import GraphEdit, GraphPass
from trt_opt.passes.integers.integer_types import LACKING
from trt_opt.passes.integers.integer_widening import IntegerWidening, untouched_reasons
from trt_opt.passes.node_pass import OLDEST_OPSET
from trt_opt.values.rewriting import PassReport


class WidenIntegers(GraphPass):
    """Computes UINT8, INT16, UINT16, UINT32 and UINT64 in INT32 or INT64.

    What it does: Every tensor of these types that lies between nodes with a known rule becomes INT32 (of 8 and 16 bits)
    or INT64 (of 32 and 64), and what can leave the type's range is wrapped around as the narrow type would be. UINT64
    keeps its 64 bits in INT64 and is compared and divided as unsigned. A Cast stands where such a tensor meets a graph
    input or output or another node, so that a UINT8 image is cast first and transposed or sliced after. Nodes TensorRT
    refuses on INT8 are computed in INT32 between Casts. Initialisers are widened, and If, Loop and Scan pass wide
    integers on.

    Why TensorRT wants it: It has no INT16, UINT16, UINT32 and UINT64 at all, UINT8 only as the input or output of its
    network next to a Cast, and INT8 only for some operators.

    Example: Add(x, y) of UINT8 becomes Cast(Mod(Add(Cast(x), Cast(y)), 256)).

    When it declines: No rule is known for the operator; an integer Resize interpolates. Graph inputs and outputs of the
    types TensorRT lacks stay (see widen_io). The model's opset is below 13.

    Args:
        refused: The names of the nodes that the target refuses: where none of them touches such a type, nothing is
            done. None widens whatever can be.
    """

    name = "widen_integers"

    def __init__(self, refused: frozenset[str] | None = None) -> None:
        self.refused = refused

    def on(self, refused: frozenset[str]) -> WidenIntegers:
        """The same pass for these nodes."""
        return WidenIntegers(refused)

    def run(self, model: ModelProto) -> tuple[ModelProto, PassReport]:
        """Imports the graph only where it holds such a type."""
        wanted = LACKING | {"int8"}
        if not any(spec.dtype in wanted for types in inferred_types(model) for spec in types.values()):
            return model, PassReport(self.name)
        return super().run(model)

    def apply(self, edit: GraphEdit) -> None:
        """See the class."""
        widening = IntegerWidening(edit, self.refused)
        if self.refused is not None and not _is_about_integers(widening, self.refused):
            return
        if edit.opset < OLDEST_OPSET:
            edit.declined("the graph", f"the model's opset {edit.opset} is below {OLDEST_OPSET}")
            return
        reasons = untouched_reasons(widening, self.refused)
        widening.apply()
        for node, reason in reasons:
            edit.declined(node, reason)


def _is_about_integers(widening: IntegerWidening, refused: frozenset[str]) -> bool:
    nodes = [node for graph in every_graph(widening.edit.graph) for node in graph.nodes if label(node) in refused]
    return any(widening.touches(node) or widening.ruled(node) for node in nodes)
