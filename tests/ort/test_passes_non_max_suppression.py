"""Where NonMaxSuppression runs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from passes_models import floats, model_of, operators, refused_by

from trt_opt.ends import EndsRequest, with_asked_ends
from trt_opt.errors import RequestError, UnsupportedModelError
from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.passes.verification import run_model
from trt_opt.passes.vision.non_max_suppression_as_plugin import NonMaxSuppressionAsPlugin
from trt_opt.passes.vision.split_at_nms import split_at_nms
from trt_opt.values.samples import Sample

PLUGIN = frozenset({"EfficientNMS_ONNX_TRT"})

YOLO = """g (float[B,4,N] raw, float[B,3,N] logits) => (float[B,3,N] scores, float[K,4] found, int64[K,3] chosen) {
    first = Transpose<perm=[0,2,1]>(raw)
    boxes = Add(first, first)
    scores = Sigmoid(logits)
    chosen = NonMaxSuppression<center_point_box=1>(boxes, scores, most, overlap, threshold)
    batches = Gather<axis=1>(chosen, zero)
    numbers = Gather<axis=1>(chosen, two)
    both = Concat<axis=1>(batches, numbers)
    found = GatherND(boxes, both)
}"""
"""The tail of a YOLO export: boxes and scores, the selection, and the boxes selected."""

NUMBERS = {
    "most": np.array([5], np.int64),
    "overlap": np.array([0.5], np.float32),
    "threshold": np.array([0.4], np.float32),
    "zero": np.array([0], np.int64),
    "two": np.array([2], np.int64),
}


def yolo() -> ModelProto:
    return model_of(YOLO, **NUMBERS)


def feed() -> dict[str, np.ndarray]:
    return {"raw": np.abs(floats(2, 4, 20)), "logits": floats(2, 3, 20, seed=1)}


def run(model: ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's outputs, from what it reads of the inputs."""
    onnx.checker.check_model(model, full_check=True)
    read = {spec.name: inputs[spec.name] for spec in graph_inputs(model)}
    return dict(run_model(model, [Sample("one", read)])[0])


def assert_same(model: ModelProto, inputs: dict[str, np.ndarray]) -> None:
    """Both parts one after the other give exactly what the whole model gives."""
    whole = run(model, inputs)
    engine, tail = split_at_nms(model)
    first = run(engine, inputs)
    rest = run(tail, inputs | first)
    assert whole.keys() <= first.keys() | rest.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal((first | rest)[name], value)


def test_both_parts_give_what_the_whole_gave() -> None:
    """The selection, what is gathered by it, and an output before it; nothing is given by both parts."""
    model = yolo()
    before = model.SerializeToString(deterministic=True)
    assert_same(model, feed())
    assert model.SerializeToString(deterministic=True) == before
    engine, tail = split_at_nms(model)
    assert [value.name for value in engine.graph.output] == ["scores", "boxes"]
    assert [value.name for value in tail.graph.output] == ["found", "chosen"]
    assert operators(tail) == {"NonMaxSuppression": 1, "Gather": 2, "Concat": 1, "GatherND": 1}
    assert not {tensor.name for tensor in engine.graph.initializer} & set(NUMBERS)


def test_tail_may_read_inputs_and_constants() -> None:
    """A tail that reads a graph input, a Constant node the engine reads too, and a tensor of an If."""
    text = """g (float[1,6,4] boxes, float[1,1,6] scores, bool c) => (float[K,3] y, float[1,6,4] z) {
        two = Constant<value = float {2.0}>()
        z = Mul(boxes, two)
        chosen = NonMaxSuppression(boxes, scores, most, overlap, threshold)
        numbers = Cast<to = 1>(chosen)
        y = If<then_branch = a () => (float[K,3] p) { p = Mul(numbers, two) },
               else_branch = b () => (float[L,3] q) { q = Add(numbers, two) }>(c)
    }"""
    model = model_of(text, **{name: NUMBERS[name] for name in ("most", "overlap", "threshold")})
    engine, tail = split_at_nms(model)
    assert [value.name for value in engine.graph.output] == ["z"]
    assert [value.name for value in tail.graph.input] == ["boxes", "scores", "c"]
    for condition in (True, False):
        assert_same(
            model,
            {"boxes": np.abs(floats(1, 6, 4)), "scores": np.abs(floats(1, 1, 6)), "c": np.array(condition)},
        )


