"""The quantisation methods by name."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType

from trt_opt.errors import RequestError
from trt_opt.quantize.methods.fp8 import Fp8
from trt_opt.quantize.methods.full_integer import FullInteger
from trt_opt.quantize.methods.implicit import Implicit
from trt_opt.quantize.methods.method import OpsetNeed, QuantizationMethod
from trt_opt.quantize.methods.static import Static
from trt_opt.quantize.methods.weights_only import WeightsOnly

METHODS: Mapping[str, QuantizationMethod] = MappingProxyType(
    {method.name: method for method in (Static(), FullInteger(), WeightsOnly(), Fp8(), Implicit())}
)
"""What may be written after --quantization."""

__all__ = ["METHODS", "OpsetNeed", "QuantizationMethod", "method_called"]


def method_called(name: str) -> QuantizationMethod:
    """The method of this name.

    Raises:
        RequestError: There is none; names the closest.
    """
    if name in METHODS:
        return METHODS[name]
    close = get_close_matches(name, METHODS, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(METHODS)}"
    raise RequestError(f"no quantisation method is called {name!r}", hint=hint)
