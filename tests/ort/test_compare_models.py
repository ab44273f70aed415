"""Models compared in ONNX Runtime: what the verdict is, and that it can be told from the reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.compare import Limits, Tolerances, compare, compare_many
from trt_opt.datasets import open_dataset
from trt_opt.errors import DataError
from trt_opt.graph.query import graph_inputs
from trt_opt.values.accuracy import Comparison, TaskAccuracy
from trt_opt.values.samples import Dataset

CLASSES = 8
FEATURES = 12

Nodes = Sequence[onnx.NodeProto]


def model_of(nodes: Nodes, outputs: Sequence[tuple[str, int]] = (("scores", TensorProto.FLOAT),)) -> onnx.ModelProto:
    """A model from float32 `x` [N, 12]; `weights` [12, 8] are there for whoever wants them."""
    weights = np.random.default_rng(1).normal(size=(FEATURES, CLASSES)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", FEATURES])],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.round(weights * 4) / 4, "coarse"),
            numpy_helper.from_array(np.float32(0), "zero"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def matmul(weights: str = "weights", output: str = "scores") -> onnx.NodeProto:
    return helper.make_node("MatMul", ["x", weights], [output])


EXACT = model_of([matmul()])
COARSE = model_of([matmul("coarse")])


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """25 samples, labelled with what EXACT answers."""
    x = np.random.default_rng(0).normal(size=(25, FEATURES)).astype(np.float32)
    return data_of(tmp_path, x, answers(x, EXACT))


def data_of(folder: Path, x: NDArray[np.float32], labels: NDArray[np.integer] | None = None) -> Dataset:
    np.savez(folder / "data.npz", x=x, **({} if labels is None else {"labels": labels}))
    return open_dataset(str(folder / "data.npz"), graph_inputs(EXACT))


def answers(x: NDArray[np.float32], model: onnx.ModelProto) -> NDArray[np.integer]:
    weights = numpy_helper.to_array(next(w for w in model.graph.initializer if w.name == "weights"))
    return (x @ weights).argmax(1)


def runner(model: onnx.ModelProto, name: str = "ONNX Runtime") -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(model, optimised=False, name=name)


def compared(
    candidate: onnx.ModelProto, data: Dataset, reference: onnx.ModelProto = EXACT, **limits: float
) -> Comparison:
    return compare(runner(reference), runner(candidate), data, limits=Limits(**limits))


def test_a_close_candidate_passes_its_limits(data: Dataset) -> None:
    """All figures of a real comparison, with every limit met."""
    found = compared(COARSE, data, min_sqnr_db=15, max_drop=30, min_agreement=70, atol=2.0)
    assert (found.verdict, found.samples, found.outputs[0].elements) == ("PASS", 25, 25 * CLASSES)
    assert 15 < (found.sqnr_db or 0) < 40
    assert found.reference_task == TaskAccuracy(rows=25, top1=1.0, top5=1.0)
    assert found.candidate_task is not None
    assert found.candidate_task.top1 == found.outputs[0].top1_agreement
    assert found.outputs[0].within_tolerance == 1.0


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"min_sqnr_db": 60}, "dB, is not at least 60 dB"),
        ({"max_drop": -1}, "top-1 accuracy drops by"),
        ({"min_agreement": 100}, "rows, not in at least 100 %"),
        ({"atol": 1e-6}, "beyond atol 1e-06 or rtol 0 in 25 of 25 samples"),
    ],
)
def test_each_limit_can_fail(data: Dataset, limits: dict[str, float], reason: str) -> None:
    """A missed limit is a FAIL that says which, and no other limit hides it."""
    easy = {"min_sqnr_db": 1.0, "max_drop": 90.0, "min_agreement": 1.0, "atol": 9.0}
    found = compared(COARSE, data, **(easy | limits))
    assert found.verdict == "FAIL"
    assert reason in found.reason


def test_no_limit_is_no_pass(data: Dataset) -> None:
    """Even for identical models: nobody said what would do."""
    found = compared(EXACT, data)
    assert (found.verdict, found.reason) == ("INCONCLUSIVE", "no limit was given; figures only")
    assert found.outputs[0].identical
    assert found.outputs[0].within_tolerance is None


def test_identical_models_pass_every_limit(data: Dataset) -> None:
    """No error means no SQNR, and that is no reason to fail."""
    assert compared(EXACT, data, min_sqnr_db=500, max_drop=0, min_agreement=100, atol=0.0).verdict == "PASS"


def test_nan_fails_without_any_limit(data: Dataset) -> None:
    """A candidate that gives NaN where the reference gives numbers has failed, and wins over INCONCLUSIVE."""
    broken = model_of([matmul(output="y"), helper.make_node("Log", ["y"], ["scores"])])
    found = compared(broken, data)
    assert found.verdict == "FAIL"
    assert "scores is NaN or infinite" in found.reason
    assert found.outputs[0].not_finite > 0
    assert np.isnan(found.sqnr_db or 0)
    assert "nan dB, is not at least" in compared(broken, data, min_sqnr_db=-1e9).reason
    assert "beyond atol" in compared(broken, data, atol=1e30).reason


def test_nan_in_the_reference_is_inconclusive(data: Dataset) -> None:
    """Nothing can be judged against a reference that is not a number."""
    broken = model_of([matmul(output="y"), helper.make_node("Sqrt", ["y"], ["scores"])])
    found = compared(EXACT, data, broken, max_drop=100)
    assert found.verdict == "INCONCLUSIVE"
    assert "the reference's scores is NaN or infinite" in found.reason


def test_an_all_zero_reference_is_not_met_by_noise(data: Dataset) -> None:
    """Zero against non-zero has no SQNR, and must not pass for it."""
    silent = model_of([matmul(output="y"), helper.make_node("Mul", ["y", "zero"], ["scores"])])
    found = compared(EXACT, data, silent, min_sqnr_db=10)
    assert (found.verdict, found.sqnr_db) == ("FAIL", None)


def test_other_shapes_are_inconclusive(data: Dataset) -> None:
    """Outputs that cannot be compared element by element are not judged, but are outside any tolerance."""
    wide = model_of([matmul(output="y"), helper.make_node("Concat", ["y", "y"], ["scores"], axis=1)])
    found = compared(wide, data, min_sqnr_db=0)
    assert found.verdict == "INCONCLUSIVE"
    assert "another shape in 25 of 25 samples" in found.reason
    assert compared(wide, data, atol=1e9).verdict == "FAIL"


def test_other_outputs_are_inconclusive(data: Dataset) -> None:
    """A missing and an additional output are named, on whichever side; what is shared is still compared."""
    both = model_of(
        [matmul(), matmul("coarse", "extra")], [("scores", TensorProto.FLOAT), ("extra", TensorProto.FLOAT)]
    )
    for reference, candidate, side in ((EXACT, both, "candidate"), (both, EXACT, "reference")):
        found = compared(candidate, data, reference, min_sqnr_db=0)
        assert found.verdict == "INCONCLUSIVE"
        assert f"only the {side} has the output extra" in found.reason
        assert [output.name for output in found.outputs] == ["scores"]


def test_renamed_outputs_are_matched_by_position(data: Dataset) -> None:
    """Entirely different names and equal counts: compared in order, and the reason says so."""
    renamed = model_of([matmul(output="logits")], [("logits", TensorProto.FLOAT)])
    found = compared(renamed, data, min_sqnr_db=60, max_drop=0)
    assert found.verdict == "PASS"
    assert "outputs were matched by position" in found.reason
    assert found.outputs[0].name == "scores"


def test_class_numbers_are_judged_against_labels(data: Dataset) -> None:
    """ArgMax inside the graph: agreement and top-1 without scores, and no SQNR to hold against a limit."""
    nodes = [matmul(output="y"), helper.make_node("ArgMax", ["y"], ["scores"], axis=1, keepdims=0)]
    exact = model_of(nodes, [("scores", TensorProto.INT64)])
    coarse = model_of([matmul("coarse", "y"), nodes[1]], [("scores", TensorProto.INT64)])
    found = compared(coarse, data, exact, max_drop=30, min_agreement=70)
    assert found.verdict == "PASS"
    assert found.reference_task == TaskAccuracy(rows=25, top1=1.0, top5=None)
    assert found.outputs[0].top1_agreement == found.candidate_task.top1  # type: ignore[union-attr]
    assert compared(coarse, data, exact, min_sqnr_db=0).verdict == "INCONCLUSIVE"


def test_limits_without_what_they_speak_of_are_inconclusive(tmp_path: Path) -> None:
    """A drop without labels and an agreement without answers cannot be told."""
    x = np.ones((3, FEATURES), np.float32)
    without = compared(EXACT, data_of(tmp_path, x), max_drop=1)
    assert (without.verdict, without.reference_task) == ("INCONCLUSIVE", None)
    dense = model_of([matmul(output="y"), helper.make_node("Unsqueeze", ["y", "axis"], ["scores"])])
    dense.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    more = np.ones((3, 2, FEATURES), np.float32)
    assert compared(dense, data_of(tmp_path, more), dense, min_agreement=1).verdict == "INCONCLUSIVE"


def test_wrong_labels_name_the_sample(tmp_path: Path) -> None:
    """Class numbers from 1, where the model counts from 0."""
    x = np.ones((4, FEATURES), np.float32)
    data = data_of(tmp_path, x, np.array([1, 2, CLASSES, 3]))
    with pytest.raises(DataError, match=r"data\.npz\[2\]: a label from 8 to 8"):
        compared(EXACT, data)


def test_batches_count_rows(tmp_path: Path) -> None:
    """Samples of five rows each: labels, agreement and totals are per row."""
    x = np.random.default_rng(0).normal(size=(4, 5, FEATURES)).astype(np.float32)
    labels = np.stack([answers(batch, EXACT) for batch in x])
    found = compared(EXACT, data_of(tmp_path, x, labels))
    assert (found.samples, found.reference_task) == (4, TaskAccuracy(20, 1.0, 1.0))


def test_many_candidates_share_one_run_of_the_reference(data: Dataset) -> None:
    """The reference runs once per sample, and every comparison is what it would be alone."""

    class Counting(OnnxRuntimeRunner):
        runs = 0

        def infer(self, feed: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:  # type: ignore[override]
            self.runs += 1
            return super().infer(feed)

    reference = Counting(EXACT, optimised=False, name="FP32")
    candidates = [runner(EXACT, "same"), runner(COARSE, "coarse")]
    found = compare_many(reference, candidates, data, tolerances=Tolerances(atol=1e-6), limits=Limits(min_sqnr_db=40))
    assert reference.runs == 25
    assert [(one.reference, one.candidate, one.verdict) for one in found] == [
        ("FP32", "same", "PASS"),
        ("FP32", "coarse", "FAIL"),
    ]
    assert [one.outputs[0].within_tolerance for one in found] == [1.0, 0.0]
    alone = compare(runner(EXACT, "FP32"), candidates[1], data, limits=Limits(min_sqnr_db=40))
    assert alone.outputs[0].sqnr_db == found[1].outputs[0].sqnr_db


def test_nothing_is_printed(data: Dataset, capfd: pytest.CaptureFixture[str]) -> None:
    """Polygraphy's comparator and ONNX Runtime stay silent."""
    compared(COARSE, data, atol=1e-6)
    assert capfd.readouterr() == ("", "")
