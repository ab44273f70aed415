"""Which operator gave a tensor its range."""

from __future__ import annotations

import numpy as np
import pytest
from graph_models import model_of

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import with_unique_node_names
from trt_opt.sensitivity.origins import normalised_variances, origin_of

CONSTANTS = {
    "two": np.float32(2),
    "three": np.float32(3),
    "tiny": np.float32(1e-9),
    "ones": np.ones(2, np.float32),
    "variance": np.array([1.0, 1e-9], np.float32),
}


def origin(body: str) -> tuple[str, str | None]:
    model = with_unique_node_names(model_of(f"g (float[1,2,4] x) => (float y) {{ {body} }}", **CONSTANTS))
    found = origin_of("y", GraphIndex(model))
    return found.kind, found.words


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("y = Mul(x, x)", "square", "the square"),
        ("y = Pow(x, two)", "square", "the square"),
        ("a = Mul(x, x) b = Transpose(a) c = Mul(x, two) y = Add(c, b)", "square", "the square"),
        ("y = Pow(x, three)", "Pow", None),
        ("y = Mul(x, two)", "Mul", None),
        ("a = Mul(x, x) y = Sqrt(a)", "Sqrt", None),
        ("y = Exp(x)", "Exp", "the exponential"),
        ("y = Softmax(x)", "Softmax", "a softmax"),
        ("y = Div(x, tiny)", "Div", "a division by 1e-9"),
        ("y = Div(x, two)", "Div", "a division"),
        ("a = Div(x, x) y = Relu(a)", "Div", "a division"),
        (
            "y = BatchNormalization<epsilon=0.0>(x, ones, ones, ones, variance)",
            "BatchNormalization",
            "a BatchNormalization of variance 1e-9",
        ),
        ("y = BatchNormalization(x, ones, ones, ones, ones)", "BatchNormalization", "a BatchNormalization"),
    ],
)
def test_the_operator_is_found_through_data_movement_and_sums(body: str, kind: str, words: str | None) -> None:
    """Only what keeps a range is looked through: a root does not."""
    assert origin(body) == (kind, words)


def test_a_graph_input_comes_from_nowhere() -> None:
    """It has no operator."""
    model = with_unique_node_names(model_of("g (float[2] x) => (float[2] y) { y = Mul(x, x) }"))
    assert origin_of("x", GraphIndex(model)).kind == "input"


def test_variances_are_found_by_what_is_read_and_written() -> None:
    """The least one, with its epsilon."""
    body = "g (float[1,2,4] x) => (float y) { y = BatchNormalization<epsilon=1e-9>(x, ones, ones, ones, variance) }"
    found = normalised_variances(with_unique_node_names(model_of(body, **CONSTANTS)))
    assert found == {"x": pytest.approx(2e-9), "y": pytest.approx(2e-9)}
