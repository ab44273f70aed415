"""Rewrites that make a model lose less in INT8, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from trt_opt.improvements.adaptive_rounding import RoundAdaptively
from trt_opt.improvements.bias_correction import CorrectBias
from trt_opt.improvements.equalize_channels import EqualizeChannels
from trt_opt.improvements.improvement import Improvement
from trt_opt.improvements.isolate_outlier_channels import IsolateOutlierChannels
from trt_opt.improvements.migrate_scales import MigrateScales

IMPROVEMENTS: Mapping[str, Improvement] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            EqualizeChannels(),
            MigrateScales(),
            IsolateOutlierChannels(),
            RoundAdaptively(),
            CorrectBias(),
        )
    }
)
"""By name: first those that change the float model, which is then calibrated anew, then those of constants alone."""
