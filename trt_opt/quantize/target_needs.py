"""Which targets a quantisation method can be used with; asked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from trt_opt.backends.tensorrt_versions import support_of
from trt_opt.errors import TargetError, UnsupportedModelError
from trt_opt.quantize.methods.fp8 import Fp8
from trt_opt.quantize.methods.implicit import Implicit
from trt_opt.quantize.methods.weights_only import WeightsOnly
from trt_opt.values.hardware import FIRST_WITH_NARROW_TYPES, numbers_of
from trt_opt.values.target import ComputeCapability, RtxTarget, Target

LEAST_CAPABILITY: Mapping[str, ComputeCapability] = MappingProxyType({Fp8.name: (8, 9)})
"""Method → the first GPU that has its kernels; FP8 came with Ada (8.9) and Hopper (9.0)."""

_NARROW = frozenset({(Fp8.name, ""), (WeightsOnly.name, "int4")})
"""Methods whose graphs hold FP8 or INT4 tensors, with what they store where that matters."""


def require_target(method: str, target: Target, weights: str = "int8") -> None:
    """Refuses a method that the target has no kernels or no interface for.

    Args:
        method: Its name in `METHODS`.
        target: Where the engine is to run; what a plain `tensorrt` has is known on the machine itself alone.
        weights: What "weights-only" stores.

    Raises:
        TargetError: The target's library reads no calibration cache, or no FP8 or INT4.
        UnsupportedModelError: A GPU lacks the kernels; the hint names those that have them.
    """
    if method == Implicit.name and not _has_calibrators(target):
        raise TargetError(
            "implicit quantisation rests on a calibration cache, which only TensorRT up to 10 reads",
            where=f"target {target}",
            hint="--quantization static writes the same ranges into the graph; or --target tensorrt:10.3",
        )
    if (method, weights if method == WeightsOnly.name else "") in _NARROW and not _takes_narrow_types(target):
        raise TargetError(
            f"TensorRT reads FP8 and INT4 tensors from {'.'.join(map(str, FIRST_WITH_NARROW_TYPES))} on",
            where=f"target {target}",
            hint="--quantization static, or weights-only with --weights int8",
        )
    least = LEAST_CAPABILITY.get(method)
    if least is None or not isinstance(target, RtxTarget):
        return
    older = [capability for capability in target.capabilities if capability < least]
    if older:
        raise UnsupportedModelError(
            f"{method} needs compute capability {_dotted(least)} or later, and the engine is to run on "
            f"{', '.join(map(_dotted, older))} too",
            where=f"target {target}",
            hint=f"--target rtx:{_dotted(least)}, or rtx:{_dotted(least)}+12.0; --quantization static for older GPUs",
        )


def _has_calibrators(target: Target) -> bool:
    if isinstance(target, RtxTarget):
        return False
    return target.version is None or support_of(target.version).int8_calibrators


def _takes_narrow_types(target: Target) -> bool:
    if isinstance(target, RtxTarget) or target.version is None:
        return True
    return numbers_of(target.version)[0] >= FIRST_WITH_NARROW_TYPES[0]


def _dotted(capability: ComputeCapability) -> str:
    return f"{capability[0]}.{capability[1]}"
