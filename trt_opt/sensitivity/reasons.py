"""Why a layer loses what it loses in INT8: the dominating cause, in one sentence that is true of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trt_opt.sensitivity.origins import TINY, Origin
from trt_opt.sensitivity.wording import number_text, percent_text
from trt_opt.values.sensitivity import ActivationStatistics, Cause, WeightStatistics

UNEQUAL = 32.0
"""The widest channel over the middle one from which a scale for all is to blame: five of INT8's seven bits are lost."""

OUTLIER = 20.0
"""Largest magnitude over rms from which single elements are to blame; normal numbers have 4 to 6."""

WEIGHT_OUTLIER = 12.0
"""The same of a channel's weights."""

LARGE = 10.0
"""The same from which the operator that made the tensor is named."""

VANISHING = 0.5
"""Share of elements rounded to zero from which that is the cause."""

AMPLIFIED = 100.0
"""Relative error at a layer's output over that of its input (20 dB) from which its terms are said to cancel out."""

Told = tuple[Cause, str]


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What a reason is drawn from.

    Attributes:
        own: Relative error energy at the layer's own output; None where nothing was comparable.
        operands: Operand → the same with that operand alone quantised.
        activations: The quantised inputs.
        weights: The weights; None without constant ones.
        weight_operands: Which operands are constant weights.
        origins: Tensor → where it comes from.
        depthwise: Whether every channel is convolved by itself.
        variance: The least variance of a BatchNormalization folded into the layer or behind it; None without one.
    """

    own: float | None
    operands: Mapping[int, float]
    activations: tuple[ActivationStatistics, ...]
    weights: WeightStatistics | None = None
    weight_operands: frozenset[int] = frozenset()
    origins: Mapping[str, Origin] = field(default_factory=dict)
    depthwise: bool = False
    variance: float | None = None

    @property
    def from_weights(self) -> float | None:
        """Share of the error that comes from the weights; None without an error."""
        total = sum(self.operands.values())
        if not 0.0 < total < float("inf"):
            return None
        return sum(error for operand, error in self.operands.items() if operand in self.weight_operands) / total


def reason_for(facts: LayerFacts) -> Told:
    """The cause that dominates a layer's own error, and a sentence about it."""
    if facts.own is None or facts.own == float("inf"):
        return "ruined", "its output in INT8 is not finite, or the float model's is nothing but zeros"
    if facts.own == 0.0:
        return "none", "no error: its operands are whole steps of their scales"
    operand = max(facts.operands, key=lambda found: facts.operands[found])
    if operand in facts.weight_operands and facts.weights is not None:
        return _weights_reason(facts, facts.weights)
    read = next(entry for entry in facts.activations if entry.operand == operand)
    name = "its input" if len(facts.activations) == 1 else f"its input {read.tensor!r}"
    amplified = _amplification(facts, read)
    found = (
        (_clipping(read, name) if amplified < AMPLIFIED and not _is_unequal(read) else None)
        or _large_values(facts, read, name)
        or _small_values(read, name)
        or _channels(facts, read, name)
        or (_cancellation(facts, amplified) if amplified >= AMPLIFIED else None)
        or _outliers(read, name)
    )
    return found or ("rounding", _rounding(read, name))


def _amplification(facts: LayerFacts, read: ActivationStatistics) -> float:
    """The relative error energy at the layer's output over that of its input; 1 where the input has no error."""
    return 1.0 if read.sqnr_db is None else facts.operands[read.operand] * 10 ** (read.sqnr_db / 10)


def _cancellation(facts: LayerFacts, amplified: float) -> Told:
    ratio = number_text(amplified**0.5)
    told = f"its terms cancel out: rounding counts {ratio} times as much behind it as before it"
    if facts.variance is not None and facts.variance < TINY:
        told = f"a BatchNormalization of variance {number_text(facts.variance)} scales it up, and {told}"
    return "cancellation", told


