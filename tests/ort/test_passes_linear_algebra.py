"""Det, and MatMul of vectors."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from passes_models import applied, floats, model_of, operators, refused_by

from trt_opt.passes.mathematics.multiply_vectors_as_matrices import MultiplyVectorsAsMatrices
from trt_opt.passes.mathematics.unroll_determinant import UnrollDeterminant
from trt_opt.values.samples import Sample

HALF_TOLERANCE = 2e-3


def det(shape: str, made: str, dtype: str = "float") -> str:
    """A graph of one Det."""
    return f"g ({dtype}[{shape}] x) => ({dtype}[{made}] y) {{ y = Det(x) }}"


@pytest.mark.parametrize("size", range(1, 8))
def test_determinant_keeps_its_numbers(size: int) -> None:
    """Matrices of all sizes, in batches of dynamic size."""
    after, _ = applied(UnrollDeterminant(), model_of(det(f"B,{size},{size}", "B")))
    assert "Det" not in operators(after)


def test_determinant_needs_no_pivots() -> None:
    """Zeros on the diagonal, permutations and singular matrices are exact."""
    matrices = np.array(
        [np.eye(4)[[1, 0, 3, 2]], np.eye(4)[[1, 2, 3, 0]], np.zeros((4, 4)), np.ones((4, 4))], np.float32
    )
    after, _ = UnrollDeterminant().run(model_of(det("4,4,4", "4")))
    found = ReferenceEvaluator(after).run(None, {"x": matrices})[0]
    np.testing.assert_array_equal(found, np.array([1, -1, 0, 0], np.float32))


def test_determinant_of_half_precision_is_computed_in_float32() -> None:
    """Products of elements are not rounded to half precision on the way."""
    after, _ = UnrollDeterminant().run(model_of(det("5,5", "", "float16"), opset=22))
    numbers = floats(5, 5).astype(np.float16)
    found = ReferenceEvaluator(after).run(None, {"x": numbers})[0]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, np.linalg.det(numbers.astype(np.float64)), rtol=HALF_TOLERANCE)


@pytest.mark.parametrize("size", ["N", "11"])
def test_determinant_is_declined_with_reason(size: str) -> None:
    """Sizes that are unknown or large are declined."""
    after, report = UnrollDeterminant().run(model := model_of(det(f"2,{size},{size}", "2")))
    assert after is model
    assert "not between 1 and 10" in report.declined[0].why


def test_determinant_in_branch_is_replaced() -> None:
    """A Det in a branch of an If is replaced there."""
    text = """g (float[2,3,3] x, bool c) => (float[2] y) {
        y = If (c) <
            then_branch = t () => (float[2] r) { d = Det(x) r = Add(d, d) },
            else_branch = e () => (float[2] r) { r = Det(x) }
        >
    }"""
    feeds = [Sample(str(given), {"x": floats(2, 3, 3), "c": np.asarray(given)}) for given in (True, False)]
    after, _ = applied(UnrollDeterminant(), model_of(text), feeds)
    assert "Det" not in operators(after)


@pytest.mark.rtx
def test_determinant_becomes_buildable() -> None:
    """TensorRT-RTX refuses the operator and takes what the pass writes."""
    model = model_of(det("3,5,5", "3"))
    assert refused_by(model)
    assert not refused_by(UnrollDeterminant().run(model)[0])


@pytest.mark.parametrize(
    ("left", "right", "made"),
    [("4", "2,4,1", "[2,1]"), ("2,3,4", "4", "[2,3]"), ("4", "4", ""), ("4", "4,3", "[3]"), ("K", "B,K,3", "[B,3]")],
)
def test_product_of_vectors_keeps_its_numbers(left: str, right: str, made: str) -> None:
    """Vectors on either side and on both, of static and dynamic sizes."""
    text = f"g (float[{left}] a, float[{right}] b) => (float{made} y) {{ y = MatMul(a, b) }}"
    after, report = applied(MultiplyVectorsAsMatrices(), model_of(text))
    assert operators(after)["Squeeze"] == 1
    assert len(report.changed) == 1


def test_product_of_matrices_is_left_alone() -> None:
    """Without a vector there is nothing to do, and nothing to report."""
    text = "g (float[2,4] a, float[4,3] b) => (float[2,3] y) { y = MatMul(a, b) }"
    after, report = MultiplyVectorsAsMatrices().run(model := model_of(text))
    assert after is model
    assert not report.declined


@pytest.mark.rtx
def test_product_of_vector_and_batch_becomes_buildable() -> None:
    """TensorRT-RTX refuses a vector times a batch of columns and takes what the pass writes."""
    model = model_of("g (float[4] a, float[2,4,1] b) => (float[2,1] y) { y = MatMul(a, b) }")
    assert refused_by(model)
    assert not refused_by(MultiplyVectorsAsMatrices().run(model)[0])
