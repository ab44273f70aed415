"""Whatever factors the channels get, the float model computes the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from channel_models import EQUALIZED, LEFT, MIGRATED
from graphs import model_of, node, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from improvement_subjects import Feed
from ort_session import outputs_of

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.query import graph_inputs, infer_shapes
from trt_opt.improvements.channel_flow import ChannelFlow, channel_flow
from trt_opt.improvements.channel_passing import RULES
from trt_opt.improvements.channel_scaling import with_factors

CHANNELS = 8
ROUNDING = 2e-5
"""Factors that are no powers of two change mantissas, and sums over channels round differently."""

Pieces = tuple[list[onnx.NodeProto], dict[str, np.ndarray]]
Piece = Callable[[str, str, int], Pieces]
"""Source, target and a number to name things by → nodes and constants that keep float32 [N, 8, 6, 6]."""


def of(op_type: str, *operands: str, **attributes: object) -> Piece:
    """One operator; its operands are the source, unless told otherwise."""

    def made(source: str, target: str, number: int) -> Pieces:
        sources = [source if name == "x" else name for name in operands or ("x",)]
        return [node(op_type, f"n{number}", sources, target, **attributes)], {}

    return made


def with_constant(op_type: str, value: Callable[[int], np.ndarray], **attributes: object) -> Piece:
    """An operator whose second operand is a constant."""

    def made(source: str, target: str, number: int) -> Pieces:
        held = {f"c{number}": value(number)}
        return [node(op_type, f"n{number}", [source, f"c{number}"], target, **attributes)], held

    return made


def residual(source: str, target: str, number: int) -> Pieces:
    """A convolution and what it read, added."""
    nodes, held = with_constant("Conv", lambda n: weights(CHANNELS, CHANNELS, 1, 1, seed=n))(
        source, f"r{number}", number
    )
    return [*nodes, node("Add", f"sum{number}", [f"r{number}", source], target)], held


def gate(source: str, target: str, number: int) -> Pieces:
    """What the tensor is multiplied with comes from itself."""
    nodes = [
        node("GlobalAveragePool", f"squeeze{number}", [source], f"s{number}"),
        node("HardSigmoid", f"gate{number}", [f"s{number}"], f"g{number}"),
        node("Mul", f"n{number}", [f"g{number}", source], target),
    ]
    return nodes, {}


def halves(source: str, target: str, number: int) -> Pieces:
    """Channels split, one half scaled by the other's layer, and joined the other way round."""
    nodes, held = with_constant("Conv", lambda n: weights(4, 4, 1, 1, seed=n))(
        f"right{number}", f"turned{number}", number
    )
    cut = onnx.helper.make_node("Split", [source, f"sizes{number}"], [f"left{number}", f"right{number}"], axis=1)
    cut.name = f"split{number}"
    joined = node("Concat", f"join{number}", [f"turned{number}", f"left{number}"], target, axis=1)
    return [cut, *nodes, joined], {**held, f"sizes{number}": np.array([4, 4])}


def normalized(source: str, target: str, number: int) -> Pieces:
    """A batch normalisation that was not folded."""
    held = {f"{name}{number}": weights(CHANNELS, seed=number + at) for at, name in enumerate(("scale", "bias", "mean"))}
    held[f"var{number}"] = np.abs(weights(CHANNELS, seed=number)) + np.float32(0.5)
    return [node("BatchNormalization", f"n{number}", [source, *held], target)], held


