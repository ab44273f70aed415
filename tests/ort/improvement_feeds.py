"""Samples held in memory, and a model with ranges from them, for improvements of constants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from ort_session import ranges_of

from trt_opt.improvements.improvement import Subject
from trt_opt.quantize.stage import Correction, PrecisionRequest, float_graph
from trt_opt.values.calibration import TensorRange
from trt_opt.values.samples import DataProvenance, Sample

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Feeds:
    """Samples of the one input `x`."""

    arrays: Sequence[FloatArray]
    source: str = "made up"
    is_random: bool = False
    has_labels: bool = False

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.arrays)

    def __iter__(self) -> Iterator[Sample]:
        """The samples."""
        return (Sample(f"made up[{number}]", {"x": array}) for number, array in enumerate(self.arrays))

    def provenance(self) -> DataProvenance:
        """Without a hash: nothing is stored."""
        return DataProvenance(self.source, "", len(self.arrays))


def subject_of(
    model: onnx.ModelProto, data: Feeds, corrections: Mapping[str, Correction] | None = None, *, fp16: bool = False
) -> Subject:
    """The model with the ranges of all samples at once."""
    graph = float_graph(model, PrecisionRequest("static", fp16))
    ranges = [ranges_of(graph, sample.feed) for sample in data]
    extremes = {name: max(found[name].extreme for found in ranges) for name in ranges[0]}
    union = {name: TensorRange(-top, top, top, 1) for name, top in extremes.items()}
    return Subject(graph, union, data, corrections or {})
