"""Bundles made by hand, so that a test can spoil each part."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from graphs import residual_block

from trt_opt.bundling.archive import write_archive
from trt_opt.bundling.packing import packed
from trt_opt.bundling.samples import Recording, files_from_recordings
from trt_opt.values.bundle import Bundle, BundledInput, BundledOutput
from trt_opt.values.engine import BuildOptions
from trt_opt.values.precision import PrecisionPlan
from trt_opt.values.rewriting import RewriteReport
from trt_opt.values.samples import DataProvenance
from trt_opt.values.shapes import ShapeRange


def recordings(count: int = 2) -> list[Recording]:
    """Random feeds, and answers of which the simulated ones are 40 dB from the right ones."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        feed = {"x": random.standard_normal((1, 16, 8, 8), np.float32), "n": random.integers(0, 9, (2,), np.int64)}
        right = {"y": random.standard_normal((1, 5), np.float32), "z": random.standard_normal((), np.float32)}
        right = {name: np.asarray(array, np.float32) for name, array in right.items()}
        found.append(Recording(feed, right, {name: np.float32(1.01) * array for name, array in right.items()}))
    return found


def described(samples: int = 2) -> Bundle:
    """The description that goes with `recordings`."""
    options = BuildOptions(
        "tensorrt:8.6@orin",
        profile={"x": ShapeRange((1, 16, 8, 8), (1, 16, 8, 8), (4, 16, 8, 8))},
        workspace_bytes=2**30,
        strongly_typed=False,
        fp16=True,
        int8=True,
        float32_layers=("/head/Softmax", "conv 1"),
    )
    return Bundle(
        name="app",
        tool="trt-opt 0.0",
        tensorrt="8.6",
        board="orin",
        capability="8.7",
        precision="int8-explicit",
        label="INT8 + FP16",
        options=options,
        inputs=(BundledInput("x", "float32", (1, 16, 8, 8)), BundledInput("n", "int64", (2,))),
        outputs=(BundledOutput("y", (1, 5), 40.0), BundledOutput("z", (), 40.0)),
        not_compared=(),
        samples=samples,
        least_sqnr_db=37.0,
        plan=PrecisionPlan((), {}),
        rewrite=RewriteReport((), 6, 6, 0, None),
        calibration=None,
        evaluation=DataProvenance("test.npz", "0" * 64, 100),
        warnings=(),
    )


def own_files() -> dict[str, bytes]:
    """What `packed` does not make by itself."""
    model = residual_block().SerializeToString()
    return {"model.onnx": model, "recipe.toml": b"int8 = true\n", **files_from_recordings(recordings())}


def files_of(bundle: Bundle | None = None, changed: Mapping[str, bytes | None] | None = None) -> dict[str, bytes]:
    """Every file of a bundle, all checksums right; `changed` has other content, or None for a file to leave out."""
    files: dict[str, bytes | None] = {**own_files(), **(changed or {})}
    return packed(bundle or described(), {name: content for name, content in files.items() if content is not None})[1]


def written(folder: Path, files: Mapping[str, bytes] | None = None) -> Path:
    """A bundle's file, by default a good one's."""
    path = folder / "app.bundle"
    write_archive(path, files or files_of())
    return path


def with_entry(folder: Path, entry: tarfile.TarInfo, content: bytes = b"", kind: int = tarfile.USTAR_FORMAT) -> Path:
    """A good bundle's files, written by Python's tarfile, and one entry more at the end."""
    path = folder / "app.bundle"
    with tarfile.open(path, "w", format=kind) as archive:
        for name, kept in files_of().items():
            info = tarfile.TarInfo(name)
            info.size = len(kept)
            archive.addfile(info, io.BytesIO(kept))
        archive.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    return path
