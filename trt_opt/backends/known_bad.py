"""Combinations of versions that are known to go wrong; facts and their sources are in `known_bad.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

from trt_opt.backends.hardware import compute_supports
from trt_opt.values.device import Gpu
from trt_opt.values.hardware import numbers_of
from trt_opt.values.machine import Board, CudaDriver, Finding, Interpreter, version_numbers

TABLE = "known_bad.json"

ENGINE_PACKAGES = re.compile(r"tensorrt(-cu\d+)?(-bindings|-libs)?")
"""The packages that make up one TensorRT; TensorRT-RTX and the lean runtime are others."""


def findings(interpreters: Iterable[Interpreter], board: Board | None, cuda: CudaDriver) -> tuple[Finding, ...]:
    """What is known to go wrong with the TensorRTs of a machine.

    Args:
        interpreters: As examined.
        board: The Jetson, if it is one.
        cuda: What the driver says.
    """
    found: list[Finding] = []
    for interpreter in interpreters:
        if interpreter.problem is None:
            found += _listed(interpreter, board)
            found += _several(interpreter)
            found += _without_cudnn(interpreter)
            found += _driver_too_old(interpreter, cuda)
            found += [finding for gpu in cuda.gpus for finding in _other_gpu(interpreter, gpu)]
    merged: dict[Finding, tuple[str, ...]] = {}
    for finding in found:
        merged[replace(finding, where=())] = merged.get(replace(finding, where=()), ()) + finding.where
    return tuple(replace(finding, where=tuple(dict.fromkeys(where))) for finding, where in merged.items())


def jetpack_of(l4t: str | None) -> str | None:
    """The JetPack that a release of Jetson Linux belongs to, as precisely as it is known: "36.4.3" → "6.2"."""
    parts = (l4t or "").split(".")
    named: Mapping[str, str] = _table()["jetpack"]["of_l4t"]
    return next((named[name] for name in _prefixes(parts) if name in named), None)


def numpy_requirement(tensorrt: str | None) -> str:
    """The NumPy to install beside a version of TensorRT, as pip takes it: "numpy<2"."""
    bounds = [
        entry["when"]["numpy"][0]
        for entry in _table()["combinations"]
        if tensorrt and "numpy" in entry["when"] and _within(tensorrt, entry["when"].get("tensorrt"))
    ]
    return f"numpy<{min(bounds, key=version_numbers)}" if bounds else "numpy"


def _listed(interpreter: Interpreter, board: Board | None) -> Iterator[Finding]:
    versions = {
        "tensorrt": version_in(interpreter, "tensorrt"),
        "numpy": version_in(interpreter, "numpy"),
        "pycuda": version_in(interpreter, "pycuda"),
        "python": interpreter.python,
        "jetpack": (board.jetpack or "1") if board else None,
    }
    for entry in _table()["combinations"]:
        if all(_within(versions[name], span) for name, span in entry["when"].items()):
            yield Finding(
                entry["subject"],
                (interpreter.path,),
                entry["severity"],
                entry["consequence"],
                entry["remedy"],
                entry["source"],
            )


def version_in(interpreter: Interpreter, name: str) -> str | None:
    """The version of a package that is there, whether it can be imported or not."""
    package = interpreter.package(name)
    if package is not None and package.version:
        return package.version
    return next((version for other, version, _ in interpreter.distributions if other == name), None)


def _several(interpreter: Interpreter) -> Iterator[Finding]:
    parts = [entry for entry in interpreter.distributions if ENGINE_PACKAGES.fullmatch(entry[0])]
    versions = {version_numbers(version)[:3] for _, version, _ in parts}
    cudas = {match[1] for name, _, _ in parts if (match := re.search(r"-cu(\d+)", name))}
    if len(versions) > 1 or len(cudas) > 1:
        yield Finding(
            "two TensorRTs in one Python: " + ", ".join(f"{name} {version}" for name, version, _ in parts),
            (interpreter.path,),
            "wrong",
            "the order of sys.path decides which is imported, and it may load the other's libraries",
            "uninstall one of them",
            _table()["two_tensorrts"]["source"],
        )


def _without_cudnn(interpreter: Interpreter) -> Iterator[Finding]:
    version = interpreter.version_of("tensorrt")
    if version and _within(version, ["8", "9"]) and not interpreter.libraries.get("libcudnn"):
        yield Finding(
            f"TensorRT {version} without cuDNN",
            (interpreter.path,),
            "caution",
            "TensorRT 8 is linked against cuDNN, and none lies where it is looked for",
            "install cuDNN 8 for its CUDA",
            _table()["cudnn"]["source"],
        )


def _driver_too_old(interpreter: Interpreter, cuda: CudaDriver) -> Iterator[Finding]:
    needed = {match[1] for name, _, _ in interpreter.distributions if (match := re.match(r"tensorrt-cu(\d+)", name))}
    if cuda.cuda is None:
        return
    for major in sorted(needed, key=int):
        if int(major) > version_numbers(cuda.cuda)[0]:
            table = _table()["cuda_drivers"]
            least = table["least"].get(major)
            yield Finding(
                f"TensorRT for CUDA {major} with a driver that serves CUDA up to {cuda.cuda}",
                (interpreter.path,),
                "breaks",
                "the driver is too old for the CUDA that this TensorRT is built with",
                (f"install NVIDIA's driver {least} or later" if least else "install a newer driver")
                + f", or tensorrt-cu{version_numbers(cuda.cuda)[0]}",
                table["source"],
            )


def _other_gpu(interpreter: Interpreter, gpu: Gpu) -> Iterator[Finding]:
    version = version_in(interpreter, "tensorrt")
    span = supported_span(gpu.capability)
    if version is None or span is None:
        return
    first, last = span
    numbers = version_numbers(version)
    if numbers < numbers_of(first) or (last is not None and numbers[:2] > numbers_of(last)):
        until = f"{first} or later" if last is None else f"{first} to {last}"
        yield Finding(
            f"TensorRT {version} on {gpu}",
            (interpreter.path,),
            "breaks",
            "this TensorRT does not support this GPU",
            f"install TensorRT {until}",
            "https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/support-matrix.html and its archives",
        )


def supported_span(capability: str) -> tuple[str, str | None] | None:
    """The first and the last TensorRT for a compute capability; None where that is not in the table."""
    support = compute_supports().get(capability)
    return None if support is None else support.tensorrt


def _within(version: str | None, span: list[str] | None) -> bool:
    """Whether a version lies in [from, below)."""
    if version is None or span is None:
        return False
    return version_numbers(span[0]) <= version_numbers(version) < version_numbers(span[1])


def _prefixes(parts: list[str]) -> Iterator[str]:
    for count in range(len(parts), 0, -1):
        yield ".".join(parts[:count])


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(resources.files("trt_opt.backends").joinpath(TABLE).read_text(encoding="utf-8"))
    return table
