"""Two or more runners over the same data: how far they are apart, and whether that is acceptable."""

from trt_opt.compare.data_pass import compare, compare_many
from trt_opt.compare.limits import Limits, OutputLimits, Tolerances, limits_from_texts
from trt_opt.compare.margin import margin
from trt_opt.compare.metrics import METRICS, Metric, metric_from_text
from trt_opt.compare.verdict import SMALLEST_SAMPLE

__all__ = [
    "METRICS",
    "SMALLEST_SAMPLE",
    "Limits",
    "Metric",
    "OutputLimits",
    "Tolerances",
    "compare",
    "compare_many",
    "limits_from_texts",
    "margin",
    "metric_from_text",
]
