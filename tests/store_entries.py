"""Entries for an engine store, made of real files with small content."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from trt_opt.build.manifest import MANIFEST, record_of_file, write_manifest
from trt_opt.build.store import ENGINE, GRAPH, TABLE
from trt_opt.values.engine import BuildOptions, FileRecord, Manifest, Variant
from trt_opt.values.precision import PrecisionPlan
from trt_opt.values.rewriting import RewriteReport
from trt_opt.values.shapes import ShapeRange
from trt_opt.values.tensors import TensorSpec

KEY = "0123456789abcdef"


def fill(folder: Path, engine: bytes = b"engine", *, target: str = "rtx:8.6+8.9") -> Manifest:
    """Writes engine, graph, table and manifest into a folder, and returns the manifest."""
    for name, content in ((ENGINE, engine), (GRAPH, b"graph"), (TABLE, b"{}")):
        (folder / name).write_bytes(content)
    manifest = Manifest(
        tool="trt-opt 0.1.0",
        library="tensorrt_rtx 1.7.1.116",
        built_at="2025-01-01T00:00:00+00:00",
        recipe={"model": "model.onnx", "int8": True, "exclude": ["a"]},
        model=FileRecord("model.onnx", 5, "0" * 64),
        engine=record_of_file(folder / ENGINE),
        graph=record_of_file(folder / GRAPH),
        table=record_of_file(folder / TABLE),
        options=BuildOptions(target, {"x": ShapeRange.fixed((1, 3))}),
        inputs=(TensorSpec("x", "float32", ("N", 3)),),
        outputs=(TensorSpec("y", "float32", (1, 10)),),
        calibration=None,
        evaluation=None,
        precision=PrecisionPlan(()),
        rewrite=RewriteReport((), 3, 2, 0, None),
        variants=(Variant("FP32", 10),),
        seconds={"build": 1.5},
    )
    write_manifest(manifest, folder / MANIFEST)
    return manifest


def rewrite_manifest(folder: Path, manifest: Manifest, **changes: object) -> None:
    """Writes a manifest with some fields changed."""
    write_manifest(dataclasses.replace(manifest, **changes), folder / MANIFEST)  # type: ignore[arg-type]
