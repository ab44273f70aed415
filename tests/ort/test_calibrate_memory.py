"""The data pass keeps nothing of the samples it has seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PEAK_OF_A_PASS = """
import sys
from pathlib import Path

sys.path.insert(0, "tests")
from calibrators import CALIBRATORS
from graphs import conv, model_of, weights
from trt_opt.calibrate.ranges import calibration_table
from trt_opt.datasets import open_dataset
from trt_opt.graph.query import graph_inputs
from trt_opt.values.placement import Taps
from trt_opt.values.progress import Silent

shapes = {"x": [1, 3, 128, 128]}, {"y": [1, 32, 128, 128]}
model = model_of([conv("conv", "x", "y", "w")], *shapes, {"w": weights(32, 3, 3, 3)})
dataset = open_dataset(sys.argv[1], graph_inputs(model))
calibration_table(model, Taps(("y",), ("x",)), dataset, CALIBRATORS["entropy"](), Silent())
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_samples() -> None:
    """128 samples of 2 MiB of activations take little more memory than 16: keeping them would take 224 MiB more."""
    peaks = []
    for source in ("random:16", "random:128"):
        command = [sys.executable, "-c", PEAK_OF_A_PASS, source]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < 48 * 2**20
