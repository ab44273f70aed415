"""Bounds for single outputs: how they are written, and what they decide."""

from __future__ import annotations

import numpy as np
import pytest

from trt_opt.compare import Limits, OutputLimits, limits_from_texts
from trt_opt.compare.matching import Matching
from trt_opt.compare.measured import Measured
from trt_opt.compare.scores import TaskTotals
from trt_opt.compare.totals import OutputTotals
from trt_opt.compare.verdict import verdict_of
from trt_opt.errors import RequestError


def measured(**noise: float) -> Measured:
    """Outputs of which each has its own share of noise in 100 rows of two scores."""
    totals = []
    for name, share in noise.items():
        one = OutputTotals(name)
        truth = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
        one.add(truth, truth * np.float32(1 + share))
        totals.append(one)
    return Measured(1, Matching({name: name for name in noise}), totals, TaskTotals(), TaskTotals())


@pytest.mark.parametrize(
    ("texts", "general", "own"),
    [
        (["30"], 30.0, {}),
        (["logits:35"], None, {"logits": 35.0}),
        (["30", "logits:35", "boxes:1e1"], 30.0, {"logits": 35.0, "boxes": 10.0}),
        (["model/head:0:35"], None, {"model/head:0": 35.0}),
        (["7:30"], None, {"7": 30.0}),
        (["-5"], -5.0, {}),
    ],
)
def test_a_bound_is_for_all_outputs_or_for_one(texts: list[str], general: float | None, own: dict[str, float]) -> None:
    """The last colon divides: names may hold colons, and be numbers."""
    limits = limits_from_texts({"min_sqnr_db": texts})
    assert limits.min_sqnr_db == general
    assert {name: bounds.min_sqnr_db for name, bounds in limits.outputs} == own
    assert limits.any


@pytest.mark.parametrize("text", ["", "high", "logits:", ":30", "logits:high", "nan", "logits:nan"])
def test_what_is_no_number_is_refused(text: str) -> None:
    """With the option and what was written."""
    with pytest.raises(RequestError, match=f"--min-sqnr '{text}' is no number"):
        limits_from_texts({"min_sqnr_db": [text]})


@pytest.mark.parametrize("texts", [["1", "2"], ["a:1", "a:2"]])
def test_a_bound_that_was_given_twice_is_refused(texts: list[str]) -> None:
    """Nobody could tell which one is meant."""
    with pytest.raises(RequestError, match="--atol was given twice"):
        limits_from_texts({"atol": texts})


@pytest.mark.parametrize(("name", "text"), [("atol", "y:-1"), ("rtol", "-1"), ("min_agreement", "y:101")])
def test_an_impossible_bound_of_one_output_is_refused(name: str, text: str) -> None:
    """As it is for all outputs."""
    with pytest.raises(RequestError):
        limits_from_texts({name: [text]})


def test_an_own_bound_stands_in_place_of_the_general_one() -> None:
    """Field by field: what is not said for the output holds as it does for all."""
    limits = limits_from_texts({"min_sqnr_db": ["30", "y:10"], "atol": ["0.5"]})
    assert limits.of("y") == OutputLimits(min_sqnr_db=10.0, atol=0.5)
    assert limits.of("z") == OutputLimits(min_sqnr_db=30.0, atol=0.5)


def test_every_output_is_held_against_its_own_bound() -> None:
    """20 dB is enough for one and not for the other, whichever way round."""
    found = measured(y=0.1, z=0.001)
    for own, verdict in ((("y:15", "30"), "PASS"), (("z:15", "30"), "FAIL"), (("z:59",), "PASS"), (("y:59",), "FAIL")):
        assert verdict_of(found, limits_from_texts({"min_sqnr_db": own}))[0] == verdict, own


def test_agreement_of_one_output() -> None:
    """The other one is not judged."""
    found = measured(y=0.1, z=0.1)
    found.outputs[1].rows_agreeing = 50
    assert verdict_of(found, limits_from_texts({"min_agreement": ["y:99"]}))[0] == "PASS"
    assert verdict_of(found, limits_from_texts({"min_agreement": ["z:99"]}))[0] == "FAIL"


def test_a_bound_without_anything_to_hold_against_it_is_inconclusive() -> None:
    """An output that was not compared, one without floats, one without answers: never a pass."""
    found = measured(y=0.1)
    limits = Limits(min_sqnr_db=1.0, outputs=(("gone", OutputLimits(min_sqnr_db=1.0)),))
    assert verdict_of(found, limits) == (
        "INCONCLUSIVE",
        "the output gone was not compared, and there is a limit for it",
    )
    numbers = OutputTotals("n")
    numbers.add(np.arange(4, dtype=np.int64)[None, None], np.arange(4, dtype=np.int64)[None, None])
    both = Measured(1, found.matching, (*found.outputs, numbers), TaskTotals(), TaskTotals())
    verdict, reason = verdict_of(both, limits_from_texts({"min_sqnr_db": ["1", "n:1"]}))
    assert (verdict, "n holds no floating-point numbers" in reason) == ("INCONCLUSIVE", True)
    silent = OutputTotals("s")
    silent.add(np.ones((1, 2, 3), np.float32), np.ones((1, 2, 3), np.float32))
    more = Measured(1, found.matching, (silent,), TaskTotals(), TaskTotals())
    assert verdict_of(more, limits_from_texts({"min_agreement": ["s:1"]}))[0] == "INCONCLUSIVE"


def test_a_bound_for_an_unknown_output_names_those_there_are() -> None:
    """Before anything runs."""
    limits = limits_from_texts({"min_sqnr_db": ["logit:3"]})
    with pytest.raises(RequestError) as caught:
        limits.require_outputs(["logits", "boxes"], "model.onnx")
    assert "did you mean 'logits'" in str(caught.value)
    assert "logits, boxes" in str(caught.value)
    limits_from_texts({"min_sqnr_db": ["logits:3"]}).require_outputs(["logits"], "model.onnx")
