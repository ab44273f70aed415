"""A check as JUnit XML, which every CI system reads: one test case per series."""

from __future__ import annotations

from xml.etree import ElementTree

from trt_opt.report.sparkline import printable
from trt_opt.values.accuracy import Verdict
from trt_opt.values.regression import RegressionReport, SeriesCheck

SUITE = "trt-opt regress"


def junit_text(report: RegressionReport, *, allow_inconclusive: bool) -> str:
    """The report as JUnit XML.

    A FAIL is a failure. An INCONCLUSIVE is one too, unless it is allowed: then the case is skipped, which is no pass.

    Args:
        report: What was checked. Where it holds no series, its own verdict is the one case, so that no reader takes an
            empty suite for a good one.
        allow_inconclusive: Whether an INCONCLUSIVE is let through.
    """
    cases = [_case(check, allow_inconclusive) for check in report.checks]
    if not cases:
        cases = [_element("testcase", classname=SUITE, name="history")]
        _outcome(cases[0], report.verdict, report.reason, allow_inconclusive)
    failures = sum(case.find("failure") is not None for case in cases)
    skipped = sum(case.find("skipped") is not None for case in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}
    root = _element("testsuites", name=SUITE, **counts)
    suite = _element("testsuite", name=SUITE, timestamp=report.recorded_at, **counts)
    root.append(suite)
    properties = ElementTree.SubElement(suite, "properties")
    for name in ("run", "label", "history", "verdict", "reason"):
        properties.append(_element("property", name=name, value=getattr(report, name)))
    suite.extend(cases)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False).join((_DECLARATION, "\n"))


_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


def _case(check: SeriesCheck, allow_inconclusive: bool) -> ElementTree.Element:
    key = check.key
    rest = " · ".join(part for part in (key.precision, key.target, key.device, key.library, key.flags) if part)
    name = f"{check.metric.title} ({check.metric.name})"
    case = _element("testcase", classname=key.model, name=f"{name} · {rest}" if rest else name)
    _outcome(case, check.verdict, check.reason, allow_inconclusive)
    return case


def _outcome(case: ElementTree.Element, verdict: Verdict, reason: str, allow_inconclusive: bool) -> None:
    told = f"{verdict}: {reason}"
    if verdict == "PASS":
        out = ElementTree.SubElement(case, "system-out")
        out.text = printable(told)
    elif verdict == "INCONCLUSIVE" and allow_inconclusive:
        case.append(_element("skipped", message=told))
    else:
        kind = "regression" if verdict == "FAIL" else "inconclusive"
        failure = _element("failure", message=told, type=kind)
        failure.text = printable(told)
        case.append(failure)


def _element(tag: str, **attributes: str) -> ElementTree.Element:
    """An element whose attributes hold only what XML 1.0 may."""
    return ElementTree.Element(tag, {name: printable(value) for name, value in attributes.items()})
