"""A part of the census of onnx's own test models, which scripts/census.py takes in full: no model may be lost.

    python tests/rtx/test_census.py FOLDER/census.jsonl

records census_expectations.json anew from a full census.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
EXPECTATIONS = Path(__file__).with_name("census_expectations.json")
TARGET = "rtx:8.6"
ONE_IN = 24
"""Chosen are one in so many of all models, by a hash of the key, and one for every operator."""

TOO_LONG_S = 5.0
"""Models that take longer are not chosen."""

CHUNKS = 10
VERDICTS = ("refused", "options", "default")
"""What may become of a model, from worst to best; the last two with the suite's expected outputs."""

pytestmark = [
    pytest.mark.rtx,
    pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed"),
]

RECORDED = json.loads(EXPECTATIONS.read_text(encoding="utf-8")) if EXPECTATIONS.exists() else {"onnx": "", "cases": {}}


@pytest.fixture(scope="module")
def census() -> Iterator[Any]:
    """The script, as a module."""
    sys.path.insert(0, str(SCRIPTS))
    yield importlib.import_module("census")
    sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def cases(census: Any) -> Mapping[str, Any]:
    """The recorded cases that the installed onnx has; all are made up to the last of them, for their random data."""
    found: dict[str, Any] = {}
    for case in census.all_cases():
        if case.key in RECORDED["cases"]:
            found[case.key] = case
        if len(found) == len(RECORDED["cases"]):
            break
    return found


@pytest.fixture(scope="module")
def judge(census: Any) -> Iterator[Any]:
    """TensorRT-RTX's parser and builder, in one child process for all tests of a worker."""
    with census.backend_for(census.target_from_text(TARGET)) as backend:
        yield census.LibraryJudge(backend, thorough=True)


def verdict(record: Mapping[str, Any]) -> str:
    """What became of a model, one of VERDICTS."""
    if record["accepted"] and record["verified"]:
        return "default"
    return "options" if "with_options" in record else "refused"


def chosen(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The keys of the part: see ONE_IN; for an operator a model that gets through, where there is one."""
    short = [key for key in records if records[key].get("seconds", 0.0) <= TOO_LONG_S]
    part = [key for key in short if _hash(key) % ONE_IN == 0]
    known = {name for key in part for name in records[key].get("operators", ())}
    for key in sorted(short, key=lambda key: (verdict(records[key]) == "refused", _hash(key))):
        if not known.issuperset(records[key].get("operators", ())):
            part.append(key)
            known |= set(records[key]["operators"])
    return sorted(set(part))


def _hash(key: str) -> int:
    return zlib.crc32(key.encode())


def test_the_suite_has_the_recorded_models(cases: Mapping[str, Any]) -> None:
    """All of them with the onnx they were recorded with; another version may lack some, which are named."""
    missing = sorted(RECORDED["cases"].keys() - cases.keys())
    version = importlib.metadata.version("onnx")
    if missing and version != RECORDED["onnx"]:
        pytest.skip(f"onnx {version} lacks of those of {RECORDED['onnx']}: {', '.join(missing)}")
    assert not missing


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_model_is_lost(chunk: int, census: Any, cases: Mapping[str, Any], judge: Any) -> None:
    """Every model becomes at least as good as recorded: verified by default, with options, or without a defect."""
    keys = [key for key in sorted(RECORDED["cases"])[chunk::CHUNKS] if key in cases]
    if not keys:
        pytest.skip(f"onnx {importlib.metadata.version('onnx')} has none of these models")
    lost = {}
    for key in keys:
        expected = RECORDED["cases"][key]
        record = census.record_of(cases[key], judge, opt_ins=expected == "options")
        if VERDICTS.index(verdict(record)) < VERDICTS.index(expected):
            lost[key] = f"{verdict(record)} instead of {expected}: {record['refused'] or record['wrong']}"
    assert not lost


def main(file: Path) -> None:
    """Records the expectations of the part anew."""
    records = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        records[record["key"]] = record
    expectations = {
        "onnx": importlib.metadata.version("onnx"),
        "cases": {key: verdict(records[key]) for key in chosen(records)},
    }
    EXPECTATIONS.write_text(json.dumps(expectations, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
