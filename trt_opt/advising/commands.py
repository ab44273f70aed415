"""What to type next."""

from __future__ import annotations

import shlex
from pathlib import Path

from trt_opt.backends.tensorrt_versions import support_of
from trt_opt.errors import TargetError
from trt_opt.values.advice import AdviceFacts, AdviceRequest, Method
from trt_opt.values.hardware import Hardware
from trt_opt.values.target import TensorRTTarget

QUANTIZATION: dict[Method, tuple[str, ...]] = {
    "static": ("--int8",),
    "weights-only": ("--quantization", "weights-only"),
    "full-integer": ("--quantization", "full-integer"),
    "fp8": ("--quantization", "fp8"),
    "fp16": ("--fp16",),
    "as-given": ("--fp16",),
    "fp32": (),
}

BUNDLED: tuple[Method, ...] = ("static", "weights-only", "fp8", "fp16", "fp32")
"""The methods whose graphs a bundle holds."""

DEFAULT_CALIBRATOR = "entropy"


def command_for(method: Method, weights: str, calibrator: str, facts: AdviceFacts) -> tuple[str, str | None]:
    """The command that carries a recommendation out, and what to run on the device after it.

    TensorRT-RTX engines are built here, and TensorRT's where the target is this machine. For other hardware a bundle is
    packed, or, without samples to judge the engine by, the graph written and left to trtexec.
    """
    request, hardware = facts.request, facts.hardware
    target, asked = _target(facts), ["--target", request.target] if request.target else []
    if facts.came_quantized and method != "as-given":
        return shlex.join(["trt-opt", "advise", "FLOAT_MODEL.onnx", *_where(request)]), None
    if method == "qat":
        folder = f"{Path(request.model).stem}.qat"
        return shlex.join(
            ["trt-opt", "qat", request.model, "-o", folder, *_data(request, evaluation=False), *asked]
        ), None
    chosen = [*QUANTIZATION[method], *(("--weights", weights) if weights else ())]
    chosen += ["--calibrator", calibrator] if calibrator not in ("", DEFAULT_CALIBRATOR) else []
    data = _data(request, evaluation=True)
    if hardware.library == "TensorRT-RTX" or target == ["--target", str(TensorRTTarget())]:
        return shlex.join(["trt-opt", "build", request.model, *chosen, *data, *target]), None
    output = f"{Path(request.model).stem}.{method}"
    if target and "--eval-data" in data and method in BUNDLED:
        bundle = f"{output}.bundle"
        command = ["trt-opt", "bundle", request.model, "-o", bundle, *chosen, *data, *target]
        return shlex.join(command), shlex.join(["trt-opt", "build", bundle])
    graph = f"{output}.onnx"
    command = ["trt-opt", "quantize", request.model, "-o", graph, *_for_quantize(method, chosen, hardware)]
    return shlex.join([*command, *_data(request, evaluation=False), *target]), _on_device(graph, method, hardware)


def _for_quantize(method: Method, chosen: list[str], hardware: Hardware) -> list[str]:
    """The options for `quantize`, which means INT8 unless told otherwise."""
    if method in ("fp16", "fp32", "as-given"):
        return ["--no-int8", *chosen] if method != "as-given" or hardware.takes_explicit_types else ["--no-int8"]
    # For a version it knows, `quantize` leaves FP16 to the builder's flag where that is the way.
    return chosen if hardware.takes_explicit_types or _is_known(hardware) else [*chosen, "--no-fp16"]


def _is_known(hardware: Hardware) -> bool:
    """Whether this tool knows what the hardware's TensorRT takes; it does not go back to those of JetPack 4."""
    try:
        return hardware.version is None or bool(support_of(hardware.version))
    except TargetError:
        return False


def _on_device(graph: str, method: Method, hardware: Hardware) -> str:
    """TensorRT 10 takes the graph's types; before, FP16 beside Q/DQ pairs is a flag of the builder."""
    flags = ["--stronglyTyped"]
    if not hardware.takes_explicit_types:
        flags = {"fp32": [], "fp16": ["--fp16"]}.get(method, ["--int8", "--fp16"])
    engine = str(Path(graph).with_suffix(".engine"))
    return shlex.join(["trtexec", f"--onnx={graph}", f"--saveEngine={engine}", *flags])


def _data(request: AdviceRequest, *, evaluation: bool) -> list[str]:
    """The data options; random numbers were good for this advice alone."""
    options = [("--calib-data", request.calib_data)]
    options += [("--eval-data", request.eval_data)] if evaluation else []
    options = [(name, value) for name, value in options if value and not value.startswith("random:")]
    options += [("--preprocess", request.preprocess)] if options else []
    return [word for name, value in options if value for word in (name, value)]


def _target(facts: AdviceFacts) -> list[str]:
    """The target asked for, or the one that the device stands for; nothing where this tool has none for it."""
    request, hardware = facts.request, facts.hardware
    if request.target:
        board = request.device if request.target.startswith("tensorrt") and "@" not in request.target else None
        return ["--target", f"{request.target}@{board}" if board else request.target]
    if request.device is None or not _is_known(hardware):
        return []
    if hardware.library == "TensorRT":
        return ["--target", str(TensorRTTarget(hardware.version, request.device))]
    return ["--target", "rtx:" + "+".join(entry.capability for entry in hardware.supports)]


def _where(request: AdviceRequest) -> list[str]:
    options = [("--target", request.target), ("--device", request.device)]
    return [word for name, value in options if value for word in (name, value)]
