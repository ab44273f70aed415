"""Models that came quantised."""

from trt_opt.quantize.importing.normal_form import NormalForm, normal_form

__all__ = ["NormalForm", "normal_form"]
