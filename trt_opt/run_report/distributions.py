"""Histograms of the tensors that chosen layers read, from one run of the calibration data through the float model."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from calibrators import calibrator_from_text
from calibrators.histogram import Histogram
from trt_opt.acceptance import judge_for
from trt_opt.backends import target_or_default
from trt_opt.calibrate.ranges import calibration_pass
from trt_opt.errors import RequestError, UnsupportedModelError
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.query import node_label
from trt_opt.preparation import loaded, precision_request
from trt_opt.quantize.stage import float_graph
from trt_opt.recipe import Recipe
from trt_opt.values.calibration import TensorRange
from trt_opt.values.progress import Progress
from trt_opt.values.report_content import Distribution
from trt_opt.values.sensitivity import SensitivityReport

MOST_BINS = 128
"""Of a histogram on the page."""

CHOSEN = 6
"""Layers shown where none were named."""

KEEPS_HISTOGRAMS = "entropy"
"""The calibrator used where a report does not say which one: minmax keeps no histogram."""


def distributions_of(
    model: str, data: str, layers: Sequence[str], reports: Sequence[SensitivityReport], progress: Progress
) -> tuple[Distribution, ...]:
    """Runs the data through the float model and returns the histograms of what chosen layers read.

    Args:
        model: The float ONNX file.
        data: The calibration data.
        layers: Names of layers; none chooses those in which INT8 costs the most, or those that clip the most.
        reports: Sensitivity reports, which know the former.
        progress: Told of every sample.

    Raises:
        RequestError: There is no such layer.
        UnsupportedModelError: No tensor of the model is quantised.
    """
    recipe = Recipe(model=model, calib_data=data, int8=True, fp16=False)
    with judge_for(target_or_default(recipe.target), thorough=False) as judge:
        source, opened = loaded(recipe, judge, progress)
    graph = float_graph(source.rewritten, precision_request(recipe))
    if opened.calibration is None or not graph.taps.calibrated:
        raise UnsupportedModelError("no tensor of this model is quantised, so there is no histogram", where=model)
    calibrator = calibrator_from_text(KEEPS_HISTOGRAMS)
    found = calibration_pass(graph.model, graph.taps, opened.calibration, calibrator, progress)
    index = GraphIndex(graph.model)
    readers = {tensor: [node_label(node) for node, _ in index.readers(tensor)] for tensor in found.histograms}
    all_found = [
        _distribution(tensor, node, histogram, found.table.ranges[tensor])
        for tensor, histogram in found.histograms.items()
        for node in readers[tensor]
    ]
    return tuple(_chosen(all_found, layers, reports))


def _chosen(
    found: Sequence[Distribution], layers: Sequence[str], reports: Sequence[SensitivityReport]
) -> list[Distribution]:
    by_node = {one.node: one for one in reversed(found)}
    unknown = [name for name in layers if name not in by_node]
    if unknown:
        close = get_close_matches(unknown[0], by_node, n=1)
        raise RequestError(
            f"there is no quantised layer called {unknown[0]!r}",
            where="--layers",
            hint=f"perhaps {close[0]}" if close else None,
        )
    worst = [layer.node for report in reports for layer in report.layers if layer.node in by_node]
    clipped = sorted(by_node, key=lambda node: -(by_node[node].clipped or 0.0))
    names = list(layers) or (worst or clipped)[:CHOSEN]
    return [one for name in names for one in found if one.node == name]


def _distribution(tensor: str, node: str, histogram: Histogram, seen: TensorRange) -> Distribution:
    coarse = histogram
    if histogram.used > MOST_BINS:
        bins = MOST_BINS
        while bins * 2 <= histogram.bins and histogram.used * bins / histogram.bins < MOST_BINS / 2:
            bins *= 2
        coarse = histogram.coarsened(bins)
    return Distribution(
        tensor=tensor,
        node=node,
        width=coarse.width,
        counts=tuple(int(count) for count in coarse.counts[: coarse.used]),
        zeros=histogram.zeros,
        threshold=seen.amax,
        low=seen.low,
        high=seen.high,
        clipped=None if seen.amax is None else histogram.share_above(seen.amax),
    )
