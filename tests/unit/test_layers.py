"""The architecture, kept true by reading the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

RANKS = {
    "errors": 0,
    "files": 0,
    "values": 1,
    "graph": 2,
    "backends": 2,
    "datasets": 2,
    "telemetry": 2,
    "inspection": 3,
    "passes": 3,
    "calibrate": 3,
    "quantize": 3,
    "build": 3,
    "compare": 3,
    "bench": 3,
    "regress": 3,
    "recipe": 4,
    "report": 4,
    "stopwatch": 4,
    "profiles": 4,
    "preparation": 4,
    "variants": 4,
    "guilty_node": 4,
    "integer_runner": 4,
    "half_runner": 4,
    "importing": 4,
    "import_trial": 4,
    "linting": 4,
    "advising": 4,
    "qat": 4,
    "sensitivity": 4,
    "improvements": 4,
    "accuracy_search": 4,
    "explanations": 4,
    "range_choice": 4,
    "conversions": 4,
    "quantizing": 4,
    "acceptance": 4,
    "advice": 4,
    "blame": 4,
    "buildable": 4,
    "ends": 4,
    "cache_import": 4,
    "made_up_samples": 4,
    "survey": 4,
    "builder_options": 4,
    "engine_building": 4,
    "implicit": 4,
    "pipeline": 4,
    "bundling": 4,
    "runnables": 4,
    "comparing": 4,
    "benching": 4,
    "regressing": 4,
    "run_report": 4,
    "cli": 5,
}
STAGES = {name for name, rank in RANKS.items() if rank == 3}
VENDOR = ("tensorrt", "tensorrt_rtx", "pycuda")

SOURCES = sorted(path for package in ("trt_opt", "calibrators") for path in (ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Every module a file imports, and whether at its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found += [(name, node in tree.body) for name in names]
    return found


def room_of(path: Path) -> str:
    """The part of trt_opt a file belongs to."""
    relative = path.relative_to(ROOT / "trt_opt")
    return relative.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    """An import points to a lower layer, to its own room, or from one room above the stages to another."""
    if path.is_relative_to(ROOT / "calibrators"):
        assert not [name for name, _ in imports_of(path) if name.split(".")[0] == "trt_opt"]
        return
    room = room_of(path)
    if room in ("__init__", "__main__", "samples"):
        return
    for name, _ in imports_of(path):
        parts = name.split(".")
        if parts[0] != "trt_opt" or len(parts) < 2 or parts[1] == room:
            continue
        assert RANKS[parts[1]] <= RANKS[room], f"{path.name} imports {name}"
        assert not (parts[1] in STAGES and room in STAGES), f"{path.name} imports another stage: {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_vendor_libraries_stay_behind_the_seam(path: Path) -> None:
    """TensorRT, Polygraphy's TensorRT backend and pycuda are imported lazily, and only behind the seam."""
    for name, is_top_level in imports_of(path):
        if name.split(".")[0] in VENDOR or name.startswith("polygraphy.backend.trt"):
            inside = "backends" in path.parts or path.name == "native.py"
            assert inside, f"{path.name} imports {name}"
            assert not is_top_level, f"{path.name} imports {name} when it is imported itself"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_grab_bags(path: Path) -> None:
    """No module is called after nothing in particular."""
    assert path.stem not in ("utils", "common", "helpers", "misc")
