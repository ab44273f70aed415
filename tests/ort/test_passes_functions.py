"""Operators and model-local functions written out as their bodies."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from passes_models import applied, model_of, operators, refused_by

from trt_opt.passes.clean_up.fold_constants import FoldConstants
from trt_opt.passes.clean_up.remove_identities import RemoveIdentities
from trt_opt.passes.layers.attention_bounds_as_mask import AttentionBoundsAsMask
from trt_opt.passes.layers.expand_functions import ExpandFunctions
from trt_opt.passes.verification import difference, run_model
from trt_opt.values.samples import Sample

LOSS = "g (float[N,5,3] x, int64[N,3] t) => (float y) { y = NegativeLogLikelihoodLoss<ignore_index = 2>(x, t) }"

LOCAL = """<ir_version: 10, opset_import: ["": 18, "my": 1]>
g (float[2,3] x) => (float[2,3] y, float[2,3] z) {
  hidden = Relu(x)
  [call] y = my.Scaled<alpha = 2.0>(hidden, x)
  [short] z = my.Scaled(hidden)
}
<domain: "my", opset_import: ["": 18]>
Scaled <alpha: float = 3.0> (a, hidden) => (o) {
  half = Constant<value_float: float = 0.5>()
  scale = Constant<value_float: float = @alpha>()
  x = Mul(a, scale)
  [inner] o = Clip(x, , half)
}
"""


def parsed(text: str) -> ModelProto:
    """A model with functions of its own."""
    return onnx.parser.parse_model(text)


def classes(count: int = 2) -> list[Sample]:
    """Scores and targets, the ignored class among them."""
    rng = np.random.default_rng(0)
    feed = {"x": rng.normal(size=(count, 5, 3)).astype(np.float32), "t": rng.integers(0, 5, (count, 3))}
    return [Sample("classes", feed)]


def expanded(model: ModelProto) -> ModelProto:
    """As the runner does it: bodies, then what they compute from constants alone."""
    for _ in range(3):
        for entry in (ExpandFunctions(), FoldConstants(), RemoveIdentities()):
            model, _ = entry.run(model)
    return model


def test_loss_becomes_simple_operators() -> None:
    """A loss that depends on its inputs' types becomes its body, with a dynamic batch, and the scalar stays."""
    after, report = applied(ExpandFunctions(), model_of(LOSS), classes())
    assert "NegativeLogLikelihoodLoss" not in operators(after)
    assert operators(after)["GatherElements"] == 1
    assert report.changed[0].node == "y"


