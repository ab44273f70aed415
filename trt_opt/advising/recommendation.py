"""The decision procedure: from measured facts to a method, with its reasons.

The rules are tried in order, the first that has something to say decides:

1. a model that came quantised is kept as it is;
2. hardware without INT8 gets FP16;
3. a model that is mostly matrix products, each weight read for few multiplications, gets quantised weights alone;
4. a model of which INT8 would reach only a small part gets FP16;
5. without calibration data there are quantised weights alone;
6. integers at both ends, if asked for, if static INT8 is accurate enough;
7. static INT8, unless it is measured to miss the accuracy wanted;
8. FP8, where the hardware has it and it is measured to reach that accuracy;
9. quantisation-aware training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trt_opt.advising.caveats import caveats_of
from trt_opt.advising.commands import command_for
from trt_opt.advising.verdict import LEAST_SQNR_DB, accuracy_text, goodness, meets_target
from trt_opt.values.advice import AdviceFacts, Alternative, Method, MethodFigures, Recommendation

LEAST_INT8_SHARE = 0.3
"""If INT8 doubles the speed of FP16 on this share of the arithmetic, the whole becomes 1 / (1 - 0.3 / 2) = 1.18 times
as fast (Amdahl's law); below, quantisation is not worth its error."""

LEAST_PRODUCT_SHARE = 0.8
MOST_MACS_PER_WEIGHT = 64.0
"""Below, reading an FP16 weight takes longer than multiplying with it: GPUs do 70 (A100) to 100 (Orin) FP16 MACs per
byte of memory they read, from their data sheets' dense rates and bandwidths."""

LEAST_WEIGHT_BOUND_BYTES = 8_000_000
"""FP32 weights below this fit a GPU's L2 cache once they are FP16, and are not read from memory every time."""

TITLES: dict[Method, str] = {
    "fp32": "FP32 without quantisation",
    "fp16": "FP16 without quantisation",
    "static": "static INT8 quantisation after training",
    "weights-only": "weights alone, computing in FP16",
    "full-integer": "static INT8 with integers at both ends",
    "fp8": "FP8 quantisation after training",
    "qat": "quantisation-aware training",
    "as-given": "the quantised model as it came",
}


@dataclass(frozen=True, slots=True)
class _Choice:
    """What a rule decides."""

    method: Method
    reasons: tuple[str, ...]
    alternatives: tuple[Alternative, ...] = ()
    weights: str = ""


def recommend(facts: AdviceFacts) -> Recommendation:
    """The first rule's choice, with the command that carries it out."""
    choice = next(found for rule in _RULES if (found := rule(facts)) is not None)
    calibrator = _calibrator_of(choice.method, facts)
    command, then = command_for(choice.method, choice.weights, calibrator, facts)
    title = f"{choice.weights.upper()} {TITLES[choice.method]}".strip()
    caveats = tuple(caveats_of(choice.method, facts))
    return Recommendation(
        choice.method, choice.weights, title, choice.reasons, caveats, choice.alternatives, command, then
    )


def _as_given(facts: AdviceFacts) -> _Choice | None:
    if not facts.came_quantized:
        return None
    if not facts.hardware.has_int8:
        reason = f"The model came quantised, and {_no_int8(facts)}: its Q/DQ pairs would cost time and gain nothing."
        return _Choice("fp16", (reason, "Start from the float model it was made from."))
    reasons = ["The model came quantised. Its own scales are kept: quantising it once more only adds error."]
    if facts.compute.macs:
        reasons.append(f"Its INT8 layers do {_share(facts.compute.int8_share)} of the arithmetic.")
    reasons += _measured("As TensorRT will compute it", facts.figures_of("fp32"), facts)
    return _Choice("as-given", tuple(reasons), (Alternative("static", "start from the float model if there is one"),))


def _without_int8(facts: AdviceFacts) -> _Choice | None:
    if facts.hardware.has_int8:
        return None
    reasons = [f"{_no_int8(facts)[:1].upper()}{_no_int8(facts)[1:]}: quantised layers would run in float."]
    method: Method = "fp16" if facts.hardware.has_fast_fp16 else "fp32"
    reasons += _measured("FP16", facts.figures_of("fp16"), facts) if method == "fp16" else ["FP16 is slow there too."]
    return _Choice(method, tuple(reasons), tuple(_smaller_file(facts)))


def _weight_bound(facts: AdviceFacts) -> _Choice | None:
    compute = facts.compute
    is_bound = compute.product_share >= LEAST_PRODUCT_SHARE and 0 < compute.macs_per_weight <= MOST_MACS_PER_WEIGHT
    if not is_bound or facts.fp32_bytes < LEAST_WEIGHT_BOUND_BYTES:
        return None
    found = _weights_only(facts, int4=True)
    if found is None:
        return None
    reasons = [
        f"Matrix products with constant weights do {_share(compute.product_share)} of the arithmetic, and a weight is "
        f"used {compute.macs_per_weight:.3g} times per run: reading weights takes longer than computing with them."
    ]
    reasons += _smaller(found, facts) + _measured(found.label, found, facts)
    static = Alternative("static", "with larger batches, when a weight is used hundreds of times per run")
    return _Choice("weights-only", tuple(reasons), (static,), found.weights)


def _little_int8(facts: AdviceFacts) -> _Choice | None:
    compute, static = facts.compute, _best("static", facts)
    if static is not None and (compute.wide_share >= LEAST_INT8_SHARE or not compute.macs):
        return None
    reasons = [_why_no_static(facts)] if static is None else []
    if static is not None:
        gain = 100 / (1 - compute.wide_share / 2) - 100
        reasons.append(
            f"INT8 would reach {_share(compute.int8_share)} of the arithmetic, {_share(compute.wide_share)} in layers "
            f"wide enough to gain: at twice FP16's speed there, the whole becomes {gain:.0f} % faster at most."
        )
    reasons += _measured("FP16", facts.figures_of("fp16"), facts)
    return _Choice("fp16", tuple(reasons), tuple(_smaller_file(facts)))


def _without_data(facts: AdviceFacts) -> _Choice | None:
    if facts.has_samples:
        return None
    missing = (
        "There are no calibration data" if facts.calibration is None else "The calibration data are random numbers"
    )
    static = Alternative(
        "static", f"with --calib-data: INT8 would reach {_share(facts.compute.int8_share)} of the arithmetic"
    )
    found = _weights_only(facts, int4=False)
    if found is None:
        reasons = (
            f"{missing}, so activations cannot be quantised.",
            *_measured("FP16", facts.figures_of("fp16"), facts),
        )
        return _Choice("fp16", reasons, (static,))
    reasons = (
        f"{missing}; weights can be quantised without.",
        *_smaller(found, facts),
        *_measured(found.label, found, facts),
    )
    fp16 = Alternative("fp16", "if weights of half the size are small enough: it is closest to the model")
    return _Choice("weights-only", reasons, (static, fp16), found.weights)


def _full_integer(facts: AdviceFacts) -> _Choice | None:
    static = _best("static", facts)
    if not facts.request.edge or "full-integer" not in facts.methods or meets_target(static, facts) is False:
        return None
    reasons = ("Integers at both ends were asked for; inside it computes as static INT8 does.", *_static_reasons(facts))
    return _Choice("full-integer", reasons, (Alternative("static", "if the pipeline around it has floats anyway"),))


def _static(facts: AdviceFacts) -> _Choice | None:
    if meets_target(_best("static", facts), facts) is False:
        return None
    alternatives = [
        Alternative("fp16", "if timing on the device shows no gain: " + _in_short(facts.figures_of("fp16"), facts)),
        Alternative("qat", "if what is lost is too much for the task, and there are training data"),
    ]
    return _Choice("static", tuple(_static_reasons(facts)), tuple(alternatives))


def _fp8(facts: AdviceFacts) -> _Choice | None:
    found = _best("fp8", facts)
    if found is None or not facts.hardware.has_fp8 or not meets_target(found, facts):
        return None
    reasons = [_missed("Static INT8", _best("static", facts), facts), *_measured(_name(found), found, facts)]
    reasons.append(f"{facts.hardware.title} computes in FP8.")
    return _Choice("fp8", tuple(reasons), (Alternative("qat", "if it must be INT8, and there are training data"),))


def _qat(facts: AdviceFacts) -> _Choice | None:
    reasons = [_missed("Static INT8", _best("static", facts), facts)]
    if facts.hardware.has_fp8 and _best("fp8", facts) is not None:
        reasons.append(_missed("FP8", _best("fp8", facts), facts))
    reasons.append("Training with the quantisers in place teaches the weights to bear them; it needs training data.")
    alternatives = [
        Alternative("static", f"with --max-drop {facts.request.target_drop:g}: rewritten, a few layers left in float"),
        Alternative("fp16", "without training data: " + _in_short(facts.figures_of("fp16"), facts)),
    ]
    found = _weights_only(facts, int4=False)
    if found is not None and meets_target(found, facts):
        alternatives.append(Alternative("weights-only", f"if size matters more than speed: {_in_short(found, facts)}"))
    return _Choice("qat", tuple(reasons), tuple(alternatives))


_RULES: tuple[Callable[[AdviceFacts], _Choice | None], ...] = (
    _as_given,
    _without_int8,
    _weight_bound,
    _little_int8,
    _without_data,
    _full_integer,
    _static,
    _fp8,
    _qat,
)


def _static_reasons(facts: AdviceFacts) -> Iterator[str]:
    compute, static = facts.compute, _best("static", facts)
    if compute.macs:
        yield f"INT8 reaches {_share(compute.int8_share)} of the arithmetic ({_macs(compute.macs)} per run)."
    if static is not None:
        yield from _smaller(static, facts)
    measured = _measured("Static INT8" if static is None else _name(static), static, facts)
    yield from measured
    if meets_target(static, facts) is None:
        told = f"is within {_points(facts.request.target_drop)} cannot be told from these data"
        yield f"Whether that {told}." if measured else "Whether it is accurate enough was not measured."


def _best(method: Method, facts: AdviceFacts) -> MethodFigures | None:
    """The row of the calibrator that serves the method best."""
    rows = [row for row in facts.figures if row.method == method and row.weight_bytes is not None]
    return max(rows, key=lambda row: goodness(row.accuracy), default=None)


def _calibrator_of(method: Method, facts: AdviceFacts) -> str:
    """The calibrator that a method is advised with; empty where any will do."""
    found = _best("static" if method == "full-integer" else method, facts)
    return found.calibrator if found is not None else ""


def _name(figures: MethodFigures) -> str:
    """A method and its calibrator, as a sentence begins with them."""
    name = "FP8" if figures.method == "fp8" else "Static INT8"
    return f"{name} with the {figures.calibrator} calibrator" if figures.calibrator else name


def _points(count: float) -> str:
    return "1 point" if count == 1 else f"{count:g} points"


def _weights_only(facts: AdviceFacts, *, int4: bool) -> MethodFigures | None:
    """The smallest weights that are accurate enough: INT4 must have been measured to be, INT8 not to be otherwise."""
    small = facts.figures_of("weights-only", "int4")
    if int4 and small is not None and facts.hardware.has_int4_weights and meets_target(small, facts):
        return small
    found = facts.figures_of("weights-only", "int8")
    return None if meets_target(found, facts) is False else found


def _why_no_static(facts: AdviceFacts) -> str:
    notes = (row.note for row in facts.figures if row.method == "static" and row.note)
    return f"Static INT8 is not possible: {next(notes, 'no layer can run in it').removeprefix('cannot: ')}."


def _no_int8(facts: AdviceFacts) -> str:
    hardware = facts.hardware
    if hardware.library == "TensorRT-RTX" and all(entry.int8 != "no" for entry in hardware.supports):
        return f"TensorRT-RTX lists no INT8 for {hardware.title}"
    return f"{hardware.title} has no INT8 arithmetic"


def _smaller_file(facts: AdviceFacts) -> Iterator[Alternative]:
    found = _weights_only(facts, int4=False)
    if found is not None:
        yield Alternative("weights-only", f"for a smaller file, no faster: {_in_short(found, facts)}")


def _smaller(figures: MethodFigures, facts: AdviceFacts) -> list[str]:
    if figures.weight_bytes is None or not facts.fp32_bytes:
        return []
    return [f"The weights take {_share(figures.weight_bytes / facts.fp32_bytes)} of their FP32 size."]


def _measured(name: str, figures: MethodFigures | None, facts: AdviceFacts) -> list[str]:
    """What was simulated of a method, as a sentence; nothing where it was not, or on random data."""
    if figures is None or figures.accuracy is None or facts.evaluation is None or facts.evaluation.random:
        return []
    return [f"{name}: {accuracy_text(figures.accuracy)} (simulated)."]


def _missed(name: str, figures: MethodFigures | None, facts: AdviceFacts) -> str:
    if figures is None or figures.accuracy is None:
        return f"{name} could not be measured."
    tried = sum(row.method == figures.method for row in facts.figures)
    name = f"{name}, with the best of {tried} calibrators," if tried > 1 else name
    accuracy = figures.accuracy
    wanted = f"{LEAST_SQNR_DB:.0f} dB" if accuracy.points_lost is None else _points(facts.request.target_drop)
    limit = "at least" if accuracy.points_lost is None else "a loss of at most"
    return f"{name} misses the target, {limit} {wanted}: {accuracy_text(accuracy)} (simulated)."


def _in_short(figures: MethodFigures | None, facts: AdviceFacts) -> str:
    if figures is None or figures.weight_bytes is None or not facts.fp32_bytes:
        return "it was not measured"
    size = f"{_share(figures.weight_bytes / facts.fp32_bytes)} of the FP32 size"
    return "; ".join([size, *_measured("accuracy", figures, facts)]).rstrip(".")


def _share(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 or not share else f"{100 * share:.1f} %"


def _macs(count: int) -> str:
    return f"{count / 1e9:.3g} GMAC" if count >= 1e9 else f"{count / 1e6:.3g} MMAC"
