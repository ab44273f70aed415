"""Moving a model to another version of the standard operator set."""

from __future__ import annotations

import onnx
from onnx import ModelProto

from trt_opt.errors import TrtOptError, UnsupportedModelError
from trt_opt.graph.check import check_model
from trt_opt.graph.initialisers import without_initialiser_inputs
from trt_opt.graph.query import (
    count_operators,
    custom_domain_nodes,
    graph_inputs,
    graph_outputs,
    node_label,
    opset,
    opset_or_none,
    unknown_nodes,
)
from trt_opt.graph.tensors import array_from_tensor, model_without_initialisers, without_large_tensors

_SCAN_WITHOUT_BATCH = 9


STANDARD_OPSET = 18
"""What a model gets that imports operators of other domains alone: passes write standard ones in their place."""


def with_standard_operators(model: ModelProto) -> ModelProto:
    """The model, or a copy that imports the standard operators too where it imports those of other domains alone."""
    if opset_or_none(model) is not None:
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.opset_import.add(domain="", version=STANDARD_OPSET)
    copy.ir_version = max(model.ir_version, 8)
    return copy


def converted_to_opset(model: ModelProto, version: int) -> ModelProto:
    """A copy of the model that uses this version of the standard operators, checked; the model itself if it does so.

    Names of inputs, outputs and constants stay. Initialisers stop being graph inputs, which onnx's converter needs.

    Raises:
        UnsupportedModelError: onnx's converter cannot, or what it wrote is not valid; the reason is its own.
    """
    current = opset(model)
    if current == version:
        return model
    where = f"conversion from opset {current} to {version}"
    custom = (*custom_domain_nodes(model), *unknown_nodes(model))
    if custom or model.functions:
        what = f"{custom[0].domain}::{custom[0].op_type}" if custom else f"function {model.functions[0].name}"
        raise UnsupportedModelError(
            f"onnx's converter takes no custom operators, and the model uses {what}",
            where=where,
            hint="export the model with the wanted opset",
            nodes=tuple((node_label(node), node.op_type, "custom operator") for node in custom),
        )
    if current < _SCAN_WITHOUT_BATCH <= version and "Scan" in count_operators(model):
        raise UnsupportedModelError(
            "Scan lost its batch axis in opset 9, and onnx's converter leaves the node as it is", where=where
        )
    free = without_initialiser_inputs(model)
    light = without_large_tensors(free)
    try:
        converted = onnx.version_converter.convert_version(light, version)
    except (
        RuntimeError,
        ValueError,
        onnx.version_converter.ConvertError,
        onnx.shape_inference.InferenceError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedModelError(reason, where=where, hint="export the model with the wanted opset") from error
    result = _with_weights_back(converted, free, light)
    _mend_prelu_slopes(result, current)
    _check(model, result, where)
    return result


def _with_weights_back(converted: ModelProto, source: ModelProto, light: ModelProto) -> ModelProto:
    """Turns the inputs that stood for large weights into initialisers again, and restores what the converter drops."""
    result = model_without_initialisers(converted)
    inputs = {value.name for value in source.graph.input}
    kept = [value for value in converted.graph.input if value.name in inputs]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    stand_ins = {value.name for value in light.graph.input} - inputs
    result.graph.initializer.extend(tensor for tensor in source.graph.initializer if tensor.name in stand_ins)
    result.graph.initializer.extend(converted.graph.initializer)
    for holder, original in ((result, source), (result.graph, source.graph)):
        del holder.metadata_props[:]
        holder.metadata_props.extend(original.metadata_props)
    result.producer_name, result.producer_version = source.producer_name, source.producer_version
    return result


def _mend_prelu_slopes(model: ModelProto, source_opset: int) -> None:
    """Gives PRelu slopes [C], meant for axis 1 before opset 7, the shape [C, 1, …], which the converter forgets."""
    if source_opset >= 7:
        return
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in onnx.shape_inference.infer_shapes(without_large_tensors(model)).graph.value_info
    }
    ranks |= {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.input}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    taken = set(constants)
    for node in model.graph.node:
        slope = constants.get(node.input[1]) if node.op_type == "PRelu" else None
        if slope is None or len(slope.dims) != 1 or slope.dims[0] == 1:
            continue
        rank = ranks.get(node.input[0])
        if rank is None:
            raise UnsupportedModelError("the rank of PRelu's input is unknown", where=node_label(node))
        name = f"{slope.name}_as_axis_1_of_{rank}"
        if name not in taken:
            taken.add(name)
            shape = (-1,) + (1,) * (rank - 2)
            model.graph.initializer.append(onnx.numpy_helper.from_array(array_from_tensor(slope).reshape(shape), name))
        node.input[1] = name


def _check(before: ModelProto, after: ModelProto, where: str) -> None:
    for kind, names in (("inputs", graph_inputs), ("outputs", graph_outputs)):
        if [spec.name for spec in names(before)] != [spec.name for spec in names(after)]:
            raise UnsupportedModelError(f"onnx's converter changed the graph's {kind}", where=where)
    try:
        check_model(after, where)
    except TrtOptError as error:
        raise UnsupportedModelError(
            f"onnx's converter wrote an invalid model: {error.what}", where=error.where
        ) from error
