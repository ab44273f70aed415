"""Checks of engines: their answers, their layers, their scales, their speed."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from gpu_checks.bench import RUNS, Bench
from gpu_checks.running import FailedError, Found, SkippedError

from calibrators.cache import CalibrationCache, cache_from_text
from trt_opt.build.store import CACHE
from trt_opt.values.accuracy import Comparison
from trt_opt.values.codec import plain_from_value
from trt_opt.values.engine import BuildOutcome

FLOAT_LEAST_DB = 40.0
"""TF32, which TensorRT's FP32 may use, has FP16's 10 bits: some 60 dB in one layer."""

LOST_DB = 3.0
"""What an engine may lose against the simulation of its graph, as in a bundle's least SQNR."""

IMPLICIT_LEAST_DB = 10.0
"""Implicit quantisation is TensorRT's own choice, so that nothing can be simulated."""

DROP_POINTS = 1.5

RATIO_BOUNDS = {"entropy": (0.8, 1.25), "minmax": (0.97, 1.03)}
"""Between which the median of portable over native scales lies: extremes are facts, entropy's threshold a choice."""

WORST = 5


def accuracy(bench: Bench, name: str, precision: str) -> Found:
    """An engine's outputs are the float model's, as near as the precision lets them be."""
    outcome = bench.engine(name, precision)
    found, simulated = bench.comparison(name, outcome), outcome.manifest.variants[-1].accuracy
    least = _least_db(precision, simulated)
    figures: dict[str, Any] = {
        "samples": found.samples,
        "sqnr_db": _told(found.sqnr_db),
        "simulated_sqnr_db": None if simulated is None else _told(simulated.sqnr_db),
        "least_sqnr_db": least,
        "top1_agreement": found.top1_agreement,
        "top1": None if found.candidate_task is None else found.candidate_task.top1,
        "float_top1": None if found.reference_task is None else found.reference_task.top1,
        "engine_bytes": outcome.manifest.engine.bytes,
        "seconds": dict(outcome.manifest.seconds),
        "builder_warnings": list(outcome.manifest.builder_warnings)[:20],
        "implicit": plain_from_value(outcome.manifest.implicit),
    }
    reason = _accuracy_reason(found, simulated)
    implicit = outcome.manifest.implicit
    if precision.startswith("native") and (implicit is None or implicit.from_cache or not implicit.samples):
        raise FailedError(f"{reason}: TensorRT's calibrator saw no samples", figures)
    worst = math.inf if all(output.identical for output in found.outputs) else found.sqnr_db
    if worst is None or not worst >= least:
        raise FailedError(f"{reason}: below {least:.1f} dB", figures)
    if found.reference_task is not None and found.candidate_task is not None:
        drop = 100 * (found.reference_task.top1 - found.candidate_task.top1)
        if not drop <= DROP_POINTS:
            raise FailedError(f"{reason}: loses more than {DROP_POINTS} points", figures)
    return Found(reason, figures)


def _least_db(precision: str, simulated: Comparison | None) -> float:
    if precision.startswith(("portable", "native")):
        return IMPLICIT_LEAST_DB
    if precision == "fp32" or simulated is None or simulated.sqnr_db is None:
        return FLOAT_LEAST_DB
    return min(simulated.sqnr_db - LOST_DB, FLOAT_LEAST_DB)


def _accuracy_reason(found: Comparison, simulated: Comparison | None) -> str:
    parts = [f"SQNR {_decibels(found)}"]
    if simulated is not None:
        parts[0] += f" (simulated {_decibels(simulated)})"
    if found.top1_agreement is not None:
        parts.append(f"same answer {100 * found.top1_agreement:.1f} %")
    if found.candidate_task is not None and found.reference_task is not None:
        parts.append(f"top-1 {100 * found.candidate_task.top1:.1f} % of float {100 * found.reference_task.top1:.1f} %")
    return ", ".join([*parts, f"{found.samples} samples"])


def _decibels(found: Comparison) -> str:
    return "of no error" if found.sqnr_db is None else f"{found.sqnr_db:.1f} dB"


