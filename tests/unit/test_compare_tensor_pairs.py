"""Which tensors of two graphs are the same: by name, by structure, and through conversions."""

from __future__ import annotations

import numpy as np
import onnx
from graph_models import model_of
from onnx import numpy_helper

from trt_opt.compare.skeleton import Skeleton
from trt_opt.compare.tensor_pairs import Pairing, paired_tensors
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.query import infer_shapes

RNG = np.random.default_rng(0)
W = {name: RNG.normal(size=(4, 4)).astype(np.float32) for name in ("w1", "w2", "w3")}

K = np.float32(1.3)

PLAIN = """g (float[N,4] x) => (float[N,4] y) {
             a = MatMul(x, w1)  b = Relu(a)  c = MatMul(b, w2)  d = Add(c, b)  y = MatMul(d, w3)
           }"""


def skeleton(model: onnx.ModelProto) -> Skeleton:
    return Skeleton(GraphIndex(infer_shapes(with_unique_node_names(model))))


def pairing(reference: onnx.ModelProto, candidate: onnx.ModelProto) -> Pairing:
    return paired_tensors(skeleton(reference), skeleton(candidate))


def pairs(reference: onnx.ModelProto, candidate: onnx.ModelProto) -> list[tuple[str, str, str]]:
    return [(pair.reference, pair.candidate, pair.by) for pair in pairing(reference, candidate).pairs]


