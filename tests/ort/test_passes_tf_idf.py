"""TfIdfVectorizer as comparisons."""

from __future__ import annotations

import numpy as np
import pytest
from passes_models import applied, model_of, operators, refused_by

from trt_opt.passes.mathematics.tf_idf_to_comparisons import TfIdfToComparisons
from trt_opt.values.samples import Sample

POOL = "pool_int64s = [2, 3, 5, 4, 5, 6, 7, 8, 6, 7], ngram_counts = [0, 4]"
WORDS = np.array([[1, 1, 3, 3, 3, 7], [8, 6, 7, 5, 6, 8], [5, 6, 5, 6, 5, 6]])


def vectorizer(
    lengths: tuple[int, int], skips: int, *, mode: str = "TF", places: str = "0, 1, 2, 3, 4, 5, 6", width: int = 7
) -> str:
    """A graph of one TfIdfVectorizer over rows of six words."""
    weights = ", ".join(str(0.5 * number + 0.5) for number in range(width))
    told = f'mode = "{mode}", min_gram_length = {lengths[0]}, max_gram_length = {lengths[1]}, weights = [{weights}]'
    call = f"TfIdfVectorizer<{told}, max_skip_count = {skips}, ngram_indexes = [{places}], {POOL}>(x)"
    return f"g (int32[N,6] x) => (float[N,{width}] y) {{ y = {call} }}"


@pytest.mark.parametrize("lengths", [(1, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("skips", [0, 1, 5])
@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
def test_vectorizer_keeps_its_numbers(lengths: tuple[int, int], skips: int, mode: str) -> None:
    """Unigrams, bigrams, skips and all modes give the numbers of the specification at any batch size."""
    model = model_of(vectorizer(lengths, skips, mode=mode))
    after, report = applied(TfIdfToComparisons(), model, [Sample("words", {"x": WORDS.astype(np.int32)})])
    assert "TfIdfVectorizer" not in operators(after)
    assert len(report.changed) == 1


def test_places_out_of_order_and_with_gaps_are_kept() -> None:
    """The counts go where ngram_indexes says; a place nobody counts at is zero."""
    model = model_of(vectorizer((1, 2), 1, places="8, 1, 2, 3, 6, 5, 0", width=9))
    applied(TfIdfToComparisons(), model, [Sample("words", {"x": WORDS.astype(np.int32)})])


def test_vector_of_int64_is_one_row() -> None:
    """A sequence without batch gives counts without batch."""
    text = vectorizer((1, 2), 0).replace("int32[N,6]", "int64[6]").replace("[N,7]", "[7]")
    applied(TfIdfToComparisons(), model_of(text), [Sample("words", {"x": WORDS[1]})])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (vectorizer((1, 1), 0).replace("[N,6]", "[N,L]"), "not static"),
        (vectorizer((1, 2), 0, places="0, 0, 2, 3, 4, 5, 6"), "one place"),
        (vectorizer((1, 2), 5).replace("[N,6]", "[4096,1000]").replace("[N,7]", "[4096,7]"), "16 million"),
    ],
)
def test_vectorizer_is_declined_with_reason(text: str, why: str) -> None:
    """Sequences of unknown length, shared places and too many comparisons are declined."""
    after, report = TfIdfToComparisons().run(model := model_of(text))
    assert after is model
    assert why in report.declined[0].why


@pytest.mark.rtx
def test_vectorizer_becomes_buildable() -> None:
    """TensorRT-RTX refuses the operator and takes what the pass writes."""
    model = model_of(vectorizer((1, 2), 5, places="8, 1, 2, 3, 6, 5, 0", width=9).replace("N,", "2,"))
    assert refused_by(model)
    assert not refused_by(TfIdfToComparisons().run(model)[0])