def _clipping(read: ActivationStatistics, name: str) -> Told | None:
    if read.clipped_energy <= 0.5:
        return None
    ratio = number_text(read.extreme / read.threshold)
    return "clipping", f"clips {percent_text(read.saturated)} of {name}, which reaches {ratio} times the threshold"


def _large_values(facts: LayerFacts, read: ActivationStatistics, name: str) -> Told | None:
    origin = facts.origins.get(read.tensor)
    if origin is None or origin.words is None or origin.kind == "Softmax":
        return None
    extreme = number_text(read.extreme)
    if _is_unequal(read):
        detail = _gap_text(read) if read.wide_channels else f"half of its channels stay below {_middle(read)}"
    elif read.vanishing >= VANISHING:
        detail = f"{percent_text(read.vanishing)} of it rounds to zero"
    elif read.outlier_ratio >= LARGE:
        detail = f"{number_text(read.outlier_ratio)} times its rms"
    else:
        return None
    return "large-values", f"{name.removeprefix('its ')} reaches {extreme} after {origin.words}: {detail}"


def _channels(facts: LayerFacts, read: ActivationStatistics, name: str) -> Told | None:
    if not _is_unequal(read):
        return None
    if facts.depthwise:
        low, high = number_text(read.channel_low), number_text(read.extreme)
        return "channels", f"depthwise, per-tensor activations: its {read.channels} channels reach from {low} to {high}"
    if read.wide_channels:
        rest = number_text(read.channel_rest)
        told = f"{_gap_text(read)} of {name}: the others stay below {rest} of {number_text(read.extreme)}"
        return "channels", told
    return "channels", (
        f"one scale for {name}, whose {read.channels} channels reach from {number_text(read.channel_low)} "
        f"to {number_text(read.extreme)}, half of them below {_middle(read)}"
    )


def _small_values(read: ActivationStatistics, name: str) -> Told | None:
    if read.vanishing < VANISHING or (_is_unequal(read) and read.made_by != "Softmax"):
        return None
    softmax = ", the probabilities of a softmax," if read.made_by == "Softmax" else ""
    step = number_text(read.threshold / 127)
    return "small-values", f"{percent_text(read.vanishing)} of {name}{softmax} rounds to zero in steps of {step}"


def _outliers(read: ActivationStatistics, name: str) -> Told | None:
    held = min(read.extreme, read.threshold)
    ratio = held / read.rms if read.rms else 0.0
    if ratio < OUTLIER:
        return None
    return "outliers", f"single elements of {name} are {number_text(ratio)} times its rms"


def _rounding(read: ActivationStatistics, name: str) -> str:
    return f"nothing unusual: the largest element of {name} is {number_text(read.outlier_ratio)} times its rms"


def _weights_reason(facts: LayerFacts, weights: WeightStatistics) -> Told:
    share = facts.from_weights
    part = f"{percent_text(share)} of its error" if share is not None else "its error"
    if weights.outlier_ratio >= WEIGHT_OUTLIER:
        ratio, count = number_text(weights.outlier_ratio), weights.outlier_channels
        where = f"{count} of {weights.channels} channels" if weights.channels > 1 else "the weights"
        told = f"outliers of up to {ratio} times the rms in {where}"
        return "weight-outliers", f"{part} is rounding of its weights: {told}"
    return "weights", f"nothing unusual: {part} is rounding of its weights"


def _is_unequal(read: ActivationStatistics) -> bool:
    widest = min(read.extreme, read.threshold)
    return read.channels > 1 and 0.0 < read.channel_middle < widest / UNEQUAL


def _gap_text(read: ActivationStatistics) -> str:
    """How many channels stand out and by how much: "3 of 64 channels carry 98 % of the range"."""
    part = percent_text(1 - read.channel_rest / read.extreme)
    verb = "carries" if read.wide_channels == 1 else "carry"
    noun = "channel" if read.channels == 1 else "channels"
    return f"{read.wide_channels} of {read.channels} {noun} {verb} {part} of the range"


def _middle(read: ActivationStatistics) -> str:
    return number_text(read.channel_middle)
