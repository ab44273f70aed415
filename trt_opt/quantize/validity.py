"""What may be asked of a model that another was made into."""

from __future__ import annotations

from onnx import ModelProto, TensorProto

from trt_opt.errors import TrtOptError
from trt_opt.graph.check import check_model, strictness_of
from trt_opt.graph.index import attribute_of

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


def require_as_valid(made: ModelProto, source: ModelProto, where: str, *, shapes: bool = True) -> None:
    """Checks a model by the strictest rules that the one it was made from keeps.

    ONNX Runtime and TensorRT run models that break some, such as an output without a shape.

    Args:
        made: What is checked.
        source: What it was made from.
        where: What `made` is, for the message.
        shapes: Whether inferred shapes are checked where the source allows it.

    Raises:
        ModelFileError: It breaks a rule that the source keeps.
        UnsupportedModelError: Likewise.
    """
    found = strictness_of(source, shapes=shapes)
    try:
        check_model(made, where, shapes=found.shapes, known_operators_only=found.known_operators_only)
    except TrtOptError as error:
        if error.what != found.broken_rule:
            raise


_JUMPS = frozenset(
    {"ArgMax", "ArgMin", "Ceil", "Compress", "Equal", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "If", "Less"}
    | {"LessOrEqual", "Loop", "MaxUnpool", "Mod", "NonMaxSuppression", "NonZero", "Round", "Scan", "Sign"}
    | {"ThresholdedRelu", "TopK", "Unique"}
)
"""Where a last bit in the input may be everything in the output. A Cast to integers is another."""


def continuous_outputs(model: ModelProto) -> tuple[str, ...]:
    """The float graph outputs that a little rounding anywhere moves little."""
    jumping: set[str] = set()
    for node in model.graph.node:
        to_integers = node.op_type == "Cast" and attribute_of(node, "to") not in _FLOATS
        if node.op_type in _JUMPS or to_integers or jumping.intersection(node.input):
            jumping.update(node.output)
    floats = (value.name for value in model.graph.output if value.type.tensor_type.elem_type == TensorProto.FLOAT)
    return tuple(name for name in floats if name not in jumping)
