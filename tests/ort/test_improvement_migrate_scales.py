"""Unevenness behind a normalisation goes over into the weights that read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from channel_models import MIGRATED, layer_normalization, normalization_with_a_residual
from improvement_subjects import Feed, again, data_of, pooled_sqnr_db, same_bits, subject_of

from trt_opt.graph.query import graph_inputs
from trt_opt.improvements.equalize_channels import EqualizeChannels
from trt_opt.improvements.migrate_scales import MigrateScales
from trt_opt.values.progress import Silent

IMPROVED = MigrateScales()


def feeds_of(model: onnx.ModelProto, count: int = 6, seed: int = 0) -> list[Feed]:
    """Normal random numbers, two to a batch."""
    generator = np.random.default_rng(seed)
    (spec,) = graph_inputs(model)
    shape = [2 if isinstance(size, str) else size for size in spec.shape or ()]
    return [{spec.name: generator.standard_normal(shape).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("name", MIGRATED)
def test_unevenness_goes_into_the_weights(name: str, tmp_path: Path) -> None:
    """INT8 gains, the float model gives the same bits, and a second run finds nothing."""
    model = MIGRATED[name]()
    subject = subject_of(model, data_of(model, feeds_of(model), tmp_path))
    found = IMPROVED.improved(subject, Silent())
    assert found.model is not None
    others = feeds_of(model, seed=1)
    assert same_bits(subject.source.model, found.model, others)
    after = again(found, subject)
    assert pooled_sqnr_db(after, model, others) > pooled_sqnr_db(subject, model, others) + 1
    assert IMPROVED.improved(after, Silent()).model is None


def test_query_key_and_value_gain_together(tmp_path: Path) -> None:
    """All readers of the normalised tensor are told of, each with its own error."""
    model = layer_normalization()
    found = IMPROVED.improved(subject_of(model, data_of(model, feeds_of(model), tmp_path)), Silent())
    assert {gain.node for gain in found.gains} == {"product1", "product2", "product3"}
    assert all((gain.after_db or 0) > (gain.before_db or 0) for gain in found.gains)


def test_a_residual_behind_the_normalisation_forbids_it(tmp_path: Path) -> None:
    """What something else reads too stays, and the report names that reader."""
    model = normalization_with_a_residual()
    found = IMPROVED.improved(subject_of(model, data_of(model, feeds_of(model), tmp_path)), Silent())
    assert found.model is None
    assert [entry.node for entry in found.declined] == ["product"]
    assert "Tanh 'bounded'" in found.declined[0].why


def test_equalisation_leaves_what_normalisations_make(tmp_path: Path) -> None:
    """Channels that a LayerNormalization makes are no business of equalize-channels."""
    model = layer_normalization()
    found = EqualizeChannels().improved(subject_of(model, data_of(model, feeds_of(model), tmp_path)), Silent())
    assert found.model is None
