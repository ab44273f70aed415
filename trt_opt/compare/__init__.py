"""Two or more runners over the same data: how far they are apart, and whether that is acceptable."""

from trt_opt.compare.data_pass import compare, compare_many
from trt_opt.compare.limits import Limits, Tolerances

__all__ = ["Limits", "Tolerances", "compare", "compare_many"]
