"""From a model and data to advice, on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import model_of, node, residual_block, weights

from calibrators import calibrator_from_text
from trt_opt.advising import advice_for
from trt_opt.advising.candidates import ATTEMPTS, compared, placed, shared_ranges, tensors_of, written
from trt_opt.datasets import open_dataset
from trt_opt.errors import DataError, RequestError, UnsupportedModelError
from trt_opt.graph.query import graph_inputs
from trt_opt.graph.tensors import weight_bytes
from trt_opt.quantize.methods import METHODS, static
from trt_opt.quantize.stage import PrecisionRequest, float_graph, quantized_graph
from trt_opt.samples import DIGITS
from trt_opt.values.advice import Advice, AdviceRequest
from trt_opt.values.progress import Silent


class Counting(Silent):
    """Remembers which stages ran."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def start(self, stage: str, total: int | None, unit: str = "samples") -> None:
        self.stages.append(stage)


def advised(model: onnx.ModelProto | Path, folder: Path, **options: object) -> Advice:
    """The advice on a model, which is saved first."""
    file = model if isinstance(model, Path) else folder / "model.onnx"
    if isinstance(model, onnx.ModelProto):
        onnx.save(model, file)
    return advice_for(AdviceRequest(str(file), **options), Silent())  # type: ignore[arg-type]


def large_products() -> onnx.ModelProto:
    """Two matrix products with 9.4 MB of weights, each weight used once per run."""
    constants = {"w1": weights(768, 2048, seed=1, scale=0.03), "w2": weights(2048, 384, seed=2, scale=0.03)}
    nodes = [node("MatMul", "up", ["x", "w1"], "a"), node("Relu", "relu", ["a"], "b")]
    nodes.append(node("MatMul", "down", ["b", "w2"], "y"))
    return model_of(nodes, {"x": ["n", 768]}, {"y": ["n", 384]}, constants, opset=21)


