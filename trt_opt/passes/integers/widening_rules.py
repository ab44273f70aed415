"""How each operator computes on carried integers (see `integer_types`) what it computes on the types TensorRT lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnx_graphsurgeon as gs

from trt_opt.graph.query import dtype_name
from trt_opt.graph.surgeon import constant_values
from trt_opt.passes.emitter import Emitter, Operand
from trt_opt.passes.integers.bit_arithmetic import Bits
from trt_opt.passes.integers.bit_operators import BIT_OPERATORS, bit_operation
from trt_opt.passes.integers.integer_arithmetic import (
    floats_of_uint64,
    number,
    ordered_uint64,
    product,
    quotient,
    remainder,
    signed_from_unsigned,
    uint64_of_floats,
    unsigned_from_signed,
    wrapped,
)
from trt_opt.passes.integers.integer_types import CARRIERS, LACKING, bits_of, carried, is_signed, limits_of
from trt_opt.passes.integers.value_range import Range, range_of

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_PLAIN_TARGETS = _FLOATS | {"bool"} | set(CARRIERS)
_EXACT_IN_FLOAT_BITS = 16


@dataclass(frozen=True)
class Operation:
    """A node to be computed on carried integers.

    Attributes:
        node: The node as it was.
        emit: Where the new nodes are written.
        inputs: Its inputs, carried where their type is; None where left out.
        types: The types the inputs stand for; None where an input is read as it is.
        dtype: The type the carried ones stand for (of the first output where no input is carried).
    """

    node: gs.Node
    emit: Emitter
    inputs: tuple[gs.Tensor | None, ...]
    types: tuple[str | None, ...]
    dtype: str

    @property
    def held(self) -> str:
        """The type that carries."""
        return CARRIERS[self.dtype]

    def again(self, inputs: Sequence[Operand] | None = None) -> tuple[gs.Variable, ...]:
        """The node once more, on these inputs."""
        given = self.inputs if inputs is None else inputs
        made = self.emit(self.node.op, *given, outputs=len(self.node.outputs), **self.node.attrs)
        return made if isinstance(made, tuple) else (made,)


Rule = Callable[[Operation], Sequence[Operand]]


def _moved(operation: Operation) -> Sequence[Operand]:
    return operation.again()


def _ranked(operation: Operation) -> Sequence[Operand]:
    """What only depends on order; carried uint64 is put in order first, and back where values come out."""
    if operation.dtype != "uint64":
        return operation.again()
    emit = operation.emit
    inputs = [
        ordered_uint64(emit, tensor) if dtype == "uint64" else tensor
        for tensor, dtype in zip(operation.inputs, operation.types, strict=True)
    ]
    results = operation.again(inputs)
    values = [emit.edit.dtype(output) == "uint64" for output in operation.node.outputs]
    return [ordered_uint64(emit, made) if value else made for made, value in zip(results, values, strict=True)]


def _reduced(operation: Operation) -> Sequence[Operand]:
    """Of nothing, the largest and least elements are the limits of the type, which the carrier's are not."""
    emit, source = operation.emit, operation.node.inputs[0]
    found = _ranked(operation)
    if operation.dtype != "uint64" and 0 in (emit.edit.shape(source) or ()):
        least, largest = (number(limit, operation.held) for limit in limits_of(operation.dtype))
        found = [emit("Min", emit("Max", made, least), largest) for made in found]
    return found


def _wrapped_again(operation: Operation, reach: Range) -> Operand:
    return wrapped(operation.emit, operation.again()[0], operation.held, operation.dtype, reach)


def _added(operation: Operation) -> Sequence[Operand]:
    least, largest = limits_of(operation.dtype)
    reach = (2 * least, 2 * largest) if operation.node.op == "Add" else (least - largest, largest - least)
    return (_wrapped_again(operation, reach),)


def _summed(operation: Operation) -> Sequence[Operand]:
    held = limits_of(operation.held)
    reach = held if is_signed(operation.dtype) else (0, held[1])
    return (_wrapped_again(operation, reach),)


def _multiplied(operation: Operation) -> Sequence[Operand]:
    one, other = operation.inputs
    return (product(operation.emit, one, other, operation.dtype),)


