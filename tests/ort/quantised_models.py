"""Models that ONNX Runtime's own tools quantise, and those that come from TFLite, made anew for each test."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

Feed = Mapping[str, NDArray[np.generic]]
Maker = Callable[[], onnx.ModelProto]
Source = onnx.ModelProto | Path
"""ONNX Runtime's quantisers read a large model from its file alone."""

DIGITS = files("trt_opt").joinpath("samples/digits")

STATIC: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "u8_s8": {"activation_type": QuantType.QUInt8},
        "u8_s8_per_channel": {"activation_type": QuantType.QUInt8, "per_channel": True},
        "u8_s8_reduced_range": {"activation_type": QuantType.QUInt8, "per_channel": True, "reduce_range": True},
        "u8_u8": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8},
        "s8_s8": {},
        "s8_s8_per_channel": {"per_channel": True},
        "s8_s8_percentile": {"calibrate_method": CalibrationMethod.Percentile},
        "symmetric": {"per_channel": True, "extra_options": {"ActivationSymmetric": True}},
        "symmetric_float_bias": {
            "per_channel": True,
            "extra_options": {"ActivationSymmetric": True, "QuantizeBias": False},
        },
        "float_bias": {"activation_type": QuantType.QUInt8, "extra_options": {"QuantizeBias": False}},
        "pairs_on_weights": {"extra_options": {"AddQDQPairToWeight": True}, "per_channel": True},
        "dedicated_pairs": {"activation_type": QuantType.QUInt8, "extra_options": {"DedicatedQDQPair": True}},
        "u16_activations": {"activation_type": QuantType.QUInt16},
        "s16_activations": {"activation_type": QuantType.QInt16},
        "u16_contrib_pairs": {"activation_type": QuantType.QUInt16, "extra_options": {"UseQDQContribOps": True}},
        "contrib_pairs": {"activation_type": QuantType.QUInt8, "extra_options": {"UseQDQContribOps": True}},
        "operators_s8_s8": {"quant_format": QuantFormat.QOperator},
        "operators_u8_s8_per_channel": {
            "quant_format": QuantFormat.QOperator,
            "activation_type": QuantType.QUInt8,
            "per_channel": True,
        },
        "operators_u8_u8": {
            "quant_format": QuantFormat.QOperator,
            "activation_type": QuantType.QUInt8,
            "weight_type": QuantType.QUInt8,
        },
    }
)
"""Arguments of `quantize_static`; whatever is left out is its default: Q/DQ, INT8, minmax, INT32 biases."""

DYNAMIC: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "dynamic_u8": {"weight_type": QuantType.QUInt8},
        "dynamic_s8": {"weight_type": QuantType.QInt8, "op_types_to_quantize": ["MatMul", "Gemm"]},
        "dynamic_u8_per_channel": {"weight_type": QuantType.QUInt8, "per_channel": True},
        "dynamic_s8_per_channel": {
            "weight_type": QuantType.QInt8,
            "per_channel": True,
            "op_types_to_quantize": ["MatMul", "Gemm"],
        },
    }
)
"""Arguments of `quantize_dynamic`. ONNX Runtime has no ConvInteger for INT8 weights."""


class Samples(CalibrationDataReader):
    """Feeds, one after the other."""

    def __init__(self, samples: Sequence[Feed]) -> None:
        self.rest = iter(samples)

    def get_next(self) -> Any:
        """The next feed; None behind the last."""
        return next(self.rest, None)


@contextmanager
def silenced() -> Iterator[None]:
    """ONNX Runtime's quantiser advises on the root logger, which belongs to the tests."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def digits() -> onnx.ModelProto:
    """The float sample."""
    return onnx.load_from_string(DIGITS.joinpath("model.onnx").read_bytes())


def digits_samples() -> list[dict[str, NDArray[np.generic]]]:
    """The images for its calibration, eight at a time."""
    with DIGITS.joinpath("calibration.npz").open("rb") as file:
        images = np.load(file)["image"]
    return [{"image": images[start : start + 8]} for start in range(0, len(images), 8)]


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model behind `quant_pre_process`, as ONNX Runtime's guide asks: BatchNormalization is in the convolutions."""

    def write(path: Path) -> None:
        quant_pre_process(model, path, skip_symbolic_shape=True)

    return _written(write)


