"""What one HTML report is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from trt_opt.values.engine import Manifest
from trt_opt.values.model_comparison import ModelComparison
from trt_opt.values.regression import ABResult, RegressionReport
from trt_opt.values.sensitivity import SensitivityReport
from trt_opt.values.timing import Benchmark


@dataclass(frozen=True, slots=True)
class Distribution:
    """How the magnitudes of a tensor are distributed, in the float model over the calibration samples.

    Attributes:
        tensor: Its name.
        node: The layer that reads it.
        width: Of one bin.
        counts: Elements other than zero per bin, the first bin from 0 to `width`.
        zeros: Elements that are exactly zero.
        threshold: The largest magnitude that INT8 holds there; None where there is none.
        low: The smallest element.
        high: The largest element.
        clipped: Share of elements beyond the threshold, 0 … 1, by whole bins; None without one.
    """

    tensor: str
    node: str
    width: float
    counts: tuple[int, ...]
    zeros: int
    threshold: float | None
    low: float
    high: float
    clipped: float | None


@dataclass(frozen=True, slots=True)
class ReportContent:
    """Results that belong on one page.

    Attributes:
        title: What the page is called.
        made_at: UTC, ISO 8601.
        tool: "trt-opt 0.1.0".
        manifests: Engines that were built.
        comparisons: What `trt-opt compare` found.
        benchmarks: What `trt-opt bench` measured.
        sensitivities: What INT8 does to every layer.
        ab_results: Candidates timed against their base.
        regressions: Runs held against their history.
        distributions: Tensors of chosen layers.
        sources: The files it was made from.
    """

    title: str
    made_at: str
    tool: str
    manifests: tuple[Manifest, ...] = ()
    comparisons: tuple[ModelComparison, ...] = ()
    benchmarks: tuple[Benchmark, ...] = ()
    sensitivities: tuple[SensitivityReport, ...] = ()
    ab_results: tuple[ABResult, ...] = ()
    regressions: tuple[RegressionReport, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    sources: tuple[str, ...] = field(default=())
