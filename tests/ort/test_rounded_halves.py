"""FP16 graphs run with every tensor rounded to FP16, which ONNX Runtime by itself does not do."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import conv, node, residual_block, weights
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.backends.rounded_halves import with_rounded_halves
from trt_opt.graph.check import check_model
from trt_opt.quantize.stage import PrecisionRequest, float_graph, quantized_graph
from trt_opt.values.calibration import TensorRange

HALF = TensorProto.FLOAT16


def half_model(
    nodes: list[onnx.NodeProto], shape: list[int], outputs: list[str], **constants: NDArray
) -> onnx.ModelProto:
    """FP16 from end to end."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", HALF, shape)],
        [helper.make_tensor_value_info(name, HALF, None) for name in outputs],
        [numpy_helper.from_array(array.astype(np.float16), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def run(model: onnx.ModelProto, x: NDArray, *, rounded: bool = True) -> dict[str, NDArray]:
    """The outputs."""
    with OnnxRuntimeRunner(model, optimised=False, rounds_halves=rounded) as runner:
        return runner.infer({"x": x})


def test_sums_are_rounded_at_every_node() -> None:
    """2048 + 1 is 2048 in FP16, however often it is added."""
    nodes = [node("Add", f"add{at}", [f"s{at}" if at else "x", "one"], f"s{at + 1}") for at in range(4)]
    model = half_model(nodes, [1], ["s4"], one=np.ones(1))
    x = np.array([2048], np.float16)
    assert run(model, x)["s4"] == 2048


def test_what_fp16_cannot_hold_is_infinite() -> None:
    """300 squared is beyond 65504, and stays so when it is divided again."""
    nodes = [node("Mul", "square", ["x", "x"], "s"), node("Div", "back", ["s", "x"], "y")]
    model = half_model(nodes, [1], ["y"])
    assert np.isinf(run(model, np.array([300], np.float16))["y"])


def test_a_chain_of_convolutions_gives_numbers_of_fp16() -> None:
    """Its inner tensors are rounded: the result is not the one that float32 between the nodes gives."""
    nodes = [conv("c1", "x", "a", "w"), node("Relu", "r", ["a"], "b"), conv("c2", "b", "c", "w")]
    wide = [*nodes, node("Cast", "end", ["c"], "y", to=TensorProto.FLOAT)]
    model = half_model(wide, [1, 4, 8, 8], ["y"], w=weights(4, 4, 3, 3))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    x = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float16)
    found = run(model, x)["y"]
    np.testing.assert_array_equal(found, found.astype(np.float16).astype(np.float32))
    wide_w = weights(4, 4, 3, 3).astype(np.float16).astype(np.float32)
    steps = [half_model([conv("c", "x", "y", "w")], [1, 4, 8, 8], ["y"], w=wide_w)]
    first = run(steps[0], x)["y"]
    np.testing.assert_array_equal(found, run(steps[0], np.maximum(first, 0))["y"].astype(np.float32))


@pytest.mark.parametrize("method", [None, "static"])
def test_the_graphs_we_write_stay_valid(method: str | None) -> None:
    """Checked by ONNX, the ends keep their names and types, a float32 model comes back itself."""
    model = residual_block()
    assert with_rounded_halves(model) is model
    graph = float_graph(model, PrecisionRequest(method, fp16=True))
    ranges = {} if method is None else _ranges(graph.taps.all)
    written = quantized_graph(graph, ranges).model
    rounded = with_rounded_halves(written)
    check_model(rounded, "rounded", shapes=True)
    assert rounded.graph.input == written.graph.input
    assert rounded.graph.output == written.graph.output
    assert not [entry for entry in rounded.graph.initializer if entry.data_type == HALF]


def _ranges(names: tuple[str, ...]) -> dict:
    return {name: TensorRange(-4.0, 4.0, 4.0, 100) for name in names}
