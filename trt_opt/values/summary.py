"""What can be told of a model without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
        dynamic_axes: "input[axis] symbol" for every dimension of an input that is not a number.
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
    dynamic_axes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RefusedNode:
    """A node that a target refuses.

    Attributes:
        node: Its name, or that of a graph input or output; empty where nothing can be named.
        op_type: The operator, "graph input" or "graph output".
        reason: What the target says.
        hint: The nearest thing that would work; None where nobody has looked for it.
    """

    node: str
    op_type: str
    reason: str
    hint: str | None = None

    @property
    def title(self) -> str:
        """Operator and name as messages show them."""
        return f"{self.op_type} {self.node!r}".strip() if self.node else self.op_type or "the model"
