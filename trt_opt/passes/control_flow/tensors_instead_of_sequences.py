"""Sequences and optionals inside a graph become plain tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.control_flow.sequences import (
    elements_of,
    has_element,
    is_sequence,
    shape_of,
    tensor_held_by,
    written,
)
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, optional_input


class TensorsInsteadOfSequences(NodePass):
    """Replaces what reads tensors out of sequences and optionals by the tensors that were put in.

    What it does: Follows the nodes that built the sequence (SequenceConstruct, SequenceEmpty, SequenceInsert,
    SequenceErase, SplitToSequence, Optional) back to tensors. SequenceAt becomes the tensor, or a Slice of what was
    split; with a position known at run time only, a Gather from all elements. ConcatFromSequence becomes a Concat,
    SequenceLength and OptionalHasElement constants, OptionalGetElement the tensor. Nobody then reads the sequence.

    Why TensorRT wants it: It knows tensors only.

    Example: SequenceAt(SequenceInsert(SequenceConstruct(a, b), c), -1) becomes c.

    When it declines: The sequence or optional is an input of the graph; how many elements it has, or where one is
    inserted or erased, is only known at run time; elements to gather from have not all the same known shape.
    """

    name = "tensors_instead_of_sequences"
    operators = frozenset(
        {"SequenceAt", "ConcatFromSequence", "SequenceLength", "OptionalHasElement", "OptionalGetElement"}
    )

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        match node.op:
            case "SequenceLength":
                return (emit.constant(len(elements_of(node.inputs[0], emit.edit)), "int64"),)
            case "SequenceAt":
                return (_element(node, emit),)
            case "ConcatFromSequence":
                return (_joined(node, emit),)
            case "OptionalHasElement":
                return (emit.constant(has_element(optional_input(node, 0), emit.edit), "bool"),)
            case _:
                if is_sequence(node.inputs[0], emit.edit):
                    raise DeclinedError("what it gives is a sequence; whoever reads from that is replaced instead")
                return (tensor_held_by(node.inputs[0], emit.edit),)


def _element(node: gs.Node, emit: Emitter) -> gs.Tensor:
    elements = elements_of(node.inputs[0], emit.edit)
    wanted = node.inputs[1]
    value = emit.edit.value(wanted)
    if value is not None:
        position = int(value.reshape(()))
        if not -len(elements) <= position < len(elements):
            raise DeclinedError(f"a sequence of {len(elements)} has no element {position}")
        return written(elements[position], emit)
    shapes = {shape_of(element, emit.edit) for element in elements}
    known = next(iter(shapes), None)
    if len(shapes) != 1 or known is None or None in known:
        why = "its position is only known at run time, and its elements have not all one known shape"
        raise DeclinedError(f"{why}: --freeze-input {wanted.name}=… fixes it")
    rows = [emit.unsqueeze(written(element, emit), [0]) for element in elements]
    stacked = emit("Concat", *rows, axis=0)
    position = emit.cast(wanted, "int64")
    counted = emit("Where", emit("Less", position, np.int64(0)), emit("Add", position, np.int64(len(rows))), position)
    gathered: gs.Tensor = emit("Gather", stacked, counted, axis=0)
    return gathered


def _joined(node: gs.Node, emit: Emitter) -> gs.Tensor:
    elements = elements_of(node.inputs[0], emit.edit)
    if not elements:
        raise DeclinedError("the sequence it joins is empty")
    tensors = [written(element, emit) for element in elements]
    axis = int(node.attrs["axis"])
    if node.attrs.get("new_axis", 0):
        tensors = [emit.unsqueeze(tensor, [axis]) for tensor in tensors]
    joined: gs.Tensor = emit("Concat", *tensors, axis=axis)
    return joined
