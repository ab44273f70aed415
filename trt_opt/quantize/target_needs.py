"""Which targets a quantisation method can be used with; asked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from trt_opt.errors import TargetError, UnsupportedModelError
from trt_opt.quantize.methods.fp8 import Fp8
from trt_opt.quantize.methods.implicit import Implicit
from trt_opt.values.target import ComputeCapability, RtxTarget, Target

LEAST_CAPABILITY: Mapping[str, ComputeCapability] = MappingProxyType({Fp8.name: (8, 9)})
"""Method → the first GPU that has its kernels; FP8 came with Ada (8.9) and Hopper (9.0)."""

LAST_IMPLICIT_VERSION = 10
"""TensorRT 11 has no calibrators; TensorRT-RTX never had them."""


def require_target(method: str, target: Target) -> None:
    """Refuses a method that the target has no kernels or no interface for.

    Args:
        method: Its name in `METHODS`.
        target: Where the engine is to run; what a plain `tensorrt` has is known on the machine itself alone.

    Raises:
        TargetError: The target's library reads no calibration cache.
        UnsupportedModelError: A GPU lacks the kernels; the hint names those that have them.
    """
    if method == Implicit.name and not _has_calibrators(target):
        raise TargetError(
            "implicit quantisation rests on a calibration cache, which only TensorRT up to 10 reads",
            where=f"target {target}",
            hint="--quantization static writes the same ranges into the graph; or --target tensorrt:10.3",
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
    return target.version is None or int(target.version.partition(".")[0]) <= LAST_IMPLICIT_VERSION


def _dotted(capability: ComputeCapability) -> str:
    return f"{capability[0]}.{capability[1]}"
