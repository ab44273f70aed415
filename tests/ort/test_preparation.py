"""From a model file to the graph that is calibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from graphs import conv, model_of, node, weights
from ort_session import outputs_of

from trt_opt.acceptance import TableJudge
from trt_opt.buildable import PassChoice
from trt_opt.graph.query import opset
from trt_opt.preparation import source_model
from trt_opt.values.progress import Silent
from trt_opt.values.samples import Sample
from trt_opt.values.target import RtxTarget


def test_a_model_too_old_to_run_is_converted_first() -> None:
    """ONNX Runtime has no AveragePool of opset 6; the model arrives in a newer opset and its nodes have names."""
    nodes = [conv("", "x", "a", "w"), node("AveragePool", "", ["a"], "y", kernel_shape=[2, 2])]
    model = model_of(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 16, 7, 7]}, {"w": weights(16, 3, 3, 3)}, opset=6)
    model.ir_version = 4
    feed = {"x": np.ones((1, 3, 8, 8), np.float32)}
    source = source_model(Path("old.onnx"), model, (Sample("one", feed),), TableJudge(RtxTarget()), Silent())
    assert opset(source.original) >= 7
    assert all(entry.name for entry in source.rewritten.graph.node)
    assert outputs_of(source.rewritten, feed)["y"].shape == (1, 16, 7, 7)


def test_an_opset_is_raised_before_the_passes_so_that_they_clean_up(tmp_path: Path) -> None:
    """Raising opset 11 to 19 turns axes into constants, which are folded: no Constant node is left."""
    nodes = [conv("conv1", "x", "a", "w"), node("ReduceSum", "sum", ["a"], "y", axes=[2, 3], keepdims=0)]
    model = model_of(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 16]}, {"w": weights(16, 3, 3, 3)}, opset=11)
    onnx.save(model, tmp_path / "model.onnx")
    source = source_model(
        tmp_path / "model.onnx", model, (), TableJudge(RtxTarget()), Silent(), choice=PassChoice(least_opset=19)
    )
    assert opset(source.rewritten) == 19
    assert [entry.op_type for entry in source.rewritten.graph.node] == ["Conv", "ReduceSum"]
