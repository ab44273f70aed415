"""What a builder says of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trt_opt.values.summary import RefusedNode
from trt_opt.values.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class ParseReport:
    """The parser's answer.

    Attributes:
        refused: The nodes it refuses; empty if it takes the model.
        warnings: What it warned of, one line each.
        inputs: The network's inputs as the builder sees them.
        outputs: Its outputs.
        unknown_operators: Those of the operators asked about that the parser has no importer for.
        shape_inputs: The inputs that decide shapes; engines need their values when they are built.
    """

    refused: tuple[RefusedNode, ...]
    warnings: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    unknown_operators: tuple[str, ...] = ()
    shape_inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine just written.

    Attributes:
        engine_bytes: Its size.
        seconds: How long the builder took.
        inputs: Its inputs.
        outputs: Its outputs.
        warnings: What the builder warned of, one line each.
        calibration: What implicit quantisation consumed, in the child's words; None without it.
    """

    engine_bytes: int
    seconds: float
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    warnings: tuple[str, ...] = ()
    calibration: Mapping[str, Any] | None = None
