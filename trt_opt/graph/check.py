"""Whether a model is valid ONNX, with the guilty node named where it is not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

import onnx
from onnx import ModelProto

from trt_opt.errors import ModelFileError, TrtOptError, UnsupportedModelError
from trt_opt.graph.query import node_label, unknown_nodes
from trt_opt.graph.tensors import without_large_tensors

_UNCHECKED_DOMAIN = "trt_opt.unchecked"


def check_model(model: ModelProto, where: str, *, shapes: bool = True, known_operators_only: bool = True) -> None:
    """Checks structure, attributes and types with onnx's own checker; large weights are not copied for it.

    Nodes of custom domains are only checked for wiring: ONNX knows nothing else of them.

    Args:
        model: The model, of any size.
        where: The file, or the stage that made the model, for the message.
        shapes: Infer all shapes strictly too, which finds operands that do not fit together.
        known_operators_only: Refuse operators that the model's opset does not have; False treats them as custom.

    Raises:
        ModelFileError: The model breaks ONNX's rules.
        UnsupportedModelError: It needs operators, an opset or an IR version this onnx package does not know, or its
            shapes contradict one another.
    """
    unknown = unknown_nodes(model)
    if unknown and known_operators_only:
        raise UnsupportedModelError(
            f"{unknown[0].op_type} is not an ONNX operator of this model's opset",
            where=f"{where}: node {node_label(unknown[0])!r}",
            hint="export the model with standard operators, or give custom ones a domain of their own",
            nodes=tuple((node_label(node), node.op_type, "unknown operator") for node in unknown),
        )
    light = without_large_tensors(model)
    if unknown:
        _set_unknown_aside(light)
    try:
        onnx.checker.check_model(light, full_check=False)
    except onnx.checker.ValidationError as error:
        _raise_translated(str(error), where, error)
    if shapes:
        _check_shapes(light, where)


@dataclass(frozen=True, slots=True)
class Strictness:
    """How strictly a model can be checked, and what is made of it.

    Attributes:
        known_operators_only: As `check_model` takes it.
        shapes: As `check_model` takes it.
        broken_rule: What the model breaks even in the laxest check, such as an output without a shape; else empty.
    """

    known_operators_only: bool
    shapes: bool
    broken_rule: str = ""


def strictness_of(model: ModelProto, *, shapes: bool = True) -> Strictness:
    """The strictest check that a model passes: what it fails as it came, nobody is blamed for who rewrites it.

    Args:
        model: The model as it came.
        shapes: Whether checks of inferred shapes count.
    """
    broken = ""
    for known_operators_only, with_shapes in ((True, True), (True, False), (False, True), (False, False)):
        if with_shapes and not shapes:
            continue
        try:
            check_model(model, "model", shapes=with_shapes, known_operators_only=known_operators_only)
        except TrtOptError as error:
            broken = error.what
            continue
        return Strictness(known_operators_only, with_shapes)
    return Strictness(False, False, broken)


def _check_shapes(light: ModelProto, where: str) -> None:
    try:
        onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True)
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        reason = _first_line(str(error))
        node = re.search(r"node name: ([^)]+)\)", str(error))
        raise UnsupportedModelError(
            f"its shapes or types do not fit together: {reason}",
            where=f"{where}: node {node[1]!r}" if node else where,
            hint="export the model again; onnx.checker.check_model(path, full_check=True) shows the same error",
        ) from error


def _raise_translated(message: str, where: str, cause: Exception) -> NoReturn:
    node = re.search(r"Bad node spec for node\. Name: (.*?) OpType: (\S+)", message)
    place = where if node is None else f"{where}: node {node[1] or node[2]!r}"
    reason = _first_line(message)
    if "Your model ir_version" in message or "is under development" in message or "No Op registered" in message:
        raise UnsupportedModelError(
            f"the onnx package here ({onnx.__version__}) does not know it: {reason}",
            where=place,
            hint="upgrade the onnx package, or export the model with a lower opset",
        ) from cause
    raise ModelFileError(f"not a valid ONNX model: {reason}", where=place, hint="export the model again") from cause


def _first_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0] if lines else "no reason given"


def _set_unknown_aside(light: ModelProto) -> None:
    for node in unknown_nodes(light):
        node.domain = _UNCHECKED_DOMAIN
    light.opset_import.add(domain=_UNCHECKED_DOMAIN, version=1)
