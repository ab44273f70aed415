"""Graphs in the shape that exporters give real models: hundreds of Constant nodes, shape arithmetic, guarding Ifs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from passes_models import FLOAT32_TOLERANCE, applied, floats, model_of, operators, random_samples, refused_by

from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.passes import PASSES
from trt_opt.passes.clean_up.fold_if import FoldIf
from trt_opt.passes.clean_up.fold_known_sizes import FoldKnownSizes
from trt_opt.passes.runner import rewrite
from trt_opt.values.rewriting import RewriteReport
from trt_opt.values.samples import Sample

STRIDES = (4, 8, 16, 32)
CHANNELS, CLASSES, BINS = 8, 6, 8


class Exporter:
    """Writes nodes one by one, with every constant as a Constant node, as Paddle's exporter does."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.rng = np.random.default_rng(0)

    def __call__(self, op: str, *inputs: str | np.ndarray, outputs: int = 1, **attributes: object) -> str:
        """Appends a node, and gives the name of its first output."""
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        made = [f"{op}_{len(self.nodes)}.tmp_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(op, names, made, name=f"p2o.{op}.{len(self.nodes)}", **attributes))
        return made[0]

    def constant(self, values: np.ndarray) -> str:
        """Appends a Constant node."""
        return self("Constant", value=numpy_helper.from_array(np.asarray(values)))

    def weights(self, *shape: int) -> np.ndarray:
        """Random weights of about the size that keeps activations near 1."""
        return (self.rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    def hard_swish(self, source: str) -> str:
        """x · clip(x + 3, 0, 6) / 6."""
        raised = self("Add", source, np.float32([3]))
        gate = self("Clip", raised, np.float32(0), np.float32(6))
        return self("Div", self("Mul", source, gate), np.float32([6]))

    def convolution(self, source: str, shape: tuple[int, ...], group: int = 1) -> str:
        """Conv and BatchNormalization."""
        pad = shape[2] // 2
        made = self("Conv", source, self.weights(*shape), pads=[pad] * 4, group=group)
        statistics = [self.rng.uniform(0.5, 1.5, shape[0]).astype(np.float32) for _ in range(4)]
        return self("BatchNormalization", made, *statistics)


def detection_head() -> ModelProto:
    """A head like PicoDet's: per stride two separable convolutions, scores, and boxes as expectations of bins."""
    export = Exporter()
    inputs, scores, boxes = [], [], []
    for stride in STRIDES:
        size = 32 // stride
        name = f"feature_{stride}"
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CHANNELS, size, size]))
        current = name
        for _ in range(2):
            deep = export.convolution(current, (CHANNELS, 1, 5, 5), group=CHANNELS)
            current = export.hard_swish(deep)
            current = export.hard_swish(export.convolution(current, (CHANNELS, CHANNELS, 1, 1)))
        score = export("Sigmoid", export.convolution(current, (CLASSES, CHANNELS, 1, 1)))
        scores.append(export("Reshape", score, np.array([1, CLASSES, size * size])))
        bins = export.convolution(current, (4 * BINS, CHANNELS, 1, 1))
        rows = export("Reshape", export("Transpose", bins, perm=[0, 2, 3, 1]), np.array([-1, BINS]))
        expected = export("MatMul", export("Softmax", rows, axis=1), np.arange(BINS, dtype=np.float32)[:, None])
        distances = export("Reshape", expected, np.array([1, size * size, 4]))
        boxes.append(export("Mul", distances, export("Mul", np.float32(stride), np.float32(1))))
    ends = export("Concat", *scores, axis=2), export("Concat", *boxes, axis=1)
    cells = sum((32 // stride) ** 2 for stride in STRIDES)
    outputs = [
        helper.make_tensor_value_info(ends[0], TensorProto.FLOAT, [1, CLASSES, cells]),
        helper.make_tensor_value_info(ends[1], TensorProto.FLOAT, [1, cells, 4]),
    ]
    graph = helper.make_graph(export.nodes, "head", inputs, outputs)
    return helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 11)])


