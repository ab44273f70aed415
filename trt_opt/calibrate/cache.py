"""From a calibration table to the calibration cache that TensorRT up to 10 reads."""

from __future__ import annotations

from calibrators import CalibrationCache, text_from_cache
from trt_opt.values.calibration import CalibrationTable


def cache_from_table(table: CalibrationTable, version: str) -> str:
    """TensorRT's calibration cache with the table's thresholds.

    Args:
        table: Ranges; those without a threshold are left out.
        version: The TensorRT that is to read it; another version ignores it.

    Raises:
        CalibratorError: That is no version, or a tensor's name cannot be written.
    """
    scales = {name: found.amax / 127 for name, found in table.ranges.items() if found.amax is not None}
    return text_from_cache(CalibrationCache(version, cache_algorithm(table.calibrator), scales))


def cache_algorithm(calibrator: str) -> str:
    """What a cache's first line says for ranges that a calibrator chose, or that another cache held.

    Args:
        calibrator: As a calibration table names it.
    """
    minmax = calibrator.startswith(("minmax", "native-minmax", "cache(MinMax"))
    return "MinMaxCalibration" if minmax else "EntropyCalibration2"
