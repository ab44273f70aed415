"""What running a model in ONNX Runtime leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
from graphs import pooled

SCRIPT = """
import sys
import numpy as np, onnx
from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
model = onnx.load(sys.argv[1])
with OnnxRuntimeRunner(model, optimised=False) as runner:
    feed = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in runner.inputs}
    assert list(runner.infer(feed)) == [spec.name for spec in runner.outputs]
print("torch" in sys.modules)
"""


def test_pytorch_is_not_imported_to_run_a_model(tmp_path: Path) -> None:
    """It takes seconds and 200 MB, and Ctrl-C while Polygraphy imports it is swallowed, or ends in a crash."""
    (tmp_path / "torch.py").write_text("class Tensor: ...\n__version__ = '2.0.0'\n")
    onnx.save(pooled(), tmp_path / "model.onnx")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "model.onnx"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stdout.split() == ["False"], done.stderr
