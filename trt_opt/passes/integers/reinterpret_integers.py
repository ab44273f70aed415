"""BitCast between integers as arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.graph.query import dtype_name
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.integers.integer_arithmetic import signed_from_unsigned, unsigned_from_signed
from trt_opt.passes.integers.integer_types import CARRIERS, bits_of, is_signed
from trt_opt.passes.node_pass import DeclinedError, NodePass


class ReinterpretIntegers(NodePass):
    """Replaces BitCast between integers of the same width, and booleans, by arithmetic.

    What it does: Between a signed type and the unsigned one of the same width, 2^bits is added to negative numbers or
    taken from those beyond the signed range, in INT32 or INT64. Booleans are cast.

    Why TensorRT wants it: It has no BitCast.

    Example: BitCast(x, INT8 to UINT8) becomes Cast(Where(x < 0, x + 256, x)), with x as INT32.

    When it declines: One of the types is a floating point type (arithmetic cannot see its bits); a type is not known.
    """

    name = "reinterpret_integers"
    operators = frozenset({"BitCast"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        source = node.inputs[0]
        given, wanted = emit.edit.dtype(source), dtype_name(int(node.attrs["to"]))
        if given == wanted:
            return (source,)
        if given is None:
            raise DeclinedError("the type of its input is not known")
        if "bool" in {given, wanted} and {given, wanted} <= {"bool", "int8", "uint8"}:
            return (emit.cast(source, wanted),)
        if given not in CARRIERS or wanted not in CARRIERS or bits_of(given) != bits_of(wanted):
            raise DeclinedError(
                f"the bits of {given} as {wanted}: no arithmetic sees the bits of a floating point number; take "
                "BitCast out of the exported model, or do it outside the engine"
            )
        return (reinterpreted(emit, source, given, wanted),)


def reinterpreted(emit: Emitter, source: gs.Tensor, given: str, wanted: str) -> gs.Variable:
    """The same bits of a tensor of one integer type as another of the same width."""
    if bits_of(given) == 64:
        return emit.cast(source, wanted)
    room = "int64" if bits_of(given) == 32 else "int32"
    wide = emit.cast(source, room) if given != room else source
    change = unsigned_from_signed if is_signed(given) else signed_from_unsigned
    return emit.cast(change(emit, wide, room, given if is_signed(given) else wanted), wanted)
