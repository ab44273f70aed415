"""Graph inputs and outputs of integer types that TensorRT lacks become INT32 and INT64."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import ModelProto

from trt_opt.graph.query import dtype_name, graph_inputs, graph_outputs
from trt_opt.graph.surgeon import onnx_dtype
from trt_opt.passes.base import GraphEdit, GraphPass
from trt_opt.passes.integers.integer_types import CARRIERS, LACKING
from trt_opt.passes.integers.integer_widening import IntegerWidening, untouched_reasons
from trt_opt.passes.node_pass import OLDEST_OPSET
from trt_opt.values.rewriting import PassReport

ENDS = LACKING - {"uint8"}
"""UINT8 inputs and outputs TensorRT has."""


class WidenIo(GraphPass):
    """Changes the types of graph inputs and outputs: INT16 and UINT16 to INT32, UINT32 and UINT64 to INT64.

    What it does: Callers feed and get the same numbers in the wider type, and must not feed numbers the narrow type
    does not have; of UINT64 the same 64 bits (numpy: `array.view("int64")`), the same numbers below 2^63. What
    is computed in between is widened as by widen_integers.

    Why TensorRT wants it: Its networks have no inputs and outputs of these types.

    Example: Add(x, y) of UINT16 with x, y and the sum as graph inputs and output becomes Mod(Add(x, y), 65536) with all
    of them INT32.

    What no rule widens keeps its type inside, behind a Cast.

    When it declines: The model's opset is below 13. It runs only where it is asked for.
    """

    name = "widen_io"

    def run(self, model: ModelProto) -> tuple[ModelProto, PassReport]:
        """Imports the graph only where there is such an input or output."""
        if not any(spec.dtype in ENDS for spec in (*graph_inputs(model), *graph_outputs(model))):
            return model, PassReport(self.name)
        return super().run(model)

    def apply(self, edit: GraphEdit) -> None:
        """See the class."""
        if edit.opset < OLDEST_OPSET:
            edit.declined("the graph", f"the model's opset {edit.opset} is below {OLDEST_OPSET}")
            return
        widening = IntegerWidening(edit, None, ENDS)
        reasons = untouched_reasons(widening, None)
        widening.apply()
        for node, reason in reasons:
            edit.declined(node, reason)
        _put_casts_at_the_ends(edit)


def _put_casts_at_the_ends(edit: GraphEdit) -> None:
    """What no rule could widen gets a Cast behind the input or before the output; the passes that follow clear it."""
    graph = edit.graph
    for tensors, is_input in ((graph.inputs, True), (graph.outputs, False)):
        for position, tensor in enumerate(tensors):
            narrow = None if isinstance(tensor, gs.Constant) or tensor.dtype is None else _type_of(tensor)
            if narrow in ENDS:
                tensors[position] = _widened_end(edit, tensor, narrow, is_input=is_input)
                edit.changed(tensor.name, f"{narrow} became {CARRIERS[narrow]}, with a Cast")


def _widened_end(edit: GraphEdit, tensor: gs.Variable, narrow: str, *, is_input: bool) -> gs.Variable:
    """The end itself in the wider type, joined to the old tensor, which gets another name, by a Cast."""
    end = gs.Variable(tensor.name, np.dtype(CARRIERS[narrow]), tensor.shape)
    tensor.name = edit.fresh_name(f"{tensor.name}_{narrow}")
    source, result, kind = (end, tensor, tensor.dtype) if is_input else (tensor, end, end.dtype)
    name = edit.fresh_node_name(f"{end.name}/Cast")
    edit.graph.nodes.append(gs.Node("Cast", name, {"to": onnx_dtype(kind)}, [source], [result]))
    return end


def _type_of(tensor: gs.Variable) -> str:
    return dtype_name(onnx_dtype(tensor.dtype))
