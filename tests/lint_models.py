"""For every rule of the lint: a model that breaks it, one that does not, and what mends the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import onnx
from graphs import conv, model_of, node, weights
from numpy.typing import NDArray
from onnx import TensorProto, helper
from ort_session import outputs_of

from trt_opt.quantize.exclusion import without_pairs
from trt_opt.quantize.stage import PrecisionRequest, float_graph, quantized_graph
from trt_opt.values.calibration import TensorRange

Model = onnx.ModelProto
Feed = Mapping[str, NDArray[np.generic]]
Outcome = Literal["same", "imported", "closer"]
"""After `--fix` the outputs are the same, the same but for rounding ties, or closer to the float model's."""

SHAPE = (1, 16, 8, 8)
W = weights(16, 16, 3, 3, seed=1)
W2 = weights(16, 16, 3, 3, seed=2)


def feed(seed: int = 7) -> Feed:
    """A sample that reaches -3 … 3."""
    return {"x": np.clip(np.random.default_rng(seed).standard_normal(SHAPE), -3, 3).astype(np.float32)}


@dataclass(frozen=True)
class Case:
    """A rule's three parts.

    Attributes:
        bad: Breaks the rule.
        good: Does not, and differs in little else.
        remedy: For a rule that `--fix` leaves: what its advice comes to.
        outcome: For one that it mends: what becomes of the numbers.
        like: What a mended model's outputs are compared with; `bad` itself, or a float model, if None.
    """

    bad: Callable[[], Model]
    good: Callable[[], Model]
    remedy: Callable[[Model], Model] | None = None
    outcome: Outcome | None = None
    like: Callable[[], Model] | None = None


def requantized(model: Model) -> Model:
    """The float model quantised by this package."""
    graph = float_graph(model, PrecisionRequest(method="static"))
    probe = onnx.ModelProto()
    probe.CopyFrom(graph.model)
    known = {value.name for value in (*probe.graph.output, *probe.graph.input)}
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in graph.taps.all if name not in known
    )
    arrays = {**feed(), **outputs_of(probe, feed())}
    ranges = {}
    for name in graph.taps.all:
        low, high = float(arrays[name].min()), float(arrays[name].max())
        ranges[name] = TensorRange(low, high, max(-low, high), arrays[name].size)
    return quantized_graph(graph, ranges).model


def of(float_model: Callable[[], Model]) -> Callable[[Model], Model]:
    """The remedy "quantise the float model": what it is made of is not the broken one."""
    return lambda _: requantized(float_model())


def pair(
    name: str, source: str, target: str, scale: str = "s", zero: str = "z", **attributes: int
) -> list[onnx.NodeProto]:
    """A QuantizeLinear and its DequantizeLinear; an empty zero-point is left out."""
    tail = [scale, *([zero] if zero else [])]
    return [
        node("QuantizeLinear", f"{name}_q", [source, *tail], f"{target}_q", **attributes),
        node("DequantizeLinear", f"{name}_dq", [f"{target}_q", *tail], target, **attributes),
    ]


def stored(name: str, target: str, **attributes: int) -> onnx.NodeProto:
    """INT8 weights behind a DequantizeLinear."""
    return node("DequantizeLinear", f"{name}_dq", [f"{name}_i", f"{name}_s", f"{name}_z"], target, **attributes)


def integers(name: str, values: NDArray[np.float32], axis: int | None = 0) -> dict[str, NDArray[np.generic]]:
    """INT8 weights, one scale per element of an axis, or one for all."""
    others = tuple(place for place in range(values.ndim) if place != axis)
    amax = np.abs(values).max(axis=None if axis is None else others, keepdims=axis is not None)
    scale = np.asarray(amax / 127, np.float32)
    flat = scale.reshape(-1) if axis is not None else scale
    return {
        f"{name}_i": np.rint(values / scale).astype(np.int8),
        f"{name}_s": flat,
        f"{name}_z": np.zeros(flat.shape, np.int8),
    }


GRID: Mapping[str, NDArray[np.generic]] = MappingProxyType(
    {"s": np.array(3 / 127, np.float32), "z": np.array(0, np.int8)}
)


def float_net() -> Model:
    """conv → Relu."""
    nodes = [conv("conv", "x", "h", "w"), node("Relu", "relu", ["h"], "y")]
    return model_of(nodes, {"x": SHAPE}, {"y": SHAPE}, {"w": W})


