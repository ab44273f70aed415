"""What a history of measurements holds: series of figures, one per model, precision, place and way of measuring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """What two figures must share to be comparable; every part is text, "" where it does not apply.

    Attributes:
        model: The model's name, or its path as the user tells models apart.
        precision: "FP32", "FP16", "INT8 + FP16".
        target: "rtx:8.6", "tensorrt", "onnxruntime".
        device: The GPU's name, or the processor's.
        library: Name and version of what built or ran it: "tensorrt 10.3.0".
        flags: Everything else that decides the figure, sorted: "batch=8 cuda_graph=1 streams=2".
    """

    model: str
    precision: str = ""
    target: str = ""
    device: str = ""
    library: str = ""
    flags: str = ""

    def __str__(self) -> str:
        """The parts that are not empty."""
        parts = (self.model, self.precision, self.target, self.device, self.library, self.flags)
        return " · ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Observation:
    """One figure of one run.

    Attributes:
        key: The series it belongs to.
        metric: A key of `regress.metrics.METRICS`: "latency_ms", "compute_ms", "throughput_per_s", "top1", "sqnr_db",
            "engine_bytes", "build_s", "memory_bytes".
        value: The figure, in the metric's unit.
        rounds: What each round gave, for figures that are medians of rounds; empty otherwise.
        problems: Why it must not be used, one sentence each; empty when it may.
    """

    key: SeriesKey
    metric: str
    value: float
    rounds: tuple[float, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_valid(self) -> bool:
        """Whether it may be used; an invalid figure is kept, shown, and never judged with."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Run:
    """What was recorded together.

    Attributes:
        id: Unique, and sorts by time: "20261125T054635123456Z-1f3a9c".
        recorded_at: UTC, ISO 8601.
        label: The user's word for it: a commit, a build number.
        environment: Part of the machine → what it was, as text: what must be equal for figures to be compared beyond
            what the key says (driver, clocks locked, power mode, host).
        observations: The figures.
    """

    id: str
    recorded_at: str
    label: str
    environment: Mapping[str, str] = field(default_factory=dict)
    observations: tuple[Observation, ...] = ()
