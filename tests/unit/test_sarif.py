"""Findings as SARIF 2.1.0, held against what its schema asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
from lint_models import CASES

from trt_opt.quantize.lint import RULES, findings_of
from trt_opt.report.sarif import sarif_text, uri_of
from trt_opt.values.lint import LintReport

ABOUT = tuple(rule.about for rule in RULES.values())


def log_of(report: LintReport, folder: Path) -> dict[str, Any]:
    """The log, read back."""
    read: dict[str, Any] = json.loads(sarif_text(report, ABOUT, folder))
    return read


def all_findings() -> LintReport:
    """A report with a finding of every rule."""
    found = [entry for case in CASES.values() for entry in findings_of(case.bad())]
    return LintReport("model.onnx", tuple(found))


def require_message(message: dict[str, Any]) -> None:
    """Section 3.11: a message has text."""
    assert isinstance(message["text"], str)
    assert message["text"].endswith(".")


def test_the_log_has_what_the_schema_requires(tmp_path: Path) -> None:
    """Versions, a driver with a name, rules with ids, results whose indices point at them, levels of SARIF's own."""
    log = log_of(all_findings(), tmp_path)
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "trt-opt"
    ids = [rule["id"] for rule in driver["rules"]]
    assert ids == list(RULES)
    for rule in driver["rules"]:
        for part in ("shortDescription", "fullDescription", "help"):
            require_message(rule[part])
        assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
    assert {result["ruleId"] for result in run["results"]} == set(RULES)
    for result in run["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        require_message(result["message"])


def test_every_result_has_a_place(tmp_path: Path) -> None:
    """The file, line 1, since code hosts show nothing without a region, and the nodes by name."""
    log = log_of(all_findings(), tmp_path)
    (run,) = log["runs"]
    for result, finding in zip(run["results"], all_findings().findings, strict=True):
        (location,) = result["locations"]
        artifact = location["physicalLocation"]["artifactLocation"]
        assert artifact["uri"] == run["artifacts"][artifact["index"]]["location"]["uri"] == "model.onnx"
        assert location["physicalLocation"]["region"]["startLine"] == 1
        assert [entry["fullyQualifiedName"] for entry in location["logicalLocations"]] == list(finding.nodes)
        assert result["level"] == finding.severity


def test_only_the_keys_of_the_standard_are_used(tmp_path: Path) -> None:
    """SARIF's objects take no other properties outside a property bag (additionalProperties is false)."""
    (run,) = log_of(all_findings(), tmp_path)["runs"]
    assert set(run) <= {"tool", "artifacts", "results", "columnKind"}
    rule_keys = {"id", "shortDescription", "fullDescription", "help", "defaultConfiguration", "properties"}
    assert all(set(rule) <= rule_keys for rule in run["tool"]["driver"]["rules"])
    result_keys = {"ruleId", "ruleIndex", "level", "message", "locations", "partialFingerprints"}
    assert all(set(result) <= result_keys for result in run["results"])


def test_after_a_fix_the_findings_are_about_the_file_written(tmp_path: Path) -> None:
    """What is left is in the new file."""
    log = log_of(LintReport("given.onnx", (), output="fixed.onnx"), tmp_path)
    assert log["runs"][0]["artifacts"][0]["location"]["uri"] == "fixed.onnx"


@pytest.mark.parametrize("name", ["plain.onnx", "sub folder/mit Ümlaut.onnx", "a:b#c?d%20.onnx"])
def test_paths_below_the_folder_are_relative_and_encoded(name: str, tmp_path: Path) -> None:
    """The reference decodes to the path, and no character of it reads as a scheme, query or fragment."""
    uri = uri_of(Path(name), tmp_path)
    parts = urlparse(uri)
    assert (parts.scheme, parts.query, parts.fragment) == ("", "", "")
    assert uri.isascii()
    assert unquote(uri) == name


def test_paths_elsewhere_are_absolute(tmp_path: Path) -> None:
    """A file outside the folder is named by a file URI."""
    uri = uri_of(tmp_path / "model.onnx", tmp_path / "elsewhere")
    assert uri == (tmp_path / "model.onnx").resolve().as_uri()
    assert uri.startswith("file:///")
