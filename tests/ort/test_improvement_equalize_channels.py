"""Channels of one tensor get like ranges, and the float model stays what it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from channel_models import EQUALIZED, LEFT, mobilenet_block, relu, shared_weight
from improvement_subjects import Feed, again, data_of, pooled_sqnr_db, same_bits, subject_of
from onnx import numpy_helper

from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.improvements.equalize_channels import EqualizeChannels
from trt_opt.improvements.migrate_scales import MigrateScales
from trt_opt.values.progress import Silent

SAMPLES = 6
IMPROVED = EqualizeChannels()


def feeds_of(model: onnx.ModelProto, count: int = SAMPLES, seed: int = 0) -> list[Feed]:
    """Normal random numbers, three to a batch where the batch is free."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        feed: dict[str, np.ndarray] = {}
        for spec in graph_inputs(model):
            shape = [3 if isinstance(size, str) else size for size in spec.shape or ()]
            is_flag = spec.dtype == "bool"
            feed[spec.name] = np.array(True) if is_flag else generator.standard_normal(shape).astype(np.float32)
        found.append(feed)
    return found


@pytest.mark.parametrize("name", EQUALIZED)
def test_uneven_channels_are_evened_out(name: str, tmp_path: Path) -> None:
    """INT8 gains, the float model gives the same bits, its ends stay, and a second run finds nothing."""
    model = EQUALIZED[name]()
    subject = subject_of(model, data_of(model, feeds_of(model), tmp_path))
    found = IMPROVED.improved(subject, Silent())
    assert found.model is not None
    assert found.gains
    onnx.checker.check_model(found.model)
    others = feeds_of(model, seed=1)
    assert same_bits(subject.source.model, found.model, others)
    assert graph_inputs(found.model) == graph_inputs(subject.source.model)
    assert graph_outputs(found.model) == graph_outputs(subject.source.model)
    after = again(found, subject)
    assert pooled_sqnr_db(after, model, others) > pooled_sqnr_db(subject, model, others) + 1
    assert after.source.quantized_nodes >= subject.source.quantized_nodes
    assert IMPROVED.improved(after, Silent()).model is None


@pytest.mark.parametrize("name", LEFT)
def test_channels_that_somebody_else_sees_are_left(name: str, tmp_path: Path) -> None:
    """A graph output, a branch or a Sigmoid forbids it, and the report says which."""
    model = LEFT[name]()
    subject = subject_of(model, data_of(model, feeds_of(model), tmp_path))
    found = IMPROVED.improved(subject, Silent())
    assert found.model is None
    wanted = {"tensor_is_graph_output": "output of the graph", "tensor_read_in_a_branch": "an If"}
    if name in wanted:
        assert any(entry.node == "conv2" and wanted[name] in entry.why for entry in found.declined)


def test_gains_tell_of_layers_before_and_after(tmp_path: Path) -> None:
    """The gain names the layer that reads the channels, and its SQNR rises."""
    model = relu()
    found = IMPROVED.improved(subject_of(model, data_of(model, feeds_of(model), tmp_path)), Silent())
    (gain,) = found.gains
    assert gain.node == "conv2"
    assert gain.before_db is not None
    assert gain.after_db is not None
    assert gain.after_db > gain.before_db + 3
    assert "of 16 channels" in gain.what


def test_a_shared_weight_is_not_scaled_for_the_other_reader(tmp_path: Path) -> None:
    """The layer that reads even channels keeps the weights it had."""
    model = shared_weight()
    subject = subject_of(model, data_of(model, feeds_of(model), tmp_path))
    found = IMPROVED.improved(subject, Silent())
    assert found.model is not None
    readers = {node.name: node.input[1] for node in found.model.graph.node}
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in found.model.graph.initializer}
    original = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert readers["conv2"] != readers["conv3"]
    assert np.array_equal(held[readers["conv3"]], original["w2"])


def test_relu6_gets_one_upper_bound_per_channel(tmp_path: Path) -> None:
    """Clip becomes Relu and Min: the bound is the six divided by each channel's factor."""
    model = mobilenet_block()
    subject = subject_of(model, data_of(model, feeds_of(model), tmp_path))
    found = IMPROVED.improved(subject, Silent())
    assert found.model is not None
    bounds = [node.input[1] for node in found.model.graph.node if node.op_type == "Min"]
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in found.model.graph.initializer}
    assert bounds
    for name in bounds:
        factors = 6 / held[name].astype(np.float64)
        assert held[name].shape == (1, 16, 1, 1)
        assert np.array_equal(np.log2(factors), np.rint(np.log2(factors)))


def test_even_channels_are_left_alone(tmp_path: Path) -> None:
    """Channels that differ by less than a factor of four are not touched, nor complained of."""
    model = relu()
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, size in (("w1", (16, 3, 3, 3)), ("b1", (16,))):
        even = np.random.default_rng(1).uniform(0.9, 1.1, size).astype(np.float32)
        held[name].CopyFrom(numpy_helper.from_array(even, name))
    found = IMPROVED.improved(subject_of(model, data_of(model, feeds_of(model), tmp_path)), Silent())
    assert found.model is None
    assert not found.gains
    assert not found.declined


def test_migration_leaves_what_layers_make(tmp_path: Path) -> None:
    """Channels that a convolution makes are no business of migrate-scales."""
    model = relu()
    assert (
        MigrateScales().improved(subject_of(model, data_of(model, feeds_of(model), tmp_path)), Silent()).model is None
    )