def cleaned(model: ModelProto, samples: list[Sample]) -> tuple[ModelProto, RewriteReport]:
    """The model after all clean-up passes, with the signature and the numbers checked."""
    after, report = rewrite(model, passes={FoldKnownSizes.name: FoldKnownSizes(), **PASSES}, samples=samples)
    assert graph_inputs(after) == graph_inputs(model)
    assert graph_outputs(after) == graph_outputs(model)
    assert not any(entry.rolled_back for entry in report.passes)
    assert report.max_relative_error is not None
    assert report.max_relative_error <= FLOAT32_TOLERANCE
    return after, report


def test_detection_head_loses_its_constant_nodes() -> None:
    """Of some 400 nodes, most of them Constants, only those that compute are left, and fewer of these."""
    model = detection_head()
    before = Counter(operators(model))
    assert before["Constant"] > 200
    after, report = cleaned(model, random_samples(model))
    counted = Counter(operators(after))
    assert counted["Constant"] == 0
    assert counted["BatchNormalization"] == 0
    # Per stride: two separable blocks of 2 Conv and 2 hard swishes, the Convs of scores and boxes.
    assert counted["Conv"] == len(STRIDES) * 6
    assert counted["Mul"] == len(STRIDES) * 5
    assert report.nodes_after == sum(counted.values()) == len(STRIDES) * (6 + 4 * 4 + 9 - 1) + 2


@pytest.mark.rtx
def test_cleaned_detection_head_is_buildable() -> None:
    """TensorRT-RTX takes what is left."""
    assert not refused_by(rewrite(detection_head())[0])


def flattened(batch: str) -> ModelProto:
    """What PyTorch's exporter makes of x.view(x.size(0), -1), twice, and of a permuted view with sizes spelt out."""
    text = f"""g (float[{batch},4,6,5] x) => (float[{batch},q] y) {{
        s0 = Shape(x) b0 = Gather<axis = 0>(s0, zero) u0 = Unsqueeze(b0, axes) c0 = Concat<axis = 0>(u0, minus)
        f = Reshape(x, c0) m = MatMul(f, w) s1 = Shape(m) b1 = Gather<axis = 0>(s1, zero) u1 = Unsqueeze(b1, axes)
        s2 = Shape(x) h = Gather<axis = 0>(s2, two) uh = Unsqueeze(h, axes) half = Div(h, two)
        uhalf = Unsqueeze(half, axes) c1 = Concat<axis = 0>(u1, uh, uhalf, minus) r = Reshape(m, c1)
        t = Transpose<perm = [0,2,1,3]>(r) s3 = Shape(t) b3 = Gather<axis = 0>(s3, zero) u3 = Unsqueeze(b3, axes)
        c3 = Concat<axis = 0>(u3, minus) y = Reshape(t, c3) }}"""
    return model_of(
        text,
        opset=13,
        zero=np.int64(0),
        two=np.int64(2),
        axes=np.array([0]),
        minus=np.array([-1]),
        w=floats(120, 36),
    )


def test_shape_arithmetic_of_a_static_export_vanishes() -> None:
    """With a fixed input every Shape → Gather → Unsqueeze → Concat chain becomes one constant."""
    model = flattened("2")
    after, report = cleaned(model, random_samples(model))
    assert operators(after) == {"Reshape": 3, "MatMul": 1, "Transpose": 1}
    assert (report.nodes_before, report.nodes_after) == (22, 5)


def test_shape_arithmetic_of_a_dynamic_export_stays_right() -> None:
    """With a dynamic batch only the arithmetic of the fixed sizes goes, and both batch sizes come out right."""
    model = flattened("batch")
    feeds = [Sample(f"batch of {size}", {"x": floats(size, 4, 6, 5, seed=size)}) for size in (2, 7)]
    after, report = cleaned(model, feeds)
    assert operators(after) == {
        "Shape": 3,
        "Gather": 3,
        "Unsqueeze": 3,
        "Concat": 3,
        "Reshape": 3,
        "MatMul": 1,
        "Transpose": 1,
    }
    assert (report.nodes_before, report.nodes_after) == (22, 17)


