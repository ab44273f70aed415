"""What is in a sequence or an optional, told from the nodes that made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, optional_input


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a split tensor that is not cut out before somebody reads it.

    Attributes:
        source: The tensor that was split.
        axis: Along which.
        start: Where the part starts; None where the sizes are known at run time only.
        end: Where it ends.
        keepdims: Whether an axis of size 1 stays.
    """

    source: gs.Tensor
    axis: int
    start: int | None
    end: int
    keepdims: bool = True


Element: TypeAlias = "gs.Tensor | Piece"


def elements_of(tensor: gs.Tensor, edit: GraphEdit) -> tuple[Element, ...]:
    """The elements of a sequence, in order.

    Raises:
        DeclinedError: It is an input of the graph, or what is in it is only known at run time.
    """
    node = _maker(tensor)
    if node is None:
        raise DeclinedError(f"{tensor.name!r} comes from outside the graph, and TensorRT knows tensors only")
    match node.op:
        case "SequenceEmpty":
            return ()
        case "SequenceConstruct":
            return tuple(node.inputs)
        case "SplitToSequence":
            return _pieces(node, edit)
        case "SequenceInsert":
            elements = list(elements_of(node.inputs[0], edit))
            elements.insert(_position(node, 2, len(elements), edit, last=len(elements)), node.inputs[1])
            return tuple(elements)
        case "SequenceErase":
            elements = list(elements_of(node.inputs[0], edit))
            del elements[_position(node, 1, len(elements), edit, last=len(elements) - 1)]
            return tuple(elements)
        case "Identity" | "Optional" | "OptionalGetElement" if node.inputs:
            return elements_of(node.inputs[0], edit)
        case other:
            raise DeclinedError(f"what {other} puts into {tensor.name!r} is only known at run time")


def has_element(tensor: gs.Tensor | None, edit: GraphEdit) -> bool:
    """Whether an optional holds something; tensors and sequences always do.

    Raises:
        DeclinedError: That is only known at run time.
    """
    if tensor is None:
        return False
    node = _maker(tensor)
    if node is not None and node.op == "Optional":
        return bool(node.inputs)
    if node is not None and node.op == "Identity":
        return has_element(node.inputs[0], edit)
    kind = edit.dtype(tensor)
    if kind is None or kind.startswith("optional"):
        raise DeclinedError(f"whether {tensor.name!r} holds something is only known at run time")
    return True


def tensor_held_by(tensor: gs.Tensor, edit: GraphEdit) -> gs.Tensor:
    """The tensor in an optional, or the tensor itself.

    Raises:
        DeclinedError: There is none, or that is only known at run time.
    """
    if not has_element(tensor, edit):
        raise DeclinedError(f"{tensor.name!r} is empty")
    node = _maker(tensor)
    if node is not None and node.op in {"Optional", "Identity"}:
        return tensor_held_by(node.inputs[0], edit)
    return tensor


def is_sequence(tensor: gs.Tensor, edit: GraphEdit) -> bool:
    """Whether it is a sequence, or an optional with one in it."""
    return "sequence(" in (edit.dtype(tensor) or "")


def written(element: Element, emit: Emitter) -> gs.Tensor:
    """The element as a tensor.

    Raises:
        DeclinedError: It is a part whose size is only known at run time.
    """
    if isinstance(element, gs.Tensor):
        return element
    if element.start is None:
        raise DeclinedError("the sizes of its parts are only known at run time")
    part = emit.slice(element.source, [element.start], [element.end], [element.axis], [1])
    return part if element.keepdims else emit.squeeze(part, [element.axis])


def shape_of(element: Element, edit: GraphEdit) -> tuple[int | None, ...] | None:
    """The shape of an element, as far as it is known."""
    if isinstance(element, gs.Tensor):
        return edit.shape(element)
    shape = edit.shape(element.source)
    if shape is None or element.start is None:
        return None
    size = (element.end - element.start,) if element.keepdims else ()
    return (*shape[: element.axis], *size, *shape[element.axis + 1 :])


def _maker(tensor: gs.Tensor) -> gs.Node | None:
    return next((node for node in tensor.inputs if node.domain in {None, "", "ai.onnx"}), None)


def _position(node: gs.Node, index: int, count: int, edit: GraphEdit, *, last: int) -> int:
    tensor = optional_input(node, index)
    if tensor is None:
        return last
    value = edit.value(tensor)
    if value is None:
        why = f"the position {node.op} works at is only known at run time"
        raise DeclinedError(f"{why}: --freeze-input {tensor.name}=… fixes it")
    position = int(value.reshape(()))
    position += count if position < 0 else 0
    if not 0 <= position <= last:
        raise DeclinedError(f"{node.op} works at a position that the sequence does not have")
    return position


def _pieces(node: gs.Node, edit: GraphEdit) -> tuple[Element, ...]:
    source = node.inputs[0]
    shape = edit.shape(source)
    if shape is None:
        raise DeclinedError(f"the rank of {source.name!r} is not known")
    axis = int(node.attrs.get("axis", 0)) % len(shape)
    split = optional_input(node, 1)
    if split is None:
        length = _length(source, shape, axis)
        keepdims = bool(node.attrs.get("keepdims", 1))
        return tuple(Piece(source, axis, index, index + 1, keepdims) for index in range(length))
    sizes = edit.value(split)
    if sizes is None:
        count = edit.static_shape(split)
        if not count:
            why = "the sizes SplitToSequence makes are only known at run time"
            raise DeclinedError(f"{why}: --freeze-input {split.name}=… fixes them")
        return tuple(Piece(source, axis, None, 0) for _ in range(count[0]))
    if sizes.ndim == 0:
        length, step = _length(source, shape, axis), int(sizes)
        return tuple(Piece(source, axis, start, min(start + step, length)) for start in range(0, length, step))
    ends = np.cumsum(sizes).tolist()
    return tuple(Piece(source, axis, start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True))


def _length(source: gs.Tensor, shape: Sequence[int | None], axis: int) -> int:
    length = shape[axis]
    if length is None:
        raise DeclinedError(f"the length of axis {axis} of {source.name!r} is not static")
    return length
