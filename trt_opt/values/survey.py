"""What can be told of a model and of its targets without running it there."""

from __future__ import annotations

from dataclasses import dataclass

from trt_opt.values.precision import LayerDecision
from trt_opt.values.rewriting import RewriteReport
from trt_opt.values.summary import ModelSummary, RefusedNode


@dataclass(frozen=True, slots=True)
class ModelSurvey:
    """The file, what targets make of it, and what INT8 could.

    Attributes:
        summary: The file itself.
        rewrites: For each target asked: what it refuses in the file as it is, what a rewrite would change, and what
            it would still refuse then.
        layers: The placement policy's decision per compute layer.
        notes: What could not be found out, and why.
        unreadable: The nodes that kept the model from being looked at.
    """

    summary: ModelSummary
    rewrites: tuple[RewriteReport, ...]
    layers: tuple[LayerDecision, ...]
    notes: tuple[str, ...] = ()
    unreadable: tuple[RefusedNode, ...] = ()
