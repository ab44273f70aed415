"""Where the graphs of two sides part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

from trt_opt.build.manifest import file_problems
from trt_opt.compare.layerwise import THRESHOLD_DB, TappedGraph, layerwise
from trt_opt.comparing.feeding import Feeding
from trt_opt.comparing.sides import Participant
from trt_opt.errors import RequestError, UnsupportedModelError
from trt_opt.graph.load import load_model
from trt_opt.graph.query import graph_inputs
from trt_opt.importing import exact_source
from trt_opt.quantize.given_ends import given_ends
from trt_opt.quantize.importing.normal_form import normal_form
from trt_opt.quantize.quantized_models import INTEGER_OPS, is_quantized
from trt_opt.runnables import Runnable
from trt_opt.values.model_comparison import LayerwiseComparison
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Dataset


def graph_file(side: Runnable) -> Path | None:
    """The ONNX graph of a side: the file itself, or what an engine was built from, where that lies beside it."""
    if side.model is not None:
        return side.file
    if side.manifest is None:
        return None
    beside = side.file.with_name(side.manifest.graph.name)
    return None if file_problems(side.manifest.graph, beside) else beside


def require_graphs(sides: Sequence[Runnable]) -> None:
    """Refuses a layerwise comparison of which nothing could come.

    Raises:
        RequestError: The reference, or every candidate, has no graph.
    """
    lacking = [side for side in sides if graph_file(side) is None]
    if sides[0] in lacking or len(lacking) >= len(sides) - 1:
        raise RequestError(
            "--layerwise compares ONNX graphs, and this engine has none beside it",
            where=str(lacking[0].file),
            hint="give the ONNX file that it was built from",
        )


def partings(
    sides: Sequence[Participant], dataset: Dataset, threshold_db: float | None, progress: Progress
) -> Iterator[LayerwiseComparison]:
    """Where every candidate that has a graph parts from the reference.

    Args:
        sides: The reference, then the candidates.
        dataset: The samples.
        threshold_db: The SQNR below which a tensor has parted; None for the default.
        progress: Told of every sample.
    """
    graphs = [_tapped(side) for side in sides]
    reference = graphs[0]
    limit = THRESHOLD_DB if threshold_db is None else threshold_db
    for candidate, side in zip(graphs[1:], sides[1:], strict=True):
        if reference is None or candidate is None:
            continue
        try:
            yield layerwise(reference, candidate, dataset, progress, threshold_db=limit)
        except UnsupportedModelError as error:
            why = f"the graphs could not be compared layer by layer: {error.what}"
            yield LayerwiseComparison(side.side.name, 0, limit, (), 0, 0, None, None, why)


def _tapped(side: Participant) -> TappedGraph | None:
    file = graph_file(side.runnable)
    if file is None:
        return None
    name, model = side.side.name, side.runnable.model
    if model is None:  # an engine's; its ends are the engine's
        model = load_model(file)
    feeding = Feeding(name, graph_inputs(model), given_ends(model), side.feeding.renamed)
    return TappedGraph(name, _exact(model), feeding.runner)


def _exact(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in a form whose inner tensors are numbers that can be compared: integer operators become Q/DQ."""
    if any(node.op_type in INTEGER_OPS or node.op_type.startswith("QLinear") for node in model.graph.node):
        return normal_form(model).model
    return exact_source(model) if is_quantized(model) else model