def renamed(model: onnx.ModelProto, *, keep: tuple[str, ...] = ()) -> onnx.ModelProto:
    """Every tensor but those kept gets another name, constants too."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    new = lambda name: name if not name or name in keep else f"t_{name}"  # noqa: E731
    for node in other.graph.node:
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
    for value in (*other.graph.input, *other.graph.output, *other.graph.initializer):
        value.name = new(value.name)
    return other


def test_names_match_where_they_are_kept() -> None:
    """All tensors of a graph against itself, in order."""
    model = model_of(PLAIN, **W)
    found = pairing(model, model)
    assert [(pair.reference, pair.candidate, pair.by) for pair in found.pairs] == [
        (name, name, "name") for name in "abcdy"
    ]
    assert found.reference_only == found.candidate_only == ()


def test_structure_matches_where_every_name_differs() -> None:
    """Operators, what they read, and the numbers of their constants."""
    model = model_of(PLAIN, **W)
    assert pairs(model, renamed(model)) == [(name, f"t_{name}", "structure") for name in "abcdy"]


def test_constants_tell_branches_that_are_alike_apart() -> None:
    """Two products of the same tensor, written in the other order, rounded to FP16 besides."""
    text = "g (float[N,4] x) => (float[N,4] y) {{ {} y = Sub(p, q) }}"
    one = model_of(text.format("p = MatMul(x, w1) q = MatMul(x, w2)"), **W)
    half = {name: array.astype(np.float16).astype(np.float32) for name, array in W.items()}
    other = renamed(model_of(text.format("q = MatMul(x, w2) p = MatMul(x, w1)"), **half), keep=("x", "y"))
    assert sorted(pairs(one, other)) == [
        ("p", "t_p", "structure"),
        ("q", "t_q", "structure"),
        ("y", "y", "name"),
    ]


def test_other_constants_are_no_match() -> None:
    """A folded layer has the place and the operator of the one it replaces, and other numbers."""
    one = model_of("g (float[N,4] x) => (float[N,4] y) { a = MatMul(x, w1) b = Mul(a, k) y = Relu(b) }", **W, k=K)
    folded = model_of("g (float[N,4] x) => (float[N,4] y) { t = MatMul(x, w1) y = Relu(t) }", w1=W["w1"] * K)
    assert pairs(one, folded) == [("b", "t", "structure"), ("y", "y", "name")]
    sums = model_of("g (float[N,4] x) => (float[N,4] y) { t = MatMul(x, w1) y = Neg(t) }", w1=W["w1"] * K)
    assert pairs(one, sums) == [("y", "y", "name")]


def test_tensors_behind_pairs_and_casts_are_the_tensors_before_them() -> None:
    """With every name changed; the weights are stored in INT8, and the tensor in FP16 appears in both its forms."""
    one = model_of(PLAIN, **W)
    other = model_of(
        """g (float[N,4] x) => (float[N,4] out) {
             xq = QuantizeLinear(x, s, z)   xd = DequantizeLinear(xq, s, z)
             wd = DequantizeLinear(wq, s, z)
             a2 = MatMul(xd, wd)            b2 = Relu(a2)
             h = Cast<to=10>(b2)            f = Cast<to=1>(h)
             c2 = MatMul(f, w2)             d2 = Add(c2, f)   out = MatMul(d2, w3)
           }""",
        s=np.float32(0.03),
        z=np.int8(0),
        wq=np.clip(np.rint(W["w1"] / 0.03), -128, 127).astype(np.int8),
        w2=W["w2"],
        w3=W["w3"],
    )
    assert pairs(one, other) == [
        ("x", "xd", "name"),
        ("a", "a2", "structure"),
        ("b", "b2", "structure"),
        ("b", "h", "structure"),
        ("c", "c2", "structure"),
        ("d", "d2", "structure"),
        ("y", "out", "structure"),
    ]


def test_the_cast_graphs_suffix_is_no_other_name() -> None:
    """`stem_fp16` is `stem`, though layers before it were folded so that structure does not help."""
    one = model_of("g (float[N,4] x) => (float[N,4] y) { a = MatMul(x, w1) b = Mul(a, w2) y = Exp(b) }", **W)
    folded = model_of("g (float[N,4] x) => (float[N,4] y) { b_fp16 = Gemm(x, w3) y = Neg(b_fp16) }", **W)
    assert ("b", "b_fp16", "name") in pairs(one, folded)
    assert ("b_fp16", "b", "name") in pairs(folded, one)


def test_numbers_for_names_mean_nothing_between_operators() -> None:
    """Exporters count tensors; two exports of one model count differently."""
    one = model_of("g (float[N,4] x) => (float[N,4] y) { a = Relu(x) b = Exp(a) y = Neg(b) }")
    other = model_of("g (float[N,4] x) => (float[N,4] y) { p = Relu(x) q = Exp(p) y = Neg(q) }")
    for model, names in ((one, {"a": "11", "b": "12"}), (other, {"p": "10", "q": "11"})):
        for node in model.graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
    assert pairs(one, other) == [("11", "10", "structure"), ("12", "11", "structure"), ("y", "y", "name")]


def test_a_number_is_no_name_where_structure_knows_nothing_either() -> None:
    """Another operator on the same input that happens to be number 11 too."""
    one = model_of("g (float[N,4] x) => (float[N,4] y) { e = Exp(x) y = Relu(e) }")
    other = model_of("g (float[N,4] x) => (float[N,4] y) { e = Neg(x) y = Sigmoid(e) }")
    assert ("e", "e", "name") in pairs(one, other)
    for model in (one, other):
        model.graph.node[0].output[0] = model.graph.node[1].input[0] = "11"
    assert pairs(one, other) == [("y", "y", "name")]


def test_matching_goes_on_from_the_outputs() -> None:
    """Behind a part that was rewritten, the rest is found from the other end."""
    one = model_of("g (float[N,4] x) => (float[N,4] y) { a = HardSwish(x) b = Exp(a) y = Neg(b) }")
    other = model_of(
        """g (float[N,4] x) => (float[N,4] z) {
             i = HardSigmoid<alpha=0.1667,beta=0.5>(x) p = Mul(x, i) q = Exp(p) z = Neg(q)
           }"""
    )
    assert pairs(one, other) == [("a", "p", "structure"), ("b", "q", "structure"), ("y", "z", "structure")]
    assert pairing(one, other).candidate_only == ("i",)


GRID = {"s": np.float32(0.03), "z": np.int8(-128)}


def test_a_grid_from_zero_stands_for_a_relu() -> None:
    """Quantisers leave the Relu out; what is dequantised is what the Relu gives, and the layers behind are found."""
    one = model_of(
        "g (float[N,4] x) => (float[N,4] y) { a = MatMul(x, w1) b = Relu(a) c = MatMul(b, w2) y = Exp(c) }", **W
    )
    other = model_of(
        """g (float[N,4] x) => (float[N,4] o) {
             p = MatMul(x, w1) q = QuantizeLinear(p, s, z) d = DequantizeLinear(q, s, z) r = MatMul(d, w2) o = Neg(r)
           }""",
        **W,
        **GRID,
    )
    assert pairs(one, other) == [
        ("a", "p", "structure"),
        ("b", "d", "structure"),
        ("c", "r", "structure"),
        ("y", "o", "structure"),
    ]


def test_a_name_on_the_other_side_of_an_activation_is_not_believed() -> None:
    """Converters name a fused layer after its activation in one graph and after its product in the other."""
    one = model_of("g (float[N,4] x) => (float[N,4] y) { p = MatMul(x, w1) t = Relu(p) y = MatMul(t, w2) }", **W)
    other = model_of("g (float[N,4] x) => (float[N,4] y) { t = MatMul(x, w1) r = Relu(t) y = MatMul(r, w2) }", **W)
    assert pairs(one, other) == [("p", "t", "structure"), ("t", "r", "structure"), ("y", "y", "name")]


def test_steps_of_a_grid_are_compared_as_what_they_stand_for() -> None:
    """A reference that moves INT8 data, against a float candidate."""
    one = model_of(
        """g (int8[2,4] x) => (float[4,2] y) {
             m = Transpose<perm=[1,0]>(x) d = DequantizeLinear(m, s, z) y = Exp(d)
           }""",
        **GRID,
    )
    other = model_of("g (float[2,4] i) => (float[4,2] y) { n = Transpose<perm=[1,0]>(i) y = Exp(n) }")
    assert pairs(one, other) == [("d", "n", "structure"), ("y", "y", "name")]


def test_integers_and_constants_are_left_out() -> None:
    """Shapes and what is computed from constants alone have no error worth looking at."""
    model = model_of(
        """g (float[N,4] x) => (float[N,4] y) {
             n = Shape(x)  k = Exp(w1)  a = MatMul(x, k)  y = Reshape(a, n)
           }""",
        **W,
    )
    assert [pair[0] for pair in pairs(model, model)] == ["a", "y"]


def test_deep_graphs_are_walked_without_recursion() -> None:
    """Ten thousand nodes in a chain, half of them conversions."""
    model = model_of("g (float[4] x) => (float[4] y) { y = Relu(x) }")
    del model.graph.node[:]
    before = "x"
    for number in range(5000):
        for kind in ("Identity", "Neg"):
            name = f"{kind}{number}"
            model.graph.node.append(onnx.helper.make_node(kind, [before], [name]))
            before = name
    model.graph.node.append(onnx.helper.make_node("Relu", [before], ["y"]))
    other = renamed(model, keep=("x",))
    other.graph.initializer.append(numpy_helper.from_array(np.zeros(1), "unused"))
    assert len(pairs(model, other)) == 5001