def _divided(operation: Operation) -> Sequence[Operand]:
    one, other = operation.inputs
    return (quotient(operation.emit, one, other, operation.dtype),)


def _remaindered(operation: Operation) -> Sequence[Operand]:
    one, other = operation.inputs
    return (remainder(operation.emit, one, other, operation.dtype, int(operation.node.attrs.get("fmod", 0))),)


def _negated(operation: Operation) -> Sequence[Operand]:
    least, largest = limits_of(operation.dtype)
    size = operation.emit("Sub", number(0, operation.held), operation.inputs[0])
    return (wrapped(operation.emit, size, operation.held, operation.dtype, (-largest, -least)),)


def _absolute(operation: Operation) -> Sequence[Operand]:
    if not is_signed(operation.dtype):
        return (operation.inputs[0],)
    least = limits_of(operation.dtype)[0]
    return (_wrapped_again(operation, (0, -least)),)


def _clipped(operation: Operation) -> Sequence[Operand]:
    emit, unsigned = operation.emit, operation.dtype == "uint64"
    found, *bounds = [
        ordered_uint64(emit, tensor) if unsigned and tensor is not None else tensor for tensor in operation.inputs
    ]
    for op, bound in zip(("Max", "Min"), bounds, strict=False):
        found = found if bound is None else emit(op, found, bound)
    return (ordered_uint64(emit, found) if unsigned else found,)


def _raised(operation: Operation) -> Sequence[Operand]:
    """Only the exponent can be carried."""
    base, exponent = operation.inputs
    if operation.types[1] == "uint64" and operation.emit.edit.dtype(operation.node.inputs[0]) in _FLOATS:
        exponent = floats_of_uint64(operation.emit, exponent, "float32")
    return operation.again((base, exponent))


def _resized(operation: Operation) -> Sequence[Operand]:
    first, *others = operation.inputs
    made = operation.again((operation.emit.cast(first, "float32"), *others))
    return (operation.emit.cast(made[0], operation.held),)


def _filled(operation: Operation) -> Sequence[Operand]:
    value = constant_values(operation.node.attrs["value"])
    filled = None if value is None else carried(value, operation.dtype)
    return (operation.emit("ConstantOfShape", operation.inputs[0], value=filled),)


def _bits(operation: Operation) -> Sequence[Operand]:
    emit = operation.emit
    operands: list[Bits] = []
    for tensor in operation.inputs:
        if tensor is not None:
            values = emit.edit.value(tensor)
            operands.append(tensor if values is None else values)
    return (bit_operation(emit, operation.node, operands, operation.dtype),)


def _reinterpreted(operation: Operation) -> Sequence[Operand]:
    emit, source = operation.emit, operation.inputs[0]
    given = emit.edit.dtype(operation.node.inputs[0]) or ""
    wanted = dtype_name(int(operation.node.attrs["to"]))
    if given == wanted or {given, wanted} == {"int64", "uint64"}:
        return (source,)
    if "bool" in {given, wanted}:
        return (emit.cast(source, "bool" if wanted == "bool" else "int32"),)
    room = "int64" if bits_of(given) == 32 else "int32"
    wide = source if given in LACKING else emit.cast(source, room)
    change = unsigned_from_signed if is_signed(given) else signed_from_unsigned
    made = change(emit, wide, room, given if is_signed(given) else wanted)
    return (made if wanted in LACKING else emit.cast(made, wanted),)


def _cast(operation: Operation) -> Sequence[Operand]:
    """From a carried type to any other, or to a carried one."""
    emit, source = operation.emit, operation.node.inputs[0]
    given, wanted = operation.types[0], dtype_name(int(operation.node.attrs["to"]))
    if given is None:
        return (carried_from_cast(emit, source, wanted),)
    source = operation.inputs[0]
    if wanted in LACKING or wanted in CARRIERS:
        found = carried_from_integers(emit, source, (operation.held, limits_of(given)), wanted)
        return (found if wanted in LACKING or wanted == CARRIERS[wanted] else emit.cast(found, wanted),)
    if given == "uint64" and wanted in _FLOATS:
        precise = wanted if wanted == "float64" else "float32"
        found = floats_of_uint64(emit, source, precise)
        return (found if wanted == precise else emit.cast(found, wanted),)
    return (emit.cast(source, wanted),)


