"""`build.conf`: what the description says, for a shell that has no JSON."""

from __future__ import annotations

import re

from trt_opt.errors import UnsupportedModelError
from trt_opt.values.bundle import Bundle
from trt_opt.values.engine import FileRecord
from trt_opt.values.shapes import Shape

_VALUE = re.compile(r"[A-Za-z0-9._:,x+@/ -]*", re.ASCII)


def conf_text(bundle: Bundle, model: FileRecord) -> str:
    """The lines KEY=value; no value is quoted, none needs to be.

    Args:
        bundle: The description.
        model: The graph's file.

    Raises:
        UnsupportedModelError: A tensor's or a layer's name cannot be written so.
    """
    return "".join(f"{key}={value}\n" for key, value in _values(bundle, model).items())


def _values(bundle: Bundle, model: FileRecord) -> dict[str, str]:
    options = bundle.options
    values = {
        "FORMAT": str(bundle.format),
        "NAME": bundle.name,
        "BOARD": bundle.board or "",
        "CAPABILITY": bundle.capability or "",
        "TENSORRT": bundle.tensorrt or "",
        "PRECISION": bundle.precision,
        "STRONGLY_TYPED": _yes_or_no(options.strongly_typed),
        "FP16": _yes_or_no(options.fp16),
        "FLOAT32_LAYERS": ",".join(_layer(name) for name in options.float32_layers),
        "WORKSPACE_MIB": str((options.workspace_bytes or 0) // 2**20),
        "OPTIMIZATION_LEVEL": _number(options.optimization_level),
        "DLA": _number(options.dla_core),
        "GPU_FALLBACK": _yes_or_no(options.gpu_fallback),
        "VERSION_COMPATIBLE": _yes_or_no(options.version_compatible),
        "HARDWARE_COMPATIBLE": _yes_or_no(options.hardware_compatible),
        "TACTIC_SOURCES": ",".join(_source(name) for name in options.tactic_sources),
        "SAMPLES": str(bundle.samples),
        "INPUTS": str(len(bundle.inputs)),
        "OUTPUTS": str(len(bundle.outputs)),
    }
    for number, given in enumerate(bundle.inputs):
        values[f"INPUT_{number}_NAME"] = _tensor(given.name)
        values[f"INPUT_{number}_SHAPE"] = _shape(given.shape)
        values[f"INPUT_{number}_TYPE"] = given.dtype
        found = options.profile.get(given.name)
        for end in ("min", "opt", "max"):
            values[f"INPUT_{number}_{end.upper()}"] = "" if found is None else _shape(getattr(found, end))
    for number, output in enumerate(bundle.outputs):
        values[f"OUTPUT_{number}_NAME"] = _tensor(output.name)
        values[f"OUTPUT_{number}_SHAPE"] = _shape(output.shape)
    values["LEAST_SQNR_DB"] = f"{bundle.least_sqnr_db:.2f}"
    values["MODEL_BYTES"] = str(model.bytes)
    values["BUILT_BY"] = bundle.tool
    return values


def _tensor(name: str) -> str:
    """A tensor's name; a comma would end it in trtexec's options, which know no quotes."""
    if not _VALUE.fullmatch(name) or name != name.strip() or "," in name or not name:
        raise UnsupportedModelError(
            "a bundle cannot carry this name of an input or output: letters, digits and . _ : + @ / - are what shells "
            "and trtexec take",
            where=f"tensor {name!r}",
            hint="rename it in the exporter",
        )
    return name


def _layer(name: str) -> str:
    if not _VALUE.fullmatch(name) or name != name.strip() or "," in name or ":" in name:
        raise UnsupportedModelError(
            "this layer must stay FP32, and a bundle cannot carry its name: letters, digits and . _ + @ / - are what "
            "shells and trtexec take",
            where=f"node {name!r}",
            hint="rename the node in the exporter, or leave FP16 out: --no-fp16",
        )
    return name


def _source(name: str) -> str:
    if not re.fullmatch(r"[A-Z0-9_]+", name):
        raise UnsupportedModelError(
            "TensorRT has no tactic source of such a name",
            where=f"tactic source {name!r}",
            hint="EDGE_MASK_CONVOLUTIONS",
        )
    return name


def _shape(shape: Shape) -> str:
    return "x".join(str(size) for size in shape)


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _yes_or_no(told: bool) -> str:
    return "yes" if told else "no"