@pytest.mark.parametrize(
    ("nodes", "folded"),
    [
        ("s = Shape(x) y = Gather(s, one)", True),
        ("s = Shape(x) y = Gather(s, back)", True),
        ("s = Shape(x) y = Gather(s, both)", True),
        ("s = Shape(x) y = Gather(s, zero)", False),
        ("s = Shape(x) y = Gather(s, some)", False),
        ("s = Shape<start = 1>(x) y = Gather(s, zero)", False),
        ("s = Identity(k) y = Gather(s, one)", False),
    ],
)
def test_only_fixed_sizes_are_folded(nodes: str, folded: bool) -> None:
    """By any index, alone or together; where one of them is dynamic, or it is no whole shape, the Gather stays."""
    indices = {"zero": [0], "one": [1], "back": [-1], "both": [[2], [1]], "some": [0, 1]}
    rank = "p,q" if "both" in nodes else "p"
    text = f"g (float[batch,4,6] x, int64[3] k) => (int64[{rank}] y) {{ {nodes} }}"
    model = model_of(text, **{name: np.array(values) for name, values in indices.items()})
    after, report = applied(FoldKnownSizes(), model)
    assert (after is not model) == folded == bool(report.changed)
    assert ("Gather" in operators(after)) != folded


def guarded_audio_model() -> ModelProto:
    """A voice detector that has one branch for each sampling rate, and whose rate the exporter wrote down.

    The branch not taken holds NonZero, which TensorRT-RTX refuses; the one taken holds an If of its own.
    """
    text = """g (float[1,512] x, float[1,1,16] state) => (float[1,1] y, float[1,1,16] next) {
        rate = Constant<value = int64 {16000}>() fast = Constant<value = int64 {16000}>()
        same = Equal(rate, fast)
        y, next = If (same) <
          then_branch = wide () => (float[1,1] p, float[1,1,16] s) {
            frames = Unsqueeze(x, axis)
            spectrum = Conv<strides = [64]>(frames, basis)
            power = Mul(spectrum, spectrum) length = Shape(power)
            many = Gather<axis = 0>(length, last) enough = Greater(many, zero)
            pooled = If (enough) <
              then_branch = mean () => (float[1,16,1] a) { a = GlobalAveragePool(power) },
              else_branch = none () => (float[1,16,1] b) { b = Slice(power, start, end, last_axis) }>
            flat = Reshape(pooled, to_state)
            s = Add(flat, state) t = Tanh(s) r = Reshape(t, to_row) l = Gemm(r, w) p = Sigmoid(l) },
          else_branch = narrow () => (float[1,1] q, float[1,1,16] v) {
            found = NonZero(x) n = Shape(found) k = Cast<to = 1>(n) m = ReduceMean<keepdims = 0>(k)
            q = Reshape(m, to_one) v = Identity(state) }> }"""
    return model_of(
        text,
        axis=np.array([1]),
        basis=floats(16, 1, 128) / 8,
        last=np.int64(2),
        zero=np.int64(0),
        start=np.array([0]),
        end=np.array([1]),
        last_axis=np.array([2]),
        to_state=np.array([1, 1, 16]),
        to_row=np.array([1, 16]),
        to_one=np.array([1, 1]),
        w=floats(16, 1),
    )


def test_guarded_audio_model_comes_out_flat() -> None:
    """Both Ifs go, one only after the shape it asks for is known; the branch that would refuse the model goes too."""
    model = guarded_audio_model()
    samples = random_samples(model)
    after, report = rewrite(model, passes={FoldIf.name: FoldIf(), **PASSES}, samples=samples)
    found = operators(after)
    assert not found.keys() & {"If", "NonZero", "Equal", "Greater", "Shape", "Gather", "Constant"}
    assert found["Reshape"] <= 2
    assert report.nodes_after <= 10
    assert report.nodes_before > 20
    assert report.max_relative_error is not None
    assert report.max_relative_error <= FLOAT32_TOLERANCE
    assert not any(entry.rolled_back for entry in report.passes)


@pytest.mark.rtx
def test_guarded_audio_model_becomes_buildable() -> None:
    """TensorRT-RTX takes what is left of it."""
    after, _ = rewrite(guarded_audio_model(), passes={FoldIf.name: FoldIf(), **PASSES})
    assert not refused_by(after)