def save_samples(folder: Path, *shape: int) -> str:
    """Normal random numbers in a file, which is what the model will see."""
    np.savez(folder / "x.npz", x=np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    return str(folder / "x.npz")


def test_sizes_are_those_of_the_graphs_that_quantize_writes(tmp_path: Path) -> None:
    """Without data the static graph's size is exact all the same."""
    facts = advised(DIGITS / "model.onnx", tmp_path).facts
    measured = advised(DIGITS / "model.onnx", tmp_path, calib_data="random:4").facts
    without, with_data = facts.figures_of("static"), measured.figures_of("static")
    assert without is not None
    assert with_data is not None
    # One constant more or less in FP16: a range decides whether the average pooling may be.
    assert without.weight_bytes == pytest.approx(with_data.weight_bytes, rel=0.02)
    assert without.accuracy is None
    assert 0.25 * facts.fp32_bytes < (with_data.weight_bytes or 0) < 0.27 * facts.fp32_bytes


def test_all_methods_share_one_data_pass() -> None:
    """Calibration runs once, whichever methods there are, and gives each what it would find alone."""
    model = residual_block()
    dataset = open_dataset("random:4", graph_inputs(model))
    progress = Counting()
    candidates = placed(model, ATTEMPTS)
    ranges = shared_ranges(candidates, dataset, calibrator_from_text("entropy"), progress)
    assert progress.stages == ["calibrate"]
    for candidate in candidates:
        assert candidate.source is not None
        assert set(candidate.source.taps.all) <= set(ranges)
        assert set(candidate.source.taps.all) <= tensors_of(candidate.source.index)
    alone = placed(model, [entry for entry in ATTEMPTS if entry.method == "static"])
    own = shared_ranges(alone, dataset, calibrator_from_text("entropy"), Silent())
    assert own == {name: ranges[name] for name in own}


def test_every_method_of_this_version_is_tried_or_named_as_left_out(tmp_path: Path) -> None:
    """Only full-integer, which computes as static does, and implicit, which is the builder's affair, have no row."""
    facts = advised(residual_block(), tmp_path).facts
    tried = {row.method for row in facts.figures}
    assert set(facts.methods) == set(METHODS)
    assert set(METHODS) - tried <= {"full-integer", "implicit"}


def test_a_method_that_cannot_be_used_does_not_stop_the_others(tmp_path: Path) -> None:
    """A MatMul of 10 columns: no static INT8, a reason in its row, and FP16 is advised."""
    product = [node("MatMul", "matmul", ["x", "w"], "y")]
    model = model_of(product, {"x": [4, 16]}, {"y": [4, 10]}, {"w": weights(16, 10)})
    advice = advised(model, tmp_path, device="rtx-4090")
    rows = {row.method: row for row in advice.facts.figures}
    assert "16x10 weights" in rows["static"].note
    assert rows["fp16"].weight_bytes == 320
    assert advice.recommendation.method == "fp16"
    assert advice.facts.compute.left_out[0].reason.startswith("16x10 weights")


def test_a_graph_that_fails_on_the_data_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass over all graphs fails, each is then judged alone, and the bad one says why."""
    model = residual_block()
    dataset = open_dataset("random:2", graph_inputs(model))
    attempts = [entry for entry in ATTEMPTS if entry.method in ("fp32", "fp16", "static")]
    candidates = placed(model, attempts)
    candidates = written(
        candidates, shared_ranges(candidates, dataset, calibrator_from_text("minmax"), Silent()), Silent()
    )
    broken = candidates[2].written
    assert broken is not None
    # A Reshape to a size that only shows when it runs.
    sizes = onnx.numpy_helper.from_array(np.array([7, -1], np.int64), "sizes")
    broken.model.graph.initializer.append(sizes)
    broken.model.graph.node.append(onnx.helper.make_node("Reshape", ["x", "sizes"], ["extra"], name="extra"))
    broken.model.graph.output.append(onnx.helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, None))
    found = compared(model, candidates, dataset, Silent())
    assert [entry.comparison is None for entry in found] == [False, False, True]
    assert found[2].note.startswith("not simulated: ")


def test_products_bound_by_their_weights_get_quantised_weights(tmp_path: Path) -> None:
    """MatMul alone, every weight read once: weights-only, with data and without."""
    data = save_samples(tmp_path, 32, 768)
    for options in ({}, {"calib_data": data}):
        advice = advised(large_products(), tmp_path, device="rtx-4090", **options)
        assert advice.facts.compute.product_share == 1.0
        assert advice.facts.compute.macs_per_weight == 1.0
        assert advice.recommendation.method == "weights-only"


def test_a_model_that_came_quantised_keeps_its_pairs(tmp_path: Path) -> None:
    """Two rows, its own INT8 share, and the advice to build it as it is."""
    model = residual_block()
    dataset = open_dataset("random:4", graph_inputs(model))
    graph = float_graph(model, PrecisionRequest(method="static"))
    candidates = placed(model, [entry for entry in ATTEMPTS if entry.method == "static"])
    ranges = shared_ranges(candidates, dataset, calibrator_from_text("minmax"), Silent())
    advice = advised(quantized_graph(graph, ranges).model, tmp_path, device="rtx-3060")
    assert advice.facts.came_quantized
    assert [row.method for row in advice.facts.figures] == ["fp32", "fp16"]
    assert advice.facts.compute.int8_share == 1.0
    assert advice.recommendation.method == "as-given"
    assert weight_bytes(model) == pytest.approx(advice.facts.fp32_bytes, rel=0.1)


def test_other_calibrators_are_tried_where_the_first_is_not_good_enough(tmp_path: Path) -> None:
    """One huge value per sample is too much for every calibrator: each has its row, and none is advised."""
    samples = np.random.default_rng(0).standard_normal((12, 16, 8, 8)).astype(np.float32)
    samples[:, 0, 0, 0] = 300.0
    np.savez(tmp_path / "x.npz", x=samples)
    advice = advised(residual_block(), tmp_path, calib_data=str(tmp_path / "x.npz"), device="rtx-3060")
    rows = [row for row in advice.facts.figures if row.method == "static"]
    assert [row.calibrator for row in rows] == ["entropy", "minmax", "mse", "percentile"]
    assert len({row.accuracy.sqnr_db for row in rows if row.accuracy}) > 2
    assert advice.recommendation.reasons[0].startswith("Static INT8, with the best of 4 calibrators, misses the target")


def test_one_calibrator_is_enough_where_it_is_good(tmp_path: Path) -> None:
    """No second data pass where the first answer is yes."""
    progress = Counting()
    data = save_samples(tmp_path, 12, 16, 8, 8)
    onnx.save(residual_block(), tmp_path / "model.onnx")
    advice = advice_for(AdviceRequest(str(tmp_path / "model.onnx"), calib_data=data), progress)
    assert advice.recommendation.method == "static"
    assert [stage for stage in progress.stages if stage.startswith("calibrate")] == ["calibrate entropy"]


def test_a_batch_of_the_data_counts(tmp_path: Path) -> None:
    """The MACs are those of one run on the first sample."""
    data = save_samples(tmp_path, 6, 8, 768)
    facts = advised(large_products(), tmp_path, calib_data=data).facts
    assert facts.compute.macs == 8 * (768 * 2048 + 2048 * 384)
    assert facts.compute.shapes == "the first sample"


def test_tensors_beyond_fp16_are_told(tmp_path: Path) -> None:
    """Samples of 10^5 leave FP16's range; the layer and the reason are among the facts."""
    np.savez(tmp_path / "x.npz", x=np.full((4, 16, 8, 8), 1e5, np.float32))
    facts = advised(residual_block(), tmp_path, calib_data=str(tmp_path / "x.npz")).facts
    assert any("FP16 ends at" in reason for reason in facts.fp16_kept.values())


def test_a_mistake_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    """Unknown devices, data that do not fit, models that are not there."""
    progress = Counting()
    with pytest.raises(RequestError, match="orin-nano"):
        advice_for(AdviceRequest(str(DIGITS / "model.onnx"), device="orin-nan"), progress)
    with pytest.raises(RequestError, match="no such file"):
        advice_for(AdviceRequest(str(tmp_path / "absent.onnx")), progress)
    with pytest.raises(DataError):
        advice_for(AdviceRequest(str(DIGITS / "model.onnx"), calib_data=save_samples(tmp_path, 4, 3)), progress)
    assert progress.stages == []


def test_a_method_in_error_keeps_its_nodes() -> None:
    """The static method tells why each layer stays in float, which the shares rest on."""
    product = [node("MatMul", "matmul", ["x", "w"], "y")]
    model = model_of(product, {"x": [4, 16]}, {"y": [4, 10]}, {"w": weights(16, 10)})
    with pytest.raises(UnsupportedModelError) as caught:
        float_graph(model, PrecisionRequest(method=static.Static.name))
    assert [name for name, _, _ in caught.value.nodes] == ["matmul"]
