"""What is said of models that were quantised before they came: in which formats, and how close."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import model_of, node, weights
from ort_session import outputs_of
from quantised_models import DIGITS_MODELS

from trt_opt.advising import advice_for
from trt_opt.errors import UnsupportedModelError
from trt_opt.quantize.stage import PrecisionRequest, float_graph, quantized_graph
from trt_opt.samples import DIGITS
from trt_opt.values.advice import AdviceRequest
from trt_opt.values.calibration import TensorRange
from trt_opt.values.progress import Silent

RANGE = TensorRange(-1.0, 1.0, 1.0, 1)


def product() -> onnx.ModelProto:
    """One matrix product with constant weights."""
    nodes = [node("MatMul", "product", ["x", "w"], "y")]
    return model_of(nodes, {"x": [2, 64]}, {"y": [2, 64]}, {"w": weights(64, 64)}, opset=21)


@pytest.mark.parametrize(
    ("request_", "label"),
    [
        (PrecisionRequest("static"), "INT8"),
        (PrecisionRequest("fp8"), "FP8"),
        (PrecisionRequest("weights-only"), "INT8 weights"),
        (PrecisionRequest("weights-only", weights="int4", block_size=32), "INT4 weights"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_format_is_read_off_the_pairs(request_: PrecisionRequest, label: str) -> None:
    """What one run wrote, the next calls by its name."""
    graph = float_graph(product(), request_)
    written = quantized_graph(graph, dict.fromkeys(graph.taps.calibrated, RANGE)).model
    again = float_graph(written, PrecisionRequest())
    assert again.came_quantized
    assert again.name == label
    before = next(layer.precision for layer in graph.placement.layers if layer.node == "product")
    assert next(layer.precision for layer in again.placement.layers if layer.node == "product") == before


def written_in_blocks() -> onnx.ModelProto:
    """The product with its weights in INT4, 32 to a scale."""
    graph = float_graph(product(), PrecisionRequest("weights-only", weights="int4", block_size=32))
    return quantized_graph(graph, {}).model


def test_blocks_are_excluded_too() -> None:
    """An excluded layer reads floats, the very numbers that its blocks stood for."""
    blocked = written_in_blocks()
    graph = float_graph(blocked, PrecisionRequest(exclude=("product",)))
    assert [entry.op_type for entry in graph.model.graph.node] == ["MatMul"]
    feed = {"x": weights(2, 64)}
    before, after = (outputs_of(model, feed)["y"] for model in (blocked, graph.model))
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_stored_weights_are_no_activations() -> None:
    """The reason why INT4 weights do not become INT8."""
    with pytest.raises(UnsupportedModelError, match="stored quantised already"):
        float_graph(written_in_blocks(), PrecisionRequest("static"))


def test_advice_judges_a_quantised_model_by_what_it_means(tmp_path: Path) -> None:
    """ONNX Runtime's kernels for UINT8 x INT8 saturate on CPUs without VNNI: they are no reference."""
    name = next(name for name in DIGITS_MODELS if "operators_u8_s8_per_channel" in name)
    onnx.save(DIGITS_MODELS[name](), tmp_path / "model.onnx")
    data = np.load(DIGITS / "test.npz")
    np.savez(tmp_path / "test.npz", **{key: data[key][:40] for key in data.files})
    request = AdviceRequest(str(tmp_path / "model.onnx"), eval_data=str(tmp_path / "test.npz"), target="rtx:8.6")
    rows = advice_for(request, Silent()).facts.figures
    assert rows
    assert all(row.accuracy is not None and (row.accuracy.sqnr_db or 0) > 30 for row in rows)
