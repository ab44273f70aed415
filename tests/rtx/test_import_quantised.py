"""Models that others quantised become INT8 engines that compute what the model does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from ort.quantised_models import (
    BLOCK_MODELS,
    DIGITS_MODELS,
    DYNAMIC_MODELS,
    TFLITE_MODELS,
    digits_samples,
    integer_samples,
)
from ort_session import outputs_of, sqnr_db

from trt_opt.graph.float_types import holds_half_floats, widened_to_float32

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx

Feeds = Sequence[Mapping[str, NDArray[np.generic]]]

ASSETS = Path(__file__).parents[1] / "models" / "quantised"
FROM_TORCH = sorted(path.stem for path in ASSETS.glob("*.onnx"))

TARGET = ("--target", "rtx:8.6", "--json")

LEAST_FOLDED_DB = 40.0
"""Folding keeps every grid: what differs is a last bit where a sum lies between two steps."""

LEAST_HALF_DB = 25.0
"""The same where the source computes in FP16."""

LEAST_REGRIDDED_DB = 20.0
"""A symmetric grid in place of one from 0 up has half the steps, in every layer."""

LEAST_DYNAMIC_DB = 25.0
"""A fixed range for all samples in place of one for each."""

SIXTEEN_BITS = ("u16_activations", "s16_activations", "u16_contrib_pairs")
"""TensorRT has no activations of 16 bits: they become floats, and eight bits of the weights stay."""

UNSIGNED_WEIGHTS = ("u8_u8", "operators_u8_u8")
"""Weights with zero-points of their own need nine bits: they get another grid."""

EXACT_TWINS = {"operators_u8_s8_per_channel": "u8_s8_per_channel"}
"""Where ONNX Runtime's kernels saturate on some CPUs, the same quantisation in the form that it computes exactly."""

SYMMETRIC_BLOCKS = ("blocks_of_64_symmetric", "pairs_of_32_symmetric")

COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")

MOVES = ("Transpose", "Cast", "Reshape", "Flatten", "Pad", "MaxPool")
"""What TensorRT moves a DequantizeLinear behind: these take and give the same integers."""
PAIRS = ("QuantizeLinear", "DequantizeLinear")


def makers_of(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Tensor → the node it comes from."""
    return {name: node for node in model.graph.node for name in node.output}


def constants_of(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    """Initialisers and what Constant nodes hold."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def assert_pairs_are_tensorrts(model: onnx.ModelProto) -> None:
    """Only ONNX's Q/DQ with constant scales above 0 and INT8 (or INT4) zero-points of 0; nothing else quantised.

    Scales of INT4 blocks may be negative: ONNX Runtime maps the number farthest from 0 to -8, the longer side.
    """
    constants = constants_of(model)
    for node in model.graph.node:
        name = node.op_type
        assert not name.startswith(("QLinear", "QGemm", "DynamicQuantize")) and not name.endswith("Integer"), name
        assert name != "MatMulNBits" and node.domain in ("", "ai.onnx"), f"{node.domain} {name}"
        if name not in PAIRS:
            continue
        stored = constants.get(node.input[0])
        in_blocks = stored is not None and stored.dtype.name == "int4"
        scale = constants[node.input[1]]
        assert (np.abs(scale) if in_blocks else scale).min() > 0, node.name
        if name == "QuantizeLinear" or len(node.input) > 2:
            zero_point = constants[node.input[2]]
            assert zero_point.dtype.name in ("int8", "int4"), f"{node.name}: {zero_point.dtype}"
            assert not zero_point.any(), node.name
        if name == "DequantizeLinear" and stored is not None:
            assert stored.dtype.name in ("int8", "int4"), f"{node.name} reads {stored.dtype}"


def layers_in_float(model: onnx.ModelProto, operands: int = 2) -> list[str]:
    """Convolutions and products one of whose two operands (or whose weight, of one) comes from no DequantizeLinear."""
    makers = makers_of(model)

    def dequantized(name: str) -> bool:
        maker = makers.get(name)
        while maker is not None and maker.op_type in MOVES:
            maker = makers.get(maker.input[0])
        return maker is not None and maker.op_type == "DequantizeLinear"

    first = 2 - operands
    return [
        f"{node.op_type} {node.name}"
        for node in model.graph.node
        if node.op_type in COMPUTE and not all(dequantized(name) for name in node.input[first:2])
    ]


def assert_computes_in_int8(model: onnx.ModelProto, layers: int) -> None:
    """All `layers` convolutions and products read quantised activations and weights."""
    assert_pairs_are_tensorrts(model)
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) > 0
    assert sum(node.op_type in COMPUTE for node in model.graph.node) == layers
    assert layers_in_float(model) == []


