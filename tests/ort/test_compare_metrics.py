"""Metrics, intervals and awkward evaluation data in ONNX Runtime, as the library and as the verb see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import run
from graphs import model_of, node, weights
from numpy.typing import NDArray

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.compare import Limits, compare, compare_many, metric_from_text
from trt_opt.datasets import open_dataset
from trt_opt.errors import DataError
from trt_opt.graph.query import graph_inputs
from trt_opt.values.accuracy import Comparison
from trt_opt.values.codec import json_from_value, value_from_json
from trt_opt.values.metric import MetricAccuracy
from trt_opt.values.progress import Silent
from trt_opt.values.samples import Dataset
from trt_opt.variants import GraphVariant, accuracies

CLASSES, FEATURES, SAMPLES = 8, 12, 60
WEIGHTS = weights(FEATURES, CLASSES)


def linear(step: float | None = None, output: str = "scores") -> onnx.ModelProto:
    """Class scores [1, 8] of float32 `x` [1, 12]; the weights are rounded to steps of `step`."""
    rounded = WEIGHTS if step is None else (np.round(WEIGHTS / step) * step).astype(np.float32)
    return model_of(
        [node("MatMul", "scores", ["x", "w"], output)], {"x": [1, FEATURES]}, {output: [1, CLASSES]}, {"w": rounded}
    )


EXACT, COARSE = linear(), linear(float(np.abs(WEIGHTS).max()) / 3)
X = np.random.default_rng(0).normal(size=(SAMPLES, 1, FEATURES)).astype(np.float32)


def answers(x: NDArray[np.float32]) -> NDArray[np.int64]:
    return (x[:, 0] @ WEIGHTS).argmax(1)


def data_of(folder: Path, x: NDArray[np.float32] = X, labels: NDArray[np.integer] | None = None) -> Dataset:
    np.savez(folder / "data.npz", x=x, **({} if labels is None else {"labels": labels}))
    return open_dataset(str(folder / "data.npz"), graph_inputs(EXACT))


@pytest.fixture
def data(folder: Path) -> Dataset:
    """60 samples labelled with what EXACT answers, in the current folder."""
    return data_of(folder, labels=answers(X))


def runner(model: onnx.ModelProto, name: str = "ONNX Runtime") -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(model, optimised=False, name=name)


def compared(
    candidate: onnx.ModelProto,
    data: Dataset,
    metric: str | None = None,
    reference: onnx.ModelProto = EXACT,
    **limits: float,
) -> Comparison:
    asked = None if metric is None else metric_from_text(metric)
    return compare(runner(reference), runner(candidate), data, limits=Limits(**limits, metric=asked))


def figures(found: Comparison) -> MetricAccuracy:
    assert found.metric is not None
    return found.metric


def test_named_metrics_are_the_figures_beside_them(data: Dataset) -> None:
    """Each equals what the comparison shows for outputs and task, has an interval that holds it, and a drop."""
    found = {name: compared(COARSE, data, name) for name in ("top1", "top5", "agreement", "sqnr", "cosine")}
    output, task = found["sqnr"].outputs[0], found["top1"].candidate_task
    assert task is not None
    expected = (task.top1, task.top5, output.top1_agreement, output.sqnr_db, output.cosine)
    for (name, comparison), value in zip(found.items(), expected, strict=True):
        metric = figures(comparison)
        assert (metric.name, metric.candidate, metric.samples) == (name, value, SAMPLES)
        low, high = metric.interval or (0, 0)
        assert low < (metric.candidate or 0) <= high
        if name == "sqnr":
            assert (metric.unit, metric.reference, metric.drop_points) == ("dB", None, None)
            continue
        assert metric.reference == 1.0
        assert metric.drop_points == pytest.approx(100 * (1 - (value or 0)))
        low, high = metric.drop_interval_points or (0, 0)
        assert low < (metric.drop_points or 0) < high


def test_top1_is_the_metric_where_nobody_asks(data: Dataset, tmp_path: Path) -> None:
    """With labels; without, there is none."""
    assert figures(compared(COARSE, data)) == figures(compared(COARSE, data, "top1"))
    assert compared(COARSE, data_of(tmp_path)).metric is None


def test_max_drop_speaks_of_the_metric_asked_for(data: Dataset) -> None:
    """Agreement and cosine without labels; the reason names the metric."""
    found = compared(COARSE, data, "cosine", max_drop=50)
    assert (found.verdict, found.reason[:23]) == ("PASS", "cosine similarity drops")
    failed = compared(COARSE, data, "agreement", max_drop=0.1)
    assert (failed.verdict, failed.reason[:15]) == ("FAIL", "top-1 agreement")


def test_own_hits_have_the_intervals_of_top1(data: Dataset, module: Callable[[str], str]) -> None:
    """A function that gives 1 for a right answer is counted: values, intervals and drop are top-1's own."""
    name = module("""
        def hit(outputs, reference, label):
            assert set(outputs) == set(reference) == {"scores"}
            return outputs["scores"].argmax() == label
    """)
    own, top1 = figures(compared(COARSE, data, f"{name}:hit")), figures(compared(COARSE, data, "top1"))
    assert own.name == f"{name}:hit"
    assert own.short_name == "hit"
    for field in ("reference", "candidate", "interval", "drop_points", "drop_interval_points"):
        assert getattr(own, field) == pytest.approx(getattr(top1, field)), field


