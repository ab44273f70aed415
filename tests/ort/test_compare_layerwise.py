"""Where two graphs first part, over planted errors: the node is named, and whether the error is made there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import conv, node, residual_block, weights
from graphs import model_of as graph_of
from onnx import TensorProto, numpy_helper

from trt_opt.compare import layerwise as layerwise_module
from trt_opt.compare.layerwise import TappedGraph, layerwise
from trt_opt.datasets import open_dataset
from trt_opt.graph.query import graph_inputs
from trt_opt.values.model_comparison import LayerwiseComparison, MatchedTensor
from trt_opt.values.progress import Silent
from trt_opt.values.runner import Runner
from trt_opt.values.samples import Dataset

MODEL = residual_block()


def as_it_is(runner: Runner) -> Runner:
    return runner


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Three samples."""
    shape = [size if isinstance(size, int) else 1 for size in graph_inputs(MODEL)[0].shape or ()]
    x = np.random.default_rng(3).normal(size=(3, *shape)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    return open_dataset(str(tmp_path / "data.npz"), graph_inputs(MODEL))


def parted(
    candidate: onnx.ModelProto, data: Dataset, reference: onnx.ModelProto = MODEL, threshold_db: float = 30.0
) -> LayerwiseComparison:
    sides = [TappedGraph(name, model, as_it_is) for name, model in (("one", reference), ("other", candidate))]
    return layerwise(*sides, data, Silent(), threshold_db=threshold_db)


def edited(model: onnx.ModelProto = MODEL, **factors: float) -> onnx.ModelProto:
    """The model with some weights times something."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        if tensor.name in factors:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * factors[tensor.name], tensor.name))
    return other


def tensor(found: LayerwiseComparison, partner: str) -> MatchedTensor:
    return next(one for one in found.tensors if one.partner == partner)


def test_equal_graphs_do_not_part(data: Dataset) -> None:
    """Every tensor is compared over all samples, and is the same."""
    found = parted(MODEL, data)
    assert (found.first, found.largest_drop, found.samples) == (None, None, 3)
    assert [one.partner for one in found.tensors] == ["a", "b", "c", "d", "e", "y"]
    assert all(one.identical and one.sqnr_db is None for one in found.tensors)
    assert found.finding == "all 6 matched tensors are identical"


@pytest.mark.parametrize(
    ("weight", "first", "name"), [("w1", "a", "conv1"), ("w2", "c", "conv2"), ("w3", "y", "conv3")]
)
def test_the_node_that_makes_the_error_is_named(data: Dataset, weight: str, first: str, name: str) -> None:
    """Everything before it is exact, and everything behind it inherits."""
    found = parted(edited(**{weight: np.float32(1.1)}), data)
    assert found.first == first
    assert found.finding == (
        f"they part at Conv '{name}': '{first}' has 20.00 dB, below 30 dB; what it reads is exact, "
        "so the error is made there"
    )
    before = found.tensors[: [one.partner for one in found.tensors].index(first)]
    assert all(one.identical for one in before)


def test_an_error_is_told_from_the_errors_before_it(data: Dataset) -> None:
    """A small one first, a large one later: the second is where they part, and it is its own."""
    found = parted(edited(w1=np.float32(1.001), w3=np.float32(1.1)), data)
    last = tensor(found, "y")
    assert found.first == found.largest_drop == "y"
    assert (last.inputs_sqnr_db or 0) > 55
    assert last.drop_db == pytest.approx((last.inputs_sqnr_db or 0) - 20, abs=0.3)
    assert "so the error is made there" in found.finding


def test_an_inherited_error_is_told_as_such(data: Dataset) -> None:
    """Below the threshold by a hair, because of a layer long before: the largest fall is named."""
    found = parted(edited(w1=np.float32(1.01), w3=np.float32(1.001)), data, threshold_db=39.5)
    assert found.first == "y"
    assert found.finding.startswith("they part at Conv 'conv3': 'y' has 39.")
    assert (
        "what it reads has 40.0 dB already, so the error is mostly inherited; the SQNR falls the most" in found.finding
    )


def test_sqnr_is_pooled_over_samples_and_groups(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tensor at a time or all at once: the same figures, and those that NumPy gives."""
    other = edited(w2=np.float32(1.03))
    at_once = parted(other, data)
    monkeypatch.setattr(layerwise_module, "GROUP_BYTES", 1)
    assert parted(other, data) == at_once
    assert tensor(at_once, "c").sqnr_db == pytest.approx(-20 * np.log10(0.03), abs=0.01)


def test_groups_hold_no_more_than_they_may(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither bytes nor tensors."""
    seen: list[int] = []
    original = layerwise_module._tapped

    def counting(graph: TappedGraph, names: list[str]) -> Runner:
        seen.append(len(names))
        return original(graph, names)

    monkeypatch.setattr(layerwise_module, "_tapped", counting)
    monkeypatch.setattr(layerwise_module, "LARGEST_GROUP", 4)
    parted(MODEL, data)
    assert seen == [4, 4, 2, 2]
    seen.clear()
    monkeypatch.setattr(layerwise_module, "GROUP_BYTES", 1)
    parted(MODEL, data)
    assert seen == [1] * 12


def test_quantising_a_tensor_is_told_from_quantising_weights(data: Dataset) -> None:
    """The pair behind a tensor is the tensor, and what it costs is its own."""
    other = onnx.ModelProto()
    other.CopyFrom(MODEL)
    grid = [numpy_helper.from_array(np.float32(0.5), "s"), numpy_helper.from_array(np.int8(0), "z")]
    other.graph.initializer.extend(grid)
    nodes = list(other.graph.node)
    pair = [node("QuantizeLinear", "q", ["b", "s", "z"], "bq"), node("DequantizeLinear", "dq", ["bq", "s", "z"], "bd")]
    for one in nodes[2:]:
        one.input[:] = ["bd" if name == "b" else name for name in one.input]
    del other.graph.node[:]
    other.graph.node.extend([*nodes[:2], *pair, *nodes[2:]])
    found = parted(other, data)
    assert found.first == "bd"
    assert tensor(found, "b").identical
    assert tensor(found, "bd").name == "b"
    assert "DequantizeLinear 'dq': 'b' ('bd' in the candidate)" in found.finding
    assert found.finding.endswith("so the error is made there, by quantising it")


def test_halves_that_overflow_are_found(tmp_path: Path) -> None:
    """FP16 ends at 65504: the cast gives infinity, which is told and not averaged away."""
    x = np.full((1, 4), 300, np.float32)
    np.savez(tmp_path / "big.npz", x=x[None])
    nodes = [node("Mul", "square", ["x", "x"], "m"), node("Sqrt", "root", ["m"], "y")]
    one = graph_of(nodes, {"x": [1, 4]}, {"y": [1, 4]}, {})
    half = graph_of(
        [
            node("Cast", "down", ["x"], "h", to=TensorProto.FLOAT16),
            node("Mul", "square", ["h", "h"], "mh"),
            node("Sqrt", "root", ["mh"], "r"),
            node("Cast", "up", ["r"], "y", to=TensorProto.FLOAT),
        ],
        {"x": [1, 4]},
        {"y": [1, 4]},
        {},
    )
    found = parted(half, open_dataset(str(tmp_path / "big.npz"), graph_inputs(one)), one)
    assert found.first == "mh"
    assert "'m' ('mh' in the candidate) is NaN or infinite in 4 of 4 elements" in found.finding
    assert tensor(found, "mh").not_finite == 4


def test_other_shapes_are_told(data: Dataset) -> None:
    """Nothing is compared that cannot be."""
    shape = list(graph_inputs(MODEL)[0].shape or ())
    constants = {"w1": weights(16, 16, 3, 3, seed=1)}
    strided = graph_of(
        [conv("conv1", "x", "a", "w1", strides=[2, 2])], {"x": shape}, {"a": ["p", "q", "r", "s"]}, constants
    )
    found = parted(strided, data)
    assert found.first == "a"
    assert "has another shape there" in found.finding


def test_graphs_without_anything_in_common_say_so(data: Dataset) -> None:
    """Other operators, other names, other numbers of outputs."""
    shape = list(graph_inputs(MODEL)[0].shape or ())
    nodes = [node("Exp", "e1", ["x"], "p"), node("Neg", "n1", ["x"], "q")]
    stranger = graph_of(nodes, {"x": shape}, {"p": shape, "q": shape}, {})
    found = parted(stranger, data)
    assert found.tensors == ()
    assert found.finding.startswith("no tensor inside the graphs could be matched")
