"""Models made ready for sensitivity measurements, as the command line makes them, without a parser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from calibrators import calibrator_from_text
from trt_opt.acceptance import TableJudge
from trt_opt.buildable import PassChoice
from trt_opt.calibrate.ranges import calibration_table
from trt_opt.preparation import source_model
from trt_opt.quantize.stage import PrecisionRequest, float_graph, least_opset
from trt_opt.sensitivity.measure import Study
from trt_opt.values.progress import Silent
from trt_opt.values.samples import DataProvenance, Dataset, Sample
from trt_opt.values.target import RtxTarget

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Feeds:
    """Feeds as a data set."""

    feeds: tuple[Arrays, ...]
    source: str = "feeds"
    is_random: bool = False
    has_labels: bool = False

    def __len__(self) -> int:
        return len(self.feeds)

    def __iter__(self) -> Iterator[Sample]:
        return (Sample(f"feeds[{number}]", feed) for number, feed in enumerate(self.feeds))

    def provenance(self) -> DataProvenance:
        return DataProvenance(self.source, "0" * 64, len(self.feeds), self.is_random)


def feeds_of(arrays: Arrays) -> Feeds:
    """One feed of batch 1 per entry of the first axis."""
    count = len(next(iter(arrays.values())))
    return Feeds(tuple({name: array[number : number + 1] for name, array in arrays.items()} for number in range(count)))


def study_of(
    model: onnx.ModelProto,
    data: Dataset,
    *,
    evaluation: Dataset | None = None,
    calibrator: str = "entropy",
    exclude: tuple[str, ...] = (),
    activation_products: bool = False,
) -> Study:
    """The model after the passes, placed and calibrated."""
    request = PrecisionRequest(method="static", exclude=exclude, activation_products=activation_products)
    choice = PassChoice(least_opset=least_opset(request))
    samples = tuple(data)[:2]
    source = source_model(Path("model"), model, samples, TableJudge(RtxTarget()), Silent(), choice=choice)
    graph = float_graph(source.rewritten, request)
    table = calibration_table(graph.model, graph.taps, data, calibrator_from_text(calibrator), Silent())
    return Study(graph, table, data, evaluation, source.original)