def test_own_scores_are_averaged_and_resampled(data: Dataset, module: Callable[[str], str]) -> None:
    """The probability of the right class: both means, the drop, and narrow intervals from the differences."""
    name = module("""
        def probability(outputs, reference, label):
            powers = np.exp(outputs["scores"][0].astype(np.float64))
            return powers[int(label)] / powers.sum()
    """)
    found = compared(COARSE, data, f"{name}:probability", max_drop=50)
    metric = figures(found)
    assert found.verdict == "PASS"
    assert metric.drop_points == pytest.approx(100 * ((metric.reference or 0) - (metric.candidate or 0)))
    low, high = metric.drop_interval_points or (0, 0)
    wide = metric.interval or (0, 0)
    assert low < (metric.drop_points or 0) < high
    assert high - low < 100 * (wide[1] - wide[0])
    assert compared(COARSE, data, f"{name}:probability", max_drop=(metric.drop_points or 0) - 0.01).verdict == "FAIL"


def test_own_class_is_judged_without_an_interval(data: Dataset, module: Callable[[str], str]) -> None:
    """What is no mean of samples has no interval here, and a verdict all the same; every candidate has its own."""
    name = module("""
        class Balanced:
            def __init__(self):
                self.right, self.all = np.zeros(8), np.zeros(8)
            def add(self, outputs, reference, label):
                self.all[label] += 1
                self.right[label] += outputs["scores"].argmax() == label
            def value(self):
                return (self.right[self.all > 0] / self.all[self.all > 0]).mean()
    """)
    limits = Limits(max_drop=1, metric=metric_from_text(f"{name}:Balanced"))
    same, coarse = compare_many(runner(EXACT), [runner(EXACT), runner(COARSE)], data, limits=limits)
    assert (same.verdict, figures(same).candidate, figures(same).interval) == ("PASS", 1.0, None)
    assert (coarse.verdict, figures(coarse).reference, figures(coarse).interval) == ("FAIL", 1.0, None)


def test_nan_from_a_metric_is_never_a_pass(data: Dataset, module: Callable[[str], str]) -> None:
    """Of the candidate a failure, of the reference nothing can be told; with or without a bound on the metric."""
    name = module("""
        def candidate(outputs, reference, label):
            return 1.0 if np.array_equal(outputs["scores"], reference["scores"]) else np.nan
        def everything(outputs, reference, label):
            return float("nan")
    """)
    for limits in ({"max_drop": 50.0}, {"min_sqnr_db": 0.0}):
        found = compared(COARSE, data, f"{name}:candidate", **limits)
        assert found.verdict == "FAIL"
        assert "is NaN for the candidate, and 1 for the reference" in found.reason
        found = compared(COARSE, data, f"{name}:everything", **limits)
        assert found.verdict == "INCONCLUSIVE"
        assert "is NaN for the reference itself" in found.reason


def test_a_failing_metric_names_the_sample(data: Dataset, module: Callable[[str], str]) -> None:
    """The exception of the user's code, at the sample where it happened."""
    name = module(
        """
        def score(outputs, reference, label):
            return 1 / (int(label) - %d)
    """.replace("%d", str(answers(X)[0]))
    )
    with pytest.raises(DataError, match=rf"{name}:score: data\.npz\[0\]: raised ZeroDivisionError"):
        compared(COARSE, data, f"{name}:score")


def test_renamed_outputs_reach_the_metric_under_the_models_names(data: Dataset, module: Callable[[str], str]) -> None:
    """The candidate's output is called otherwise; the metric need not know."""
    name = module("""
        def score(outputs, reference, label):
            return float(list(outputs) == list(reference) == ["scores"])
    """)
    assert figures(compared(linear(output="renamed"), data, f"{name}:score")).candidate == 1.0


def test_labels_of_an_own_metric_need_not_be_class_numbers(folder: Path, module: Callable[[str], str]) -> None:
    """Several a sample and beyond the classes: nobody but the metric reads them."""
    name = module("""
        def feeds():
            for i in range(25):
                yield {"x": np.ones((1, 12), np.float32)}, np.array([i, 100, 200])
        def score(outputs, reference, label):
            return label.shape == (3,) and label[2] == 200
    """)
    data = open_dataset(f"{name}:feeds", graph_inputs(EXACT))
    found = compared(COARSE, data, f"{name}:score", max_drop=5)
    assert (found.verdict, found.reference_task, figures(found).candidate) == ("PASS", None, 1.0)
    with pytest.raises(DataError, match=r"labels of shape \[3\] for 1 rows"):
        compared(COARSE, data)


