"""A calibration table, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.report.show import percent_text
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.samples import DataProvenance


def show_table(table: CalibrationTable, console: Console) -> None:
    """Prints every calibrated tensor's range and threshold, and what they rest on."""
    shown = Table(title=f"{table.calibrator} on {data_text(table.data)}", title_justify="left")
    shown.add_column("tensor")
    for heading in ("lowest", "highest", "threshold", "kept"):
        shown.add_column(heading, justify="right")
    if table.chosen:
        shown.add_column("chosen")
    for name, found in table.ranges.items():
        if found.amax is not None:
            kept = percent_text(found.amax / found.extreme if found.extreme and found.count else None)
            chosen = [Text(table.chosen.get(name, "-"))] if table.chosen else []
            ends = (f"{found.low:.4g}", f"{found.high:.4g}") if found.count else ("-", "-")
            shown.add_row(Text(name), *ends, f"{found.amax:.4g}", kept, *chosen)
    console.print(shown)
    if table.chosen:
        console.print(chosen_text(table.chosen), markup=False, highlight=False)
    watched = sum(found.amax is None for found in table.ranges.values())
    if watched:
        console.print(f"and the extremes of {watched} tensors that FP16 must be able to hold")


def chosen_text(chosen: Mapping[str, str]) -> str:
    """How many tensors got which candidate's threshold, the most frequent first."""
    counts = sorted(Counter(chosen.values()).items(), key=lambda entry: (-entry[1], entry[0]))
    return f"thresholds chosen for {len(chosen)} tensors: " + ", ".join(f"{name} {count}" for name, count in counts)


def data_text(data: DataProvenance) -> str:
    """The data in a phrase; random data are always called that."""
    if data.cache is not None:
        told = f"the calibration cache {data.cache}, which says nothing of the model or data it was made with"
        return f"{told}; what it lacks from {data_text(replace(data, cache=None))}" if data.samples else told
    random = " (RANDOM DATA, not the model's own)" if data.random else ""
    return f"{data.samples} samples of {data.source}{random}"
