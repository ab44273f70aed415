"""Layers that INT8 ruins are healed without being left in float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from improvement_subjects import again, data_of, int8_outputs, subject_of
from planted_faults import PLANTED, Planted

from trt_opt.improvements.equalize_channels import EqualizeChannels
from trt_opt.improvements.improvement import Improvement, Subject
from trt_opt.improvements.isolate_outlier_channels import IsolateOutlierChannels
from trt_opt.values.progress import Silent


def accuracy(subject: Subject, planted: Planted) -> float:
    """The share of evaluation samples that INT8 labels as the float model does."""
    answers = [int8_outputs(subject, {"x": sample[None]})["y"].argmax() for sample in planted.evaluation["x"]]
    return float(np.mean(np.array(answers) == planted.labels))


@pytest.mark.parametrize(
    ("fault", "improvement"),
    [
        ("outlier_channel", EqualizeChannels()),
        ("outlier_channel", IsolateOutlierChannels()),
        ("unequal_depthwise", EqualizeChannels()),
    ],
    ids=["outlier-equalize", "outlier-isolate", "depthwise-equalize"],
)
def test_the_guilty_layer_is_healed_in_int8(fault: str, improvement: Improvement, tmp_path: Path) -> None:
    """INT8 labels less than 60 % right before and all afterwards, and the guilty layer still runs in INT8."""
    planted = PLANTED[fault]()
    samples = [{"x": sample[None]} for sample in planted.calibration["x"]]
    subject = subject_of(planted.model, data_of(planted.model, samples, tmp_path))
    assert accuracy(subject, planted) < 0.6
    after = again(improvement.improved(subject, Silent()), subject)
    assert accuracy(after, planted) == 1.0
    assert planted.guilty in after.source.quantized_nodes
