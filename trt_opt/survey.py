"""A model surveyed: the file, what a target's parser says, what the passes and INT8 could do."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from trt_opt.backends import backend_for
from trt_opt.errors import MissingError, TrtOptError, UnsupportedModelError
from trt_opt.graph.load import load_model
from trt_opt.graph.save import save_model
from trt_opt.inspection.summary import summary_of
from trt_opt.preparation import source_model
from trt_opt.quantize.rules import COMPUTE_OPS
from trt_opt.quantize.stage import PrecisionRequest, float_graph
from trt_opt.values.precision import LayerDecision
from trt_opt.values.progress import Progress
from trt_opt.values.summary import ModelSurvey, RefusedNode
from trt_opt.values.target import Target


def survey_of(path: Path, target: Target, progress: Progress) -> ModelSurvey:
    """Surveys a model for a target; what cannot be found out becomes a note, not an error.

    Raises:
        ModelFileError: The file cannot be read.
    """
    model = load_model(path)
    summary = summary_of(path, model)
    notes: list[str] = []
    try:
        source = source_model(path, model, (), progress)
    except UnsupportedModelError as error:
        refused = tuple(RefusedNode(*entry) for entry in error.nodes)
        return ModelSurvey(summary, None, refused, (), (), (str(error),))
    changed = tuple(f"{change.node}: {change.what}" for report in source.report.passes for change in report.changed)
    refused, asked = _refused(source.rewritten, target, notes)
    return ModelSurvey(summary, asked, refused, changed, _layers(source.rewritten, notes), tuple(notes))


def _refused(model: onnx.ModelProto, target: Target, notes: list[str]) -> tuple[tuple[RefusedNode, ...], str | None]:
    try:
        backend = backend_for(target)
        with backend, tempfile.TemporaryDirectory(prefix="trt-opt-") as folder:
            file = Path(folder) / "model.onnx"
            save_model(model, file)
            report = backend.parse(file)
    except MissingError as error:
        notes.append(str(error))
        return (), None
    return tuple(RefusedNode(node.node, node.op_type, node.reason) for node in report.refused), str(target)


def _layers(model: onnx.ModelProto, notes: list[str]) -> tuple[LayerDecision, ...]:
    try:
        layers = float_graph(model, PrecisionRequest(int8=True)).placement.layers
    except TrtOptError as error:
        notes.append(f"INT8: {error}")
        return ()
    return tuple(layer for layer in layers if layer.op_type in COMPUTE_OPS)