def layer_count(model: onnx.ModelProto) -> int:
    """Convolutions and products of a source, in whichever form."""
    kinds = (*COMPUTE, "QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "MatMulNBits")
    return sum(node.op_type in kinds for node in model.graph.node)


def results(model: onnx.ModelProto, feeds: Feeds) -> NDArray[np.float64]:
    """The logits of all feeds; integers as they are."""
    return np.concatenate([outputs_of(model, feed)["logits"].astype(np.float64) for feed in feeds])


def exact_results(model: onnx.ModelProto, feeds: Feeds) -> NDArray[np.float64]:
    """The logits of all feeds without FP16's rounding, which moves numbers over the middle between two steps."""
    if not holds_half_floats(model):
        return results(model, feeds)
    wide = widened_to_float32(model)
    half_ends = wide.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    dtype = np.float16 if half_ends else np.float32
    return results(wide, [{name: array.astype(dtype) for name, array in feed.items()} for feed in feeds])


def data_file(feeds: Feeds) -> str:
    """The feeds in a file the command line takes."""
    np.savez("data.npz", image=np.concatenate([feed["image"] for feed in feeds]))
    return "data.npz"


def rewritten(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    """What `trt-opt rewrite` makes of it; it ends with exit code 0 and nothing refused."""
    onnx.save(model, "model.onnx")
    done = run("rewrite", "model.onnx", "-o", "out.onnx", "--data", data_file(feeds), *TARGET)
    assert done.exit_code == 0, done.stderr
    after = json.loads(done.stdout)["after"]
    assert after["built"] and not after["refused"]
    return onnx.load("out.onnx")


def built(model: onnx.ModelProto, feeds: Feeds, *options: str) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The graph beside the engine that `trt-opt build` makes of it, and how far its logits are from the source's."""
    onnx.save(model, "model.onnx")
    data = data_file(feeds)
    done = run("build", "model.onnx", "--eval-data", data, "--no-baselines", "-o", "store", *TARGET, *options)
    assert done.exit_code == 0, done.stderr
    outcome = json.loads(done.stdout)
    graph = Path(outcome["engine"]).with_name("model.onnx")
    assert Path(outcome["engine"]).stat().st_size > 0
    accuracy = outcome["manifest"]["variants"][-1]["accuracy"]
    assert accuracy["samples"] == sum(len(feed["image"]) for feed in feeds)
    (logits,) = accuracy["outputs"]
    return onnx.load(graph), logits


def asset(name: str) -> tuple[onnx.ModelProto, Feeds]:
    """A model out of PyTorch and the images in the type it takes."""
    model = onnx.load(ASSETS / f"{name}.onnx")
    half = model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    dtype = np.float16 if half else np.float32
    return model, [{"image": feed["image"].astype(dtype)} for feed in digits_samples()]


def least_db(name: str) -> float:
    """How far the outputs may lie from the source's."""
    return LEAST_REGRIDDED_DB if name in UNSIGNED_WEIGHTS else LEAST_FOLDED_DB


def assert_as_quantised(name: str, after: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """INT8 in every layer; in the weights alone where activations had 16 bits."""
    if name not in SIXTEEN_BITS:
        assert_computes_in_int8(after, layer_count(source))
        return
    assert_pairs_are_tensorrts(after)
    assert layer_count(after) == layer_count(source)
    assert layers_in_float(after, operands=1) == []


@pytest.mark.parametrize("name", FROM_TORCH)
def test_models_from_pytorch_are_rewritten_to_the_same_numbers(name: str, folder: Path) -> None:
    """What PyTorch's, torchao's and NVIDIA's exporters write keeps its layers in INT8 and its outputs."""
    model, feeds = asset(name)
    after = rewritten(model, feeds)
    assert_computes_in_int8(after, layer_count(model))
    assert sqnr_db(exact_results(model, feeds), exact_results(after, feeds)) > LEAST_FOLDED_DB


@pytest.mark.parametrize("name", FROM_TORCH)
def test_models_from_pytorch_are_built(name: str, folder: Path) -> None:
    """The graph of the engine computes in INT8 what the source does."""
    model, feeds = asset(name)
    after, accuracy = built(model, feeds)
    assert_computes_in_int8(after, layer_count(model))
    assert accuracy["identical"] or accuracy["sqnr_db"] > LEAST_HALF_DB
    assert sqnr_db(exact_results(model, feeds), exact_results(after, feeds)) > LEAST_FOLDED_DB


@pytest.mark.parametrize("name", DIGITS_MODELS)
def test_statically_quantised_models_are_rewritten_to_the_same_numbers(name: str, folder: Path) -> None:
    """Whatever `quantize_static` is told: signed or not, per channel or not, pairs or operators, biases or none."""
    model, feeds = DIGITS_MODELS[name](), digits_samples()
    after = rewritten(model, feeds)
    assert_as_quantised(name, after, model)
    reference = DIGITS_MODELS[EXACT_TWINS[name]]() if name in EXACT_TWINS else model
    assert sqnr_db(results(reference, feeds), results(after, feeds)) > least_db(name)


@pytest.mark.parametrize("name", DIGITS_MODELS)
def test_statically_quantised_models_are_built(name: str, folder: Path) -> None:
    """The same from model to engine."""
    model, feeds = DIGITS_MODELS[name](), digits_samples()
    after, _ = built(model, feeds)
    assert_as_quantised(name, after, model)
    reference = DIGITS_MODELS[EXACT_TWINS[name]]() if name in EXACT_TWINS else model
    assert sqnr_db(results(reference, feeds), results(after, feeds)) > least_db(name)


@pytest.mark.parametrize("name", ["u8_s8_per_channel", "s8_s8", "operators_s8_s8"])
def test_symmetric_grids_are_chosen_where_asked(name: str, folder: Path) -> None:
    """--zero-points regrid: the layers are as many, the numbers near."""
    model, feeds = DIGITS_MODELS[name](), digits_samples()
    after, _ = built(model, feeds, "--zero-points", "regrid")
    assert_computes_in_int8(after, layer_count(model))
    assert sqnr_db(results(model, feeds), results(after, feeds)) > LEAST_REGRIDDED_DB


@pytest.mark.parametrize("name", DYNAMIC_MODELS)
def test_dynamically_quantised_models_keep_their_weights(name: str, folder: Path) -> None:
    """Grids found as the model runs have no form in TensorRT: what was quantised so has INT8 weights and floats."""
    model, feeds = DYNAMIC_MODELS[name](), digits_samples()
    quantized = sum(node.op_type in ("ConvInteger", "MatMulInteger") for node in model.graph.node)
    after = rewritten(model, feeds)
    assert_pairs_are_tensorrts(after)
    assert len(layers_in_float(after, operands=1)) == layer_count(model) - quantized
    assert sqnr_db(results(model, feeds), results(after, feeds)) > LEAST_DYNAMIC_DB


@pytest.mark.parametrize("name", DYNAMIC_MODELS)
def test_dynamically_quantised_models_get_fixed_ranges(name: str, folder: Path) -> None:
    """With --int8 and calibration data every layer but the narrow last one is INT8, near what the source does."""
    model, feeds = DYNAMIC_MODELS[name](), digits_samples()
    after, _ = built(model, feeds, "--int8", "--no-fp16", "--calib-data", data_file(feeds))
    assert_pairs_are_tensorrts(after)
    assert [name.split()[-1].split("_")[0] for name in layers_in_float(after)] == ["head/logits"]
    assert sqnr_db(results(model, feeds), results(after, feeds)) > LEAST_DYNAMIC_DB


@pytest.mark.parametrize("name", BLOCK_MODELS)
def test_weights_in_blocks_keep_their_values(name: str, folder: Path) -> None:
    """Weights of 4 or 8 bits in blocks, as an operator or as a DequantizeLinear, become what TensorRT takes."""
    model, feeds = BLOCK_MODELS[name](), digits_samples()
    after = rewritten(model, feeds)
    assert_pairs_are_tensorrts(after)
    assert sqnr_db(results(model, feeds), results(after, feeds)) > LEAST_FOLDED_DB
    if name in SYMMETRIC_BLOCKS:
        assert not [layer for layer in layers_in_float(after, operands=1) if layer.startswith("MatMul")]


@pytest.mark.parametrize("name", BLOCK_MODELS)
def test_weights_in_blocks_are_built(name: str, folder: Path) -> None:
    """The same from model to engine."""
    model, feeds = BLOCK_MODELS[name](), digits_samples()
    after, _ = built(model, feeds)
    assert_pairs_are_tensorrts(after)
    assert sqnr_db(results(model, feeds), results(after, feeds)) > LEAST_FOLDED_DB


@pytest.mark.parametrize("way", [rewritten, lambda model, feeds: built(model, feeds)[0]], ids=["rewrite", "build"])
@pytest.mark.parametrize("name", TFLITE_MODELS)
def test_integer_ends_keep_their_types_and_numbers(
    name: str, way: Callable[[onnx.ModelProto, Feeds], onnx.ModelProto], folder: Path
) -> None:
    """A TFLite model has quantised NHWC ends: they stay, and hardly a number between them moves."""
    model = TFLITE_MODELS[name]()
    feeds = integer_samples(model)
    after = way(model, feeds)
    ends = [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    assert [value.type.tensor_type.elem_type for value in (*after.graph.input, *after.graph.output)] == ends
    assert_computes_in_int8(after, layer_count(model))
    source, now = results(model, feeds), results(after, feeds)
    assert np.mean(source != now) < 0.05
    assert np.abs(source - now).max() <= 1