def network(
    nodes: Sequence[onnx.NodeProto] | None = None,
    *,
    opset: int = 19,
    axis: int | None = 0,
    bias: str = "",
    **more: object,
) -> Model:
    """pair → conv with stored weights → Relu, or other nodes in front of the convolution, with more constants."""
    constants = {**GRID, **integers("w", W, axis), **{name: np.asarray(value) for name, value in more.items()}}
    kept = {} if axis is None else {"axis": axis}
    front = list(pair("x", "x", "xd") if nodes is None else nodes)
    body = [
        *([] if any("wd" in entry.output for entry in front) else [stored("w", "wd", **kept)]),
        conv("conv", "xd", "h", "wd", bias),
        node("Relu", "relu", ["h"], "y"),
    ]
    return model_of([*front, *body], {"x": SHAPE}, {"y": SHAPE}, constants, opset)


def tail(*nodes: onnx.NodeProto, **more: object) -> Model:
    """pair → conv with stored weights, and other nodes behind it that make y."""
    constants = {**GRID, **integers("w", W), **integers("v", W2)}
    constants |= {name: np.asarray(value) for name, value in more.items()}
    front = [*pair("x", "x", "xd"), stored("w", "wd", axis=0), conv("conv", "xd", "h", "wd")]
    return model_of([*front, *nodes], {"x": SHAPE}, {"y": SHAPE}, constants)


def second(source: str = "r") -> list[onnx.NodeProto]:
    """A second convolution in INT8 that makes y."""
    return [*pair("mid", source, "rd", "t"), stored("v", "vd", axis=0), conv("conv2", "rd", "y", "vd")]


T = np.array(0.05, np.float32)
"""The scale of what the first convolution gives."""


def float_two() -> Model:
    """conv → Relu → conv."""
    nodes = [conv("conv", "x", "h", "w"), node("Relu", "relu", ["h"], "r"), conv("conv2", "r", "y", "v")]
    return model_of(nodes, {"x": SHAPE}, {"y": SHAPE}, {"w": W, "v": W2})


def two() -> Model:
    """conv → Relu → pair → conv."""
    return tail(node("Relu", "relu", ["h"], "r"), *second(), t=T)


def float_residual() -> Model:
    """conv → Add with the input → Relu → conv."""
    nodes = [
        conv("conv", "x", "h", "w"),
        node("Add", "add", ["h", "x"], "a"),
        node("Relu", "relu", ["a"], "r"),
        conv("conv2", "r", "y", "v"),
    ]
    return model_of(nodes, {"x": SHAPE}, {"y": SHAPE}, {"w": W, "v": W2})


def residual(skip: str) -> Model:
    """The same quantised, the skip branch through the pair or not."""
    return tail(node("Add", "add", ["h", skip], "a"), node("Relu", "relu", ["a"], "r"), *second(), t=T)


def float_concat() -> Model:
    """conv and the input meet in a Concat that a second convolution reads."""
    nodes = [
        conv("conv", "x", "h", "w"),
        node("Concat", "concat", ["h", "x"], "r", axis=1),
        conv("conv2", "r", "y", "v"),
    ]
    return model_of(nodes, {"x": SHAPE}, {"y": SHAPE}, {"w": W, "v": weights(16, 32, 3, 3, seed=2)})


def concat(scales: tuple[str, str]) -> Model:
    """The same quantised; an empty scale leaves a branch in float."""
    names = [f"{branch}d2" if scale else branch for branch, scale in zip(("h", "x"), scales, strict=True)]
    pairs = [
        entry
        for branch, name, scale in zip(("h", "x"), names, scales, strict=True)
        if scale
        for entry in pair(f"{branch}2", branch, name, scale)
    ]
    return tail(
        *pairs,
        node("Concat", "concat", names, "r", axis=1),
        *second(),
        t=T,
        **integers("v", weights(16, 32, 3, 3, seed=2)),
    )


def matmul(columns: int) -> Model:
    """A quantised product with weights [16, columns], one scale per column."""
    constants = {**GRID, **integers("m", weights(16, columns, seed=3), axis=1)}
    nodes = [*pair("x", "x", "xd"), stored("m", "md", axis=1), node("MatMul", "product", ["xd", "md"], "y")]
    return model_of(nodes, {"x": [4, 16]}, {"y": [4, columns]}, constants)


def with_constant(value: float) -> Model:
    """x · constant → conv."""
    nodes = [node("Mul", "scale", ["x", "c"], "a"), conv("conv", "a", "y", "w")]
    return model_of(nodes, {"x": SHAPE}, {"y": SHAPE}, {"c": np.array(value, np.float32), "w": W})


def in_fp16(model: Model) -> Model:
    """What `--fp16` makes of a float model."""
    return quantized_graph(float_graph(model, PrecisionRequest(method=None, fp16=True)), {}).model


