"""What a calibration cache covered, for people."""

from __future__ import annotations

from rich.console import Console

from trt_opt.report.show import percent_text, short
from trt_opt.values.cache_import import CacheCoverage

MOST_LISTED = 10
"""Of tensors without a range; --json has all."""

MOST_NAMED = 3
"""Of the names in one line."""


def show_coverage(coverage: CacheCoverage, console: Console) -> None:
    """Prints where the cache comes from, what it covered, which layers stay in float, and what of it was not used."""
    lines = [
        f"cache     {coverage.file}: {coverage.header}, {coverage.entries} entries; {_origin(coverage)}",
        f"ranges    {coverage.needed} tensors need one: {_sources_text(coverage)}",
        *_missing_lines(coverage),
        f"in INT8   {_share_text(coverage)}",
    ]
    if coverage.unused:
        lines.append(f"unused    {coverage.unused} entries: {_unused_text(coverage)}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _origin(coverage: CacheCoverage) -> str:
    if coverage.record is None:
        return "it says nothing of the model or data it was made with"
    data = coverage.record.data
    return f"made for this model on {data.samples} samples of {data.source or 'no data'} ({coverage.record.algorithm})"


def _sources_text(coverage: CacheCoverage) -> str:
    counts = {
        "in the cache": len(coverage.exact),
        "through a neighbour in the cache": len(coverage.through),
        "from calibration data": len(coverage.from_data),
        "missing": len(coverage.missing),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _missing_lines(coverage: CacheCoverage) -> list[str]:
    lines = []
    for tensor, layers in list(coverage.missing.items())[:MOST_LISTED]:
        lines.append(f"          no range for {short(tensor)}: {_names_text(layers)} in float")
    more = len(coverage.missing) - MOST_LISTED
    return [*lines, f"          and for {more} more"] if more > 0 else lines


def _share_text(coverage: CacheCoverage) -> str:
    told = f"{coverage.layers} of {coverage.layers_possible} layers that could be"
    if coverage.macs is None:
        return told
    told += f", {percent_text(coverage.macs)} of the multiply-accumulates"
    if coverage.macs == coverage.macs_possible:
        return told
    return f"{told} (of {percent_text(coverage.macs_possible)} that could be)"


def _unused_text(coverage: CacheCoverage) -> str:
    kinds = (
        (coverage.not_needed, "for tensors that no INT8 layer needs", False),
        (coverage.unnamed, "for tensors that TensorRT made itself", False),
        (coverage.unknown, "for names this model does not have", True),
        (coverage.without_range, "without a range (0, infinite or NaN)", True),
    )
    told = (
        f"{len(found)} {what}" + (f" ({_names_text(found)})" if named else "") for found, what, named in kinds if found
    )
    return ", ".join(told)


def _names_text(names: tuple[str, ...]) -> str:
    shown = ", ".join(short(name) for name in names[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown or "nothing"
