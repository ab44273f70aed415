"""What a pass changed, and what it declined."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """One thing a pass did: the node it concerns and what became of it."""

    node: str
    what: str


@dataclass(frozen=True, slots=True)
class Decline:
    """One thing a pass looked at and left alone, with the reason."""

    node: str
    why: str


@dataclass(frozen=True, slots=True)
class PassReport:
    """What one pass did to one model.

    Attributes:
        name: The pass.
        changed: In graph order.
        declined: In graph order.
        rolled_back: Why the whole pass was undone ("the output differs by …"), or None.
    """

    name: str
    changed: tuple[Change, ...] = ()
    declined: tuple[Decline, ...] = ()
    rolled_back: str | None = None


@dataclass(frozen=True, slots=True)
class RewriteReport:
    """What the runner did.

    Attributes:
        passes: One report per pass that ran, in order; a pass that ran several rounds is reported once.
        nodes_before: Nodes of the model before, subgraphs included.
        nodes_after: Nodes after.
        compared_samples: On how many samples before and after were compared in ONNX Runtime; 0 means not verified.
        max_relative_error: The largest difference between before and after, relative to the output's largest
            magnitude; None if nothing was compared.
    """

    passes: tuple[PassReport, ...]
    nodes_before: int
    nodes_after: int
    compared_samples: int
    max_relative_error: float | None
