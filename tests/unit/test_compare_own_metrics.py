"""Which metrics there are, and what the user's own must be like."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from trt_opt.compare import METRICS, Limits, metric_from_text
from trt_opt.compare.metrics import UserMetric
from trt_opt.datasets.named_code import NamedCode
from trt_opt.errors import DataError, RequestError

Write = Callable[[str], str]

OUTPUTS = {"y": np.float32([[1, 2, 3]])}


def user_metric(text: str) -> UserMetric:
    metric = metric_from_text(text)
    assert isinstance(metric, UserMetric)
    return metric


def test_named_metrics_are_found_and_kept() -> None:
    """Every name gives its metric, and nobody can change the table."""
    assert list(METRICS) == ["top1", "top5", "agreement", "sqnr", "cosine"]
    assert all(metric_from_text(name) is metric for name, metric in METRICS.items())
    with pytest.raises(TypeError):
        METRICS["top1"] = METRICS["top5"]  # type: ignore[index]


@pytest.mark.parametrize("text", ["tpo1", "", "top1 ", "a:b:c", "folder/metric.py:score", "metric.py"])
def test_unknown_metrics_list_the_known(text: str) -> None:
    """And the closest, where one is near."""
    with pytest.raises(RequestError) as caught:
        metric_from_text(text)
    hint = caught.value.hint or ""
    assert "top1, top5, agreement, sqnr, cosine, or package.module:function" in hint
    assert ("did you mean 'top1'?" in hint) == (text in {"tpo1", "top1 "})


def test_a_drop_in_decibels_is_refused() -> None:
    """--max-drop is in points; the hint names the option for dB. Every other metric has a drop."""
    with pytest.raises(RequestError, match=r"(?s)SQNR is not.*--min-sqnr"):
        Limits(max_drop=1, metric=METRICS["sqnr"])
    for name in set(METRICS) - {"sqnr"}:
        assert Limits(max_drop=1, metric=METRICS[name]).any
    assert not Limits(metric=METRICS["sqnr"]).any


def test_a_function_from_the_current_folder_is_averaged(module: Write) -> None:
    """It gets both sides' outputs and the label, and may return any kind of number; the import path is left alone."""
    name = module("""
        def score(outputs, reference, label):
            return [True, np.float32(0.5), np.array([0.0])][int(label)]
    """)
    before = list(sys.path)
    scorer = user_metric(f"{name}:score").scorer()
    for label in range(3):
        scorer.add(OUTPUTS, OUTPUTS, np.array(label), "s")
    assert sys.path == before
    assert scorer.value() == pytest.approx(0.5)
    assert list(scorer.per_sample or ()) == [1.0, 0.5, 0.0]


def test_a_class_adds_up_on_its_own(module: Write) -> None:
    """Every side has an instance of its own; the value is what the instance says, and is asked for once."""
    name = module("""
        class F1:
            def __init__(self):
                self.kept, self.asked = [], 0
            def add(self, outputs, reference, label):
                self.kept.append(outputs["y"])
            def value(self):
                self.asked += 1
                return sum(float(kept[0, 0]) for kept in self.kept) / 10 / self.asked
    """)
    metric = user_metric(f"{name}:F1")
    one, other = metric.scorer(), metric.scorer()
    reused = np.float32([[1, 0]])
    one.add({"y": reused}, {"y": reused}, None, "s")
    reused[:] = 4
    one.add({"y": reused}, {"y": reused}, None, "s")
    other.add({"y": reused}, {"y": reused}, None, "s")
    assert (one.value(), one.value(), other.value()) == pytest.approx((0.5, 0.5, 0.4))
    assert one.per_sample is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def score(outputs, reference): return 1", r"cannot be called as score\(outputs, reference, label\)"),
        ("def score(a, b, c, d): return 1", r"cannot be called as score\(outputs, reference, label\)"),
        ("score = 3", "holds a int, not a function 'score'"),
        ("def scores(a, b, c): return 1", "did you mean 'scores'"),
        ("def score(a, b, c) return 1", "failed with SyntaxError"),
        ("raise OSError('no disk')", "failed with OSError: no disk"),
        ("raise SystemExit(0)", "failed with SystemExit: 0"),
        ("class score:\n    def value(self): return 1", r"the class has no add\(outputs, reference, label\)"),
        ("class score:\n    def add(self, a, b, c): pass", r"the class has no value\(\)"),
        ("class score:\n    def add(self, a, b): pass\n    def value(self): return 1", r"cannot be called as add\("),
        ("class score:\n    def add(self, a, b, c): pass\n    def value(self, x): return 1", r"called as value\(\)"),
        (
            "class score:\n    def __init__(self, n): 0\n    def add(self, a, b, c): 0\n    def value(self): 0",
            "cannot be called as the class",
        ),
    ],
)
def test_what_is_no_metric_is_refused_before_any_data(module: Write, body: str, message: str) -> None:
    """Each says what is missing and names the source."""
    name = module(body)
    with pytest.raises(RequestError, match=message) as caught:
        metric_from_text(f"{name}:score")
    assert caught.value.where == f"{name}:score"


