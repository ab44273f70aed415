"""Findings as SARIF 2.1.0, the format in which code hosts take the results of linters (OASIS standard)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from trt_opt import __version__
from trt_opt.values.lint import Finding, LintReport, RuleDescription, Severity

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

LEVELS: Mapping[Severity, str] = MappingProxyType({"error": "error", "warning": "warning", "note": "note"})
"""SARIF's `level` (section 3.27.10)."""


def sarif_text(report: LintReport, rules: Iterable[RuleDescription], folder: Path) -> str:
    """The report as a SARIF log of one run.

    Args:
        report: After `--fix`, its findings are about the file written.
        rules: The rules that were checked.
        folder: Paths below it are written relative to it, as code hosts want them.
    """
    checked = tuple(rules)
    places = {rule.name: place for place, rule in enumerate(checked)}
    uri = uri_of(Path(report.output or report.model), folder)
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "trt-opt",
                        "semanticVersion": __version__,
                        "rules": [_rule(rule) for rule in checked],
                    }
                },
                "artifacts": [{"location": {"uri": uri}}],
                "results": [_result(finding, places[finding.rule], uri) for finding in report.findings],
                "columnKind": "unicodeCodePoints",
            }
        ],
    }
    return json.dumps(log, indent=2) + "\n"


def uri_of(file: Path, folder: Path) -> str:
    """A relative reference where the file lies in the folder, else an absolute file URI; percent-encoded (RFC 3986)."""
    whole = (folder / file).resolve()
    base = folder.resolve()
    if whole.is_relative_to(base):
        # A first segment with a colon would read as a scheme: quote() encodes colons.
        return quote(whole.relative_to(base).as_posix(), safe="/")
    return whole.as_uri()


def _rule(rule: RuleDescription) -> dict[str, Any]:
    return {
        "id": rule.name,
        "shortDescription": {"text": f"{rule.summary}."},
        "fullDescription": {"text": rule.why},
        "help": {"text": f"{rule.remedy[0].upper()}{rule.remedy[1:]}."},
        "defaultConfiguration": {"level": LEVELS[rule.severity]},
        "properties": {"fixable": rule.is_fixable},
    }


def _result(finding: Finding, place: int, uri: str) -> dict[str, Any]:
    location = {
        # A model has no lines; code hosts show nothing that has no region.
        "physicalLocation": {"artifactLocation": {"uri": uri, "index": 0}, "region": {"startLine": 1}},
        "logicalLocations": [
            {"name": node, "fullyQualifiedName": node, "kind": "resource"} for node in finding.nodes if node
        ],
    }
    return {
        "ruleId": finding.rule,
        "ruleIndex": place,
        "level": LEVELS[finding.severity],
        "message": {"text": f"{finding.node}: {finding.message}. To do: {finding.remedy}."},
        "locations": [location],
        "partialFingerprints": {"node/v1": f"{finding.rule}:{finding.node}"},
    }
