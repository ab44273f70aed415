"""What a night says at its end: one verdict, a summary for people, and files for CI and monitoring."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from xml.etree import ElementTree

from night_units import UnitResult

PASSED, SAID_NO, FAILED = 0, 1, 4

MEANINGS: Mapping[int, str] = MappingProxyType(
    {
        PASSED: "PASS: nothing is known to have become worse",
        SAID_NO: "NO: something became worse, misses a limit, or could not be told",
        FAILED: "INCOMPLETE: something was not measured",
    }
)
MARKS: Mapping[str, str] = MappingProxyType({"done": "✅", "no": "❌", "skipped": "⏭️", "failed": "💥"})


@dataclass(frozen=True)
class About:
    """What a summary is about.

    Attributes:
        kind: perf or accuracy.
        night: The dated folder.
        label: The user's word for what was measured.
        notes: What there is to be said beside the units.
    """

    kind: str
    night: str
    label: str
    notes: tuple[str, ...] = ()


def exit_code_of(results: Sequence[UnitResult]) -> int:
    """4 where a step failed, else 1 where a gate said no, else 0; a night in which nothing was measured has failed."""
    found = {result.status for result in results}
    if "failed" in found or not any(result.check for result in results):
        return FAILED
    return SAID_NO if "no" in found else PASSED


def meaning_of(results: Sequence[UnitResult]) -> str:
    """The verdict in words; a night that passed says what it could not tell."""
    code = exit_code_of(results)
    unknown = sum(result.verdict != "PASS" for result in results)
    skipped = sum(result.status == "skipped" for result in results)
    told = [f"{unknown} of {len(results)} could not be told"] * bool(unknown) + [f"{skipped} skipped"] * bool(skipped)
    return MEANINGS[code] + (f" ({', '.join(told)})" if code == PASSED and told else "")


def summary_text(results: Sequence[UnitResult], about: About) -> str:
    """GitHub-flavoured Markdown: the verdict, a table of units, and why."""
    code = exit_code_of(results)
    lines = [f"## Nightly {about.kind}, {about.night}", "", f"**{meaning_of(results)}** (exit code {code})", ""]
    lines += [f"Label: `{_cell(about.label)}`", ""] if about.label != about.night else []
    lines += [f"* {_cell(note)}" for note in about.notes] + ([""] if about.notes else [])
    lines += ["| | model | precision | target | verdict | why |", "|---|---|---|---|---|---|"]
    for result in sorted(results, key=lambda one: list(MARKS).index(one.status), reverse=True):
        unit = result.unit
        verdict = "not measured" if result.status == "failed" else result.verdict
        names = (unit.model.name, unit.precision.name, unit.target.name, verdict, _why(result))
        lines.append(f"| {MARKS[result.status]} | " + " | ".join(_cell(name) for name in names) + " |")
    told = [line for result in results for line in _worse(result)]
    if told:
        lines += ["", "### What became worse", "", *told]
    return "\n".join(lines) + "\n"


def junit_text(results: Sequence[UnitResult], *, kind: str, allow_inconclusive: bool) -> str:
    """JUnit XML: a suite per unit, a case per step and per series."""
    suites = ElementTree.Element("testsuites", name=f"trt-opt nightly {kind}")
    for result in results:
        suite = ElementTree.SubElement(suites, "testsuite", name=result.unit.name)
        for step in result.steps:
            if step.step.startswith("check-") and result.check:
                continue
            case = ElementTree.SubElement(
                suite, "testcase", classname=result.unit.name, name=step.step.partition("/")[0], time=f"{step.seconds}"
            )
            tag = {"failed": "error", "no": "failure", "skipped": "skipped"}.get(step.status)
            if tag:
                ElementTree.SubElement(case, tag, message=_xml(step.reason or step.status))
        for check in result.check.get("checks", ()):
            name = f"{check['metric']['name']} {_key(check)}"
            case = ElementTree.SubElement(suite, "testcase", classname=result.unit.name, name=_xml(name))
            is_told = check["verdict"] == "INCONCLUSIVE"
            tag = "skipped" if is_told and allow_inconclusive else "failure"
            if check["verdict"] != "PASS":
                ElementTree.SubElement(case, tag, message=_xml(check["reason"]))
        cases = suite.findall("testcase")
        suite.set("tests", str(len(cases)))
        for tag, word in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            suite.set(word, str(sum(case.find(tag) is not None for case in cases)))
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def metrics_text(results: Sequence[UnitResult], texts: Mapping[str, str], *, kind: str) -> str:
    """OpenMetrics: what the checks wrote for every unit, told apart by the label `unit`, and how each unit went.

    Args:
        results: The units.
        texts: Unit → what `trt-opt regress check --openmetrics` wrote.
        kind: perf or accuracy.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for unit, text in texts.items():
        family = ""
        for line in text.splitlines():
            if line == "# EOF":
                continue
            if line.startswith("# "):
                family = line.split()[2]
                known = heads.setdefault(family, [])
                if line.split()[1] not in {one.split()[1] for one in known}:
                    known.append(line)
            elif line:
                samples.setdefault(family, []).append(_labelled(line, unit))
    name = "trt_opt_nightly_unit"
    heads[name] = [f"# TYPE {name} stateset", f"# HELP {name} How a model in one precision for one target went."]
    samples[name] = [
        f'{name}{{unit="{result.unit.name}",kind="{kind}",{name}="{state}"}} {int(result.status == state)}'
        for result in results
        for state in MARKS
    ]
    lines = [line for family in heads for line in (*heads[family], *samples.get(family, ()))]
    return "\n".join((*lines, "# EOF")) + "\n"