def carried_from_integers(emit: Emitter, tensor: Operand, given: tuple[str, Range], wanted: str) -> Operand:
    """Integers as another type's carrier holds them.

    Args:
        emit: Where nodes are written.
        tensor: The integers.
        given: The type they are held in, int32 or int64, and between which numbers they are.
        wanted: The type they become, wrapped around.
    """
    held, reach = given
    carrier = CARRIERS[wanted]
    if held == "int32" and carrier == "int64":
        tensor, held = emit.cast(tensor, "int64"), "int64"
    found = tensor if wanted == "int64" else wrapped(emit, tensor, held, wanted, reach)
    return emit.cast(found, carrier) if held != carrier else found


def carried_from_cast(emit: Emitter, source: gs.Tensor, wanted: str) -> Operand:
    """What a Cast of a tensor (of a type that is not carried) to a type that is gives."""
    given, carrier = emit.edit.dtype(source), CARRIERS[wanted]
    if given == "bool":
        return emit.cast(source, carrier)
    if given is not None and given in CARRIERS:
        held = CARRIERS[given]
        tensor = source if held == given else emit.cast(source, held)
        return carried_from_integers(emit, tensor, (held, range_of(source, emit.edit)), wanted)
    if wanted == "uint64":
        return uint64_of_floats(emit, source, given or "")
    return wrapped(emit, emit.cast(source, carrier), carrier, wanted, limits_of(carrier))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(
            ("Identity", "Reshape", "Transpose", "Slice", "Gather", "GatherElements", "GatherND", "Concat", "Split"),
            _moved,
        ),
        **dict.fromkeys(("Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile", "Where", "Pad", "Shape", "Size"), _moved),
        **dict.fromkeys(("ScatterElements", "ScatterND", "DepthToSpace", "SpaceToDepth", "ReverseSequence"), _moved),
        **dict.fromkeys(("Trilu", "OneHot", "Equal", "Range", "Compress"), _moved),
        **dict.fromkeys(("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Max", "Min", "TopK"), _ranked),
        **dict.fromkeys(("ReduceMax", "ReduceMin"), _reduced),
        **dict.fromkeys(("ArgMax", "ArgMin"), _ranked),
        **dict.fromkeys(("Add", "Sub"), _added),
        **dict.fromkeys(("ReduceSum", "CumSum"), _summed),
        **dict.fromkeys(BIT_OPERATORS, _bits),
        "Mul": _multiplied,
        "Div": _divided,
        "Mod": _remaindered,
        "Neg": _negated,
        "Abs": _absolute,
        "Clip": _clipped,
        "Pow": _raised,
        "Resize": _resized,
        "ConstantOfShape": _filled,
        "BitCast": _reinterpreted,
        "Cast": _cast,
    }
)
"""Operator → how it computes on carried integers."""


def why_not(node: gs.Node, dtypes: Sequence[str | None]) -> str:
    """Why a node cannot be computed on carried integers; an empty text where it can.

    Args:
        node: The node.
        dtypes: The types of its inputs and outputs.
    """
    if node.domain not in {None, "", "ai.onnx"} or node.op not in RULES:
        return f"{node.op} is not known on integers that are carried in wider ones"
    lacking = {dtype for dtype in dtypes if dtype in LACKING}
    match node.op:
        case "Resize" if node.attrs.get("mode", "nearest") != "nearest":
            return f"ONNX does not say how {node.attrs['mode']} interpolation rounds integers: cast to float before it"
        case "Resize" if any(bits_of(dtype) > _EXACT_IN_FLOAT_BITS for dtype in lacking):
            return "TensorRT resizes floating point numbers, which do not hold all of these integers"
        case "ScatterElements" | "ScatterND" if node.attrs.get("reduction", "none") != "none":
            return "a scatter with a reduction has to be decomposed first"
        case "Cast" | "BitCast" if not all(dtype in _PLAIN_TARGETS for dtype in dtypes):
            return f"between {dtypes[0]} and {dtypes[-1]} there is no arithmetic"
    return ""
