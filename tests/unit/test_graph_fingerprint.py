"""What a model's identity depends on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from graph_models import conv_relu, outer_constant_in_both_branches
from onnx import ModelProto, TensorProto, numpy_helper

from trt_opt.errors import ModelFileError
from trt_opt.graph.fingerprint import fingerprint


def _typed_field(model: ModelProto) -> None:
    values = numpy_helper.to_array(model.graph.initializer[0])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend(values.ravel().tolist())


def _names(model: ModelProto) -> None:
    model.producer_name, model.doc_string, model.graph.doc_string = "another", "text", "text"
    model.graph.node[0].name, model.graph.node[0].doc_string = "renamed", "text"
    model.metadata_props.add(key="author", value="someone")


def _listed_initialiser(model: ModelProto) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", TensorProto.FLOAT, [16, 48, 3, 3]))


def _value_info(model: ModelProto) -> None:
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 16, 8, 8]))


@pytest.mark.parametrize("edit", [_typed_field, _names, _listed_initialiser, _value_info])
def test_storage_and_names_of_nodes_do_not_count(edit: Callable[[ModelProto], None]) -> None:
    """What leaves the computation as it is leaves the fingerprint as it is."""
    model = conv_relu()
    edit(model)
    assert fingerprint(model) == fingerprint(conv_relu())


def _weight(model: ModelProto) -> None:
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[-1, -1, -1, -1] = np.nextafter(values[-1, -1, -1, -1], np.float32(10))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))


def _attribute(model: ModelProto) -> None:
    model.graph.node[0].attribute[0].ints[0] = 2


def _opset(model: ModelProto) -> None:
    model.opset_import[0].version = 18


def _tensor_name(model: ModelProto) -> None:
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "other"


def _input_shape(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


@pytest.mark.parametrize("edit", [_weight, _attribute, _opset, _tensor_name, _input_shape])
def test_what_computes_counts(edit: Callable[[ModelProto], None]) -> None:
    """One unit in the last place of one weight is another model."""
    model = conv_relu()
    edit(model)
    assert fingerprint(model) != fingerprint(conv_relu())


def test_nested_graphs_count() -> None:
    """A node inside a branch of an If is part of the model."""
    model = outer_constant_in_both_branches()
    model.graph.node[1].attribute[0].g.node[0].op_type = "Div"
    assert fingerprint(model) != fingerprint(outer_constant_in_both_branches())


def test_data_not_loaded_is_an_error() -> None:
    """A model whose weights were left on the disk has no fingerprint, rather than one that ignores them."""
    model = conv_relu()
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelFileError, match="external file"):
        fingerprint(model)
