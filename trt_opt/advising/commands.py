"""What to type next."""

from __future__ import annotations

import shlex
from pathlib import Path

from trt_opt.values.advice import AdviceFacts, AdviceRequest, Method
from trt_opt.values.hardware import Hardware

QUANTIZATION: dict[Method, tuple[str, ...]] = {
    "static": ("--int8",),
    "weights-only": ("--quantization", "weights-only"),
    "full-integer": ("--quantization", "full-integer"),
    "fp8": ("--quantization", "fp8"),
    "fp16": ("--fp16",),
    "as-given": ("--fp16",),
    "fp32": (),
}

DEFAULT_CALIBRATOR = "entropy"


def command_for(method: Method, weights: str, calibrator: str, facts: AdviceFacts) -> tuple[str, str | None]:
    """The command that carries a recommendation out, and what to run on the device after it.

    TensorRT-RTX engines are built here; for all other hardware the graph is written here and built there.
    """
    request, hardware = facts.request, facts.hardware
    target = ("--target", request.target) if request.target else ()
    if facts.came_quantized and method != "as-given":
        return shlex.join(["trt-opt", "advise", "FLOAT_MODEL.onnx", *_where(request)]), None
    if method == "qat":
        folder = f"{Path(request.model).stem}.qat"
        return shlex.join(
            ["trt-opt", "qat", request.model, "-o", folder, *_data(request, evaluation=False), *target]
        ), None
    chosen = [*QUANTIZATION[method], *(("--weights", weights) if weights else ())]
    chosen += ["--calibrator", calibrator] if calibrator not in ("", DEFAULT_CALIBRATOR) else []
    if hardware.library == "TensorRT-RTX":
        data = _data(request, evaluation=True)
        return shlex.join(["trt-opt", "build", request.model, *chosen, *data, *_rtx_target(facts)]), None
    output = f"{Path(request.model).stem}.{method}.onnx"
    command = ["trt-opt", "quantize", request.model, "-o", output, *_for_quantize(method, chosen, hardware)]
    return shlex.join([*command, *_data(request, evaluation=False), *target]), _on_device(output, method, hardware)


def _for_quantize(method: Method, chosen: list[str], hardware: Hardware) -> list[str]:
    """The options for `quantize`, which means INT8 unless told otherwise."""
    if method in ("fp16", "fp32", "as-given"):
        return ["--no-int8", *chosen] if method != "as-given" or hardware.takes_explicit_types else ["--no-int8"]
    return chosen if hardware.takes_explicit_types else [*chosen, "--no-fp16"]


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


def _rtx_target(facts: AdviceFacts) -> list[str]:
    if facts.request.target:
        return ["--target", facts.request.target]
    if facts.request.device is None:
        return []
    return ["--target", "rtx:" + "+".join(entry.capability for entry in facts.hardware.supports)]


def _where(request: AdviceRequest) -> list[str]:
    options = [("--target", request.target), ("--device", request.device)]
    return [word for name, value in options if value for word in (name, value)]