def _told(value: float | None) -> float | str | None:
    """JSON has no NaN."""
    return value if value is None or math.isfinite(value) else str(value)


def layers(bench: Bench, name: str, precision: str) -> Found:
    """An engine's layers run in what was asked for, as the engine itself says."""
    manifest = bench.engine(name, precision).manifest
    counts = Counter(layer.precision for layer in manifest.layers)
    figures = {
        "layers": dict(counts),
        "mismatches": [[miss.node, miss.asked, miss.got, miss.because] for miss in manifest.mismatches],
        "tactics": sum(bool(layer.tactic) for layer in manifest.layers),
    }
    if not counts:
        told = "; ".join(warning for warning in manifest.warnings if "layers" in warning)
        if bench.library.is_rtx:
            raise SkippedError("TensorRT-RTX's engines are not asked for their layers")
        raise FailedError(f"the engine says nothing of its layers{': ' if told else ''}{told}", figures)
    words = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    reason = f"{words}; {len(manifest.mismatches)} nodes in another precision than asked"
    if manifest.mismatches:
        first = manifest.mismatches[0]
        reason += f", first {first.node}: {first.got} instead of {first.asked}, {first.because}"
    wanted = "int8" if precision not in ("fp32", "fp16") else precision
    if wanted == "fp32":
        if counts["int8"] or counts["fp16"]:
            raise FailedError(f"{reason}: nothing but FP32 was asked for", figures)
    elif not counts[wanted]:
        raise FailedError(f"{reason}: no layer runs in {wanted.upper()}", figures)
    return Found(reason, figures)


def scales(bench: Bench, name: str, algorithm: str) -> Found:
    """The scales of our own calibration are those of TensorRT's calibrator, tensor by tensor."""
    portable, native = (_cache(bench.engine(name, f"{kind}-{algorithm}")) for kind in ("portable", "native"))
    ratios = {
        tensor: portable.scales[tensor] / scale
        for tensor, scale in native.scales.items()
        if scale > 0 and portable.scales.get(tensor, 0.0) > 0
    }
    if not ratios:
        raise FailedError(
            f"no tensor has a scale in both: {len(portable.scales)} portable, {len(native.scales)} native",
            {"portable": list(portable.scales), "native": list(native.scales)},
        )
    low, middle, high = (float(value) for value in np.percentile(list(ratios.values()), (5, 50, 95)))
    worst = sorted(ratios, key=lambda tensor: -abs(math.log(ratios[tensor])))[:WORST]
    figures = {
        "tensors": len(ratios),
        "median": middle,
        "p5": low,
        "p95": high,
        "worst": {tensor: ratios[tensor] for tensor in worst},
        "ratios": ratios,
        "only_portable": sorted(set(portable.scales) - set(ratios)),
        "only_native": sorted(set(native.scales) - set(ratios)),
    }
    reason = (
        f"portable over native: median {middle:.3f}, p5 {low:.3f}, p95 {high:.3f} of {len(ratios)} tensors; worst "
        + ", ".join(f"{tensor} {ratios[tensor]:.3f}" for tensor in worst)
    )
    least, most = RATIO_BOUNDS[algorithm]
    if not least <= middle <= most:
        raise FailedError(f"{reason}: the median is outside {least} to {most}", figures)
    return Found(reason, figures)


def _cache(outcome: BuildOutcome) -> CalibrationCache:
    return cache_from_text(Path(outcome.engine).with_name(CACHE).read_bytes())


def latency(bench: Bench, name: str) -> Found:
    """How fast a model's engines are; figures only, for what is fast enough depends on the GPU."""
    if not bench.built(name):
        for precision in ("int8", "fp16", "fp32"):
            bench.engine(name, precision)
    figures = {precision: bench.latency(name, outcome) for precision, outcome in bench.built(name).items()}
    words = ", ".join(f"{precision} {entry['median_ms']:.3f} ms" for precision, entry in figures.items())
    return Found(f"median of {RUNS} runs with transfers: {words}", figures)
