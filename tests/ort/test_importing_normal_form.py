"""Models out of real quantisers in normal form compute what they did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import pytest
from collection import data_folder, model_file, needs_collection
from onnx import TensorProto
from ort.normal_form_checks import assert_in_normal_form, assert_same_numbers, brought
from ort.quantised_models import (
    BLOCK_MODELS,
    DIGITS_MODELS,
    DYNAMIC_MODELS,
    TFLITE_MODELS,
    digits,
    digits_samples,
    integer_samples,
    with_float_kernels,
)
from ort_session import outputs_of, sqnr_db

from trt_opt.graph.float_types import widened_to_float32
from trt_opt.quantize.importing.normal_form import normal_form

ASSETS = Path(__file__).parents[1] / "models" / "quantised"
FROM_TORCH = sorted(path.stem for path in ASSETS.glob("*.onnx"))

PAIRS = [name for name in DIGITS_MODELS if not name.startswith("operators")]

OPERATORS: Mapping[str, str] = MappingProxyType(
    {
        "operators_s8_s8": "s8_s8",
        "operators_u8_s8_per_channel": "u8_s8_per_channel",
        "operators_u8_u8": "u8_u8",
    }
)
"""Models of QLinear operators, and the same quantisation in pairs, which ONNX Runtime computes exactly on any CPU."""

LEAST_TIES_DB = 40.0
"""Where a sum lies between two steps, its last float bit decides which; a few activations move by one step."""

LEAST_DYNAMIC_DB = 35.0
"""Activations that were rounded to 8 bits no longer are."""


def logits(model: onnx.ModelProto) -> np.ndarray:
    """Of all samples."""
    return np.concatenate([outputs_of(model, feed)["logits"] for feed in digits_samples()])


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_onnx_runtimes_quantiser_compute_the_same(name: str) -> None:
    """Whatever `quantize_static` was told, not a bit of the outputs changes."""
    source = DIGITS_MODELS[name]()
    found = brought(source)
    assert found.kinds == ("Q/DQ",)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    assert_same_numbers(source, found.model, digits_samples(), 1e-6)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_of_onnx_runtimes_quantiser_become_pairs(name: str) -> None:
    """They compute what the same quantisation in pairs does, but for ties."""
    found = brought(DIGITS_MODELS[name]())
    assert "QOperator" in found.kinds
    assert found.declined == ()
    assert_in_normal_form(found.model)
    assert sum(node.op_type == "Conv" for node in found.model.graph.node) == 7
    assert sqnr_db(logits(DIGITS_MODELS[OPERATORS[name]]()), logits(found.model)) > LEAST_TIES_DB


@pytest.mark.parametrize("name", DYNAMIC_MODELS)
def test_dynamic_quantisation_leaves_stored_weights(name: str) -> None:
    """The products read floats and stored weights; the report says that the rounding of activations is dropped."""
    source = DYNAMIC_MODELS[name]()
    found = brought(source)
    assert found.kinds == ("dynamic",)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    products = sum(node.op_type in ("ConvInteger", "MatMulInteger") for node in source.graph.node)
    assert sum("no longer rounded" in change.what for change in found.changed) == products
    assert sum(node.op_type == "DequantizeLinear" for node in found.model.graph.node) == products
    assert sqnr_db(logits(source), logits(found.model)) > LEAST_DYNAMIC_DB


@pytest.mark.parametrize("name", BLOCK_MODELS)
def test_weights_in_blocks_stay(name: str) -> None:
    """Blocks behind a DequantizeLinear keep their numbers; MatMulNBits becomes that."""
    source = BLOCK_MODELS[name]()
    found = brought(source)
    assert found.kinds == ("weights stored quantised",)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    kinds = [node.op_type for node in found.model.graph.node]
    assert (kinds.count("MatMul"), kinds.count("DequantizeLinear"), kinds.count("MatMulNBits")) == (2, 2, 0)
    assert_same_numbers(source, found.model, digits_samples(), 1e-5)


@pytest.mark.parametrize("name", TFLITE_MODELS)
def test_integer_ends_stay_at_the_ends(name: str) -> None:
    """The input is dequantised before anything moves it, and the output's QuantizeLinear is the last node."""
    source = TFLITE_MODELS[name]()
    found = brought(source)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    (reader,) = (node for node in found.model.graph.node if "image" in node.input)
    (last,) = (node for node in found.model.graph.node if "logits" in node.output)
    assert (reader.op_type, last.op_type) == ("DequantizeLinear", "QuantizeLinear")
    assert_same_numbers(source, found.model, integer_samples(source))


@pytest.mark.parametrize("name", FROM_TORCH)
def test_models_from_pytorch_compute_the_same(name: str) -> None:
    """FX, pt2e and NVIDIA exports, the half ones in float32: constants are stored, no BatchNormalization is left."""
    source = widened_to_float32(onnx.load(ASSETS / f"{name}.onnx"))
    half = source.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    feeds = [{"image": feed["image"].astype(np.float16 if half else np.float32)} for feed in digits_samples()]
    found = brought(source)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    kinds = [node.op_type for node in found.model.graph.node]
    assert "BatchNormalization" not in kinds and "Div" not in kinds
    for feed in feeds:
        wanted, got = outputs_of(source, feed)["logits"], outputs_of(found.model, feed)["logits"]
        assert sqnr_db(wanted, got) > LEAST_TIES_DB or np.abs(wanted - got).max() < 0.02 * np.abs(wanted).max()


def test_a_float_model_comes_back_itself() -> None:
    """Nothing quantised is in it."""
    source = digits()
    found = normal_form(source)
    assert found.model is source
    assert (found.changed, found.declined, found.kinds) == ((), (), ())


@needs_collection
@pytest.mark.models
@pytest.mark.parametrize(
    "name", ["mlperf_ic01_int8", "mlperf_kws_int8", "mlperf_sww_int8", "squeezenet_qop_int8", "mlperf_kws_fp32"]
)
def test_real_models_compute_the_same(name: str, tmp_path: Path) -> None:
    """Models that others published, on real data."""
    source = onnx.load(model_file(name))
    found = brought(source)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    reference = with_float_kernels(source) if "qop" in name else source
    files = sorted(data_folder(name, 3, tmp_path).iterdir())
    feeds = []
    for file in files:
        with np.load(file) as stored:
            feeds.append(dict(stored))
    assert_same_numbers(reference, found.model, feeds, 1e-6)
