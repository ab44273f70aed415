"""Sentences drawn from facts: each cause, and the order in which they are tried."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trt_opt.sensitivity.origins import Origin
from trt_opt.sensitivity.reasons import LayerFacts, reason_for
from trt_opt.sensitivity.wording import number_text, percent_text
from trt_opt.values.sensitivity import ActivationStatistics, WeightStatistics

ORDINARY = ActivationStatistics(
    operand=0,
    tensor="x",
    low=-4.0,
    high=4.0,
    threshold=4.0,
    rms=1.0,
    saturated=0.0,
    vanishing=0.01,
    sqnr_db=40.0,
    clipped_energy=0.0,
    channels=64,
    wide_channels=0,
    channel_low=2.0,
    channel_middle=3.0,
    channel_rest=4.0,
    made_by="Conv",
)
WEIGHTS = WeightStatistics(64, 0, 1.0, 0.5, 4.0, 10)
CLIPPING = replace(ORDINARY, high=8.0, saturated=0.04, clipped_energy=0.9)
WIDE = replace(ORDINARY, high=100.0, threshold=100.0, wide_channels=3, channel_middle=1.0, channel_rest=2.0, rms=6.0)
UNEQUAL = replace(WIDE, wide_channels=0, channel_low=0.1)
TINY = replace(ORDINARY, vanishing=0.62)
OUTLIERS = replace(ORDINARY, high=30.0, threshold=30.0)
SQUARED = {"x": Origin("square", "the square")}


def facts(read: ActivationStatistics, *, error: float = 1e-4, **others: object) -> LayerFacts:
    """A layer whose error comes from its activations."""
    operands = {0: error, 1: error / 100}
    return replace(
        LayerFacts(error, operands, (read,), WEIGHTS, frozenset({1})),
        **others,
    )


@pytest.mark.parametrize(
    ("told", "cause", "sentence"),
    [
        (facts(ORDINARY), "rounding", "nothing unusual: the largest element of its input is 4 times its rms"),
        (facts(CLIPPING), "clipping", "clips 4 % of its input, which reaches 2 times the threshold"),
        (
            facts(WIDE),
            "channels",
            "3 of 64 channels carry 98 % of the range of its input: the others stay below 2 of 100",
        ),
        (
            facts(replace(WIDE, threshold=40.0, saturated=0.01, clipped_energy=0.9)),
            "channels",
            "3 of 64 channels carry 98 % of the range of its input: the others stay below 2 of 100",
        ),
        (
            facts(UNEQUAL),
            "channels",
            "one scale for its input, whose 64 channels reach from 0.1 to 100, half of them below 1",
        ),
        (
            facts(UNEQUAL, depthwise=True),
            "channels",
            "depthwise, per-tensor activations: its 64 channels reach from 0.1 to 100",
        ),
        (facts(TINY), "small-values", "62 % of its input rounds to zero in steps of 0.0315"),
        (
            facts(replace(TINY, made_by="Softmax")),
            "small-values",
            "62 % of its input, the probabilities of a softmax, rounds to zero in steps of 0.0315",
        ),
        (facts(OUTLIERS), "outliers", "single elements of its input are 30 times its rms"),
        (
            facts(replace(WIDE, high=1.5e6, threshold=1.5e6, channel_rest=3e4), origins=SQUARED),
            "large-values",
            "input reaches 1.5e6 after the square: 3 of 64 channels carry 98 % of the range",
        ),
        (
            facts(replace(ORDINARY, rms=0.25), origins=SQUARED),
            "large-values",
            "input reaches 4 after the square: 16 times its rms",
        ),
        (
            facts(ORDINARY, origins=SQUARED),
            "rounding",
            "nothing unusual: the largest element of its input is 4 times its rms",
        ),
        (
            facts(ORDINARY, error=1.0),
            "cancellation",
            "its terms cancel out: rounding counts 100 times as much behind it as before it",
        ),
        (
            facts(CLIPPING, error=1.0, variance=1e-9),
            "cancellation",
            "a BatchNormalization of variance 1e-9 scales it up, and its terms cancel out: rounding counts 100 times "
            "as much behind it as before it",
        ),
        (
            facts(ORDINARY, variance=1e-9),
            "rounding",
            "nothing unusual: the largest element of its input is 4 times its rms",
        ),
        (
            facts(ORDINARY, operands={0: 1e-5, 1: 9e-5}),
            "weights",
            "nothing unusual: 90 % of its error is rounding of its weights",
        ),
        (
            facts(
                ORDINARY, operands={0: 1e-5, 1: 9e-5}, weights=replace(WEIGHTS, outlier_ratio=40.0, outlier_channels=3)
            ),
            "weight-outliers",
            "90 % of its error is rounding of its weights: outliers of up to 40 times the rms in 3 of 64 channels",
        ),
        (facts(ORDINARY, own=0.0), "none", "no error: its operands are whole steps of their scales"),
        (
            facts(ORDINARY, own=float("inf")),
            "ruined",
            "its output in INT8 is not finite, or the float model's is nothing but zeros",
        ),
    ],
)
def test_the_dominating_cause_is_told_in_one_sentence(told: LayerFacts, cause: str, sentence: str) -> None:
    """Facts in, words out."""
    assert reason_for(told) == (cause, sentence)


def test_the_operand_with_the_larger_error_is_the_one_spoken_of() -> None:
    """Of two activations the second, by name."""
    second = replace(OUTLIERS, operand=1, tensor="keys")
    told = LayerFacts(1e-3, {0: 1e-5, 1: 1e-3}, (ORDINARY, second))
    assert reason_for(told) == ("outliers", "single elements of its input 'keys' are 30 times its rms")


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.04, "4 %"),
        (0.98, "98 %"),
        (0.9955, "99.55 %"),
        (1.0, "100 %"),
        (0.999999, "more than 99.99 %"),
        (0.0, "0 %"),
        (0.00012, "0.012 %"),
        (1e-7, "less than 0.001 %"),
    ],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float, text: str) -> None:
    """Per cent as people read it."""
    assert percent_text(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0312, "0.0312"), (210.4, "210"), (4263.0, "4260"), (99_990.0, "1e5"), (1.5e6, "1.5e6"), (1e-9, "1e-9")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    """And no zeros in their exponent."""
    assert number_text(value) == text
