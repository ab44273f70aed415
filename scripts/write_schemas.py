"""Writes the JSON Schemas of docs/schemas/ anew: `python scripts/write_schemas.py`; a test fails until it was run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from trt_opt.values.json_schema import json_schema_of
from trt_opt.values.model_comparison import ModelComparison
from trt_opt.values.regression import ABResult, RegressionReport
from trt_opt.values.timing import Benchmark

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"

KINDS: Mapping[str, type] = MappingProxyType(
    {
        "benchmark": Benchmark,
        "model_comparison": ModelComparison,
        "ab_result": ABResult,
        "regression_report": RegressionReport,
    }
)
"""File without ending → what it describes."""


def schema_text(kind: type) -> str:
    """A schema as it stands in its file."""
    return json.dumps(json_schema_of(kind), indent=1) + "\n"


def main() -> None:
    """Writes all of them."""
    FOLDER.mkdir(exist_ok=True)
    for name, kind in KINDS.items():
        (FOLDER / f"{name}.json").write_text(schema_text(kind), encoding="utf-8")


if __name__ == "__main__":
    main()
