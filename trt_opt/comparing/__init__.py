"""Models and engines against one another: accuracy, where they part, and speed, over the same data."""

from trt_opt.comparing.models import compared_models
from trt_opt.comparing.request import ComparisonRequest

__all__ = ["ComparisonRequest", "compared_models"]