def verdict_text(results: Sequence[UnitResult], about: About) -> str:
    """The verdict as JSON."""
    code = exit_code_of(results)
    units = [
        {
            "unit": result.unit.name,
            "status": result.status,
            "verdict": result.verdict,
            "reason": _why(result),
            "worse": [
                f"{check['metric']['name']} {_key(check)}"
                for check in result.check.get("checks", ())
                if check["verdict"] == "FAIL"
            ],
        }
        for result in results
    ]
    plain = {
        "schema_version": 1,
        "kind": "NightlyVerdict",
        "measured": about.kind,
        "night": about.night,
        "label": about.label,
        "exit_code": code,
        "meaning": meaning_of(results),
        "notes": list(about.notes),
        "units": units,
    }
    return json.dumps(plain, indent=2) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _why(result: UnitResult) -> str:
    """What stopped it, else what said no, else what there is to be said."""
    for status in ("failed", "no", "skipped"):
        for step in result.steps:
            if step.status == status:
                is_check = step.step.startswith("check-")
                return f"{step.step.partition('/')[0]}: {result.check.get('reason') if is_check else step.reason}"
    return " ".join(dict.fromkeys(step.reason for step in result.steps if step.reason))


def _worse(result: UnitResult) -> list[str]:
    own = [
        f"* **{_cell(result.unit.name)}**: {step.step.partition('/')[0]}: {_cell(step.reason)}"
        for step in result.steps
        if step.status == "no" and not step.step.startswith("check-") and step.facts.get("verdict") == "FAIL"
    ]
    return own + [
        f"* **{_cell(result.unit.name)}**: {_cell(check['metric']['title'])}: {_cell(check['reason'])}"
        for check in result.check.get("checks", ())
        if check["verdict"] == "FAIL"
    ]


def _key(check: Mapping[str, Mapping[str, str]]) -> str:
    return " · ".join(part for part in check["key"].values() if part)


def _labelled(line: str, unit: str) -> str:
    name, opening, rest = line.partition("{")
    if opening and " " not in name:
        return f'{name}{{unit="{unit}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{unit="{unit}"}} {value}'


def _cell(text: object) -> str:
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").replace("<", "&lt;")


def _xml(text: str) -> str:
    """Text without what XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
