"""What can be told of a model without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trt_opt.values.precision import LayerDecision
from trt_opt.values.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """The file itself.

    Attributes:
        path: The file.
        sha256: Fingerprint of what it computes.
        producer: Who wrote it.
        ir_version: ONNX's file format version.
        opset: Version of the standard operators.
        custom_domains: Domains that ONNX does not define.
        inputs: What has to be fed.
        outputs: What comes out.
        operators: Operator → how often.
        nodes: Nodes, subgraphs included.
        parameters: Numbers in the initialisers.
        weight_bytes: Precision → bytes of the weights in it.
    """

    path: str
    sha256: str
    producer: str
    ir_version: int
    opset: int
    custom_domains: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: Mapping[str, int]
    nodes: int
    parameters: int
    weight_bytes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RefusedNode:
    """A node that a target's parser refuses."""

    node: str
    op_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModelSurvey:
    """The file, what a target makes of it, and what INT8 could.

    Attributes:
        summary: The file itself.
        target: Whose parser was asked; None if none is installed.
        refused: The nodes it refuses, after the default passes.
        changed: What the default passes change, one line each.
        layers: The placement policy's decision per compute layer.
        notes: What could not be found out, and why.
    """

    summary: ModelSummary
    target: str | None
    refused: tuple[RefusedNode, ...]
    changed: tuple[str, ...]
    layers: tuple[LayerDecision, ...]
    notes: tuple[str, ...] = ()
