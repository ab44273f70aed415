"""Writes the models in `tests/models/quantised`: quantised by others, in the forms their exporters leave behind.

pip install -e . torch==2.13.0 torchao==0.18.0 onnxscript
python scripts/make_quantized_models.py --output tests/models/quantised
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from quantized_models_torch import (
    fx_converted,
    fx_fake_quantized,
    nvidia_quantized,
    pt2e_quantized,
    x86_quantizer,
    xnnpack_quantizer,
)

Maker = Callable[[torch.Tensor], onnx.ModelProto]

LARGEST_BYTES = 60_000
IR_VERSION = 10


def with_half_scales(images: torch.Tensor) -> onnx.ModelProto:
    """The FP16 network whose Q/DQ pairs are FP16 themselves (opset 19), as ModelOpt writes them for TensorRT.

    Written after the form of ModelOpt's exporter: PyTorch's own keeps FP32 scales between two Casts.
    """
    return _without_casts_around_pairs(nvidia_quantized(images, half=True))


def with_folded_weights(images: torch.Tensor) -> onnx.ModelProto:
    """ModelOpt's ONNX form: INT8 weights behind a DequantizeLinear, scales in Constant nodes, FP16 between two Casts.

    Written after the form of ModelOpt's exporter.
    """
    model = _without_casts_around_pairs(nvidia_quantized(images, half=True))
    _fold_weights(model)
    _put_casts_at_the_ends(model)
    return model


def _constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Initialisers and the values of Constant nodes."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """What reads one tensor reads another instead."""
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def _without_casts_around_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Q/DQ pairs read and give FP16: the Casts around them go, their scales and weights become FP16."""
    maker = {name: node for node in model.graph.node for name in node.output}
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    pairs = ("QuantizeLinear", "DequantizeLinear")
    scales = {node.input[1] for node in model.graph.node if node.op_type in pairs}
    weights = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    tensors = [maker[name].attribute[0].t for name in scales]
    for tensor in (*tensors, *(tensor for tensor in model.graph.initializer if tensor.name in weights)):
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    new_names: dict[str, str] = {}
    for cast in casts:
        new_names[cast.output[0]] = new_names.get(cast.input[0], cast.input[0])
        model.graph.node.remove(cast)
    _rename(model, new_names)
    return model


def _fold_weights(model: onnx.ModelProto) -> None:
    """Quantised weights are stored as INT8; the QuantizeLinear of each goes."""
    constants = _constants(model)
    for node in [node for node in model.graph.node if node.op_type == "QuantizeLinear"]:
        if node.input[0] not in constants:
            continue
        weight, scale = (constants[name].astype(np.float32) for name in node.input[:2])
        axis = next(attribute.i for attribute in node.attribute if attribute.name == "axis")
        shape = [-1 if number == axis else 1 for number in range(weight.ndim)]
        integers = np.clip(np.rint(weight / scale.reshape(shape)), -128, 127).astype(np.int8)
        stored = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[0])
        stored.CopyFrom(numpy_helper.from_array(integers, f"{node.input[0]}_int8"))
        _rename(model, {node.output[0]: stored.name})
        model.graph.node.remove(node)


def _put_casts_at_the_ends(model: onnx.ModelProto) -> None:
    """The graph's input and output become FP32 with a Cast each."""
    graph = model.graph
    given, result = graph.input[0], graph.output[0]
    inner_result = f"{result.name}_fp16"
    for node in graph.node:
        node.input[:] = [f"{given.name}_fp16" if name == given.name else name for name in node.input]
        node.output[:] = [inner_result if name == result.name else name for name in node.output]
    for value in (given, result):
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    first = helper.make_node("Cast", [given.name], [f"{given.name}_fp16"], "cast_input", to=TensorProto.FLOAT16)
    graph.node.insert(0, first)
    graph.node.append(helper.make_node("Cast", [inner_result], [result.name], "cast_output", to=TensorProto.FLOAT))


MODELS: Mapping[str, Maker] = MappingProxyType(
    {
        "fx_qat_u8_per_channel": partial(fx_fake_quantized, activations=torch.quint8, per_channel=True),
        "fx_qat_s8_per_tensor": partial(fx_fake_quantized, activations=torch.qint8, per_channel=False),
        "fx_converted_x86": partial(fx_converted, backend="x86"),
        "fx_converted_qnnpack": partial(fx_converted, backend="qnnpack"),
        "pt2e_x86_u8": lambda images: pt2e_quantized(images, x86_quantizer()),
        "pt2e_xnnpack_s8_per_channel": lambda images: pt2e_quantized(images, xnnpack_quantizer(True)),
        "pt2e_xnnpack_s8_per_tensor": lambda images: pt2e_quantized(images, xnnpack_quantizer(False)),
        "nvidia_fp32": partial(nvidia_quantized, half=False),
        "nvidia_fp16_casts": partial(nvidia_quantized, half=True),
        "nvidia_fp16_scales": with_half_scales,
        "modelopt_fp16_folded": with_folded_weights,
    }
)


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes on where in which source file a node comes from."""
    model.ir_version = min(model.ir_version, IR_VERSION)
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for part in (*model.graph.initializer, *model.graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def checked(model: onnx.ModelProto, name: str) -> bytes:
    """The model's file.

    Raises:
        ValueError: It is not valid, or larger than a test's model may be.
    """
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString(deterministic=True)
    if len(content) > LARGEST_BYTES:
        raise ValueError(f"{name} has {len(content)} bytes, over {LARGEST_BYTES}")
    return content


def main() -> None:
    """Writes every model, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the folder to write to")
    parser.add_argument("names", nargs="*", default=[*MODELS], help="models; all by default")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(1)
    with files("trt_opt").joinpath("samples/digits/calibration.npz").open("rb") as file:
        images = torch.from_numpy(np.load(file)["image"])
    arguments.output.mkdir(parents=True, exist_ok=True)
    print(", ".join(f"{package} {version(package)}" for package in ("torch", "torchao", "onnxscript", "onnx")))
    for name in arguments.names:
        content = checked(without_traces(MODELS[name](images)), name)
        (arguments.output / f"{name}.onnx").write_bytes(content)
        print(f"{name:<32}{len(content):>8,} bytes")


if __name__ == "__main__":
    main()
