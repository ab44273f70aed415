"""Models with one layer that INT8 ruins: the report names it first, and says why."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from planted_faults import PLANTED, Planted
from sensitivity_study import feeds_of, study_of

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.quantize.stage import quantized_graph
from trt_opt.sensitivity.causes import reasons_of
from trt_opt.sensitivity.end_to_end import damages
from trt_opt.sensitivity.layers import quantized_layers
from trt_opt.sensitivity.measure import Study, report_of
from trt_opt.sensitivity.origins import normalised_variances
from trt_opt.values.progress import Silent

CALIBRATORS = ("entropy", "minmax", "percentile", "mse")

FAULTS = {
    "outlier_channel": ("channels", "1 of 16 channels carries 99.", 1.0),
    "squared_activation": ("large-values", "after the square", 1.0),
    "tiny_variance": ("cancellation", "a BatchNormalization of variance 1e-9", 2e-5),
    "unequal_depthwise": ("channels", "depthwise, per-tensor activations", 1.0),
    "attention_probabilities": ("small-values", "the probabilities of a softmax", 0.2),
}
"""Fault → cause, part of the sentence, and the size at which it is none."""


def study(planted: Planted, *, calibrator: str = "entropy", exclude: tuple[str, ...] = ()) -> Study:
    return study_of(
        planted.model,
        feeds_of(planted.calibration),
        evaluation=feeds_of(planted.evaluation),
        calibrator=calibrator,
        exclude=exclude,
        activation_products=planted.activation_products,
    )


def right(model: onnx.ModelProto, planted: Planted) -> float:
    """Share of the labels that the model gives."""
    with OnnxRuntimeRunner(model, optimised=False) as runner:
        answers = [runner.infer(sample.feed)["y"].argmax() for sample in feeds_of(planted.evaluation)]
    return float(np.mean(np.array(answers) == planted.labels))


def test_every_fault_is_looked_at() -> None:
    """A fault that somebody adds needs its cause here."""
    assert set(FAULTS) == set(PLANTED)


@pytest.mark.parametrize("name", PLANTED)
def test_one_layer_ruins_the_model_and_in_float_it_does_not(name: str) -> None:
    """All labels right in float, few in INT8, nearly all with that layer alone in float; every time the same."""
    planted, again = PLANTED[name](), PLANTED[name]()
    assert planted.model == again.model
    assert np.array_equal(planted.labels, again.labels)
    assert len(planted.labels) >= 80
    assert len(set(planted.labels.tolist())) == 16
    assert right(planted.model, planted) == 1.0
    whole, spared = study(planted), study(planted, exclude=(planted.guilty,))
    assert right(quantized_graph(whole.source, whole.table.ranges).model, planted) < 0.65
    assert right(quantized_graph(spared.source, spared.table.ranges).model, planted) >= 0.98


@pytest.mark.parametrize("calibrator", CALIBRATORS)
@pytest.mark.parametrize("name", PLANTED)
def test_the_report_names_the_guilty_layer_first(name: str, calibrator: str) -> None:
    """Whatever chose the ranges, and by a margin; nothing else is blamed."""
    planted = PLANTED[name]()
    report = report_of(study(planted, calibrator=calibrator), name, Silent())
    first, *others = report.layers
    assert first.node == planted.guilty
    worst, second = first.output.sqnr_db, others[0].output.sqnr_db
    assert worst is not None
    assert second is not None
    assert worst < 10
    assert second > 20
    cause, words, _ = FAULTS[name]
    assert first.cause == cause
    assert words in first.reason
    assert {layer.cause for layer in others} <= {"rounding", "weights", "clipping"}


@pytest.mark.parametrize("name", PLANTED)
def test_without_the_fault_nobody_is_blamed(name: str) -> None:
    """The same model with the fault at a size that does no harm: no sentence about it."""
    cause, words, none = FAULTS[name]
    planted = PLANTED[name](none)
    report = report_of(study(planted), name, Silent())
    assert cause not in {layer.cause for layer in report.layers}
    assert not [layer.reason for layer in report.layers if words in layer.reason]
    assert min(layer.output.sqnr_db or 99 for layer in report.layers) > 25


@pytest.mark.parametrize("name", PLANTED)
def test_damages_and_reasons_alone_say_the_same(name: str) -> None:
    """What a search calls: the guilty layer first, the sentence of the report."""
    planted = PLANTED[name]()
    ready = study(planted)
    layers = quantized_layers(ready.source, ready.table.ranges)
    found = damages(ready.source, layers, ready.calibration, Silent())
    assert {damage.node for damage in found} == {layer.node for layer in layers}
    assert found[0].node == planted.guilty
    assert found[0].output == "y"
    assert found[0].energy is not None
    assert found[0].output_db == pytest.approx(-10 * np.log10(found[0].energy))
    told = reasons_of(
        ready.source, layers[:3], ready.calibration, Silent(), variances=normalised_variances(ready.given)
    )
    assert set(told) == {layer.node for layer in layers[:3]}
    if planted.guilty in told:
        assert FAULTS[name][1] in told[planted.guilty]
