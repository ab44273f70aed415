"""Constant folding."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from passes_models import applied, floats, model_of, operators, random_samples

from trt_opt.graph.query import graph_inputs
from trt_opt.passes.clean_up import fold_constants
from trt_opt.passes.clean_up.fold_constants import FoldConstants

PASS = FoldConstants()


def reasons(report) -> dict[str, str]:
    return {decline.node: decline.why for decline in report.declined}


def initialisers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_chain_of_constants_is_folded() -> None:
    """A whole chain is computed at once and leaves one initialiser."""
    model = model_of(
        """g (float[2,3] x) => (float[3,2] y) {
             a = Constant<value_ints = [3]>() b = Neg(a) c = Neg(b) d = Constant<value_int = 2>() e = Unsqueeze(d, zero)
             s = Concat<axis = 0>(c, e) y = Reshape(x, s) }""",
        zero=np.array([0]),
    )
    after, report = applied(PASS, model)
    assert operators(after) == {"Reshape": 1}
    assert initialisers(after)["s"].tolist() == [3, 2]
    assert len(report.changed) == 6


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("", [2, 3, 4]),
        ("<start = 1>", [3, 4]),
        ("<end = 1>", [2]),
        ("<start = 1, end = 2>", [3]),
        ("<start = -1>", [4]),
        ("<end = -1>", [2, 3]),
        ("<start = -9, end = 9>", [2, 3, 4]),
        ("<start = 2, end = 1>", []),
        ("<start = 3>", []),
    ],
)
def test_shape_folds_with_start_and_end(attributes: str, expected: list[int]) -> None:
    """Shape's slice, negative and clamped as the specification has it; GraphSurgeon's own folding ignores it."""
    model = model_of(
        f"g (float[2,3,4] x) => (int64[n] y) {{ r = Relu(x) s = Shape{attributes}(r) y = Mul(s, one) }}",
        one=np.array(1),
    )
    after, report = applied(PASS, model)
    assert "Shape" not in operators(after)
    [change] = [change for change in report.changed if "Shape" in change.what]
    assert change.what == f"Shape folded to {expected}"


def test_shape_of_a_dynamic_tensor_stays() -> None:
    """A size that depends on the input is not folded, whatever value_info claims."""
    model = model_of("g (float[n,3] x) => (int64[2] y) { r = Relu(x) s = Shape(r) y = Neg(s) }")
    model.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [5, 3]))
    after, _ = applied(PASS, model)
    assert after is model


def test_size_folds() -> None:
    """Size of a static tensor is a scalar."""
    model = model_of("g (float[2,3] x) => (int64 y) { s = Size(x) y = Neg(s) }")
    after, _ = applied(PASS, model)
    assert "Size" not in operators(after)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("b = ConstantOfShape(s)", {"s": np.array([4096, 4096])}),
        ("b = Expand(one, s)", {"s": np.array([4096, 4096]), "one": np.ones(1, np.float32)}),
        ("b = Tile(one, s)", {"s": np.array([40_000_000]), "one": np.ones(1, np.float32)}),
        ("t = Neg(s) u = Neg(t) b = ConstantOfShape(u)", {"s": np.array([4096, 4096])}),
        ("b = Range(zero, s, one)", {"s": np.float32(4e7), "one": np.float32(1), "zero": np.float32(0)}),
    ],
    ids=["constant-of-shape", "expand", "tile", "computed-shape", "range"],
)
def test_bombs_are_declined(text: str, weights: dict[str, np.ndarray]) -> None:
    """What a few bytes blow up to megabytes is computed at run time, as before, and never computed here."""
    model = model_of(f"g (float x) => (float y) {{ {text} m = ReduceMax<keepdims = 0>(b) y = Add(x, m) }}", **weights)
    after, report = PASS.run(model)
    assert "b" in reasons(report)
    assert "bytes" in reasons(report)["b"]
    assert operators(after)["ReduceMax"] == 1


def test_doublings_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain in which every step only doubles is stopped by the size of single results and by the budget."""
    steps = " ".join(f"c{i + 1} = Concat<axis = 0>(c{i}, n{i}) n{i + 1} = Neg(c{i + 1})" for i in range(30))
    model = model_of(
        f"g (float[1] x) => (float y) {{ n0 = Neg(c0) {steps} m = ReduceMax<keepdims = 0>(c30) y = Add(x, m) }}",
        c0=np.ones(1024, np.float32),
    )
    monkeypatch.setattr(fold_constants, "MEMORY_BUDGET_BYTES", 8 << 20)
    after, report = PASS.run(model)
    assert sum(tensor.ByteSize() for tensor in after.graph.initializer) < 16 << 20
    assert report.declined