def statically(model: Source, samples: Sequence[Feed], **options: Any) -> onnx.ModelProto:
    """The model behind `quantize_static`."""
    return _written(lambda path: quantize_static(model, path, Samples(samples), **options))


def dynamically(model: Source, **options: Any) -> onnx.ModelProto:
    """The model behind `quantize_dynamic`."""
    return _written(lambda path: quantize_dynamic(model, path, **options))


def in_blocks(model: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    """The model with MatMul weights of 4 bits, or 8, in blocks.

    Args:
        model: A float model with MatMul nodes.
        **options: Of `DefaultWeightOnlyQuantConfig`.
    """
    quantizer = MatMulNBitsQuantizer(model, algo_config=DefaultWeightOnlyQuantConfig(**options))
    with silenced():
        quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def _written(write: Callable[[Path], object]) -> onnx.ModelProto:
    """What a tool writes to a file."""
    with tempfile.TemporaryDirectory() as folder, silenced():
        path = Path(folder) / "model.onnx"
        write(path)
        return onnx.load(path)


def digits_with_products() -> onnx.ModelProto:
    """The float sample whose Gemms are MatMul and Add, which alone ONNX Runtime stores in 4 bits."""
    model = folded(digits())
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Gemm":
            nodes.append(node)
            continue
        weight = constants[node.input[1]]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).T.copy(), weight.name))
        product = f"{node.output[0]}_product"
        nodes.append(helper.make_node("MatMul", node.input[:2], [product], f"{node.name}_product"))
        nodes.append(helper.make_node("Add", [product, node.input[2]], node.output, f"{node.name}_bias"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def with_integer_ends(element: int) -> onnx.ModelProto:
    """The sample in TFLite's form: quantised NHWC ends, asymmetric activations, narrow weights per output channel.

    Args:
        element: INT8 or UINT8, the type of the graph's input and output.
    """
    activations = QuantType.QInt8 if element == TensorProto.INT8 else QuantType.QUInt8
    model = statically(folded(digits()), digits_samples(), activation_type=activations, per_channel=True)
    graph = model.graph
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "image")
    last = next(node for node in graph.node if node.output[0] == "logits")
    if last.op_type != "DequantizeLinear":
        raise ValueError("the sample's output is not quantised")
    integer_image, integer_logits = first.output[0], last.input[0]
    graph.node.remove(first)
    graph.node.remove(last)
    graph.node.insert(0, helper.make_node("Transpose", ["image"], [integer_image], "to_nchw", perm=[0, 3, 1, 2]))
    for node in graph.node:
        node.output[:] = ["logits" if name == integer_logits else name for name in node.output]
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info("image", element, ["batch", 8, 8, 1]))
    graph.output.append(helper.make_tensor_value_info("logits", element, ["batch", 10]))
    onnx.checker.check_model(model, full_check=True)
    return model


