"""What could spoil a recommendation, and what nobody measured."""

from __future__ import annotations

from collections.abc import Iterator

from trt_opt.values.advice import AdviceFacts, Method
from trt_opt.values.hardware import FIRST_WITH_NARROW_TYPES, numbers_of

FEW_MACS = 20_000_000
"""A GPU of 10 TMAC/s is done with these in 2 µs, which is less than launching one kernel takes."""

FEW_SAMPLES = 100

QUANTIZING: tuple[Method, ...] = ("static", "full-integer", "fp8", "qat", "as-given")
"""The methods that quantise activations."""


def caveats_of(method: Method, facts: AdviceFacts) -> Iterator[str]:
    """Every caveat that concerns a method on this hardware with these data."""
    yield from _about_the_model(facts)
    yield from _about_speed(method, facts)
    yield from _about_accuracy(facts)
    if method != "fp32" and facts.fp16_kept:
        count = len(facts.fp16_kept)
        name, reason = next(iter(facts.fp16_kept.items()))
        stay = "1 layer stays" if count == 1 else f"{count} layers stay"
        yield f"{stay} FP32 where FP16 is a risk: {name}: {reason}"


def _about_the_model(facts: AdviceFacts) -> Iterator[str]:
    if facts.refused:
        count = len(facts.refused)
        yield f"the target refuses {count} node{'s' * (count != 1)} even after a rewrite: {facts.refused[0]}"
    if facts.compute.not_counted:
        told = ", ".join(f"{count} {name}" for name, count in facts.compute.not_counted.items())
        yield f"the arithmetic of {told} was not counted"


def _about_speed(method: Method, facts: AdviceFacts) -> Iterator[str]:
    hardware = facts.hardware
    if not hardware.is_known:
        yield "nobody said where it shall run: --device takes orin, rtx-3060, t4 …"
    if method in QUANTIZING and 0 < facts.compute.macs < FEW_MACS:
        yield (
            f"one run is {facts.compute.macs / 1e6:.2g} MMAC: launching kernels takes longer than computing, "
            "so it may be no faster than FP16"
        )
    if method in QUANTIZING and hardware.library == "TensorRT-RTX" and method != "fp8":
        yield (
            "NVIDIA's matrix for TensorRT-RTX lists INT8 for the weights of matrix products alone: INT8 layers build, "
            "how fast they run was not measured here; time it against FP16"
        )
    elif method == "weights-only":
        yield "whether the weights are read as stored or unpacked first, and how fast, was not measured here"
    elif method in QUANTIZING:
        yield "speed on the device was not measured here: time it against FP16"
    older = [pack for pack, version in hardware.jetpack.items() if numbers_of(version) < FIRST_WITH_NARROW_TYPES]
    if older and hardware.takes_explicit_types:
        device = facts.request.device or "orin"
        yield f"with JetPack {' or '.join(older)} the graph must be another: --target tensorrt:8.6@{device} says how"
    if method in ("static", "full-integer") and any(entry.int8 == "DP4A" for entry in hardware.supports):
        yield "INT8 runs there without tensor cores (DP4A)"
    if method in ("static", "full-integer") and hardware.dla:
        yield "which layers the DLA takes was not asked"


def _about_accuracy(facts: AdviceFacts) -> Iterator[str]:
    judged = any(row.accuracy is not None and row.accuracy.points_lost is not None for row in facts.figures)
    evaluation = facts.evaluation if judged else None
    if evaluation is not None and evaluation.samples < FEW_SAMPLES and not evaluation.random:
        points = 100 / max(evaluation.samples, 1)
        yield f"with {evaluation.samples} samples one answer is {points:.1f} points: more samples tell more"
    if facts.request.edge and "full-integer" not in facts.methods:
        yield "integers at both ends were asked for: this version has no full-integer method"
    elif facts.request.edge and not facts.has_samples:
        yield "integers at both ends need calibration data"
