"""What holds for every pass, on random small networks."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from passes_models import random_samples

from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.passes import PASSES
from trt_opt.passes.runner import rewrite

CHANNELS = 4
BLOCKS = (
    "conv",
    "depthwise",
    "transposed",
    "norm",
    "scale",
    "shift",
    "identity",
    "dropout",
    "relu",
    "shape",
    "residual",
    "constant",
    "dead",
    "branch",
)


class Builder:
    """Grows a random network of 4-channel feature maps, block by block."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.tensors = ["x"]
        self.count = 0

    def name(self, base: str) -> str:
        """A name not used before."""
        self.count += 1
        return f"{base}{self.count}"

    def weight(self, *shape: int, positive: bool = False) -> str:
        """A new constant, or, one time in four, one of this shape that is there already."""
        same = [
            name
            for name, values in self.weights.items()
            if values.shape == shape and (not positive or (values > 0).all())
        ]
        if same and self.rng.random() < 0.25:
            return same[0]
        values = self.rng.uniform(0.2 if positive else -0.5, 0.8, size=shape).astype(np.float32)
        name = self.name("w")
        self.weights[name] = values
        return name

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        """Appends a node; its output."""
        output = self.name("t")
        # Names given twice, and no names, are both common in real files.
        name = str(self.rng.choice(["", "same", f"node{self.count}"]))
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=name, **attributes))
        return output

    def block(self, kind: str, source: str) -> None:  # noqa: C901 (a table of cases)
        """Appends one kind of block after the tensor `source`."""
        match kind:
            case "conv":
                bias = [self.weight(CHANNELS)] if self.rng.random() < 0.5 else []
                made = self.add("Conv", source, self.weight(CHANNELS, CHANNELS, 1, 1), *bias)
            case "depthwise":
                made = self.add("Conv", source, self.weight(CHANNELS, 1, 3, 3), group=CHANNELS, pads=[1, 1, 1, 1])
            case "transposed":
                made = self.add("ConvTranspose", source, self.weight(CHANNELS, CHANNELS // 2, 1, 1), group=2)
            case "norm":
                made = self.add(
                    "BatchNormalization",
                    source,
                    self.weight(CHANNELS),
                    self.weight(CHANNELS),
                    self.weight(CHANNELS),
                    self.weight(CHANNELS, positive=True),
                )
            case "scale":
                made = self.add("Mul", source, self.weight(CHANNELS, 1, 1))
            case "shift":
                made = self.add("Add", self.weight(1, CHANNELS, 1, 1), source)
            case "identity" | "dropout" | "relu":
                made = self.add(kind.capitalize(), source)
            case "shape":
                made = self.add("Reshape", source, self.add("Shape", source))
            case "residual":
                made = self.add("Add", source, str(self.rng.choice(self.tensors)))
            case "constant":
                made = self.add("Add", source, self.add("Abs", self.add("Neg", self.weight(CHANNELS, 1, 1))))
            case "dead":
                self.add("Clip", source, "", self.weight())
                return
            case _:
                made = self.branch(source)
        self.tensors.append(made)

    def branch(self, source: str) -> str:
        """An If whose branches read tensors and constants of the main graph."""
        shared = self.weight(CHANNELS, 1, 1)
        graphs = {}
        for key in ("then_branch", "else_branch"):
            inner, result = self.name("inner"), self.name("result")
            nodes = [
                helper.make_node("Mul", [source, shared], [inner]),
                helper.make_node("Identity", [inner], [result]),
            ]
            output = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
            graphs[key] = helper.make_graph(nodes, key, [], [output])
        return self.add("If", "flag", **graphs)

    def model(self, outputs: list[str]) -> ModelProto:
        """The network with these outputs."""
        value = helper.make_tensor_value_info
        inputs = [value("x", TensorProto.FLOAT, ["n", CHANNELS, 5, 5]), value("flag", TensorProto.BOOL, [])]
        made = [value(name, TensorProto.FLOAT, ["n", CHANNELS, 5, 5]) for name in outputs]
        constants = [numpy_helper.from_array(values, name) for name, values in self.weights.items()]
        graph = helper.make_graph(self.nodes, "random", inputs, made, constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@st.composite
def networks(draw: st.DrawFn) -> ModelProto:
    builder = Builder(draw(st.integers(0, 2**32 - 1)))
    for kind in draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=12)):
        # Mostly a chain, so that there is something to fold; now and then a branch off an earlier tensor.
        source = builder.tensors[-1] if draw(st.integers(0, 4)) else draw(st.sampled_from(builder.tensors))
        builder.block(kind, source)
    made = [name for name in builder.tensors if name != "x"]
    if not made:
        builder.block("relu", "x")
        made = builder.tensors[-1:]
    outputs = {made[-1], *draw(st.lists(st.sampled_from(made), max_size=2))}
    return builder.model(sorted(outputs))


QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@QUICK
@given(networks())
def test_rewrite_keeps_signature_and_numbers_and_settles(model: ModelProto) -> None:
    """All passes together: same signature and numbers, nothing undone, nothing left to do, each decline explained."""
    onnx.checker.check_model(model, full_check=True)
    after, report = rewrite(model, samples=random_samples(model, 1))
    assert graph_inputs(after) == graph_inputs(model)
    assert graph_outputs(after) == graph_outputs(model)
    assert [entry.rolled_back for entry in report.passes] == [None] * len(report.passes)
    assert report.max_relative_error is not None
    assert report.max_relative_error <= 1e-5
    assert rewrite(after)[0] is after
    assert all(decline.why and decline.node for entry in report.passes for decline in entry.declined)


@QUICK
@given(networks(), st.sampled_from(sorted(PASSES)))
def test_single_pass_keeps_signature_and_numbers_and_settles(model: ModelProto, name: str) -> None:
    """Each pass alone, on a graph the others have not cleaned up."""
    after, report = rewrite(model, only=[name], samples=random_samples(model, 1))
    assert graph_outputs(after) == graph_outputs(model)
    assert report.passes[0].rolled_back is None
    assert rewrite(after, only=[name])[0] is after
    onnx.checker.check_model(after, full_check=True)
