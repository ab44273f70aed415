"""What an improvement is: a change to a float model, or to the constants of its INT8 layers, against their error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import onnx

from trt_opt.quantize.stage import Correction, FloatGraph
from trt_opt.values.calibration import TensorRange
from trt_opt.values.improvement import Declined, Gain
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Dataset


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What an improvement works on.

    Attributes:
        source: The float graph, with the placement of its INT8 layers.
        ranges: The calibrated ranges.
        data: Calibration samples; may be walked through several times.
        corrections: Layer → constants that earlier improvements gave it.
        seed: For choices by chance.
    """

    source: FloatGraph
    ranges: Mapping[str, TensorRange]
    data: Dataset
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Improved:
    """What an improvement made.

    Attributes:
        model: The float model changed, equal in exact arithmetic, to be placed and calibrated anew; None where the
            model stays.
        corrections: Layer → its constants, earlier ones included, where the model stays.
        gains: The layers changed, with their error before and after.
        declined: The layers looked at and left.
        spared: Layers of the changed model that must stay in float, and why.
    """

    model: onnx.ModelProto | None = None
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    gains: tuple[Gain, ...] = ()
    declined: tuple[Declined, ...] = ()
    spared: Mapping[str, str] = field(default_factory=dict)


class Improvement(Protocol):
    """One kind of change. Stateless; `IMPROVEMENTS` holds one of each."""

    name: str
    """As written after --skip-pass."""

    summary: str
    """What it does, in one line."""

    def improved(self, subject: Subject, progress: Progress) -> Improved:
        """Tries it on every INT8 layer, and keeps it where the layer's error at its own output became smaller.

        Args:
            subject: The model and its data.
            progress: Told of every sample.

        Raises:
            DataError: A sample cannot be run.
        """