def test_large_weights_are_transposed() -> None:
    """A large result that is no larger than what it is made from is folded."""
    model = model_of(
        "g (float[1,600] x) => (float[1,600] y) { t = Transpose<perm = [1, 0]>(w) y = MatMul(x, t) }",
        w=floats(600, 600),
    )
    after, _ = applied(PASS, model)
    assert operators(after) == {"MatMul": 1}
    np.testing.assert_array_equal(initialisers(after)["t"], floats(600, 600).T)


def test_data_dependent_sizes_take_further_rounds() -> None:
    """NonZero tells its size only when computed; what follows is folded after it, in the same run."""
    model = model_of(
        """g (float[3] x) => (float[3] y) {
             n = NonZero(m) r = Squeeze(n, zero) h = Shape(r) e = Expand(one, h) y = Mul(x, e) }""",
        m=np.array([0, 1, 1, 0, 1]),
        zero=np.array([0]),
        one=np.ones(1, np.float32),
    )
    after, _ = applied(PASS, model)
    assert operators(after) == {"Mul": 1}


def test_random_and_quantized_nodes_stay() -> None:
    """A random number is drawn at run time; Q/DQ carries the precision asked for."""
    model = model_of(
        """g (float[2] x) => (float[2] y, float[2] z) {
             r = RandomUniform<shape = [2]>() y = Add(x, r)
             q = QuantizeLinear(w, s, p) d = DequantizeLinear(q, s, p) z = Add(x, d) }""",
        w=floats(2),
        s=np.float32(0.1),
        p=np.int8(0),
    )
    after, report = PASS.run(model)
    assert after is model
    assert reasons(report) == {"r": "its result is random", "q": "it carries the precision that was asked for"}


def test_result_that_is_a_graph_output_stays_a_node() -> None:
    """An engine's output has to be made by a node; what leads up to it is folded."""
    model = model_of("g (float[2] x) => (float[2] y, float[2] z) { y = Relu(x) a = Neg(w) z = Neg(a) }", w=floats(2))
    after, report = applied(PASS, model)
    assert operators(after) == {"Relu": 1, "Neg": 1}
    assert reasons(report) == {"z": "its result is a graph output"}


def test_branches_fold_what_they_read_from_outside() -> None:
    """What the main graph folds is a constant inside the branches; each branch's result stays a node."""
    model = model_of(
        """g (bool flag, float[2] x) => (float[2] y) {
             d = Add(w, w)
             y = If (flag) <then_branch = t () => (float[2] a) { u = Neg(d) a = Mul(u, x) },
                            else_branch = e () => (float[2] b) { u = Abs(d) b = Sub(u, x) }> }""",
        w=floats(2),
    )
    after, report = applied(PASS, model)
    assert operators(after) == {"If": 1, "Mul": 1, "Sub": 1}
    assert len(report.changed) == 3


def test_shared_constant_keeps_its_other_readers() -> None:
    """A constant that a folded and a kept node read stays for the kept one."""
    model = model_of("g (float[2] x) => (float[2] y) { n = Neg(w) a = Mul(x, w) y = Add(a, n) }", w=floats(2))
    after, _ = applied(PASS, model)
    assert set(initialisers(after)) == {"w", "n"}


def test_absent_optional_input_is_no_obstacle() -> None:
    """Clip without a minimum is folded like any other node."""
    model = model_of(
        "g (float[2] x) => (float[2] y) { c = Clip(w, , top) y = Add(x, c) }", w=floats(2), top=np.float32(0)
    )
    after, _ = applied(PASS, model)
    assert operators(after) == {"Add": 1}


def test_type_onnx_runtime_cannot_return_is_declined() -> None:
    """bfloat16 has no NumPy type: the node stays, with the reason."""
    model = model_of(
        "g (float[2] x) => (float[2] y) { c = Cast<to = 16>(w) d = Cast<to = 1>(c) y = Add(x, d) }", w=floats(2)
    )
    _, report = PASS.run(model)
    assert "type of its result" in reasons(report)["c"]


def test_strings_fold() -> None:
    """Text is a constant like any other."""
    model = model_of(
        "g (int64[1] i) => (string[1] y) { f = Flatten<axis = 0>(w) s = Squeeze(f, zero) y = Gather(s, i) }",
        w=np.array(["a", "b"], object),
        zero=np.array([0]),
    )
    assert graph_inputs(model)[0].dtype == "int64"
    after, _ = applied(PASS, model, random_samples(model, 1))
    assert operators(after) == {"Gather": 1}
    assert initialisers(after)["s"].tolist() == ["a", "b"]


def test_custom_operators_are_left_alone() -> None:
    """An operator ONNX does not define may do anything, also to constants."""
    model = model_of("g (float[2] x) => (float[2] y) { y = Add(x, w) }", w=floats(2))
    model.graph.node.insert(0, helper.make_node("Custom", ["w"], ["c"], domain="ours"))
    model.graph.node[1].input[1] = "c"
    model.opset_import.add(domain="ours", version=1)
    after, _ = PASS.run(model)
    assert after is model