def test_selection_inside_a_branch_takes_the_branch_along() -> None:
    """An If that holds a NonMaxSuppression is cut out as a whole, with what its branches read from outside."""
    text = """g (bool c, float[1,6,4] raw, float[1,1,6] scores) => (int64[K,3] y) {
        boxes = Abs(raw)
        y = If<then_branch = a () => (int64[K,3] p) { p = NonMaxSuppression(boxes, scores, most, overlap, threshold) },
               else_branch = b () => (int64[L,3] q) { q = NonMaxSuppression(boxes, scores, most) }>(c)
    }"""
    model = model_of(text, **{name: NUMBERS[name] for name in ("most", "overlap", "threshold")})
    assert_same(model, {"c": np.array(True), "raw": floats(1, 6, 4), "scores": np.abs(floats(1, 1, 6))})


def test_a_model_is_split_where_asked() -> None:
    """The engine's part gives what the tail reads; a model without NonMaxSuppression stays whole."""
    asked = with_asked_ends(yolo(), EndsRequest(nms="split"))
    assert operators(asked.model) == {"Transpose": 1, "Add": 1, "Sigmoid": 1}
    assert [spec.name for spec in graph_outputs(asked.model)] == ["scores", "boxes"]
    assert asked.tail is not None
    again = with_asked_ends(asked.model, EndsRequest(nms="split"))
    assert again.model is asked.model
    assert again.tail is None


def test_plugin_takes_the_thresholds() -> None:
    """The plugin reads transposed scores, has the node's numbers, and its indices are int64."""
    after, report = NonMaxSuppressionAsPlugin(PLUGIN).run(yolo())
    assert len(report.changed) == 1
    node = next(node for node in after.graph.node if node.op_type == "EfficientNMS_ONNX_TRT")
    found = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert found["max_output_boxes_per_class"] == 5
    assert found["center_point_box"] == 1
    assert (found["iou_threshold"], found["score_threshold"]) == pytest.approx((0.5, 0.4))
    transposed = next(made for made in after.graph.node if node.input[1] in made.output)
    assert list(transposed.attribute[0].ints) == [0, 2, 1]
    assert node.domain in {entry.domain for entry in after.opset_import}
    assert operators(after)["Transpose"] == 2
    onnx.checker.check_model(after)


@pytest.mark.parametrize(
    ("plugins", "missing", "why"),
    [
        (frozenset(), "", "no plugin"),
        (PLUGIN, "threshold", "needs a score_threshold"),
        (PLUGIN, "most", "needs a max_output_boxes_per_class"),
    ],
)
def test_plugin_declines_with_its_reason(plugins: frozenset[str], missing: str, why: str) -> None:
    """No such plugin, or no number for it."""
    model = yolo()
    node = next(node for node in model.graph.node if node.op_type == "NonMaxSuppression")
    if missing:
        node.input[list(node.input).index(missing)] = ""
    after, report = NonMaxSuppressionAsPlugin(plugins).run(model)
    assert after is model
    assert why in report.declined[0].why


def test_thresholds_of_run_time_are_declined() -> None:
    """A threshold that is a graph input has to be frozen for the plugin."""
    text = YOLO.replace("float[B,3,N] logits", "float[B,3,N] logits, float[1] threshold")
    model = model_of(text, **{name: value for name, value in NUMBERS.items() if name != "threshold"})
    after, report = NonMaxSuppressionAsPlugin(PLUGIN).run(model)
    assert after is model
    assert "--freeze-input threshold=" in report.declined[0].why


def test_kept_and_absent_selections_stay() -> None:
    """By default, and without NonMaxSuppression, the model is the very same object; other modes are refused."""
    model = yolo()
    assert with_asked_ends(model, EndsRequest()).model is model
    plain = model_of("g (float[2] x) => (float[2] y) { y = Abs(x) }")
    with pytest.raises(UnsupportedModelError, match="no NonMaxSuppression"):
        split_at_nms(plain)
    with pytest.raises(RequestError, match="sideways"):
        EndsRequest(nms="sideways")


def test_selection_alone_is_not_split() -> None:
    """A model that is nothing but NonMaxSuppression cannot be split, and the error says why."""
    text = "g (float[1,6,4] b, float[1,1,6] s) => (int64[K,3] y) { y = NonMaxSuppression(b, s, most) }"
    model = model_of(text, most=NUMBERS["most"])
    with pytest.raises(UnsupportedModelError, match="nothing is left"):
        with_asked_ends(model, EndsRequest(nms="split"))


@pytest.mark.rtx
def test_split_model_becomes_buildable() -> None:
    """TensorRT-RTX cannot run the selection, and builds what is before it."""
    text = YOLO.replace("B,", "1,").replace(",N]", ",20]")
    model = model_of(text, **NUMBERS)
    assert refused_by(model)
    assert not refused_by(split_at_nms(model)[0])
