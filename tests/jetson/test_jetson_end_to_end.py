"""From `trt-opt bundle` to `install_engine.sh`: the real command's bundles, the real scripts, a fake board."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import run
from fake_board import made_board, record_of, shell_of

from trt_opt.samples import DIGITS


@pytest.mark.parametrize(
    ("shell", "tensorrt", "asked", "told"),
    [
        ("dash", "8.6.1", ["--int8", "--quantization", "implicit"], {"--calib=bundle/calibration.cache", "--fp16"}),
        ("bash", "8.6.1", ["--int8"], {"--int8", "--fp16"}),
        ("dash", "10.3.0", ["--int8"], {"--stronglyTyped"}),
    ],
)
def test_bundle_reaches_its_place(
    folder: Path, tmp_path: Path, shell: str, tensorrt: str, asked: list[str], told: set[str]
) -> None:
    """A bundle of the digits model is built with that version's options, verified and installed."""
    board = made_board(tmp_path / shell_of(shell), tensorrt)
    data = ["--calib-data", str(DIGITS / "calibration.npz"), "--eval-data", str(DIGITS / "test.npz")]
    target = f"tensorrt:{tensorrt.rpartition('.')[0]}@orin"
    made = run("bundle", str(DIGITS / "model.onnx"), "--target", target, *asked, *data, "-o", "digits.bundle")
    assert made.exit_code == 0, made.output
    done = board.run(shell, "build_on_device.sh", "--engines", "engines", folder / "digits.bundle")
    assert done.returncode == 0, done.stderr
    assert told <= set(board.calls()[0])
    engine = Path(done.stdout.strip())
    record = record_of(engine)
    assert float(record["OUTPUT_0_SQNR_DB"]) >= float(record["LEAST_SQNR_DB"]) > 20
    installed = board.run(shell, "install_engine.sh", engine, "target")
    assert installed.returncode == 0, installed.stderr
    in_use = Path(installed.stdout.strip()) / "model.engine"
    assert json.loads(in_use.read_text())["tensorrt"] == tensorrt
    board.set(noise=10.0)
    shutil.rmtree(engine)
    assert board.run(shell, "build_on_device.sh", "--engines", "engines", folder / "digits.bundle").returncode == 1
