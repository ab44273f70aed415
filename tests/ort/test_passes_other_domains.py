"""Operators of the training and machine learning domains."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from passes_models import floats, operators, refused_by

from trt_opt.passes.base import Pass
from trt_opt.passes.mathematics.array_feature_extractor_to_gather import ArrayFeatureExtractorToGather
from trt_opt.passes.mathematics.binarizer_to_greater import BinarizerToGreater
from trt_opt.passes.mathematics.expand_optimizer_step import ExpandOptimizerStep

TRAINING = "ai.onnx.preview.training"
LEARNING = "ai.onnx.ml"
FLOAT32_TOLERANCE = 1e-5
"""Of each element; where the step nearly cancels the value, a few roundings are a larger part of what is left."""


def foreign_model(domain: str, text: str) -> ModelProto:
    """A model that imports one domain, and not ONNX's own."""
    return onnx.parser.parse_model(f'<ir_version: 7, opset_import: ["{domain}": 1]>\n{text}')


def assert_replaced(entry: Pass, model: ModelProto, feed: dict[str, np.ndarray]) -> ModelProto:
    """The pass replaces the only node, once, and the reference implementation gives the same numbers."""
    before = model.SerializeToString(deterministic=True)
    after, report = entry.run(model)
    assert model.SerializeToString(deterministic=True) == before
    assert len(report.changed) == 1
    onnx.checker.check_model(after, full_check=True)
    assert not any("::" in name for name in operators(after))
    wanted, found = (ReferenceEvaluator(given).run(None, feed) for given in (model, after))
    for one, other in zip(wanted, found, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(other, one, rtol=FLOAT32_TOLERANCE)
    assert entry.run(after)[0] is after
    return after


def optimizer(op: str, attributes: str, kinds: str, outputs: str, dtype: str = "float") -> str:
    """A graph of one step of two tensors."""
    tensors = [f"{kind}{number}" for kind in kinds for number in (1, 2)]
    made = [f"{kind}{number}_new" for kind in outputs for number in (1, 2)]
    inputs = ", ".join(f"{dtype}[{1 + int(name[1])},N] {name}" for name in tensors)
    results = ", ".join(f"{dtype}[{1 + int(name[1])},N] {name}" for name in made)
    call = f"{TRAINING}.{op}<{attributes}>(R, T, {', '.join(tensors)})"
    return f"g ({dtype} R, int64 T, {inputs}) => ({results}) {{ {', '.join(made)} = {call} }}"


MOMENTUM = "alpha = 0.9, beta = 0.7, norm_coefficient = 0.01"
STEPS = [
    ("Momentum", f'{MOMENTUM}, mode = "standard"', "XGV", "XV"),
    ("Momentum", f'{MOMENTUM}, mode = "nesterov"', "XGV", "XV"),
    ("Adagrad", "decay_factor = 0.1, epsilon = 1e-3, norm_coefficient = 0.01", "XGH", "XH"),
    ("Adam", "alpha = 0.95, beta = 0.85, epsilon = 1e-3, norm_coefficient = 0.01", "XGVH", "XVH"),
    ("Adam", "norm_coefficient_post = 0.25", "XGVH", "XVH"),
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("count", [0, 3])
def test_optimizer_step_keeps_its_numbers(step: tuple[str, str, str, str], count: int) -> None:
    """First and later steps of two tensors give the numbers of the specification."""
    model = foreign_model(TRAINING, optimizer(*step))
    feed: dict[str, np.ndarray] = {"R": np.asarray(0.1, np.float32), "T": np.asarray(count)}
    for seed, given in enumerate(list(model.graph.input)[2:]):
        feed[given.name] = np.abs(floats(1 + int(given.name[1]), 2, seed=seed))
    assert_replaced(ExpandOptimizerStep(), model, feed)


@pytest.mark.parametrize(("shape", "made"), [("3,4", "3,2"), ("4", "1,2"), ("2,N,4", "2,N,2")])
def test_feature_extractor_keeps_its_numbers(shape: str, made: str) -> None:
    """Features are taken from the last axis; a vector becomes a row."""
    call = f"{LEARNING}.ArrayFeatureExtractor(x, i)"
    text = f"g (float[{shape}] x, int64[1,2] i) => (float[{made}] y) {{ y = {call} }}"
    feed = {"x": floats(*(5 if size == "N" else int(size) for size in shape.split(","))), "i": np.array([[3, 1]])}
    model = foreign_model(LEARNING, text)
    after, report = ArrayFeatureExtractorToGather().run(model)
    assert len(report.changed) == 1
    found = ReferenceEvaluator(after).run(None, feed)[0]
    np.testing.assert_array_equal(found, np.atleast_2d(feed["x"])[..., [3, 1]])


@pytest.mark.parametrize(("dtype", "threshold"), [("float", 0.5), ("int64", -1.5), ("int32", 2.0), ("double", 0.0)])
def test_binarizer_keeps_its_numbers(dtype: str, threshold: float) -> None:
    """Values above the threshold become 1 in the type of the input, whole numbers too."""
    call = f"{LEARNING}.Binarizer<threshold = {threshold}>(x)"
    model = foreign_model(LEARNING, f"g ({dtype}[2,4] x) => ({dtype}[2,4] y) {{ y = {call} }}")
    numbers = onnx.helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    after, _ = BinarizerToGreater().run(model)
    assert operators(after) == {"Greater": 1, "Cast": 1}
    values = np.array([[-2, -1, 0, 1], [2, 3, 0.5, 0.75]]).astype(numbers)
    found = ReferenceEvaluator(after).run(None, {"x": values})[0]
    assert found.dtype == numbers
    np.testing.assert_array_equal(found, (values > threshold).astype(numbers))


@pytest.mark.rtx
@pytest.mark.parametrize(
    ("entry", "domain", "text"),
    [
        (ExpandOptimizerStep(), TRAINING, optimizer(*STEPS[1]).replace("N", "2")),
        (ExpandOptimizerStep(), TRAINING, optimizer(*STEPS[3]).replace("N", "2")),
        (
            BinarizerToGreater(),
            LEARNING,
            f"g (float[2,4] x) => (float[2,4] y) {{ y = {LEARNING}.Binarizer(x) }}",
        ),
        (
            ArrayFeatureExtractorToGather(),
            LEARNING,
            f"g (float[2,4] x, int64[2] i) => (float[2,2] y) {{ y = {LEARNING}.ArrayFeatureExtractor(x, i) }}",
        ),
    ],
)
def test_operator_of_other_domain_becomes_buildable(entry: Pass, domain: str, text: str) -> None:
    """TensorRT-RTX refuses the operator and takes what the pass writes."""
    model = foreign_model(domain, text)
    assert refused_by(model)
    assert not refused_by(entry.run(model)[0])