def test_code_is_told_apart_by_its_file(module: Write) -> None:
    """Whatever changes in the file changes the hash, behind a decorator too; compiled code has no file."""
    body = "import functools\n@functools.lru_cache\ndef score(outputs, reference, label):\n    return {}\n"
    first, same, other = (user_metric(f"{module(body.format(number))}:score").code.sha256 for number in (1, 1, 2))
    assert first is not None and first == same != other
    assert NamedCode("builtins:sum", sum, "").sha256 is None


def test_a_module_that_is_not_there_says_where_it_was_searched(module: Write) -> None:
    """The current folder."""
    with pytest.raises(RequestError, match=r"(?s)ModuleNotFoundError.*modules are searched in"):
        metric_from_text("no_such_module_at_all:score")


def test_static_and_defaulted_signatures_are_taken(module: Write) -> None:
    """Optional arguments, *arguments, static methods, and objects that can be called."""
    name = module("""
        def spare(outputs, reference, label, weight=1): return weight
        def any_number(*given): return len(given) / 3
        class Callable:
            def __call__(self, outputs, reference, label): return 0.25
        instance = Callable()
        class Static:
            @staticmethod
            def add(outputs, reference, label): pass
            def value(self): return 0.75
    """)
    expected = {"spare": 1.0, "any_number": 1.0, "instance": 0.25, "Static": 0.75}
    for function, value in expected.items():
        scorer = user_metric(f"{name}:{function}").scorer()
        scorer.add(OUTPUTS, OUTPUTS, None, "s")
        assert scorer.value() == value, function


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1 / 0", r"m\d*:score: test\.npz\[7\]: raised ZeroDivisionError"),
        ("return outputs['logits']", "raised KeyError: 'logits'"),
        ("raise SystemExit(0)", "raised SystemExit: 0"),
        ("return None", "returned a NoneType, where a number was expected"),
        ("return '0.5'", "returned a str, where a number was expected"),
        ("return np.zeros(3)", "returned a ndarray, where a number was expected"),
        ("return 87.5", r"(?s)returned 87\.5, and a score is a share from 0 to 1.*divide a percentage by 100"),
        ("return -0.1", "returned -0.1"),
        ("return float('inf')", "returned inf"),
        ("outputs['y'] -= 1; return 1", "raised ValueError.*read-only"),
    ],
)
def test_errors_in_a_metric_name_it_and_the_sample(module: Write, body: str, message: str) -> None:
    """Whatever it raises or returns that is no share of 1."""
    name = module(f"def score(outputs, reference, label):\n    {body}")
    scorer = user_metric(f"{name}:score").scorer()
    with pytest.raises(DataError, match=message.replace(r"m\d*", name)):
        scorer.add(OUTPUTS, OUTPUTS, None, "test.npz[7]")


def test_errors_of_a_class_say_after_how_many_samples(module: Write) -> None:
    """Construction, `add` and `value` each."""
    name = module("""
        class Unborn:
            def __init__(self): raise RuntimeError("no model")
            def add(self, outputs, reference, label): pass
            def value(self): return 1
        class Mute:
            def add(self, outputs, reference, label): pass
            def value(self): raise ZeroDivisionError("nothing found")
    """)
    with pytest.raises(DataError, match=rf"{name}:Unborn: raised RuntimeError: no model"):
        user_metric(f"{name}:Unborn").scorer()
    scorer = user_metric(f"{name}:Mute").scorer()
    scorer.add(OUTPUTS, OUTPUTS, None, "s")
    with pytest.raises(DataError, match=rf"{name}:Mute: after 1 samples: raised ZeroDivisionError"):
        scorer.value()
