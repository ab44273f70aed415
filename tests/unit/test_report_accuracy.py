"""An accuracy in one line of text."""

from __future__ import annotations

import pytest

from trt_opt.report.compare import accuracy_text, agreement_text
from trt_opt.report.show import percent_text
from trt_opt.values.accuracy import Comparison, OutputAccuracy
from trt_opt.values.metric import MetricAccuracy


def output(name: str, sqnr_db: float | None, agreement: float | None) -> OutputAccuracy:
    return OutputAccuracy(name, 100, 0.1, 0.01, 0.99, sqnr_db, False, agreement, None)


def comparison(*outputs: OutputAccuracy, metric: MetricAccuracy | None = None) -> Comparison:
    return Comparison("FP32", "INT8", 50, outputs, None, None, "PASS", "", metric)


OUTPUTS = (output("boxes", 30.0, None), output("first", 20.0, 0.98), output("second", 25.0, 0.96))


def test_without_a_metric_the_worst_outputs_tell() -> None:
    """The least share of equal answers and the least SQNR, each of its own output."""
    assert accuracy_text(comparison(*OUTPUTS)) == "top-1 same 96.00 %, SQNR 20.0 dB on 50 samples"


def test_a_metric_tells_both_sides_and_the_drop() -> None:
    """Its own interval behind the candidate's value, the SQNR behind all."""
    metric = MetricAccuracy("top1", "share", 0.98, 0.96, (0.95, 0.97), 2.0, (1.0, 3.0), 50, 50)
    told = accuracy_text(comparison(*OUTPUTS, metric=metric))
    drop = "a drop of 2.00 points (1.00 to 3.00)"
    assert told == f"top1  98.00 % to 96.00 % ±1.0, {drop}, SQNR 20.0 dB on 50 samples"


@pytest.mark.parametrize("outputs", [(), (output("boxes", 30.0, None),)])
def test_outputs_without_answers_agree_on_nothing(outputs: tuple[OutputAccuracy, ...]) -> None:
    """No share is no share of zero."""
    assert comparison(*outputs).top1_agreement is None
    assert agreement_text(comparison(*outputs)) == "-"


def test_an_unknown_share_is_a_dash() -> None:
    """A share of zero is one."""
    assert (percent_text(None), percent_text(0.0), percent_text(0.9834)) == ("-", "0.0 %", "98.3 %")
