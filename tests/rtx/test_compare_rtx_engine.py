"""`trt-opt compare` with an engine of TensorRT-RTX where there is no GPU to run it."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run

from trt_opt.backends.machine import has_gpu
from trt_opt.build.store import EngineStore

pytestmark = [pytest.mark.rtx, pytest.mark.skipif(has_gpu(), reason="there is a GPU here")]

DIGITS = Path(__file__).parents[2] / "trt_opt" / "samples" / "digits"
MODEL = str(DIGITS / "model.onnx")
SHAPES = ("--min-shapes", "image:1x1x8x8", "--opt-shapes", "image:1x1x8x8", "--max-shapes", "image:2x1x8x8")


def test_an_engine_without_a_gpu_is_told_as_missing(folder: Path) -> None:
    """Exit code 5 and the reason, whichever side it is; nothing is written."""
    done = run("build", MODEL, "--target", "rtx:8.6", "--fp16", "--no-baselines", *SHAPES, "-o", "engines")
    assert done.exit_code == 0, done.stderr
    (entry,) = EngineStore(folder / "engines").entries()
    for files in ((MODEL, entry.folder), (entry.folder, MODEL), (MODEL, f"{entry.folder}/model.engine")):
        refused = run("compare", *files, "--data", str(DIGITS / "test.npz"), "-o", "result.json")
        assert refused.exit_code == 5, refused.stderr
        assert "an engine runs on an NVIDIA GPU, and here is none" in refused.stderr
    assert not Path("result.json").exists()
