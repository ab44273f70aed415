"""Which precision suits a model: the methods tried, their figures, and a recommendation that follows from them."""

from trt_opt.advising.facts import advice_for
from trt_opt.advising.recommendation import recommend

__all__ = ["advice_for", "recommend"]
