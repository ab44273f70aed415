"""What the passes did, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from trt_opt.report.importing import show_import
from trt_opt.values.rewriting import Acceptance, PassReport, RewriteReport

MOST = 8
"""Changes and declines shown per pass, and refused nodes shown; --json has all."""


def show_rewrite(report: RewriteReport, console: Console) -> None:
    """Prints changes, declines, what the target makes of the result, and how far it was verified."""
    if report.imported is not None:
        show_import(report.imported, console)
    for line in (*_passes(report), *_facts(report)):
        console.print(line, markup=False, soft_wrap=True)


def _passes(report: RewriteReport) -> Iterator[str]:
    idle = [entry.name for entry in report.passes if not (entry.changed or entry.declined or entry.rolled_back)]
    for entry in report.passes:
        if entry.name not in idle:
            yield from _lines(entry)
    if idle and len(idle) == len(report.passes):
        yield "no pass found anything to do"


def _facts(report: RewriteReport) -> Iterator[str]:
    yield f"nodes      {report.nodes_before} before, {report.nodes_after} after"
    if report.before is not None and report.before.refused and report.after is not None:
        yield f"target     refused {_count(report.before)} before, {_count(report.after)} after"
    if report.after is not None:
        yield from _acceptance(report.after)
    yield f"verified   {_verified(report)}"
    if report.tail is not None:
        yield f"tail       {report.tail}: run it on ONNX Runtime with the engine's inputs and outputs"


def _acceptance(found: Acceptance) -> Iterator[str]:
    if not found.refused:
        doubt = "" if found.by_the_library else ", as far as that tells"
        yield f"target     {found.target}: accepted by {found.asked}{doubt}"
    for entry in found.refused[:MOST]:
        yield f"refused    {entry.title}: {entry.reason}"
        if entry.hint:
            yield f"           try: {entry.hint}"
    if len(found.refused) > MOST:
        yield f"           and {len(found.refused) - MOST} more: --json lists them"
    yield from (f"note       {note}" for note in found.notes)


def _count(found: Acceptance) -> str:
    return f"{len(found.refused)} node{'s' * (len(found.refused) != 1)}"


def _verified(report: RewriteReport) -> str:
    if not report.compared_samples:
        return f"no: {report.not_compared or 'give --data to compare before and after'}"
    what = "made-up numbers" if report.generated_samples else f"{report.compared_samples} samples"
    where = ", by onnx's reference implementation: ONNX Runtime is inexact here" if report.by_reference else ""
    return f"before and after on {what}{where}: largest relative difference {report.max_relative_error or 0.0:.2g}"


def _lines(entry: PassReport) -> list[str]:
    if entry.rolled_back is not None:
        return [f"{entry.name}: rolled back, {entry.rolled_back}"]
    lines = [f"{entry.name}: {len(entry.changed)} changed, {len(entry.declined)} declined"]
    lines += [f"  {change.node}: {change.what}" for change in entry.changed[:MOST]]
    declined = [_decline(why, nodes) for why, nodes in _by_reason(entry).items()]
    lines += declined[:MOST]
    hidden = max(0, len(entry.changed) - MOST) + max(0, len(declined) - MOST)
    return lines + [f"  and {hidden} more: --json lists them"] * (hidden > 0)


def _by_reason(entry: PassReport) -> dict[str, list[str]]:
    """What was left alone, reason by reason."""
    found: dict[str, list[str]] = {}
    for decline in entry.declined:
        found.setdefault(decline.why, []).append(decline.node)
    return found


def _decline(why: str, nodes: list[str]) -> str:
    others = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    return f"  {nodes[0]}{others}: left alone, {why}"