def test_three_samples_tell_nothing(folder: Path) -> None:
    """Neither a pass nor a failure from shares; the SQNR is no share and is judged."""
    data = data_of(folder, X[:3], answers(X[:3]))
    found = compared(EXACT, data, max_drop=0.5)
    assert (found.verdict, found.reason[:40]) == ("INCONCLUSIVE", "3 rows cannot tell a drop of 0.5 points:")
    assert compared(EXACT, data, min_agreement=99).verdict == "INCONCLUSIVE"
    assert compared(EXACT, data, min_sqnr_db=40).verdict == "PASS"
    assert figures(found).drop_interval_points == pytest.approx((-56.2, 56.2), abs=0.1)


def test_one_sample_has_no_interval_of_its_sqnr(folder: Path) -> None:
    """There is nothing to resample."""
    assert compared(COARSE, data_of(folder, X[:1])).outputs[0].sqnr_interval_db is None


def test_wrong_labels_judge_nobody(folder: Path) -> None:
    """Shuffled labels: the float model itself guesses, and the reason says so."""
    labels = (answers(X) + np.arange(SAMPLES) % 7 + 1) % CLASSES
    found = compared(COARSE, data_of(folder, labels=labels), max_drop=50)
    assert found.verdict == "INCONCLUSIVE"
    assert "the reference itself is right in 0.0 % of 60 rows, and chance is 12.5 %" in found.reason


def test_equal_labels_are_told(folder: Path) -> None:
    """One class alone is judged, and the reason says that it was one."""
    kept = X[answers(X) == np.bincount(answers(X)).argmax()]
    many = np.tile(kept, (20 // len(kept) + 1, 1, 1))
    found = compared(EXACT, data_of(folder, many, answers(many)), max_drop=1)
    assert (found.verdict, f"every label is {answers(many)[0]}" in found.reason) == ("PASS", True)
    assert "every label" not in compared(EXACT, data_of(folder, labels=answers(X)), max_drop=1).reason


def test_empty_data_are_refused(folder: Path) -> None:
    """No sample, no comparison."""
    with pytest.raises(DataError):
        compared(EXACT, data_of(folder, X[:0], np.zeros(0, np.int64)), max_drop=1)


def test_accuracies_pass_limits_and_metric_on(data: Dataset, module: Callable[[str], str]) -> None:
    """Every variant has its verdict, and the limits' metric."""
    name = module("def score(outputs, reference, label): return 0.5")
    variants = [GraphVariant("same", EXACT), GraphVariant("coarse", COARSE)]
    found = accuracies(EXACT, variants, data, Silent(), limits=Limits(min_sqnr_db=60))
    assert {key: value.verdict for key, value in found.items()} == {"same": "PASS", "coarse": "FAIL"}
    limits = Limits(max_drop=1, metric=metric_from_text(f"{name}:score"))
    own = accuracies(EXACT, variants, data, Silent(), limits=limits)
    assert [(value.verdict, figures(value).candidate) for value in own.values()] == [("PASS", 0.5)] * 2


def test_a_comparison_is_read_back_from_json(data: Dataset) -> None:
    """With its metric and all intervals."""
    found = compared(COARSE, data, "agreement", max_drop=5)
    assert value_from_json(Comparison, json_from_value(found), where="test") == found


def test_the_verb_shows_metric_and_intervals(data: Dataset, folder: Path, module: Callable[[str], str]) -> None:
    """As text within 100 columns and as JSON; the exit code follows the metric's drop."""
    onnx.save(EXACT, folder / "exact.onnx")
    onnx.save(COARSE, folder / "coarse.onnx")
    name = module("def always(outputs, reference, label): return 0.75")
    arguments = ("compare", "exact.onnx", "coarse.onnx", "--no-timing", "--data", data.source)
    shown = run(*arguments, "--metric", f"{name}:always", "--max-drop", "1")
    assert shown.exit_code == 0, shown.stderr
    assert f"{name}:always  75.00 % to 75.00 % ±0.0, a drop of 0.00 points (0.00 to 0.00)" in shown.stdout
    table = [line for line in shown.stdout.splitlines() if line.startswith(("┏", "│", "┃"))]
    assert table
    assert max(map(len, table)) <= 100
    assert run(*arguments, "--metric", "agreement", "--max-drop", "0.01").exit_code == 1
    (plain,) = json.loads(run(*arguments, "--metric", "top1", "--json").stdout)["comparisons"]
    assert plain["metric"]["name"] == "top1"
    for part, key in (
        (plain["metric"], "interval"),
        (plain["metric"], "drop_interval_points"),
        (plain["candidate_task"], "top1_interval"),
        (plain["candidate_task"], "top5_interval"),
        (plain["outputs"][0], "agreement_interval"),
        (plain["outputs"][0], "sqnr_interval_db"),
    ):
        assert part[key][0] < part[key][1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "tpo1"], "did you mean 'top1'"),
        (["--metric", "sqnr", "--max-drop", "1"], "--min-sqnr"),
        (["--metric", "no_such_module:score"], "importing no_such_module failed"),
    ],
)
def test_the_verb_refuses_what_is_no_metric(folder: Path, options: list[str], message: str) -> None:
    """Before any file is opened."""
    refused = run("compare", "not_there.onnx", "neither.onnx", "--data", "none.npz", *options)
    assert (refused.exit_code, message in refused.stderr) == (2, True)
