"""From a float model and feeds to what an improvement works on, and back to numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from ort_session import outputs_of

from calibrators import calibrator_from_text
from trt_opt.calibrate.ranges import calibration_table
from trt_opt.datasets import open_dataset
from trt_opt.graph.query import graph_inputs
from trt_opt.improvements.improvement import Improved, Subject
from trt_opt.quantize.stage import PrecisionRequest, float_graph, quantized_graph
from trt_opt.values.progress import Silent
from trt_opt.values.samples import Dataset

Feed = Mapping[str, NDArray[np.generic]]


def data_of(model: onnx.ModelProto, feeds: Sequence[Feed], folder: Path) -> Dataset:
    """The feeds as a data set."""
    for number, feed in enumerate(feeds):
        np.savez(folder / f"{number:03}.npz", **feed)
    return open_dataset(str(folder), graph_inputs(model))


def subject_of(
    model: onnx.ModelProto, data: Dataset, *, spared: Mapping[str, str] | None = None, calibrator: str = "minmax"
) -> Subject:
    """The model placed and calibrated."""
    graph = float_graph(model, PrecisionRequest(method="static", spared=spared or {}))
    table = calibration_table(graph.model, graph.taps, data, calibrator_from_text(calibrator), Silent())
    return Subject(graph, table.ranges, data)


def int8_outputs(subject: Subject, feed: Feed) -> dict[str, NDArray[np.generic]]:
    """What the quantised model gives."""
    return outputs_of(quantized_graph(subject.source, subject.ranges).model, feed)


def pooled_sqnr_db(subject: Subject, reference: onnx.ModelProto, feeds: Sequence[Feed]) -> float:
    """The quantised model against a float one, over all feeds and outputs."""
    signal = noise = 0.0
    for feed in feeds:
        wanted, found = outputs_of(reference, feed), int8_outputs(subject, feed)
        for name, array in wanted.items():
            signal += float((array.astype(np.float64) ** 2).sum())
            noise += float(((array.astype(np.float64) - found[name]) ** 2).sum())
    return float(10 * np.log10(signal / noise))


def again(found: Improved, subject: Subject) -> Subject:
    """The changed model as the next improvement gets it."""
    assert found.model is not None
    return subject_of(found.model, subject.data, spared=found.spared)


def same_bits(before: onnx.ModelProto, after: onnx.ModelProto, feeds: Sequence[Feed]) -> bool:
    """Whether two float models give the same numbers to the last bit."""
    return all(
        np.array_equal(array, outputs_of(after, feed)[name])
        for feed in feeds
        for name, array in outputs_of(before, feed).items()
    )
