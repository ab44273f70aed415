"""Engine files of the stand-in, read back: what the builder was told."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from vendor_bindings import STAND_IN


def record_of(engine: Path) -> dict[str, Any]:
    """The record in an engine file: settings, layers, inputs and outputs."""
    spec = importlib.util.spec_from_file_location("stand_in_plan", STAND_IN / "tensorrt" / "_plan.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    record, _ = module.unpacked(engine.read_bytes())
    return dict(record)
