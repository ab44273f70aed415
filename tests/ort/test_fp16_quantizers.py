"""FP16 tensors are rounded when they are quantised, whatever ONNX Runtime's own kernel does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import node
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from trt_opt.backends import onnxruntime_fp16
from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.backends.onnxruntime_fp16 import with_rounding_quantizers

VALUES = np.array([0.04, 0.06, 0.16, -0.06, -0.16, 5.55, 20.0, -20.0], np.float16)


def fp16_pair() -> onnx.ModelProto:
    """QuantizeLinear and DequantizeLinear in FP16, scale 0.1."""
    graph = helper.make_graph(
        [node("QuantizeLinear", "q", ["x", "s", "z"], "i"), node("DequantizeLinear", "dq", ["i", "s", "z"], "y")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [VALUES.size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [VALUES.size])],
        [numpy_helper.from_array(np.array(0.1, np.float16), "s"), numpy_helper.from_array(np.array(0, np.int8), "z")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def steps(model: onnx.ModelProto) -> NDArray[np.float64]:
    """The output in steps of the scale."""
    with OnnxRuntimeRunner(model, optimised=False) as runner:
        return np.rint(runner.infer({"x": VALUES})["y"].astype(np.float64) / 0.1)


def test_fp16_tensors_are_rounded() -> None:
    """0.06 in steps of 0.1 is one step, on every version of ONNX Runtime."""
    np.testing.assert_array_equal(steps(fp16_pair()), [0, 1, 2, -1, -2, 56, 127, -128])


def test_the_detour_over_float32_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the detour forced, the very same steps come out, and the model given is not changed."""
    monkeypatch.setattr(onnxruntime_fp16, "rounds_fp16", lambda: False)
    model = fp16_pair()
    before = model.SerializeToString()
    detour = with_rounding_quantizers(model)
    assert [entry.op_type for entry in detour.graph.node] == ["Cast", "QuantizeLinear", "DequantizeLinear"]
    assert model.SerializeToString() == before
    np.testing.assert_array_equal(steps(model), [0, 1, 2, -1, -2, 56, 127, -128])
