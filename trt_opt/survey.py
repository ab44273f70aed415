"""A model surveyed: the file, what targets make of it, what the passes and INT8 could do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from trt_opt.acceptance import judge_for
from trt_opt.buildable import ImportChoice, PassChoice
from trt_opt.errors import TrtOptError, UnsupportedModelError
from trt_opt.graph.load import load_model
from trt_opt.inspection.summary import summary_of
from trt_opt.preparation import SourceModel, source_model
from trt_opt.quantize.rules import COMPUTE_OPS
from trt_opt.quantize.stage import PrecisionRequest, float_graph
from trt_opt.values.precision import LayerDecision
from trt_opt.values.progress import Progress
from trt_opt.values.summary import RefusedNode
from trt_opt.values.survey import ModelSurvey
from trt_opt.values.target import Target


def survey_of(path: Path, targets: Sequence[Target], progress: Progress) -> ModelSurvey:
    """Surveys a model for one or more targets; what cannot be found out becomes a note, not an error.

    Raises:
        ModelFileError: The file cannot be read.
    """
    model = load_model(path)
    summary = summary_of(path, model)
    notes: list[str] = []
    try:
        sources = [_prepared(path, model, target, progress) for target in targets]
    except UnsupportedModelError as error:
        unreadable = tuple(RefusedNode(*entry) for entry in error.nodes)
        return ModelSurvey(summary, (), (), (str(error),), unreadable)
    layers = _layers(sources[0].rewritten, notes)
    return ModelSurvey(summary, tuple(source.report for source in sources), layers, tuple(notes))


def _prepared(path: Path, model: onnx.ModelProto, target: Target, progress: Progress) -> SourceModel:
    with judge_for(target, thorough=True) as judge:
        return source_model(
            path, model, (), judge, progress, choice=PassChoice(importing=ImportChoice(float_weights=True))
        )


def _layers(model: onnx.ModelProto, notes: list[str]) -> tuple[LayerDecision, ...]:
    try:
        layers = float_graph(model, PrecisionRequest(method="static")).placement.layers
    except TrtOptError as error:
        notes.append(f"INT8: {error}")
        return ()
    return tuple(layer for layer in layers if layer.op_type in COMPUTE_OPS)
