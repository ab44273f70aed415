"""The capability table: what GPUs and boards compute in, looked up by target and name.

Facts and their sources are in `hardware.json`; they come from NVIDIA's support matrices and were not measured here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from trt_opt.errors import RequestError, TargetError
from trt_opt.values.hardware import ComputeSupport, Device, Hardware, Library, numbers_of
from trt_opt.values.target import RtxTarget, Target, TensorRTTarget

TABLE = "hardware.json"


@cache
def compute_supports() -> Mapping[str, ComputeSupport]:
    """Compute capability → what it can do."""
    return MappingProxyType({name: _support(name, row) for name, row in _table()["capabilities"].items()})


@cache
def devices() -> Mapping[str, Device]:
    """Name → board or card."""
    return MappingProxyType({name: Device(name=name, **row) for name, row in _table()["devices"].items()})


def device_called(name: str) -> Device:
    """The device of this name; "RTX 3060", "rtx_3060" and "rtx-3060" are the same.

    Raises:
        RequestError: There is none; names the closest.
    """
    written = name.strip().lower().replace(" ", "-").replace("_", "-")
    if written in devices():
        return devices()[written]
    close = get_close_matches(written, devices(), 1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(devices())}"
    raise RequestError(f"no device is called {name!r}", hint=hint)


def hardware_for(target: Target | None, device: Device | None) -> Hardware:
    """Where the engine is to run.

    Args:
        target: As asked for; None where it was left to this tool.
        device: As asked for.

    Raises:
        RequestError: A target's board is unknown.
        TargetError: Target and device exclude each other, or the version of TensorRT does not support the device.
    """
    match target:
        case RtxTarget():
            return _for_rtx(target, device)
        case TensorRTTarget():
            return _for_tensorrt(target, device)
    if device is None:
        return _for_rtx(RtxTarget(), None)
    support = compute_supports()[device.capability]
    # TensorRT-RTX is what can be built here; Turing is left to TensorRT, whose list for it is longer.
    library: Library = "TensorRT-RTX" if "int8 weights" in support.tensorrt_rtx else "TensorRT"
    return _on(device, library, _newest(device) if library == "TensorRT" else None)


def _for_rtx(target: RtxTarget, device: Device | None) -> Hardware:
    names = tuple(f"{major}.{minor}" for major, minor in target.capabilities)
    if device is None:
        supports = tuple(compute_supports()[name] for name in names)
        return Hardware(f"GPUs of compute capability {', '.join(names)}", "TensorRT-RTX", supports=supports)
    if device.capability not in names:
        raise TargetError(
            f"{device.title} has compute capability {device.capability}, {target} is built for {', '.join(names)}",
            hint=f"leave --target out: --device {device.name} is enough",
        )
    return _on(device, "TensorRT-RTX", None)


def _for_tensorrt(target: TensorRTTarget, device: Device | None) -> Hardware:
    board = device_called(target.board) if target.board else device
    if device is not None and board is not None and board.name != device.name:
        raise TargetError(f"{target} is for {board.title}, not for {device.title}", hint="leave --device out")
    if board is None:
        return Hardware("this machine's GPU, which was not asked", "TensorRT", target.version)
    version = target.version or _newest(board)
    first, last = compute_supports()[board.capability].tensorrt
    if version is not None:
        asked = numbers_of(version)
        too_old = asked < numbers_of(first)
        if too_old or (last is not None and asked[:2] > numbers_of(last)):
            span = f"{first} or later" if last is None else f"{first} to {last}"
            raise TargetError(f"TensorRT {version} does not support {board.title}", hint=f"it takes TensorRT {span}")
    return _on(board, "TensorRT", version)


def _on(device: Device, library: Library, version: str | None) -> Hardware:
    supports = (compute_supports()[device.capability],)
    return Hardware(device.title, library, version, supports, device.dla, device.jetpack)


def _newest(device: Device) -> str | None:
    """The newest TensorRT for a device: its last JetPack's, or the last that supports it; None where all do."""
    last = compute_supports()[device.capability].tensorrt[1]
    return max(device.jetpack.values(), key=numbers_of, default=last)


def _support(capability: str, row: Mapping[str, Any]) -> ComputeSupport:
    lists = {name: tuple(row[name]) for name in ("tensorrt", "tensorrt_rtx")}
    return ComputeSupport(capability=capability, **{**row, **lists})


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(resources.files("trt_opt.backends").joinpath(TABLE).read_text(encoding="utf-8"))
    return table
