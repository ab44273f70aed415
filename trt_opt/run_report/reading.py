"""What the files are that a report is made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trt_opt.build.manifest import MANIFEST
from trt_opt.errors import RecipeError, RequestError
from trt_opt.values.codec import kind_from_json, value_from_json
from trt_opt.values.engine import Manifest
from trt_opt.values.model_comparison import ModelComparison
from trt_opt.values.regression import ABResult, RegressionReport
from trt_opt.values.sensitivity import SensitivityReport
from trt_opt.values.timing import Benchmark

KINDS: Mapping[str, tuple[type, str]] = MappingProxyType(
    {
        "Manifest": (Manifest, "manifests"),
        "ModelComparison": (ModelComparison, "comparisons"),
        "Benchmark": (Benchmark, "benchmarks"),
        "SensitivityReport": (SensitivityReport, "sensitivities"),
        "ABResult": (ABResult, "ab_results"),
        "RegressionReport": (RegressionReport, "regressions"),
    }
)
"""Kind in a file → its class, and the field of `ReportContent` it goes to."""

HINT = "an engine's folder or manifest, or what bench, compare, sensitivity and regress write as JSON"


def results_of(files: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Everything the files hold, by the field of `ReportContent`.

    Args:
        files: Results, engines' folders or manifests, or folders of results.

    Raises:
        RequestError: There is no such file, or it holds something else.
        RecipeError: It cannot be read.
    """
    found: dict[str, list[Any]] = {field: [] for _, field in KINDS.values()}
    for file in files:
        for path, text in _files(Path(file)):
            kind, field = _kind_of(path, text)
            found[field].append(value_from_json(kind, text, where=str(path)))
    return {field: tuple(values) for field, values in found.items()}


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    """The file itself and its text; of a folder its manifest, or every result in it."""
    if not path.exists():
        raise RequestError("there is no such file or folder", where=str(path), hint=HINT)
    if not path.is_dir():
        yield path, _text_of(path)
        return
    if (path / MANIFEST).is_file():
        yield path / MANIFEST, _text_of(path / MANIFEST)
        return
    every = ((file, _text_of(file)) for file in sorted(path.rglob("*.json")))
    results = [(file, text) for file, text in every if _named_kind(text) in KINDS]
    if not results:
        raise RequestError("this folder holds no result", where=str(path), hint=HINT)
    yield from results


def _text_of(path: Path) -> str:
    """What is in the file; nothing where it is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"the file cannot be read ({error.strerror})", where=str(path)) from error
    except UnicodeDecodeError:
        return ""


def _kind_of(path: Path, text: str) -> tuple[type, str]:
    name = _named_kind(text)
    if name is None or name not in KINDS:
        what = "this is no result in JSON" if name is None else f"a report shows no {name}"
        raise RequestError(what, where=str(path), hint=HINT)
    return KINDS[name]


def _named_kind(text: str) -> str | None:
    """What a text says it holds; None where it is no JSON of this package."""
    try:
        return kind_from_json(text, where="")
    except (RecipeError, RecursionError):
        return None
