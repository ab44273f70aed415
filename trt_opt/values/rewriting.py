"""What a pass changed, and what it declined."""

from __future__ import annotations

from dataclasses import dataclass

from trt_opt.values.changes import Change, Decline
from trt_opt.values.importing import ImportReport
from trt_opt.values.summary import RefusedNode

__all__ = ["Acceptance", "Change", "Decline", "PassReport", "RewriteReport"]


@dataclass(frozen=True, slots=True)
class PassReport:
    """What one pass did to one model.

    Attributes:
        name: The pass.
        changed: In graph order.
        declined: In graph order.
        rolled_back: Why the whole pass was undone ("the output differs by …"), or None.
        undone: What it had changed then.
    """

    name: str
    changed: tuple[Change, ...] = ()
    declined: tuple[Decline, ...] = ()
    rolled_back: str | None = None
    undone: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a target makes of a model.

    Attributes:
        target: The target, as text.
        asked: Who answered: "the parser and builder of tensorrt_rtx 1.7.1.116", or the table that stands for them.
        refused: What it refuses or would misread; empty where it takes the model.
        by_the_library: True where the target's own library answered, False where a table did.
        built: Whether the builder took the model too, not the parser alone.
        notes: What could not be asked, and why.
    """

    target: str
    asked: str
    refused: tuple[RefusedNode, ...]
    by_the_library: bool
    built: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RewriteReport:
    """What the runner did.

    Attributes:
        passes: One report per pass that ran, in order; a pass that ran several rounds is reported once.
        nodes_before: Nodes of the model before, subgraphs included.
        nodes_after: Nodes after.
        compared_samples: On how many samples before and after were compared; 0 means not verified.
        max_relative_error: The largest difference between before and after, relative to the output's largest
            magnitude; None if nothing was compared.
        by_reference: True where onnx's reference implementation judged, because ONNX Runtime's kernels are inexact.
        generated_samples: True where the samples were made up from the graph's types and shapes.
        not_compared: Why nothing was compared, or None.
        tail: The file that holds what was split off the model, for ONNX Runtime; None where nothing was.
        before: What the target made of the model before; None where it was not asked.
        after: What it makes of the rewritten model.
        imported: What became of a model that came quantised; None of another.
    """

    passes: tuple[PassReport, ...]
    nodes_before: int
    nodes_after: int
    compared_samples: int
    max_relative_error: float | None
    by_reference: bool = False
    generated_samples: bool = False
    not_compared: str | None = None
    tail: str | None = None
    before: Acceptance | None = None
    after: Acceptance | None = None
    imported: ImportReport | None = None
