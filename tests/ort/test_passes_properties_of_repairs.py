"""What holds for every pass over refused nodes, on random small models of the operators they are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.query import all_nodes, custom_domain_nodes, graph_inputs, graph_outputs
from trt_opt.passes import REPAIRS
from trt_opt.passes.base import Pass
from trt_opt.passes.node_pass import NodePass, operator_of
from trt_opt.passes.runner import rewrite
from trt_opt.passes.verification import run_model
from trt_opt.values.rewriting import RewriteReport
from trt_opt.values.samples import Sample

FLOAT32_TOLERANCE = 2e-5
"""Relative to the largest output: some dozens of roundings of float32, in sums and products of a few numbers."""

CONTRIB = "com.microsoft"
PLACES = ("main graph", "branches", "twice")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
NARROW = ("int8", "uint8", "int16", "uint16")
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True)
class Part:
    """One node of a random model, and what it is fed.

    Attributes:
        op: Its operator.
        inputs: Their names, in order; "" where an optional one is left out.
        feed: Graph inputs and their values.
        weights: Initialisers.
        attributes: Those of the node.
        made: The element types of the outputs; "" where an optional one is left out.
        opsets: The model's opset is one of these.
        domain: The operator's.
        batched: The graph inputs whose first size may be dynamic.
    """

    op: str
    inputs: Sequence[str]
    feed: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    attributes: Mapping[str, object] = field(default_factory=dict)
    made: Sequence[str] = ("float32",)
    opsets: Sequence[int] = (18, 20)
    domain: str = ""
    batched: Sequence[str] = ("x",)

    def node(self, outputs: Sequence[str], name: str) -> NodeProto:
        """The node with these outputs."""
        return helper.make_node(
            self.op, list(self.inputs), list(outputs), name=name, domain=self.domain, **dict(self.attributes)
        )


T = TypeVar("T")

Template = Callable[[st.DrawFn, np.random.Generator], Part]


def some(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> np.ndarray:
    """Normally distributed numbers, or integers over the whole range of their type."""
    if dtype.startswith("float"):
        return np.asarray(rng.normal(size=shape)).astype(dtype)
    limits = np.iinfo(dtype)
    return np.asarray(rng.integers(limits.min, limits.max, size=shape, dtype=dtype, endpoint=True))


def one_of(draw: st.DrawFn, *values: T) -> T:
    """Any of the values."""
    return draw(st.sampled_from(values))


def any_bool(draw: st.DrawFn) -> bool:
    """True or False."""
    return draw(st.booleans())


def windows(draw: st.DrawFn, rank: int, *, dilated: bool) -> dict[str, object]:
    """Random attributes of a pooling over `rank` axes of at least five elements."""
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    told: dict[str, object] = {"kernel_shape": kernel, "strides": [draw(st.integers(1, 2)) for _ in range(rank)]}
    if dilated and any_bool(draw):
        told["dilations"] = [draw(st.integers(1, 2)) for _ in range(rank)]
    if any_bool(draw):
        told["ceil_mode"] = 1
    match one_of(draw, "", "pads", "SAME_UPPER", "SAME_LOWER", "VALID"):
        case "pads":
            told["pads"] = [draw(st.integers(0, size - 1)) for size in (*kernel, *kernel)]
        case str(name) if name and "ceil_mode" not in told and "dilations" not in told:
            told["auto_pad"] = name
    return told


def spatial(draw: st.DrawFn) -> tuple[int, ...]:
    """The sizes of one or two axes, five at least."""
    return tuple(draw(st.lists(st.integers(5, 7), min_size=1, max_size=2)))


def max_pool(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """MaxPool of floats with or without indices, or of bytes."""
    sizes = spatial(draw)
    dtype = one_of(draw, "float32", "float32", "int8", "uint8")
    indices = ["int64"] if dtype == "float32" and any_bool(draw) else []
    return Part(
        "MaxPool",
        ["x"],
        {"x": some(rng, 2, 3, *sizes, dtype=dtype)},
        attributes=windows(draw, len(sizes), dilated=True),
        made=[dtype, *indices],
        opsets=(13, 18, 22),
    )


def average_pool(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """AveragePool, dilated, rounded up, or padded."""
    sizes = spatial(draw)
    told = windows(draw, len(sizes), dilated=True)
    return Part(
        "AveragePool",
        ["x"],
        {"x": some(rng, 2, 3, *sizes)},
        attributes={**told, "count_include_pad": int(any_bool(draw))},
        opsets=(19, 22),
    )


def lp_pool(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """LpPool of any norm."""
    sizes = spatial(draw)
    told = windows(draw, len(sizes), dilated=True)
    return Part(
        "LpPool",
        ["x"],
        {"x": some(rng, 2, 3, *sizes)},
        attributes={**told, "p": draw(st.integers(1, 3))},
        opsets=(18, 22),
    )


def cumulative_product(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """CumProd along any axis of static size, in any direction."""
    dtype = one_of(draw, "float32", "int32")
    return Part(
        "CumProd",
        ["x", "axis"],
        {"x": some(rng, 2, 3, 4, dtype=dtype)},
        {"axis": np.array(one_of(draw, 1, 2, -1, -2), np.int64)},
        {"exclusive": int(any_bool(draw)), "reverse": int(any_bool(draw))},
        made=[dtype],
        opsets=(26,),
    )


def float_mod(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """Mod with the divisor's sign, of floats, by numbers of both signs."""
    divisor = some(rng, *one_of(draw, (), (4,), (3, 1)))
    where = {"weights": {"d": divisor}} if any_bool(draw) else {}
    feed = {"x": some(rng, 2, 3, 4)} | ({} if where else {"d": divisor})
    return Part("Mod", ["x", "d"], feed, opsets=(13, 18), **where)