def qlinear() -> Model:
    """QuantizeLinear → QLinearConv → DequantizeLinear."""
    w = integers("w", W, None)
    tail_ = ["s", "z"]
    inputs = ["x_q", *tail_, "w_i", "w_s", "w_z", "t", "z"]
    nodes = [
        node("QuantizeLinear", "q", ["x", *tail_], "x_q"),
        node("QLinearConv", "qconv", inputs, "y_q", pads=[1, 1, 1, 1]),
        node("DequantizeLinear", "dq", ["y_q", "t", "z"], "y"),
    ]
    return model_of(nodes, {"x": SHAPE}, {"y": SHAPE}, {**GRID, **w, "t": T})


def torn() -> Model:
    """Integers are reshaped and back again between the halves of the pair."""
    halves = pair("x", "x", "xd")
    halves[1].input[0] = "back"
    return network(
        [
            halves[0],
            node("Reshape", "flat", ["xd_q", "flat_shape"], "f"),
            node("Reshape", "unflat", ["f", "shape"], "back"),
            halves[1],
        ],
        flat_shape=np.array([1, -1]),
        shape=np.array(SHAPE),
    )


def with_bias(zero: NDArray[np.generic] | None) -> Model:
    """The bias comes through INT32, through an INT8 pair, or is in float."""
    bias = weights(16, seed=5)
    if zero is None:
        return network(bias="b", b=bias)
    if zero.dtype == np.int32:
        dequantize = node("DequantizeLinear", "b_dq", ["b", "bs"], "bd")
        values = np.rint(bias / 0.001).astype(np.int32)
        return network([*pair("x", "x", "xd"), dequantize], bias="bd", b=values, bs=np.float32(0.001))
    return network([*pair("x", "x", "xd"), *pair("b", "b", "bd", "bs")], bias="bd", b=bias, bs=np.float32(0.05))


def float_with_bias() -> Model:
    """conv with a bias → Relu."""
    nodes = [conv("conv", "x", "h", "w", "b"), node("Relu", "relu", ["h"], "y")]
    return model_of(nodes, {"x": SHAPE}, {"y": SHAPE}, {"w": W, "b": weights(16, seed=5)})


def half_scales(opset: int) -> Model:
    """An FP16 pair with an FP16 scale between two casts."""
    halves = pair("x", "a", "b", "hs")
    front = [
        node("Cast", "to_half", ["x"], "a", to=TensorProto.FLOAT16),
        *halves,
        node("Cast", "to_float", ["b"], "xd", to=TensorProto.FLOAT),
    ]
    return network(front, opset=opset, hs=np.float16(0.0236))


def normalized(*, pairs: bool = True) -> Model:
    """conv → BatchNormalization → Relu; one gain is negative, one zero."""
    gain = np.linspace(-1.5, 2, 16).astype(np.float32)
    gain[3] = 0
    constants = {
        "g": gain,
        "o": weights(16, seed=8),
        "m": weights(16, seed=9),
        "v2": np.abs(weights(16, seed=10)) + 0.5,
    }
    tail_nodes = [
        node("BatchNormalization", "norm", ["h", "g", "o", "m", "v2"], "n"),
        node("Relu", "relu", ["n"], "y"),
    ]
    if pairs:
        return tail(*tail_nodes, **constants)
    nodes = [conv("conv", "x", "h", "w"), *tail_nodes]
    return model_of(nodes, {"x": SHAPE}, {"y": SHAPE}, {"w": W, **constants})


def softmax(*, quantized: bool) -> Model:
    """conv → Softmax, with a pair in between or not."""
    front = pair("mid", "h", "hd", "t") if quantized else []
    return tail(*front, node("Softmax", "softmax", ["hd" if quantized else "h"], "y", axis=1), t=T)


def float_softmax() -> Model:
    """conv → Softmax."""
    nodes = [conv("conv", "x", "h", "w"), node("Softmax", "softmax", ["h"], "y", axis=1)]
    return model_of(nodes, {"x": SHAPE}, {"y": SHAPE}, {"w": W})


def early() -> Model:
    """conv → pair → Relu → conv with stored weights: the pair stands one node too early."""
    return tail(
        *pair("early", "h", "hd", "t"),
        node("Relu", "relu", ["hd"], "r"),
        stored("v", "vd", axis=0),
        conv("conv2", "r", "y", "vd"),
        t=T,
    )


def orphan() -> Model:
    """A pair whose only reader adds in float and gives out."""
    return tail(*pair("idle", "h", "hd", "t"), node("Add", "add", ["hd", "one"], "y"), t=T, one=np.float32(1))


