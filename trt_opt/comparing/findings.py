"""The plain sentences: how fast, how close, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from trt_opt.compare import SMALLEST_SAMPLE
from trt_opt.comparing.ratio import SpeedRatio, speed_ratio, why_invalid
from trt_opt.values.accuracy import Comparison
from trt_opt.values.machine_state import Environment
from trt_opt.values.model_comparison import Side
from trt_opt.values.timing import Timing

TIMES = "\N{MULTIPLICATION SIGN}"


def findings(
    sides: Sequence[Side],
    comparisons: Sequence[Comparison],
    timings: Mapping[str, Timing],
    environment: Environment | None,
) -> tuple[str, ...]:
    """What a user needs to know, one sentence each; nothing that was not measured.

    Args:
        sides: The reference, then the candidates.
        comparisons: One per candidate.
        timings: Side's name → its timing; sides that could not be timed are not in it.
        environment: The machine meanwhile; None where nothing was timed.
    """
    reference, candidates = sides[0], sides[1:]
    told: list[str] = []
    for side, comparison in zip(candidates, comparisons, strict=True):
        accuracy = accuracy_text(side, reference, comparison)
        base = _base_of(side, sides, timings)
        ratio = None if base is None else _ratio(base, side, timings, environment)
        if base is None or not isinstance(ratio, SpeedRatio):
            told.append(accuracy)
        elif ratio.is_slower:
            told += [_slower(side, base, ratio), accuracy]
        else:
            told.append(f"{_speed(side, base, ratio)}, {accuracy.removeprefix(f'{side.name} is ')}")
        if isinstance(ratio, str):
            told.append(f"the speed of {side.name} against {base.name if base else 'others'} is not told: {ratio}")
    told += _about_speed(sides, timings, environment)
    return tuple(dict.fromkeys(told))


def accuracy_text(side: Side, reference: Side, comparison: Comparison) -> str:
    """How close a candidate is to the reference: in points where there are labels, else in what there is."""
    start = f"{side.name} is "
    if not comparison.samples or not comparison.outputs:
        return f"{start}not compared with {reference.name}: there is nothing in common"
    if any(output.not_finite for output in comparison.outputs):
        return f"{start}NaN or infinite where {reference.name} is not"
    if all(output.identical for output in comparison.outputs):
        return f"{start}identical to {reference.name} in every element"
    metric = comparison.metric
    if metric is not None and metric.drop_points is not None and not math.isnan(metric.drop_points):
        points = _points_text(metric.drop_points, metric.short_name, reference)
        sure = ""
        if metric.drop_interval_points is not None:
            low, high = (_plain(-end) for end in reversed(metric.drop_interval_points))
            sure = f" (95 %: {low} to {high})"
        few = f", which {metric.rows} rows cannot tell" if metric.rows < SMALLEST_SAMPLE else ""
        return f"{start}{points}{sure}{few}"
    return start + _without_labels(reference, comparison)


def _points_text(drop: float, metric: str, reference: Side) -> str:
    points = round(abs(drop), 2)
    if not points:
        return f"level with {reference.name} in {metric}"
    return f"{points:.2f} points of {metric} {'below' if drop > 0 else 'above'} {reference.name}"


def _without_labels(reference: Side, comparison: Comparison) -> str:
    parts = []
    agreement, sqnr = comparison.top1_agreement, comparison.sqnr_db
    if agreement is not None:
        parts.append(f"of the same answer as {reference.name} in {100 * agreement:.2f} % of the rows")
    if sqnr is not None and not math.isnan(sqnr):
        parts.append(f"{sqnr:.1f} dB (SQNR) from {reference.name}")
    if parts:
        return " and ".join(parts)
    error = max((output.max_abs_error for output in comparison.outputs), default=math.nan)
    return f"up to {error:.3g} from {reference.name}"


def _base_of(side: Side, sides: Sequence[Side], timings: Mapping[str, Timing]) -> Side | None:
    """What a candidate's speed is told against: FP16 for what is quantised, else the reference; None without timings.

    Only sides that ran where the candidate did are of use.
    """
    if side.name not in timings:
        return None
    others = [one for one in sides if one is not side and one.name in timings and one.simulated == side.simulated]
    if _is_quantized(side):
        halves = [one for one in others if one.precision == "FP16"]
        if halves:
            return next((one for one in halves if one.library == side.library), halves[0])
    return next((one for one in others if one is sides[0]), None) or next(
        (one for one in others if not _is_quantized(one)), None
    )


def _ratio(
    base: Side, side: Side, timings: Mapping[str, Timing], environment: Environment | None
) -> SpeedRatio | str | None:
    """The ratio of two speeds, or why it is not told; None where the whole run is invalid, which is told once."""
    if environment is None or environment.problems:
        return None
    pair = timings[base.name], timings[side.name]
    return why_invalid(*pair) or speed_ratio(*pair)


def _is_quantized(side: Side) -> bool:
    return "INT8" in side.precision or "INT4" in side.precision or "FP8" in side.precision


def _speed(side: Side, base: Side, ratio: SpeedRatio) -> str:
    if ratio.is_faster:
        return f"{side.name} is {ratio.times:.2f}{TIMES} {base.name}{_where(side)} (95 %: {_ends(ratio)})"
    told = f"as fast as {base.name}{_where(side)} as far as this run can tell"
    return f"{side.name} is {told} (95 %: {_ends(ratio)})"


def _slower(side: Side, base: Side, ratio: SpeedRatio) -> str:
    """That it is slower, why as far as layers tell, and what to use."""
    text = f"{side.name} is slower than {base.name} here, {ratio.times:.2f}{TIMES}{_where(side)} (95 %: {_ends(ratio)})"
    if side.simulated or not _is_quantized(side) or side.library != base.library:
        return text
    reasons = _layers_text(side)
    advice = "use --fp16" if base.precision == "FP16" else "build it with --fp16 and without --int8, and compare"
    return f"{text}{': ' + reasons if reasons else ''}; {advice}"


def _layers_text(side: Side) -> str:
    parts = []
    if side.reformats is not None:
        parts.append(_count(side.reformats, "reformat"))
    if side.float_layers is not None:
        parts.append(_count(side.float_layers, "float layer"))
    if not parts:
        return ""
    origin = "" if side.layers_from == "engine" else " by the graph, as the engine was not asked"
    return ", ".join(parts) + origin


def _where(side: Side) -> str:
    return " on this processor" if side.simulated else ""


def _ends(ratio: SpeedRatio) -> str:
    return f"{ratio.interval[0]:.2f} to {ratio.interval[1]:.2f}{TIMES}"


def _about_speed(
    sides: Sequence[Side], timings: Mapping[str, Timing], environment: Environment | None
) -> Iterator[str]:
    """What is to be known of speeds, told or not."""
    valid = environment is not None and not environment.problems
    if timings and environment is not None and not valid:
        yield f"no speed is told, because this run is invalid: {'; '.join(environment.problems)}"
    ran = [side.name for side in sides if side.simulated]
    if valid and len([name for name in ran if name in timings]) > 1:
        yield "speeds on this processor are of ONNX Runtime's CPU kernels, which says nothing of TensorRT's speed"
    if ran and len(ran) < len(sides):
        yield f"{', '.join(ran)} ran on ONNX Runtime, whose speed is not held against an engine's"
    simulated = [side.name for side in sides if side.simulated and side.precision not in ("", "FP32")]
    if simulated:
        yield f"{', '.join(simulated)}: simulated on ONNX Runtime, from which an engine's rounding differs"


def _plain(points: float) -> str:
    """Two decimals with a sign, and never "-0.00"."""
    return f"{round(points, 2) + 0.0:+.2f}"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"
