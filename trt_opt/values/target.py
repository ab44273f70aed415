"""Where an engine is to run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trt_opt.errors import TargetError

ComputeCapability = tuple[int, int]

RTX_CAPABILITIES: tuple[ComputeCapability, ...] = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
"""What TensorRT-RTX 1.x builds for ahead of time (its `ComputeCapability` enum)."""

RTX_DEFAULT: tuple[ComputeCapability, ...] = ((8, 0), (8, 6), (8, 9), (12, 0))
"""A plain `rtx`: one engine for all of these is a few bytes larger than for one. SM 7.5 is out: no FP32 GEMM."""


@dataclass(frozen=True, slots=True)
class RtxTarget:
    """TensorRT-RTX, built ahead of time on the CPU for these compute capabilities."""

    capabilities: tuple[ComputeCapability, ...] = RTX_DEFAULT

    def __str__(self) -> str:
        return "rtx:" + "+".join(f"{major}.{minor}" for major, minor in self.capabilities)


@dataclass(frozen=True, slots=True)
class TensorRTTarget:
    """TensorRT: this machine's, or a version and board for which a bundle is made.

    Attributes:
        version: "8.6", "10.3" …; None for the one installed here.
        board: "orin", "xavier" …; None for this machine.
    """

    version: str | None = None
    board: str | None = None

    def __str__(self) -> str:
        version = f":{self.version}" if self.version else ""
        board = f"@{self.board}" if self.board else ""
        return f"tensorrt{version}{board}"


Target = RtxTarget | TensorRTTarget

_HINT = "targets are rtx, rtx:8.6, rtx:8.6+8.9, tensorrt, tensorrt:8.6@orin"


def target_from_text(text: str) -> Target:
    """Parses a target as written after --target.

    Raises:
        TargetError: No such target, or a compute capability that TensorRT-RTX does not build for.
    """
    match = re.fullmatch(r"(?P<kind>[a-z]+)(:(?P<detail>[0-9.+]+))?(@(?P<board>[a-z0-9-]+))?", text.strip())
    kind = match["kind"] if match else None
    if match and kind == "rtx" and match["board"] is None:
        return _rtx_target(match["detail"])
    if match and kind == "tensorrt" and re.fullmatch(r"\d+(\.\d+)*", match["detail"] or "0"):
        return TensorRTTarget(match["detail"], match["board"])
    raise TargetError(f"unknown target {text!r}", hint=_HINT)


def _rtx_target(detail: str | None) -> RtxTarget:
    if detail is None:
        return RtxTarget()
    wanted: list[ComputeCapability] = []
    for part in detail.split("+"):
        match = re.fullmatch(r"(\d+)\.(\d)", part)
        capability = (int(match[1]), int(match[2])) if match else None
        if capability not in RTX_CAPABILITIES:
            known = ", ".join(f"{major}.{minor}" for major, minor in RTX_CAPABILITIES)
            raise TargetError(
                f"TensorRT-RTX does not build for compute capability {part!r}", hint=f"it builds for {known}"
            )
        wanted.append(capability)
    return RtxTarget(tuple(sorted(set(wanted))))
