"""What a builder made of a graph's layers, as the engine itself says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineLayer:
    """One layer of an engine, which may hold several of the graph's nodes.

    Attributes:
        name: TensorRT's name for it.
        kind: "CaskConvolution", "Reformat", "PointWiseV2" …
        precision: "int8", "fp16", "fp32" …: what it computes in, as its tensors show; "other" without floats.
        nodes: The graph's nodes in it.
        tactic: The kernel; empty where TensorRT does not say.
    """

    name: str
    kind: str
    precision: str
    nodes: tuple[str, ...] = ()
    tactic: str = ""


@dataclass(frozen=True, slots=True)
class PrecisionMismatch:
    """A node that runs in another precision than was asked for.

    Attributes:
        node: The graph's node.
        asked: What the plan says.
        got: What the engine does.
        because: As far as it can be told.
    """

    node: str
    asked: str
    got: str
    because: str