def bit_operation(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """A bitwise operator on any type of integers, over all their bits."""
    op = one_of(draw, "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot")
    dtype = one_of(draw, *(INTEGERS if op != "BitShift" else ("uint8", "uint16", "uint32", "uint64")))
    feed = {"x": some(rng, 2, 6, dtype=dtype)}
    if op == "BitwiseNot":
        return Part(op, ["x"], feed, made=[dtype])
    other = some(rng, *one_of(draw, (6,), (1,)), dtype=dtype)
    if op == "BitShift":
        other = (other % (8 * other.dtype.itemsize)).astype(dtype)
    told = {"direction": one_of(draw, "LEFT", "RIGHT")} if op == "BitShift" else {}
    weights = {"k": other} if any_bool(draw) else {}
    feed |= {} if weights else {"k": other}
    return Part(op, ["x", "k"], feed, weights, told, made=[dtype])


def determinant(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """Det of small matrices."""
    size = draw(st.integers(1, 4))
    return Part("Det", ["x"], {"x": some(rng, 2, *[3] * any_bool(draw), size, size)}, opsets=(13, 20))


def fourier(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """DFT of real or complex signals, with dft_length and axis given or left out."""
    parts, inverse, axis = draw(st.integers(1, 2)), any_bool(draw), draw(st.integers(1, 2))
    onesided = parts == 1 and not inverse and any_bool(draw)
    length = one_of(draw, None, 3, 8)
    old = any_bool(draw)
    weights = {} if length is None else {"n": np.array(length, np.int64)}
    inputs = ["x", "n" if weights else ""]
    told: dict[str, object] = {"inverse": int(inverse), "onesided": int(onesided)}
    if old:
        told["axis"] = axis
    else:
        weights["a"] = np.array(axis, np.int64)
        inputs.append("a")
    shape = (2, 5, 6, parts)
    return Part("DFT", inputs, {"x": some(rng, *shape)}, weights, told, opsets=(17, 18) if old else (20,))


def scatter_nd(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """ScatterND with a reduction, to places named twice and from the end."""
    reduction = one_of(draw, "add", "mul", "max", "min")
    width = draw(st.integers(1, 2))
    indices = rng.integers(-2, 2, size=(5, width)).astype(np.int64)
    weights, feed = ({"i": indices}, {}) if any_bool(draw) else ({}, {"i": indices})
    feed = {"x": some(rng, 2, 3, 4), **feed, "u": some(rng, 5, *(2, 3, 4)[width:])}
    return Part("ScatterND", ["x", "i", "u"], feed, weights, {"reduction": reduction}, opsets=(18,), batched=())


def scatter_elements(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """ScatterElements with a reduction, to places named twice and from the end."""
    reduction, axis = one_of(draw, "add", "mul", "max", "min"), draw(st.integers(-2, 1))
    indices = rng.integers(-2, 2, size=(2, 3)).astype(np.int64)
    weights, feed = ({"i": indices}, {}) if any_bool(draw) else ({}, {"i": indices})
    feed = {"x": some(rng, 2, 4), **feed, "u": some(rng, 2, 3)}
    told = {"reduction": reduction, "axis": axis}
    return Part("ScatterElements", ["x", "i", "u"], feed, weights, told, opsets=(18,), batched=())


def reduction_over_fed_axes(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """A reduction whose axes are fed."""
    op = f"Reduce{one_of(draw, 'Sum', 'Mean', 'Max', 'Min', 'Prod', 'L1', 'L2', 'LogSumExp', 'SumSquare')}"
    axes = np.array(draw(st.lists(st.sampled_from([0, 1, -1]), unique=True, max_size=3)), np.int64)
    told = {"keepdims": int(any_bool(draw)), "noop_with_empty_axes": int(any_bool(draw))}
    return Part(op, ["x", "a"], {"x": some(rng, 2, 3, 4), "a": axes}, attributes=told, opsets=(18, 20))


def resize(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """Resize with antialias, symmetric coordinates, or a kept aspect ratio."""
    target = np.array([2, 1, draw(st.integers(3, 9)), draw(st.integers(3, 9))], np.int64)
    told: dict[str, object] = {"mode": one_of(draw, "linear", "cubic")}
    match one_of(draw, "antialias", "half_pixel_symmetric", "policy"):
        case "antialias":
            told["antialias"] = 1
        case "half_pixel_symmetric":
            told["coordinate_transformation_mode"] = "half_pixel_symmetric"
        case _:
            told.update(keep_aspect_ratio_policy=one_of(draw, "not_larger", "not_smaller"), axes=[2, 3])
            target = target[2:]
    return Part(
        "Resize",
        ["x", "", "", "s"],
        {"x": some(rng, 2, 1, 6, 6)},
        {"s": target},
        told,
        opsets=(19,),
        batched=["x"] if "axes" in told else [],
    )


def recurrent(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """A batch-first layer, with bias and state or without."""
    op = one_of(draw, *GATES)
    gates, hidden, features = GATES[op], 4, 3
    feed = {"x": some(rng, 2, 5, features)}
    weights = {"w": some(rng, 1, gates * hidden, features), "r": some(rng, 1, gates * hidden, hidden)}
    inputs = ["x", "w", "r", "", "", ""]
    if any_bool(draw):
        weights["b"], inputs[3] = some(rng, 1, 2 * gates * hidden), "b"
    if any_bool(draw):
        feed["h"], inputs[5] = some(rng, 2, 1, hidden), "h"
    # onnx's reference, which alone runs batch-first layers, gives the last states in a wrong shape: they stay unread.
    return Part(op, inputs, feed, weights, {"hidden_size": hidden, "layout": 1}, batched=["x", "h"], opsets=(18, 22))


def layer_normalization(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """LayerNormalization with its statistics."""
    axis = draw(st.sampled_from([-1, -2, 1, 2]))
    shape = (2, 3, 8)[axis:]
    weights = {"s": some(rng, *shape)} | ({"b": some(rng, *shape)} if any_bool(draw) else {})
    made = ["float32", *one_of(draw, ["float32"], ["float32", "float32"], ["", "float32"])]
    told = {"axis": axis, "epsilon": 0.1}
    return Part("LayerNormalization", ["x", *weights], {"x": some(rng, 2, 3, 8)}, weights, told, made, opsets=(17, 20))


def attention(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """Attention with a cap, causal, grouped or masked."""
    told = {"softcap": 2.0} if any_bool(draw) else {}
    told |= {"is_causal": 1} if any_bool(draw) or not told else {}
    heads = draw(st.sampled_from([1, 2]))
    feed = {"q": some(rng, 2, 2, 3, 8), "k": some(rng, 2, heads, 5, 8), "v": some(rng, 2, heads, 5, 8)}
    inputs = [*feed]
    if any_bool(draw):
        feed["m"] = some(rng, 3, 5)
        inputs.append("m")
    return Part("Attention", inputs, feed, attributes=told, opsets=(23, 24), batched=["q", "k", "v"])


def cross_entropy(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """SoftmaxCrossEntropyLoss, weighted, with classes to ignore, with the logarithms."""
    told = {"reduction": one_of(draw, "none", "mean", "sum"), **one_of(draw, {}, {"ignore_index": 1})}
    weights = {"w": np.abs(some(rng, 4)) + 0.1} if any_bool(draw) else {}
    feed = {"x": some(rng, 3, 4), "t": np.array([0, *rng.integers(0, 4, size=2)], np.int64)}
    made = ["float32", *["float32"] * any_bool(draw)]
    return Part(
        "SoftmaxCrossEntropyLoss", ["x", "t", *weights], feed, weights, told, made, (13, 18), batched=["x", "t"]
    )


def quantised_matmul(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """QLinearMatMul of bytes."""
    left, right = one_of(draw, ("uint8", "uint8"), ("uint8", "int8"), ("int8", "int8"))
    weights = {
        "xs": np.array(0.02, np.float32),
        "xz": some(rng, dtype=left) // 4,
        "w": some(rng, 4, 3, dtype=right),
        "ws": np.array(0.03, np.float32),
        "wz": some(rng, dtype=right) // 4,
        "ys": np.array(0.2, np.float32),
        "yz": some(rng, dtype=left) // 4,
    }
    weights = {name: np.asarray(values) for name, values in weights.items()}
    return Part(
        "QLinearMatMul", ["x", *weights], {"x": some(rng, 2, 5, 4, dtype=left)}, weights, made=[left], opsets=(13, 18)
    )


def dynamic_quantization(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """DynamicQuantizeLinear of numbers of one sign or both."""
    shift = np.float32(one_of(draw, 0, 3, -3))
    return Part(
        "DynamicQuantizeLinear",
        ["x"],
        {"x": some(rng, 2, 6) + shift},
        made=["uint8", "float32", "uint8"],
        opsets=(13, 18),
    )


def quantization(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """QuantizeLinear to any integers, by one scale or one per channel, with zero-points or without."""
    dtype = one_of(draw, "uint8", "int8", "uint16", "int16")
    grain = one_of(draw, (), (6,))
    weights = {"s": np.asarray(np.abs(some(rng, *grain)) * 0.01 + 0.01, np.float32)}
    if dtype != "uint8" or any_bool(draw):
        weights["z"] = np.asarray(some(rng, *grain, dtype=dtype) // 4, dtype)
    return Part(
        "QuantizeLinear", ["x", *weights], {"x": some(rng, 2, 6)}, weights, {"axis": -1}, [dtype], opsets=(21, 23)
    )


def narrow_arithmetic(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """Arithmetic of integers that TensorRT lacks, with overflow."""
    op = one_of(draw, "Add", "Sub", "Mul", "Max", "Min")
    dtype = one_of(draw, *NARROW, "uint32", "uint64")
    other = some(rng, *one_of(draw, (6,), (1,)), dtype=dtype)
    weights, feed = ({"k": other}, {}) if any_bool(draw) else ({}, {"k": other})
    return Part(op, ["x", "k"], {"x": some(rng, 2, 6, dtype=dtype), **feed}, weights, made=[dtype], opsets=(14, 18))


def gelu(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """ONNX Runtime's Gelu and its variants."""
    op = one_of(draw, "Gelu", "BiasGelu", "FastGelu", "QuickGelu")
    weights = {"b": some(rng, 8)} if op == "BiasGelu" or (op == "FastGelu" and any_bool(draw)) else {}
    told = {"alpha": 1.5} if op == "QuickGelu" else {}
    return Part(op, ["x", *weights], {"x": some(rng, 2, 8)}, weights, told, opsets=(13, 20), domain=CONTRIB)


def fused_matmul(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """ONNX Runtime's FusedMatMul, transposed and scaled."""
    first, second = any_bool(draw), any_bool(draw)
    feed = {"x": some(rng, 2, *((4, 3) if first else (3, 4)))}
    weights = {"w": some(rng, 2, *((5, 4) if second else (4, 5)))[0]}
    told = {"transA": int(first), "transB": int(second), "alpha": float(one_of(draw, 1.0, 0.5))}
    return Part("FusedMatMul", ["x", "w"], feed, weights, told, opsets=(13, 20), domain=CONTRIB)


def skip_normalization(draw: st.DrawFn, rng: np.random.Generator) -> Part:
    """ONNX Runtime's SkipLayerNormalization, shift, bias and sum given or left out."""
    feed = {"x": some(rng, 2, 3, 8), "k": some(rng, 2, 3, 8)}
    weights, inputs = {"s": some(rng, 8)}, ["x", "k", "s", "", ""]
    for position, name in ((3, "b"), (4, "c")):
        if any_bool(draw):
            weights[name], inputs[position] = some(rng, 8), name
    made = ["float32", "", "", "float32"] if any_bool(draw) else ["float32"]
    told = {"epsilon": 0.1}
    op = "SkipLayerNormalization"
    return Part(op, inputs, feed, weights, told, made, (13, 20), domain=CONTRIB, batched=["x", "k"])


TEMPLATES: tuple[Template, ...] = (
    max_pool,
    average_pool,
    lp_pool,
    cumulative_product,
    float_mod,
    bit_operation,
    determinant,
    fourier,
    scatter_nd,
    scatter_elements,
    reduction_over_fed_axes,
    resize,
    recurrent,
    layer_normalization,
    attention,
    cross_entropy,
    quantised_matmul,
    dynamic_quantization,
    quantization,
    narrow_arithmetic,
    gelu,
    fused_matmul,
    skip_normalization,
)


@dataclass(frozen=True)
class Drawn:
    """A random model, and feeds for it."""

    model: ModelProto
    samples: tuple[Sample, ...]

    def __repr__(self) -> str:
        """The model as text, for the report of a failure."""
        return onnx.printer.to_text(self.model)


class Builder:
    """Puts a part into a model.

    Args:
        part: The node.
        draw: Where it goes.
    """

    def __init__(self, part: Part, draw: st.DrawFn) -> None:
        self.part = part
        self.draw = draw
        self.nodes: list[NodeProto] = []
        self.outputs: dict[str, str] = {}
        self.named = any_bool(draw)

    def build(self, place: str) -> Drawn:
        """The model; its results are outputs, or read, or both."""
        match place:
            case "main graph":
                made = self._place(self.nodes, "y")
            case "twice":
                made = {**self._place(self.nodes, "y"), **self._place(self.nodes, "z")}
            case _:
                made = self._branches()
        for name, dtype in made.items():
            self._end(name, dtype)
        dynamic = any_bool(self.draw)
        model = with_unique_node_names(self._model(dynamic=dynamic, flag=place == "branches"))
        flags: list[dict[str, np.ndarray]] = [{}]
        if place == "branches":
            flags = [{"flag": np.array(True)}, {"flag": np.array(False)}]
        samples = tuple(Sample(f"random[{place}]", {**self.part.feed, **flag}) for flag in flags)
        return Drawn(with_shapes(model, samples, sizes=not dynamic), samples)

    def _place(self, nodes: list[NodeProto], prefix: str) -> dict[str, str]:
        made = {f"{prefix}{position}": dtype for position, dtype in enumerate(self.part.made) if dtype}
        outputs = [f"{prefix}{position}" if dtype else "" for position, dtype in enumerate(self.part.made)]
        nodes.append(self.part.node(outputs, f"node_{prefix}" if self.named else ""))
        return made

    def _branches(self) -> dict[str, str]:
        """An If whose branches both hold the node, and read tensors of the main graph; one adds an Identity."""
        graphs = {}
        for key, prefix in (("then_branch", "a"), ("else_branch", "b")):
            nodes: list[NodeProto] = []
            made = self._place(nodes, prefix)
            if prefix == "b":
                nodes += [helper.make_node("Identity", [name], [f"{name}_same"]) for name in made]
                made = {f"{name}_same": dtype for name, dtype in made.items()}
            graphs[key] = helper.make_graph(nodes, key, [], [described(name, dtype) for name, dtype in made.items()])
        results = {f"y{position}": dtype for position, dtype in enumerate(filter(None, self.part.made))}
        self.nodes.append(helper.make_node("If", ["flag"], list(results), **graphs))
        return results

    def _end(self, name: str, dtype: str) -> None:
        use = one_of(self.draw, "output", "read", "both")
        if use != "read":
            self.outputs[name] = dtype
        if use != "output":
            self.nodes.append(helper.make_node("Cast", [name], [f"{name}_read"], to=TensorProto.FLOAT))
            self.nodes.append(helper.make_node("Neg", [f"{name}_read"], [f"{name}_end"]))
            self.outputs[f"{name}_end"] = "float32"

    def _model(self, *, dynamic: bool, flag: bool) -> ModelProto:
        inputs = []
        for name, values in self.part.feed.items():
            shape: list[int | str] = list(values.shape)
            shape[:1] = ["n"] if dynamic and name in self.part.batched else shape[:1]
            inputs.append(described(name, values.dtype.name, shape))
        if flag:
            inputs.append(described("flag", "bool", []))
        outputs = [described(name, dtype) for name, dtype in self.outputs.items()]
        weights = [numpy_helper.from_array(values, name) for name, values in self.part.weights.items()]
        opset = self.draw(st.sampled_from(list(self.part.opsets)))
        imports = [helper.make_opsetid("", opset)]
        imports += [helper.make_opsetid(self.part.domain, 1)] if self.part.domain else []
        graph = helper.make_graph(self.nodes, "random", inputs, outputs, weights)
        return helper.make_model(graph, opset_imports=imports, ir_version=8 if opset < 21 else 11)


def described(name: str, dtype: str, shape: Sequence[int | str | None] | None = None) -> onnx.ValueInfoProto:
    """An input or output of this type."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def with_shapes(model: ModelProto, samples: Sequence[Sample], *, sizes: bool) -> ModelProto:
    """The model with the ranks of its outputs declared, or their whole shapes, which a run tells."""
    made = run_model(model, samples)[0]
    for output in model.graph.output:
        shape = [size if sizes else None for size in made[output.name].shape]
        output.CopyFrom(described(output.name, made[output.name].dtype.name, shape))
    return model


@st.composite
def models_of(draw: st.DrawFn, template: Template) -> Drawn:
    """Valid models of this template: in old opsets onnx infers other sizes of pooled tensors than runtimes give."""
    part = template(draw, np.random.default_rng(draw(st.integers(0, 2**16))))
    drawn = Builder(part, draw).build(one_of(draw, *PLACES))
    assume(part.domain or is_valid(drawn.model))
    return drawn


def is_valid(model: ModelProto) -> bool:
    """Whether the strictest check of onnx passes."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def scoped(scope: str, model: ModelProto) -> dict[str, Pass]:
    """The passes for every node they know, for a model all of whose nodes are refused, or only for misread nodes."""
    match scope:
        case "all they know":
            return dict(REPAIRS)
        case "all refused":
            refused = frozenset(node.name for node in all_nodes(model))
        case _:
            refused = frozenset()
    return {name: entry.on(refused) for name, entry in REPAIRS.items()}


def assert_kept(drawn: Drawn, passes: Mapping[str, Pass]) -> RewriteReport:
    """Rewrites, and asserts what holds for all passes; the report."""
    model = drawn.model
    before = model.SerializeToString(deterministic=True)
    after, report = rewrite(model, passes=passes, samples=drawn.samples)
    assert model.SerializeToString(deterministic=True) == before
    assert graph_inputs(after) == graph_inputs(model)
    assert graph_outputs(after) == graph_outputs(model)
    assert {entry.name: entry.rolled_back for entry in report.passes if entry.rolled_back} == {}
    assert report.max_relative_error is not None
    assert report.max_relative_error <= FLOAT32_TOLERANCE
    assert all(decline.node and decline.why for entry in report.passes for decline in entry.declined)
    assert custom_domain_nodes(after) or is_valid(after)
    assert rewrite(after, passes=passes)[0] is after
    return report


def is_for(entry: Pass, model: ModelProto) -> bool:
    """Whether nodes of a pass's operators are in the model; always so for passes that look at more than operators."""
    if not isinstance(entry, NodePass):
        return True
    return any(operator_of(node.op_type, node.domain) in entry.operators for node in all_nodes(model))


QUICK = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    derandomize=True,
)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda entry: str(entry.__name__))
def test_repairs_together_keep_signature_and_numbers_and_settle(template: Template) -> None:
    """All passes together: nothing undone, nothing left to do, each decline explained, and something was repaired."""
    changed: set[str] = set()

    @QUICK
    @given(models_of(template), st.sampled_from(["all they know", "all refused", "misread"]))
    def holds(drawn: Drawn, scope: str) -> None:
        report = assert_kept(drawn, scoped(scope, drawn.model))
        changed.update(entry.name for entry in report.passes if entry.changed)

    holds()
    assert changed


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda entry: str(entry.__name__))
def test_single_repair_keeps_signature_and_numbers_and_settles(template: Template) -> None:
    """Every pass alone, on what the others have not touched; those that are not for the operator leave the model."""

    @QUICK
    @given(models_of(template))
    def holds(drawn: Drawn) -> None:
        for name, entry in REPAIRS.items():
            if is_for(entry, drawn.model):
                assert_kept(drawn, {name: entry})
            else:
                assert entry.run(drawn.model)[0] is drawn.model

    holds()
