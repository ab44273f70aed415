"""What the passes did, for people."""

from __future__ import annotations

from rich.console import Console

from trt_opt.values.rewriting import PassReport, RewriteReport

MOST = 8
"""Changes and declines shown per pass; --json has all."""


def show_rewrite(report: RewriteReport, console: Console) -> None:
    """Prints changes, declines and how far the result was verified."""
    for entry in report.passes:
        for line in _lines(entry):
            console.print(line, markup=False)
    console.print(f"nodes      {report.nodes_before} before, {report.nodes_after} after", markup=False)
    if report.compared_samples:
        error = report.max_relative_error or 0.0
        console.print(f"verified   on {report.compared_samples} samples: largest relative difference {error:.2g}")
    else:
        console.print("verified   no: give --data to compare before and after")


def _lines(entry: PassReport) -> list[str]:
    if entry.rolled_back is not None:
        return [f"{entry.name}: rolled back, {entry.rolled_back}"]
    lines = [f"{entry.name}: {len(entry.changed)} changed, {len(entry.declined)} declined"]
    lines += [f"  {change.node}: {change.what}" for change in entry.changed[:MOST]]
    lines += [f"  {decline.node}: left alone, {decline.why}" for decline in entry.declined[:MOST]]
    hidden = max(0, len(entry.changed) - MOST) + max(0, len(entry.declined) - MOST)
    return lines + [f"  and {hidden} more: --json lists them"] * (hidden > 0)
