"""Recurrent layers in forms TensorRT misreads or lacks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper
from onnx.reference import ReferenceEvaluator
from passes_models import applied, floats, model_of, operators, refused_by

from trt_opt.passes.layers.couple_forget_gates import CoupleForgetGates
from trt_opt.passes.layers.time_first_recurrence import TimeFirstRecurrence
from trt_opt.passes.verification import run_model
from trt_opt.values.samples import Sample

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
BATCH, TIME, FEATURES, HIDDEN = 2, 4, 3, 5


def batch_first(op: str, *, states: bool = True, wanted: int = 3) -> ModelProto:
    """One batch-first layer; `wanted` outputs of it, the first left out where it is 1."""
    outputs = ["y", "y_h", "y_c"][: 3 if op == "LSTM" else 2]
    names = outputs if wanted > 1 else ["", "y_h"]
    shapes = {"y": ["N", TIME, 1, HIDDEN], "y_h": ["N", 1, HIDDEN], "y_c": ["N", 1, HIDDEN]}
    inputs = {"x": ["N", TIME, FEATURES]}
    inputs |= {"h": ["N", 1, HIDDEN]} if states else {}
    inputs |= {"c": ["N", 1, HIDDEN]} if states and op == "LSTM" else {}
    read = ["x", "w", "r", "b", "", *list(inputs)[1:]]
    node = helper.make_node(op, read, names, "layer", hidden_size=HIDDEN, layout=1)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, 1, shapes[name]) for name in names if name],
        [
            onnx.numpy_helper.from_array(floats(1, GATES[op] * HIDDEN, FEATURES, seed=1), "w"),
            onnx.numpy_helper.from_array(floats(1, GATES[op] * HIDDEN, HIDDEN, seed=2), "r"),
            onnx.numpy_helper.from_array(floats(1, 2 * GATES[op] * HIDDEN, seed=3), "b"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("wanted", [1, 3])
def test_batch_first_layer_becomes_time_first(op: str, states: bool, wanted: int) -> None:
    """Numbers are those of onnx's reference, which alone runs batch-first layers; nobody needs to refuse them."""
    model = batch_first(op, states=states, wanted=wanted)
    after, report = TimeFirstRecurrence(frozenset()).run(model)
    assert len(report.changed) == 1
    onnx.checker.check_model(after, full_check=True)
    feed = {"x": floats(BATCH, TIME, FEATURES)}
    feed |= {name: floats(BATCH, 1, HIDDEN, seed=4) for name in "hc"[: (op == "LSTM") + 1] if states}
    expected = ReferenceEvaluator(model).run(None, feed)
    found = run_model(after, [Sample("sequence", feed)])[0]
    for output, value in zip(model.graph.output, expected, strict=True):
        # onnx 1.23 gives the last state without its axis of directions.
        np.testing.assert_allclose(found[output.name], value.reshape(found[output.name].shape), atol=1e-5)
    assert TimeFirstRecurrence().run(after)[0] is after


def test_time_first_layer_is_left_alone() -> None:
    """Layout 0 is what TensorRT reads."""
    text = "g (float[4,2,3] x) => (y) { y = RNN<hidden_size = 5>(x, w, r) }"
    model = model_of(text, w=floats(1, 5, 3), r=floats(1, 5, 5))
    assert TimeFirstRecurrence(frozenset()).run(model)[0] is model
    assert TimeFirstRecurrence().run(model)[0] is model


@pytest.mark.rtx
@pytest.mark.parametrize("op", GATES)
def test_time_first_layer_is_buildable(op: str) -> None:
    """TensorRT-RTX takes the layer with its transposes."""
    model = batch_first(op)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = BATCH
    assert not refused_by(TimeFirstRecurrence().run(model)[0])


def coupled(direction: str = "forward", *, peepholes: bool = True, activations: str = "") -> ModelProto:
    """An LSTM whose forget gate hangs on its input gate."""
    count = 2 if direction == "bidirectional" else 1
    told = f', activations = ["{activations}", "Tanh", "Tanh"]' if activations else ""
    text = f"""g (float[4,2,3] x) => (float[4,{count},2,5] y, float[{count},2,5] h) {{
        y, h = LSTM<hidden_size = 5, input_forget = 1, clip = 2.0, direction = "{direction}"{told}>
        (x, w, r, b, , , , {"p" if peepholes else ""}) }}"""
    weights = {"w": floats(count, 20, 3), "r": floats(count, 20, 5, seed=1), "b": floats(count, 40, seed=2)}
    return model_of(text, **weights, **({"p": floats(count, 15, seed=3)} if peepholes else {}))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("peepholes", [False, True])
def test_coupled_gates_keep_their_numbers(direction: str, peepholes: bool) -> None:
    """One minus a sigmoid is the sigmoid of the negated: weights, biases, peepholes and clipping agree."""
    after, report = applied(CoupleForgetGates(), coupled(direction, peepholes=peepholes))
    assert len(report.changed) == 1
    assert operators(after)["Neg"] == (5 if peepholes else 4)


def test_gates_coupled_by_another_function_are_declined() -> None:
    """The symmetry is the sigmoid's."""
    after, report = CoupleForgetGates().run(model := coupled(activations="HardSigmoid"))
    assert after is model
    assert "not by a sigmoid" in report.declined[0].why


@pytest.mark.rtx
def test_coupled_gates_become_buildable() -> None:
    """TensorRT-RTX refuses coupled gates and takes the two of one weight."""
    assert refused_by(coupled())
    assert not refused_by(CoupleForgetGates().run(coupled())[0])