def float_orphan() -> Model:
    """conv → Add."""
    nodes = [conv("conv", "x", "h", "w"), node("Add", "add", ["h", "one"], "y")]
    return model_of(nodes, {"x": SHAPE}, {"y": SHAPE}, {"w": W, "one": np.array(1, np.float32)})


def twice(scale: float) -> Model:
    """Two pairs in a row in front of the convolution."""
    return network([*pair("first", "x", "a"), *pair("x", "a", "xd", "u")], u=np.float32(scale))


def float_weights() -> Model:
    """Weights in float in front of a pair."""
    front = [*pair("x", "x", "xd"), *pair("w", "w", "wd", "w_s", "w_z", axis=0)]
    return network(front, w=W)


def per_channel() -> Model:
    """An activation with one scale per channel."""
    several = pair("x", "x", "xd", "ss", "zz", axis=1)
    return network(several, ss=np.full(16, 3 / 127, np.float32), zz=np.zeros(16, np.int8))


def scaled(scale: object) -> Model:
    """The activation's scale is this."""
    return network(s=np.asarray(scale, np.float32))


def at_run_time() -> Model:
    """The activation's scale is computed."""
    return network([node("ReduceMax", "max", ["x"], "now", keepdims=0), *pair("x", "x", "xd", "now")])


def wide() -> Model:
    """A pair of INT16 behind a Relu."""
    front = [node("Relu", "front", ["x"], "p"), *pair("x", "p", "xd")]
    return network(front, z=np.int16(0), s=np.float32(3 / 32767), opset=21)


CASES: Mapping[str, Case] = MappingProxyType(
    {
        "uint8-read-as-int8": Case(lambda: network(z=np.uint8(0)), network, outcome="imported"),
        "zero-point-missing": Case(lambda: network(pair("x", "x", "xd", zero="")), network, outcome="imported"),
        "zero-point-not-zero": Case(lambda: network(z=np.int8(3)), network, outcome="imported"),
        "quantized-type-unsupported": Case(wide, network, outcome="imported"),
        "int32-bias": Case(lambda: with_bias(np.zeros(1, np.int32)), lambda: with_bias(None), outcome="same"),
        "qoperator-leftover": Case(qlinear, network, outcome="imported"),
        "scale-not-constant": Case(at_run_time, network, of(float_net)),
        "scale-not-finite": Case(lambda: scaled(np.nan), network, of(float_net)),
        "scale-not-positive": Case(lambda: scaled(-0.1), network, of(float_net)),
        "scale-subnormal": Case(lambda: scaled(1e-40), network, lambda model: without_pairs(model, ["conv"])),
        "per-channel-activation": Case(per_channel, network, of(float_net)),
        "weights-axis-wrong": Case(lambda: network(axis=1), network, of(float_net)),
        "scale-type-mismatch": Case(
            lambda: half_scales(17), lambda: half_scales(19), outcome="same", like=lambda: half_scales(19)
        ),
        "orphan-pair": Case(orphan, two, outcome="closer", like=float_orphan),
        "pair-torn": Case(torn, network, outcome="imported"),
        "pair-between-conv-and-activation": Case(early, two, outcome="same"),
        "double-quantization": Case(lambda: twice(0.041), network, outcome="closer", like=float_net),
        "quantized-inside-softmax-layernorm": Case(
            lambda: softmax(quantized=True), lambda: softmax(quantized=False), outcome="closer", like=float_softmax
        ),
        "residual-branch-not-quantized": Case(lambda: residual("x"), lambda: residual("xd"), of(float_residual)),
        "concat-branch-not-quantized": Case(lambda: concat(("t", "")), lambda: concat(("t", "t")), of(float_concat)),
        "concat-scales-differ": Case(lambda: concat(("t", "s")), lambda: concat(("t", "t")), of(float_concat)),
        "batchnorm-not-folded": Case(normalized, lambda: normalized(pairs=False), outcome="same"),
        "weights-per-tensor": Case(lambda: network(axis=None), network, of(float_net)),
        "weights-not-stored-quantized": Case(float_weights, network, outcome="same"),
        "bias-quantized": Case(
            lambda: with_bias(np.zeros(1, np.int8)),
            lambda: with_bias(None),
            outcome="closer",
            like=float_with_bias,
        ),
        "matmul-too-small": Case(
            lambda: matmul(8), lambda: matmul(16), lambda model: without_pairs(model, ["product"])
        ),
        "fp16-overflow-risk": Case(lambda: with_constant(1e5), lambda: with_constant(1e4), in_fp16),
    }
)
"""By rule."""