def integer_samples(model: onnx.ModelProto) -> list[dict[str, NDArray[np.generic]]]:
    """The images on the grid of a model `with_integer_ends`."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    reader = next(node for node in model.graph.node if node.op_type == "DequantizeLinear" and "image" in node.input[0])
    scale, zero_point = (constants[name] for name in reader.input[1:])
    limits = np.iinfo(zero_point.dtype)
    return [
        {
            "image": np.clip(np.rint(feed["image"] / scale) + zero_point, limits.min, limits.max)
            .astype(zero_point.dtype)
            .transpose(0, 2, 3, 1)
        }
        for feed in digits_samples()
    ]


def _static_digits(name: str) -> onnx.ModelProto:
    return statically(folded(digits()), digits_samples(), **STATIC[name])


def _dynamic_digits(name: str) -> onnx.ModelProto:
    return dynamically(folded(digits()), **DYNAMIC[name])


DIGITS_MODELS: Mapping[str, Maker] = MappingProxyType(
    {
        "batchnorm_unfolded": lambda: statically(digits(), digits_samples(), activation_type=QuantType.QUInt8),
        **{name: partial(_static_digits, name) for name in STATIC},
    }
)
"""The sample with quantised activations and weights, in FP32 ends."""

DYNAMIC_MODELS: Mapping[str, Maker] = MappingProxyType({name: partial(_dynamic_digits, name) for name in DYNAMIC})

BLOCK_MODELS: Mapping[str, Maker] = MappingProxyType(
    {
        "blocks_of_32": lambda: in_blocks(digits_with_products(), block_size=32, is_symmetric=False),
        "blocks_of_64_symmetric": lambda: in_blocks(digits_with_products(), block_size=64, is_symmetric=True),
        "blocks_of_8_bits": lambda: in_blocks(digits_with_products(), block_size=32, bits=8),
        "pairs_of_32": lambda: in_blocks(digits_with_products(), block_size=32, quant_format=QuantFormat.QDQ),
        "pairs_of_32_symmetric": lambda: in_blocks(
            digits_with_products(), block_size=32, is_symmetric=True, quant_format=QuantFormat.QDQ
        ),
    }
)

TFLITE_MODELS: Mapping[str, Maker] = MappingProxyType(
    {
        "tflite_s8": partial(with_integer_ends, TensorProto.INT8),
        "tflite_u8": partial(with_integer_ends, TensorProto.UINT8),
    }
)


def with_float_kernels(model: onnx.ModelProto) -> onnx.ModelProto:
    """An image classifier of QLinear operators, written out as ONNX defines them: dequantise, compute, quantise.

    ONNX Runtime's own kernels saturate UINT8 by INT8 products on CPUs without VNNI, and are off by points then.

    Args:
        model: With QLinearConv, QLinearConcat, QLinearGlobalAveragePool and QLinearSoftmax.
    """
    exact = onnx.ModelProto()
    exact.CopyFrom(model)
    exact.ir_version = max(model.ir_version, 4)  # before, every initialiser would have to be a graph input
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.extend(_written_out(node, constants, exact.graph) if node.op_type.startswith("QLinear") else [node])
    del exact.graph.node[:]
    exact.graph.node.extend(nodes)
    return exact


def _written_out(
    node: onnx.NodeProto, constants: Mapping[str, NDArray[np.generic]], graph: onnx.GraphProto
) -> Iterator[onnx.NodeProto]:
    """A QLinear operator as a float one between pairs; a bias becomes an initialiser of the graph."""
    operator, inputs, output = node.op_type.removeprefix("QLinear"), node.input, node.output[0]
    triples = {"Conv": (0, 3), "Concat": range(2, len(inputs), 3)}.get(operator, (0,))
    grid = {"Conv": inputs[6:8], "Concat": inputs[0:2]}.get(operator, inputs[3:5])
    names = []
    for number in triples:
        names.append(f"{output}_{number}")
        axis = {"axis": 0} if constants[inputs[number + 1]].ndim else {}
        yield helper.make_node("DequantizeLinear", inputs[number : number + 3], names[-1:], **axis)
    if len(inputs) > 8 and operator == "Conv":
        step = constants[inputs[1]] * constants[inputs[4]]
        names.append(f"{output}_bias")
        graph.initializer.append(numpy_helper.from_array((constants[inputs[8]] * step).astype(np.float32), names[-1]))
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name not in ("opset",)}
    if operator == "GlobalAveragePool":
        attributes = {}
    yield helper.make_node(operator, names, [f"{output}_float"], **attributes)
    yield helper.make_node("QuantizeLinear", [f"{output}_float", *grid], [output])
