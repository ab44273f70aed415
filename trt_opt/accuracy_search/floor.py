"""INT8 without a budget: what it may cost before rewrites are tried, and before layers stay in float unasked."""

from __future__ import annotations

from trt_opt.accuracy_search.budget import Budget
from trt_opt.compare import Limits
from trt_opt.datasets.few import Few
from trt_opt.datasets.unlabelled import Unlabelled
from trt_opt.values.samples import Dataset

COMFORT_DB = 30.0
"""SQNR at the worst output from which INT8 is left as placed. Of 23 networks with real weights and data, those above it
lost nothing that their task showed; most of those below gained several dB from ranges and rewrites that keep INT8."""

FLOOR_DB = 15.0
"""SQNR at the worst output below which INT8 counts as ruined: the error has 3 % of the output's energy. No network of
these 23 whose task was intact lay below it; the planted faults of the tests lie between -9 and 8 dB."""

SLACK_DB = COMFORT_DB - FLOOR_DB

SAMPLES_FOR_FLOOR = 32
"""How many calibration samples tell."""


def floor_of(calibration: Dataset) -> Budget:
    """The bounds of a request without any: judged on calibration samples, for there may be no others."""
    few = Few(Unlabelled(calibration), SAMPLES_FOR_FLOOR)
    return Budget(Limits(min_sqnr_db=COMFORT_DB), few, None, slack=SLACK_DB)