def test_loss_of_a_loss_takes_two_runs() -> None:
    """A body that calls a function in turn is expanded one level per run."""
    text = LOSS.replace("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
    once, _ = ExpandFunctions().run(model := model_of(text))
    assert operators(once)["NegativeLogLikelihoodLoss"] == 1
    twice, _ = applied(ExpandFunctions(), once, classes())
    assert "NegativeLogLikelihoodLoss" not in operators(twice)
    assert difference(run_model(model, classes()), run_model(twice, classes()))[1] == ""


def test_outputs_left_out_leave_no_nodes() -> None:
    """What a body computes for an output that the call leaves out is not written."""
    text = """<ir_version: 10, opset_import: ["": 18, "my": 1]>
        g (float[2] x) => (float[2] y) { [call] , y = my.Two(x) }
        <domain: "my", opset_import: ["": 18]>
        Two (a) => (e, n) { b = Abs(a)  h = Sin(a)  e = Exp(h)  n = Neg(b) }"""
    after, _ = applied(ExpandFunctions(frozenset({"call"})), parsed(text))
    assert operators(after) == {"Abs": 1, "Neg": 1}


@pytest.mark.parametrize("dtype", ["float", "float16", "double"])
def test_attention_keeps_its_numbers(dtype: str) -> None:
    """Grouped heads, softcap, a mask and causality together: Attention that no kernel of TensorRT knows."""
    text = f"""g ({dtype}[N,4,3,8] q, {dtype}[N,2,5,8] k, {dtype}[N,2,5,8] v, {dtype}[3,5] m) => ({dtype}[N,4,3,8] y)
        {{ y = Attention<is_causal = 1, softcap = 2.0>(q, k, v, m) }}"""
    after, _ = ExpandFunctions().run(model := model_of(text, opset=23, ir_version=10))
    assert "Attention" not in operators(after)
    rng = np.random.default_rng(0)
    kind = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    shapes = {"q": (2, 4, 3, 8), "k": (2, 2, 5, 8), "v": (2, 2, 5, 8), "m": (3, 5)}
    samples = [Sample("heads", {name: rng.normal(size=shape).astype(kind) for name, shape in shapes.items()})]
    assert difference(run_model(model, samples), run_model(after, samples))[1] == ""


def test_attributes_and_absent_inputs_of_local_function() -> None:
    """Calls give attributes or take defaults; an inner name that is one of the model's, too, is renamed."""
    entry = ExpandFunctions(frozenset({"call", "short"}))
    after, report = applied(entry, parsed(LOCAL))
    assert operators(after) == {"Relu": 1, "Constant": 4, "Mul": 2, "Clip": 2}
    assert not after.functions
    assert len(report.changed) == 2


def test_refused_node_inside_a_function_expands_the_calls() -> None:
    """TensorRT names the inner node; the calls around it are what can be replaced."""
    after, report = ExpandFunctions(frozenset({"inner"})).run(parsed(LOCAL))
    assert [change.node for change in report.changed] == ["call", "short"]
    assert "my::Scaled" not in operators(after)


def test_function_still_called_stays() -> None:
    """Where only one of two calls is refused, the function stays for the other."""
    after, _ = applied(ExpandFunctions(frozenset({"call"})), parsed(LOCAL))
    assert [function.name for function in after.functions] == ["Scaled"]


def test_required_input_left_out_is_declined() -> None:
    """A body that cannot do without an input that the call leaves out stays a call."""
    text = LOCAL.replace("x = Mul(a, scale)", "x = Mul(hidden, scale)")
    after, report = ExpandFunctions(frozenset({"short"})).run(model := parsed(text))
    assert after is model
    assert "reads an input left out" in report.declined[0].why


def test_function_of_older_opset_is_converted() -> None:
    """A body written for opset 11, with axes as attributes, is moved to the model's opset."""
    text = """<ir_version: 10, opset_import: ["": 18, "my": 1]>
        g (float[2,3] x) => (float[2,1] y) { [call] y = my.Total(x) }
        <domain: "my", opset_import: ["": 11]>
        Total (a) => (o) { o = ReduceSum<axes = [1]>(a) }"""
    after, report = ExpandFunctions(frozenset({"call"})).run(parsed(text))
    assert report.changed
    onnx.checker.check_model(after, full_check=True)
    feed = {"x": np.ones((2, 3), np.float32)}
    assert run_model(after, [Sample("ones", feed)])[0]["y"].tolist() == [[3.0], [3.0]]


def test_graphs_inside_a_function_are_renamed() -> None:
    """Branches of an If in a body read the call's tensors, and two calls do not share names."""
    text = """<ir_version: 10, opset_import: ["": 18, "my": 1]>
        g (float[2] x, bool c) => (float[2] y) { [one] h = my.Pick(x, c)  [two] y = my.Pick(h, c) }
        <domain: "my", opset_import: ["": 18]>
        Pick (a, c) => (o) {
          o = If(c) <then_branch = t () => (r) { s = Neg(a)  r = Exp(s) }, else_branch = e () => (r) { r = Abs(a) }>
        }"""
    feeds = [Sample(str(c), {"x": np.float32([1, -2]), "c": np.asarray(c)}) for c in (True, False)]
    after, report = applied(ExpandFunctions(frozenset({"one", "two"})), parsed(text), feeds)
    assert len(report.changed) == 2
    assert operators(after)["If"] == 2


def test_call_inside_a_branch_is_expanded() -> None:
    """The types of tensors that a branch reads from outside are known inside it."""
    text = """g (bool c, float[2,5] x, int64[2] t) => (float y) { y = If(c) <
        then_branch = a () => (float l) { l = NegativeLogLikelihoodLoss(x, t) },
        else_branch = b () => (float m) { m = ReduceMean<keepdims = 0>(x) }> }"""
    feed = {"c": np.asarray(True), "x": np.ones((2, 5), np.float32), "t": np.array([1, 4])}
    after, report = applied(ExpandFunctions(), model_of(text), [Sample("then", feed)])
    assert len(report.changed) == 1
    assert "NegativeLogLikelihoodLoss" not in operators(after)


def test_accepted_nodes_stay() -> None:
    """Operators that have a body and that TensorRT takes are not touched, nor are calls it does not refuse."""
    text = "g (float[2,3] x) => (float[2,3] y) { h = Softmax(x)  y = HardSwish(h) }"
    assert ExpandFunctions().run(model := model_of(text))[0] is model
    assert ExpandFunctions(frozenset()).run(model := parsed(LOCAL))[0] is model
    assert ExpandFunctions(frozenset()).run(model := model_of(LOSS))[0] is model


def test_scoping_leaves_the_pass_as_it_is() -> None:
    """`on` gives a pass for some nodes, and the one it is asked of still takes all."""
    entry = ExpandFunctions()
    assert entry.on(frozenset({"y"})).refused == frozenset({"y"})
    assert entry.refused is None


PADDED = """g (float[N,{q}] q, float[N,{k}] k, float[N,{k}] v, int64[N] n) => (float[N,{q}] y)
    {{ y = Attention<{attributes}>(q, k, v, , , , n) }}"""


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("length", ["5", "T"])
def test_padded_keys_are_masked(causal: int, rank: int, length: str) -> None:
    """The mask gives the numbers of the body, zeros for queries without keys included."""
    heads = ", q_num_heads = 4, kv_num_heads = 2" if rank == 3 else ""
    sizes = {"q": "3,32", "k": f"{length},16"} if rank == 3 else {"q": "4,3,8", "k": f"2,{length},8"}
    text = PADDED.format(**sizes, attributes=f"is_causal = {causal}{heads}")
    model = model_of(text, opset=24, ir_version=11)
    after, report = AttentionBoundsAsMask(frozenset()).run(model)
    assert len(report.changed) == 1
    onnx.checker.check_model(after, full_check=True)
    shapes = {"q": (3, 3, 32), "k": (3, 5, 16)} if rank == 3 else {"q": (3, 4, 3, 8), "k": (3, 2, 5, 8)}
    rng = np.random.default_rng(0)
    feed = {name: rng.normal(size=shapes["k" if name == "v" else name]).astype(np.float32) for name in "qkv"}
    samples = [Sample("padded", {**feed, "n": np.array([5, 2, 0])})]
    # The bodies of both, so that no kernel's own idea of padding is the judge.
    before = run_model(expanded(ExpandFunctions(frozenset({"y"})).run(model)[0]), samples)
    assert difference(before, run_model(expanded(after), samples))[1] == ""
    assert AttentionBoundsAsMask().run(after)[0] is after


WINDOWS = [
    "left_window_size = 1",
    "right_window_size = 0",
    "left_window_size = 2, right_window_size = 1, is_causal = 1",
]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("padded", [False, True])
def test_windows_are_masked(window: str, padded: bool) -> None:
    """Windows count from the place of the query, which the number of keys moves."""
    text = f"""g (float[N,2,3,8] q, float[N,2,5,8] k, float[N,2,5,8] v{", int64[N] n" if padded else ""})
        => (float[N,2,3,8] y) {{ y = Attention<{window}>(q, k, v{", , , , n" if padded else ""}) }}"""
    model = model_of(text, opset=25, ir_version=13)
    after, report = AttentionBoundsAsMask(frozenset()).run(model)
    assert len(report.changed) == 1
    rng = np.random.default_rng(0)
    feed = {name: rng.normal(size=(3, 2, 3 if name == "q" else 5, 8)).astype(np.float32) for name in "qkv"}
    samples = [Sample("windowed", {**feed, **({"n": np.array([5, 2, 0])} if padded else {})})]
    body = ExpandFunctions(frozenset()).run(model)[0]
    assert "Attention" not in operators(body)
    assert difference(run_model(expanded(body), samples), run_model(expanded(after), samples))[1] == ""


def test_padded_keys_are_always_misread() -> None:
    """The function body takes nodes the mask cannot, whether or not anybody refuses them."""
    text = "g (float[2,1,2,8] q, float[2,1,2,8] k, float[2,1,2,8] v, float[2,2] m, int64[2] n) => (float[2,1,2,8] y)"
    model = model_of(text + " { y = Attention(q, k, v, m, , , n) }", opset=24, ir_version=11)
    same, report = AttentionBoundsAsMask(frozenset()).run(model)
    assert same is model
    assert "expand_functions" in report.declined[0].why
    assert "Attention" not in operators(ExpandFunctions(frozenset()).run(model)[0])


BUILDABLE = {
    "loss": (LOSS.replace("N,", "2,"), 18),
    "attention": (
        "g (float[1,2,3,8] q, float[1,2,3,8] k, float[1,2,3,8] v) => (float[1,2,3,8] y, float[1,2,3,8] p,"
        " float[1,2,3,8] r) { y, p, r = Attention<is_causal = 1>(q, k, v) }",
        23,
    ),
    "prelu": ("g (int64[2,3] x, int64[3] s) => (int64[2,3] y) { y = PRelu(x, s) }", 18),
    "celu": ("g (float16[2,3] x) => (float16[2,3] y) { y = Celu<alpha = 2.0>(x) }", 28),
    "clip": ("g (int8[2,3] x, int8 a) => (int8[2,3] y) { y = Clip(x, a) }", 18),
}


@pytest.mark.rtx
@pytest.mark.parametrize("name", BUILDABLE)
def test_bodies_are_buildable(name: str) -> None:
    """TensorRT-RTX refuses the operator, and takes the body once its constants are folded."""
    text, opset = BUILDABLE[name]
    model = model_of(text, opset=opset, ir_version=8 if opset < 20 else 14)
    assert refused_by(model)
    assert not refused_by(expanded(model))