PIECES: tuple[Piece, ...] = (
    with_constant("Conv", lambda n: weights(CHANNELS, CHANNELS, 3, 3, seed=n), pads=[1, 1, 1, 1]),
    with_constant("Conv", lambda n: weights(CHANNELS, 2, 1, 1, seed=n), group=4),
    with_constant("Conv", lambda n: weights(CHANNELS, 1, 3, 3, seed=n), group=8, pads=[1, 1, 1, 1]),
    with_constant("ConvTranspose", lambda n: weights(CHANNELS, 4, 1, 1, seed=n), group=2),
    with_constant("Add", lambda n: weights(CHANNELS, 1, 1, seed=n)),
    with_constant("Sub", lambda n: weights(1, seed=n)),
    with_constant("Mul", lambda n: weights(1, CHANNELS, 1, 1, seed=n)),
    with_constant("Div", lambda n: weights(CHANNELS, 1, 1, seed=n) + np.float32(2)),
    with_constant("Max", lambda n: weights(1, 6, 6, seed=n)),
    with_constant("PRelu", lambda n: weights(CHANNELS, 1, 1, seed=n)),
    with_constant("Clip", lambda n: np.float32(-0.3 * n)),
    of("Relu"),
    of("LeakyRelu", alpha=0.2),
    of("Clip"),
    of("Tanh"),
    of("Mul", "x", "x"),
    of("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    of("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    of("Transpose", perm=[0, 1, 3, 2]),
    residual,
    gate,
    halves,
    normalized,
)


def random_model(choices: list[int]) -> onnx.ModelProto:
    """A chain of pieces between two convolutions."""
    nodes = [node("Conv", "first", ["x", "w_first"], "t0")]
    held = {"w_first": weights(CHANNELS, 3, 1, 1, seed=90), "w_last": weights(4, CHANNELS, 1, 1, seed=91)}
    for number, choice in enumerate(choices):
        added, constants = PIECES[choice](f"t{number}", f"t{number + 1}", number)
        nodes += added
        held |= constants
    nodes.append(node("Conv", "last", [f"t{len(choices)}", "w_last"], "y"))
    return model_of(nodes, {"x": ["n", 3, 6, 6]}, {"y": ["n", 4, 6, 6]}, held)


def flow_of(model: onnx.ModelProto) -> ChannelFlow:
    """The walk through a model."""
    return channel_flow(GraphIndex(with_unique_node_names(infer_shapes(model))), RULES)


def feed_of(model: onnx.ModelProto) -> Feed:
    """One feed of two samples."""
    generator = np.random.default_rng(3)
    found: dict[str, np.ndarray] = {}
    for spec in graph_inputs(model):
        shape = [2 if isinstance(size, str) else size for size in spec.shape or ()]
        is_flag = spec.dtype == "bool"
        found[spec.name] = np.array(True) if is_flag else generator.standard_normal(shape).astype(np.float32)
    return found


def rescaled(flow: ChannelFlow, seed: int, *, powers: bool) -> onnx.ModelProto:
    """The model with factors by chance for everything that may have one."""
    exponents = np.random.default_rng(seed).uniform(-4, 4, flow.unknowns.count)
    free = [flow.unknowns.reason(number) is None for number in range(flow.unknowns.count)]
    return with_factors(flow, np.where(free, 2.0 ** (np.rint(exponents) if powers else exponents), 1.0))


def largest_difference(model: onnx.ModelProto, other: onnx.ModelProto) -> float:
    """Between the outputs, as a share of the largest number."""
    wanted, got = outputs_of(model, feed_of(model)), outputs_of(other, feed_of(model))
    return max(
        float(np.abs(wanted[name] - got[name]).max() / max(np.abs(wanted[name]).max(), 1e-30)) for name in wanted
    )


@settings(max_examples=60, deadline=None)
@given(choices=st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_random_chains_compute_the_same(choices: list[int], seed: int) -> None:
    """Powers of two change no bit, other factors no more than rounding, in any chain of operators."""
    model = random_model(choices)
    flow = flow_of(model)
    assert largest_difference(flow.index.model, rescaled(flow, seed, powers=True)) == 0.0
    assert largest_difference(flow.index.model, rescaled(flow, seed, powers=False)) <= ROUNDING


@pytest.mark.parametrize("name", [*EQUALIZED, *MIGRATED, *LEFT])
def test_every_model_computes_the_same(name: str) -> None:
    """Random factors wherever the walk allows them."""
    model = {**EQUALIZED, **MIGRATED, **LEFT}[name]()
    flow = flow_of(model)
    assert largest_difference(flow.index.model, rescaled(flow, 5, powers=False)) <= ROUNDING


def test_factors_pass_through_what_they_should() -> None:
    """In a chain of everything homogeneous, the last layer's input may be scaled channel by channel."""
    flow = flow_of(random_model([11, 12, 13, 16, 17, 18, 4, 9]))
    assert flow.unknowns.is_free(flow.of("t8")).all()
    assert flow.of("t8").shape == (1, CHANNELS, 1, 1)
