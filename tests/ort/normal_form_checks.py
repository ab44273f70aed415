"""What it means that a model is in normal form, and that two models compute the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from ort_session import outputs_of

from trt_opt.graph.check import check_model
from trt_opt.graph.names import with_unique_node_names
from trt_opt.quantize.importing.normal_form import NormalForm, normal_form

Feed = Mapping[str, NDArray[np.generic]]

ACTIVATIONS = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16)


def brought(model: onnx.ModelProto) -> NormalForm:
    """The normal form, valid to onnx and stable: its own normal form is the very same object."""
    before = model.SerializeToString()
    found = normal_form(model)
    assert model.SerializeToString() == before
    check_model(found.model, "normal form")
    again = normal_form(found.model)
    assert again.model is found.model
    assert not again.changed
    return found


def assert_in_normal_form(model: onnx.ModelProto) -> None:
    """Q/DQ of ONNX alone, with constant grids; one DequantizeLinear per activation, constants stored as integers."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    inputs = {value.name for value in model.graph.input}
    outputs = {value.name for value in model.graph.output}
    for node in with_unique_node_names(model).graph.node:
        assert not node.op_type.startswith(("QLinear", "QGemm", "Dynamic")), node.name
        assert not node.op_type.endswith(("Integer", "IntegerToFloat")), node.name
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        assert node.domain in ("", "ai.onnx")
        assert len(node.input) == 3 and node.input[1] in constants and node.input[2] in constants, node.name
        scale, zero = constants[node.input[1]], constants[node.input[2]]
        assert scale.shape == zero.shape
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            assert constants[node.input[0]].dtype == zero.dtype != np.int32
            continue
        assert scale.shape == ()
        if node.op_type == "DequantizeLinear":
            maker = makers.get(node.input[0])
            assert node.input[0] in inputs if maker is None else maker.op_type == "QuantizeLinear", node.name
            continue
        readers = [reader for reader in model.graph.node if node.output[0] in reader.input]
        assert len(readers) == 1 or (not readers and node.output[0] in outputs), node.name
        for reader in readers:
            assert reader.op_type == "DequantizeLinear"
            assert constants[reader.input[1]] == scale and constants[reader.input[2]] == zero


def assert_same_numbers(
    source: onnx.ModelProto, model: onnx.ModelProto, feeds: Sequence[Feed], tolerance: float = 0.0
) -> None:
    """Every output of every feed is equal, or within a share of the output's largest magnitude."""
    for feed in feeds:
        expected, found = outputs_of(source, feed), outputs_of(model, feed)
        assert expected.keys() == found.keys()
        for name, array in expected.items():
            assert found[name].dtype == array.dtype
            wanted = array.astype(np.float64)
            limit = tolerance * np.abs(wanted).max(initial=0)
            np.testing.assert_allclose(found[name].astype(np.float64), wanted, rtol=0, atol=limit)
