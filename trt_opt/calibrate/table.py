"""A calibration table kept for later: used again only for what it was made for."""

from __future__ import annotations

from pathlib import Path

from trt_opt.errors import DataError, StaleError
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.codec import value_from_json
from trt_opt.values.samples import Dataset


def table_from_file(path: Path) -> CalibrationTable:
    """Reads a table.

    Raises:
        DataError: The file cannot be read.
        RecipeError: It holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the calibration table cannot be read: {error}", where=str(path)) from error
    return value_from_json(CalibrationTable, text, where=str(path))


def check_table(
    table: CalibrationTable, *, model_sha256: str, calibrator: str, dataset: Dataset | None, where: str
) -> None:
    """Refuses a table made for something else.

    Args:
        table: The table.
        model_sha256: Fingerprint of the float graph about to be quantised.
        calibrator: The algorithm asked for.
        dataset: The data asked for; None where only the table was given.
        where: The table's file.

    Raises:
        StaleError: Model, algorithm, data or preprocessing differ; names each.
    """
    differences = []
    if table.model_sha256 != model_sha256:
        differences.append(f"model {table.model_sha256[:12]} (here {model_sha256[:12]})")
    if table.calibrator != calibrator:
        differences.append(f"calibrator {table.calibrator} (here {calibrator})")
    if dataset is not None and table.data.sha256 != (found := dataset.provenance()).sha256:
        differences.append(f"data {table.data.source} {table.data.sha256[:12]} (here {found.sha256[:12]})")
    if differences:
        raise StaleError(
            f"this calibration table was made for another {', another '.join(differences)}",
            where=where,
            hint="calibrate again, or add --reuse-table if you know it fits",
        )
