"""Activation and weight ranges for INT8: calibrators over one mergeable histogram, and TensorRT's calibration cache.

Needs NumPy alone. A calibrator is a frozen specification; its observer is fed arrays and asked for a range:

    observer = calibrator_from_text("entropy").observer()
    for batch in batches:
        observer.observe(batch)
    scale = observer.range().amax / 127
"""

from calibrators.auto import Auto
from calibrators.cache import CalibrationCache, cache_from_text, text_from_cache
from calibrators.calibrator import CalibratorSpec, ExtremesObserver, HistogramObserver, Observer, Range
from calibrators.entropy import Entropy
from calibrators.errors import CalibratorError
from calibrators.histogram import Histogram
from calibrators.minmax import MinMax
from calibrators.mse import Mse
from calibrators.percentile import Percentile
from calibrators.registry import CALIBRATORS, Calibrator, calibrator_from_text
from calibrators.weights import amax_per_channel

__all__ = [
    "CALIBRATORS",
    "Auto",
    "CalibrationCache",
    "Calibrator",
    "CalibratorError",
    "CalibratorSpec",
    "Entropy",
    "ExtremesObserver",
    "Histogram",
    "HistogramObserver",
    "MinMax",
    "Mse",
    "Observer",
    "Percentile",
    "Range",
    "amax_per_channel",
    "cache_from_text",
    "calibrator_from_text",
    "text_from_cache",
]
