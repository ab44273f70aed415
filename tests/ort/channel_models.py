"""Models with channels of very different ranges, named after what stands between them and an easy cure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from graphs import conv, model_of, node, weights
from numpy.typing import NDArray
from onnx import TensorProto, helper

Floats = NDArray[np.float32]

SIZES = np.geomspace(1, 200, 16).astype(np.float32)


def uneven(*shape: int, seed: int, axis: int = 0) -> Floats:
    """Weights whose 16 output channels lie along an axis, from small to 200 times as large."""
    along = [1] * len(shape)
    along[axis] = 16
    return (weights(*shape, seed=seed) * SIZES.reshape(along)).astype(np.float32)


def evened(*shape: int, seed: int, axis: int = 1) -> Floats:
    """Weights that undo `uneven` where they read its 16 channels."""
    along = [1] * len(shape)
    along[axis] = 16
    return (weights(*shape, seed=seed) / SIZES.reshape(along)).astype(np.float32)


def chain(*between: onnx.NodeProto, opset: int = 19, **constants: NDArray[np.generic]) -> onnx.ModelProto:
    """conv1 makes `a` of uneven channels, the nodes between make `b` of it, conv2 reads that."""
    held = {
        "w1": uneven(16, 3, 3, 3, seed=1),
        "b1": uneven(16, seed=4),
        "w2": evened(16, 16, 3, 3, seed=2),
        **constants,
    }
    nodes = [conv("conv1", "x", "a", "w1", "b1"), *between, conv("conv2", "b", "y", "w2", "")]
    return model_of(nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 16, "h", "w"]}, held, opset)


def relu() -> onnx.ModelProto:
    return chain(node("Relu", "act", ["a"], "b"))


def leaky() -> onnx.ModelProto:
    return chain(node("LeakyRelu", "act", ["a"], "b", alpha=0.1))


def prelu() -> onnx.ModelProto:
    return chain(node("PRelu", "act", ["a", "slope"], "b"), slope=weights(16, 1, 1, seed=7))


def relu6() -> onnx.ModelProto:
    """Bounds that several channels reach."""
    clip = node("Clip", "act", ["a", "low", "high"], "b")
    return chain(clip, low=np.float32(0), high=np.float32(6), w1=uneven(16, 3, 3, 3, seed=1) / 20, b1=SIZES / 20)


def clip_on_both_sides() -> onnx.ModelProto:
    return chain(node("Clip", "act", ["a", "low", "high"], "b"), low=np.float32(-90), high=np.float32(90))


def clip_without_bounds() -> onnx.ModelProto:
    return chain(node("Clip", "act", ["a"], "b"))


def pooled_and_padded() -> onnx.ModelProto:
    return chain(
        node("MaxPool", "pool", ["a"], "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Pad", "pad", ["p", "pads"], "q"),
        node("AveragePool", "mean", ["q"], "r", kernel_shape=[2, 2]),
        node("Resize", "up", ["r", "", "scales"], "b", mode="linear"),
        pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        scales=np.array([1, 1, 2, 2], np.float32),
    )


def shuffled() -> onnx.ModelProto:
    """A channel shuffle, by Reshape and Transpose, of a batch of any size."""
    return chain(
        node("Reshape", "apart", ["a", "in_groups"], "g"),
        node("Transpose", "shuffle", ["g"], "t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "together", ["t", "whole"], "b"),
        in_groups=np.array([0, 4, 4, 8, 8]),
        whole=np.array([0, 16, 8, 8]),
        w2=(weights(16, 16, 3, 3, seed=2) / SIZES.reshape(4, 4).T.reshape(1, 16, 1, 1)).astype(np.float32),
    )


def split_and_joined() -> onnx.ModelProto:
    """Halves of the channels change places."""
    return chain(
        helper.make_node("Split", ["a", "eights"], ["s", "t"], name="split", axis=1),
        node("Relu", "act", ["t"], "u"),
        node("Slice", "odd", ["s", "one", "eight", "one", "one"], "v"),
        node("Concat", "join", ["u", "v"], "b", axis=1),
        eights=np.array([8, 8]),
        one=np.array([1]),
        eight=np.array([8]),
        w2=(weights(16, 15, 3, 3, seed=2) / np.r_[SIZES[8:], SIZES[1:8]].reshape(1, 15, 1, 1)).astype(np.float32),
    )


def residual() -> onnx.ModelProto:
    """The sum, both of its operands and a constant need the same factors."""
    return chain(
        node("Relu", "act", ["a"], "r"),
        conv("middle", "r", "m", "w3"),
        node("Add", "shift", ["m", "c"], "s"),
        node("Add", "sum", ["s", "r"], "b"),
        w3=(evened(16, 16, 3, 3, seed=3) * SIZES.reshape(16, 1, 1, 1)).astype(np.float32),
        c=SIZES.reshape(16, 1, 1),
    )


def depthwise() -> onnx.ModelProto:
    """The layer that reads takes up everything."""
    return chain(
        node("Relu", "act", ["a"], "r"),
        node("Conv", "depthwise", ["r", "w3"], "b", group=16, pads=[1, 1, 1, 1]),
        w3=evened(16, 1, 3, 3, seed=3, axis=0),
        w2=weights(16, 16, 3, 3, seed=2),
    )


def mobilenet_block() -> onnx.ModelProto:
    """Pointwise, ReLU6, depthwise, ReLU6, pointwise."""
    return chain(
        node("Clip", "act1", ["a", "low", "high"], "r"),
        node("Conv", "depthwise", ["r", "w3"], "d", group=16, pads=[1, 1, 1, 1]),
        node("Clip", "act2", ["d", "low", "high"], "b"),
        low=np.float32(0),
        high=np.float32(6),
        w1=uneven(16, 3, 3, 3, seed=1) / 100,
        w3=evened(16, 1, 3, 3, seed=3, axis=0) * 20,
        w2=weights(16, 16, 3, 3, seed=2),
    )


def transposed_in_groups() -> onnx.ModelProto:
    """Both layers between are ConvTranspose with two groups."""
    return chain(
        node("ConvTranspose", "up", ["a", "w3", "b3"], "u", group=2),
        node("ConvTranspose", "up2", ["u", "w4"], "b", group=2),
        w3=(evened(16, 8, 1, 1, seed=3, axis=0) * np.tile(SIZES[:8], 1).reshape(1, 8, 1, 1)).astype(np.float32),
        b3=uneven(16, seed=9),
        w4=(weights(16, 8, 1, 1, seed=5) / np.tile(SIZES[:8], 2).reshape(16, 1, 1, 1)).astype(np.float32),
        w2=weights(16, 16, 3, 3, seed=2),
    )


def gated() -> onnx.ModelProto:
    """Squeeze and excitation: what gates stays, what is gated may be scaled."""
    return chain(
        node("Relu", "act", ["a"], "r"),
        node("GlobalAveragePool", "squeeze", ["r"], "s"),
        node("Conv", "excite", ["s", "w3"], "e"),
        node("Sigmoid", "gate", ["e"], "g"),
        node("Mul", "gated", ["r", "g"], "b"),
        w3=evened(16, 16, 1, 1, seed=3),
    )


def products() -> onnx.ModelProto:
    """Gemm with alpha, beta and transB behind a Gemm, behind a MatMul and its bias."""
    held = {
        "w1": uneven(32, 16, seed=1, axis=1),
        "b1": SIZES,
        "w2": evened(16, 16, seed=2) * SIZES[:, None],
        "b2": SIZES,
        "w3": evened(16, 32, seed=3, axis=0),
    }
    nodes = [
        node("MatMul", "first", ["x", "w1"], "a"),
        node("Add", "bias", ["a", "b1"], "b"),
        node("Relu", "act", ["b"], "c"),
        node("Gemm", "second", ["c", "w2", "b2"], "d", transB=1, alpha=0.5, beta=2.0),
        node("Gemm", "third", ["d", "w3"], "y"),
    ]
    return model_of(nodes, {"x": ["n", 32]}, {"y": ["n", 32]}, held)


def flattened() -> onnx.ModelProto:
    """A Gemm reads the flattened image: four of its columns share one factor."""
    held = {"w1": uneven(16, 3, 3, 3, seed=1), "w2": (weights(64, 32, seed=2) / np.repeat(SIZES, 4)[:, None])}
    nodes = [
        conv("conv1", "x", "a", "w1"),
        node("MaxPool", "pool", ["a"], "p", kernel_shape=[4, 4], strides=[4, 4]),
        node("Flatten", "flatten", ["p"], "f"),
        node("Gemm", "gemm", ["f", "w2"], "y"),
    ]
    return model_of(nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 32]}, {k: v.astype(np.float32) for k, v in held.items()})


def shared_weight() -> onnx.ModelProto:
    """Two layers read one weight tensor; one of them reads uneven channels."""
    held = {"w1": uneven(16, 3, 3, 3, seed=1), "w2": evened(16, 16, 3, 3, seed=2), "w0": weights(16, 3, 3, 3, seed=8)}
    nodes = [
        conv("conv1", "x", "a", "w1"),
        conv("even", "x", "e", "w0"),
        conv("conv2", "a", "y", "w2"),
        conv("conv3", "e", "z", "w2"),
    ]
    shape = ["n", 16, 8, 8]
    return model_of(nodes, {"x": ["n", 3, 8, 8]}, {"y": shape, "z": shape}, held)


def zero_channel() -> onnx.ModelProto:
    """One channel is never anything but zero."""
    dead = uneven(16, 3, 3, 3, seed=1)
    dead[7] = 0
    bias = uneven(16, seed=4)
    bias[7] = 0
    return chain(node("Relu", "act", ["a"], "b"), w1=dead, b1=bias)


def tensor_is_graph_output() -> onnx.ModelProto:
    """The uneven tensor goes out of the graph as well."""
    model = chain(node("Relu", "act", ["a"], "b"))
    model.graph.output.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", 16, 8, 8]))
    return model


def tensor_read_in_a_branch() -> onnx.ModelProto:
    """The body of an If reads the uneven tensor."""
    model = chain(node("Relu", "act", ["a"], "b"))
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op_type, ["b"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name, op_type in (("then", "Abs"), ("else", "Neg"))
    }
    model.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    model.graph.node.append(helper.make_node("If", ["flag"], ["z"], name="choice", **branches))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 16, 8, 8]))
    return model


def sigmoid_between() -> onnx.ModelProto:
    """No factor passes through a Sigmoid."""
    return chain(node("Sigmoid", "act", ["a"], "s"), node("Mul", "spread", ["s", "s"], "b"))


def layer_normalization() -> onnx.ModelProto:
    """Query, key and value read what a LayerNormalization with uneven scales gives."""
    held = {"scale": SIZES, "bias": SIZES[::-1].copy(), **{f"w{n}": evened(16, 16, seed=n, axis=0) for n in (1, 2, 3)}}
    nodes = [node("LayerNormalization", "norm", ["x", "scale", "bias"], "n", axis=-1)]
    nodes += [node("MatMul", f"product{n}", ["n", f"w{n}"], f"p{n}") for n in (1, 2, 3)]
    nodes += [node("Sum", "all", ["p1", "p2", "p3"], "y")]
    return model_of(nodes, {"x": ["n", 6, 16]}, {"y": ["n", 6, 16]}, held)


def decomposed_normalization() -> onnx.ModelProto:
    """The same in parts, as older exporters write it: the last Mul and Add hold the scale and the bias."""
    held = {"scale": SIZES, "bias": SIZES, "axes": np.array([-1]), "w": evened(16, 16, seed=1, axis=0)}
    nodes = [
        node("ReduceMean", "mean", ["x", "axes"], "m"),
        node("Sub", "centred", ["x", "m"], "c"),
        node("Mul", "square", ["c", "c"], "q"),
        node("ReduceMean", "variance", ["q", "axes"], "v"),
        node("Sqrt", "deviation", ["v"], "d"),
        node("Div", "whitened", ["c", "d"], "h"),
        node("Mul", "gamma", ["h", "scale"], "g"),
        node("Add", "beta", ["g", "bias"], "n"),
        node("MatMul", "product", ["n", "w"], "y"),
    ]
    return model_of(nodes, {"x": ["n", 6, 16]}, {"y": ["n", 6, 16]}, held)


def image_normalization(op_type: str) -> onnx.ModelProto:
    """A normalisation per channel of an image in front of a convolution."""
    held = {"scale": SIZES, "bias": SIZES, "w": evened(16, 16, 3, 3, seed=1)}
    held |= {"mean": weights(16, seed=5), "var": np.abs(weights(16, seed=6)) + 1} if op_type[0] == "B" else {}
    operands = ["x", "scale", "bias", *(["mean", "var"] if "mean" in held else [])]
    nodes = [node(op_type, "norm", operands, "n"), conv("conv", "n", "y", "w")]
    return model_of(nodes, {"x": ["n", 16, 8, 8]}, {"y": ["n", 16, 8, 8]}, held)


def rms_normalization() -> onnx.ModelProto:
    """A scale alone, no bias."""
    held = {"scale": SIZES, "w": evened(16, 16, seed=1, axis=0)}
    nodes = [node("RMSNormalization", "norm", ["x", "scale"], "n"), node("MatMul", "product", ["n", "w"], "y")]
    return model_of(nodes, {"x": ["n", 6, 16]}, {"y": ["n", 6, 16]}, held, 23)


def normalization_with_a_residual() -> onnx.ModelProto:
    """Post-norm: the normalised tensor is added to what the product gives."""
    held = {"scale": SIZES, "bias": SIZES, "w": evened(16, 16, seed=1, axis=0)}
    nodes = [
        node("LayerNormalization", "norm", ["x", "scale", "bias"], "n", axis=-1),
        node("MatMul", "product", ["n", "w"], "p"),
        node("Tanh", "bounded", ["n"], "t"),
        node("Add", "residual", ["p", "t"], "y"),
    ]
    return model_of(nodes, {"x": ["n", 6, 16]}, {"y": ["n", 6, 16]}, held)


EQUALIZED: Mapping[str, Callable[[], onnx.ModelProto]] = {
    build.__name__: build
    for build in (
        relu,
        leaky,
        prelu,
        relu6,
        clip_on_both_sides,
        clip_without_bounds,
        pooled_and_padded,
        shuffled,
        split_and_joined,
        residual,
        depthwise,
        mobilenet_block,
        transposed_in_groups,
        gated,
        products,
        flattened,
        shared_weight,
        zero_channel,
    )
}
"""Channels that can be evened out."""

LEFT: Mapping[str, Callable[[], onnx.ModelProto]] = {
    build.__name__: build for build in (tensor_is_graph_output, tensor_read_in_a_branch, sigmoid_between)
}
"""Channels that cannot."""

MIGRATED: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "layer_normalization": layer_normalization,
    "decomposed_normalization": decomposed_normalization,
    "instance_normalization": lambda: image_normalization("InstanceNormalization"),
    "rms_normalization": rms_normalization,
    "batch_normalization": lambda: image_normalization("BatchNormalization"),
}
"""Channels whose unevenness goes from a normalisation into weights."""
