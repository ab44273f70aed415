"""What a lint found, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from rich.console import Console

from trt_opt.values.lint import RANKS, Finding, LintReport, Mended, RuleList, Severity

MOST = 20
"""Findings and edits shown per rule, and notes; --json has all."""

HEADINGS: Mapping[Severity, str] = {"error": "errors", "warning": "warnings", "note": "notes"}


def show_lint(report: LintReport, console: Console) -> None:
    """Prints what was mended, then what was found: the worst first, rule by rule, and what to do about it."""
    for line in (*_mended(report), *_findings(report), *_facts(report)):
        console.print(line, markup=False, soft_wrap=True)


def show_rules(rules: RuleList, console: Console) -> None:
    """Prints every rule, what TensorRT makes of its breaches, and what to do."""
    for rule in rules.rules:
        fixed = ", --fix" if rule.is_fixable else ""
        lines = (f"{rule.name} ({rule.severity}{fixed})", f"  {rule.summary}", f"  why: {rule.why}")
        for line in (*lines, f"  do:  {rule.remedy}"):
            console.print(line, markup=False, soft_wrap=True)
    console.print("(run): seen when TensorRT-RTX was run, not only read in its documents", markup=False, soft_wrap=True)


def _mended(report: LintReport) -> Iterator[str]:
    for rule, entries in groupby(sorted(report.mended, key=_rule_of), key=_rule_of):
        edits = list(entries)
        yield f"fixed      {rule}"
        yield from (f"  {entry.node}: {entry.what}" for entry in edits[:MOST])
        yield from _more(len(edits))


def _rule_of(entry: Mended) -> str:
    return entry.rule


def _findings(report: LintReport) -> Iterator[str]:
    for severity in sorted(RANKS, key=lambda name: -RANKS[name]):
        found = [entry for entry in report.findings if entry.severity == severity]
        if not found:
            continue
        yield f"{HEADINGS[severity]} ({len(found)})"
        by_rule: dict[tuple[str, str], list[Finding]] = {}
        for entry in found:
            by_rule.setdefault((entry.rule, entry.remedy), []).append(entry)
        for (rule, remedy), entries in by_rule.items():
            yield f"  {rule} ({len(entries)})"
            yield from (f"    {entry.node}: {entry.message}" for entry in entries[:MOST])
            yield from (f"    {line.strip()}" for line in _more(len(entries)))
            yield f"    do: {remedy}{_by_itself(report, entries[0])}"


def _by_itself(report: LintReport, finding: Finding) -> str:
    if not finding.is_fixable:
        return ""
    return " (--fix did not: it would not have been safe)" if report.output else " (--fix does it where that is safe)"


def _more(count: int) -> Iterator[str]:
    if count > MOST:
        yield f"  and {count - MOST} more: --json lists them"


def _facts(report: LintReport) -> Iterator[str]:
    yield from (f"note       {note}" for note in report.notes[:MOST])
    yield from _more(len(report.notes))
    counts = ", ".join(_counted(report.count(severity), severity) for severity in HEADINGS)
    fixable = sum(entry.is_fixable for entry in report.findings)
    if report.output is not None:
        done = f"{len(report.mended)} fix{'es' * (len(report.mended) != 1)}" if report.mended else "nothing to fix"
        yield f"{report.model}: {done}, written to {report.output}; left: {counts}"
    elif not report.findings:
        yield f"{report.model}: nothing found"
    else:
        yield f"{report.model}: {counts}; --fix can try {fixable} of them"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
