"""The figures that can become worse, and the least change of each that matters."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from trt_opt.errors import RequestError
from trt_opt.values.regression import MetricKind

OWN_PREFIX = "metric:"
"""Before the name of a metric of the user's own, as in "metric:package.module:function"."""

OWN_FLOOR = 0.005
"""Half a point of a share, as for the accuracies that this package computes."""

METRICS: Mapping[str, MetricKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            MetricKind("latency_ms", "latency", "ms", "lower", relative=True, floor=0.02),
            MetricKind("compute_ms", "GPU time", "ms", "lower", relative=True, floor=0.02),
            MetricKind("throughput_per_s", "throughput", "per s", "higher", relative=True, floor=0.02),
            MetricKind("top1", "top-1 accuracy", "share", "higher", relative=False, floor=0.005),
            MetricKind("agreement", "top-1 agreement", "share", "higher", relative=False, floor=0.005),
            MetricKind("sqnr_db", "SQNR", "dB", "higher", relative=False, floor=0.5),
            # Builders time their tactics, so that two builds of one model choose differently and differ in size.
            MetricKind("engine_bytes", "engine size", "bytes", "lower", relative=True, floor=0.05),
            MetricKind("onnx_bytes", "model size", "bytes", "lower", relative=True, floor=0.01),
            MetricKind("build_s", "build time", "s", "lower", relative=True, floor=0.5),
            MetricKind("memory_bytes", "memory", "bytes", "lower", relative=True, floor=0.1),
        )
    }
)
"""Name → kind. A floor is a share of the value for times and sizes, else in the unit."""


def metric_of(name: str) -> MetricKind:
    """The kind of figure that a name stands for; `metric:…` is a share of the user's own, of which more is better.

    Raises:
        RequestError: There is none of this name.
    """
    if name in METRICS:
        return METRICS[name]
    if name.startswith(OWN_PREFIX) and len(name) > len(OWN_PREFIX):
        title = name.removeprefix(OWN_PREFIX).rpartition(":")[2]
        return MetricKind(name, title, "share", "higher", relative=False, floor=OWN_FLOOR)
    near = difflib.get_close_matches(name, METRICS, n=1)
    known = ", ".join((*METRICS, f"{OWN_PREFIX}NAME"))
    raise RequestError(f"no metric is called {name!r}", hint=near[0] if near else f"one of {known}")
