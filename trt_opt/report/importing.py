"""What became of a model that came quantised, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import Console

from trt_opt.values.importing import ImportedOutput, ImportReport

WORST = 3

ROUNDING_DB = 100.0
"""Above this nothing but the last bits of floats differs."""

LONGEST_NAME = 60

MOST = 6
"""Declined nodes shown; --json has all."""

WORDS = {
    "kept": "kept as they are",
    "folded": "keep their scale, zero-point moved into biases",
    "regridded": "on a new symmetric scale",
    "float": "left in float",
}


def show_import(report: ImportReport, console: Console) -> None:
    """Prints what came, what became of it, the error from end to end, and the tensors that lost most."""
    for line in _lines(report):
        console.print(line, markup=False, soft_wrap=True)


def _lines(report: ImportReport) -> Iterator[str]:
    yield f"came       quantised: {', '.join(report.kinds) or 'of no known kind'}"
    if report.undone is not None:
        yield f"undone     {report.undone}"
    yield f"tensors    {_counts(Counter(entry.becomes for entry in report.tensors))}"
    if report.weights:
        yield f"weights    {_counts(Counter(entry.becomes for entry in report.weights))}"
        known = [entry for entry in report.weights if entry.sqnr_db is not None]
        for weight in sorted(known, key=lambda entry: entry.sqnr_db or 0.0)[:WORST]:
            yield f"           {_short(weight.tensor)}: {weight.sqnr_db:.1f} dB"
    for output in report.outputs:
        yield f"output     {_output(output)}"
    if report.outputs:
        yield f"measured   {_measured(report)}"
    yield from _worst(report)
    yield from (f"declined   {entry.node}: {entry.why}" for entry in report.declined[:MOST])
    if len(report.declined) > MOST:
        yield f"           and {len(report.declined) - MOST} more: --json lists them"
    yield from (f"note       {note}" for note in report.notes)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[kind]} {words}" for kind, words in WORDS.items() if counts[kind]) or "none"


def _output(output: ImportedOutput) -> str:
    if not output.unequal:
        return f"{output.name}: equal to the source's"
    sqnr = "" if output.sqnr_db is None else f"{output.sqnr_db:.1f} dB, "
    share = f"{100 * output.unequal:.2f} % of its elements differ"
    text = f"{output.name}: {sqnr}{share}, by {output.largest_error:.3g} at most"
    return text if output.top1_agreement is None else f"{text}; top-1 agrees on {100 * output.top1_agreement:.2f} %"


def _measured(report: ImportReport) -> str:
    several = "s" * (report.samples != 1)
    what = f"{report.samples} made-up sample{several}" if report.made_up else f"{report.samples} sample{several}"
    return f"against the source on {what}" + (", run in onnx's reference implementation" if report.by_reference else "")


def _worst(report: ImportReport) -> Iterator[str]:
    known = [entry for entry in report.tensors if entry.sqnr_db is not None and entry.sqnr_db < ROUNDING_DB]
    for at, entry in enumerate(sorted(known, key=lambda entry: entry.sqnr_db or 0.0)[:WORST]):
        own = "" if entry.own_sqnr_db is None else f", {entry.own_sqnr_db:.1f} dB by its own layer"
        grid = f"scale {entry.scale:.4g}, zero-point {entry.zero_point} of {entry.dtype.upper()}"
        title = "worst" if not at else ""
        yield f"{title:<11}{_short(entry.tensor)}: {entry.sqnr_db:.1f} dB ({grid}, {entry.becomes}{own})"


def _short(name: str) -> str:
    """Converters from other frameworks join the names of all that was fused; the end tells most."""
    return name if len(name) <= LONGEST_NAME else f"…{name[-LONGEST_NAME:]}"
