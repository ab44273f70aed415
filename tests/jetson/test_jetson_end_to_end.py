"""From `trt-opt bundle` to `install_engine.sh`: the real command's bundles, the real scripts, a fake board."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from command_line import run
from fake_board import FakeBoard, made_board, record_of, shell_of
from vendor_bindings import bindings_or_skip

from trt_opt.samples import DIGITS

_made: dict[tuple[str, ...], bytes] = {}
"""Bundles by their options: the same options give the same bytes."""


def bundled(folder: Path, version: str, *asked: str) -> Path:
    """A bundle of the digits model for an Orin with that version."""
    path = folder / "digits.bundle"
    data = ["--calib-data", str(DIGITS / "calibration.npz"), "--eval-data", str(DIGITS / "test.npz"), "--samples", "2"]
    options = ("--int8", "--target", f"tensorrt:{version.rpartition('.')[0]}@orin", *asked)
    if options not in _made:
        made = run("bundle", str(DIGITS / "model.onnx"), *options, *data, "-o", str(path))
        assert made.exit_code == 0, made.output
        _made[options] = path.read_bytes()
    path.write_bytes(_made[options])
    return path


@pytest.mark.parametrize(
    ("shell", "tensorrt", "asked", "told"),
    [
        ("dash", "8.6.1", ["--quantization", "implicit"], {"--calib=result/calibration.cache", "--fp16"}),
        ("bash", "8.6.1", [], {"--int8", "--fp16"}),
        ("dash", "10.3.0", [], {"--stronglyTyped"}),
    ],
)
def test_bundle_reaches_its_place(
    folder: Path, tmp_path: Path, shell: str, tensorrt: str, asked: list[str], told: set[str]
) -> None:
    """A bundle of the digits model is built with that version's options, verified and installed."""
    board = made_board(tmp_path / shell_of(shell), tensorrt)
    bundle = bundled(folder, tensorrt, *asked)
    done = board.run(shell, "build_on_device.sh", "--engines", "engines", bundle)
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
    assert board.run(shell, "build_on_device.sh", "--engines", "engines", bundle).returncode == 1


KILLED_ONCE = """\
import os, signal, sys
sys.path.remove(os.path.dirname(__file__))
del sys.modules["tensorrt"]
import tensorrt
whole = tensorrt.Builder.build_serialized_network
def short_of_memory(*arguments):
    if not os.path.exists({mark!r}):
        open({mark!r}, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments)
tensorrt.Builder.build_serialized_network = short_of_memory
"""
"""A module `tensorrt` before the stand-in, whose first build ends as the kernel ends one that took all memory."""


def stand_in_python(board: FakeBoard, version: str) -> Path:
    """A Python with the stand-in TensorRT, in which the first build is killed."""
    before = board.root / "before"
    before.mkdir()
    (before / "tensorrt.py").write_text(KILLED_ONCE.format(mark=str(board.root / "killed")))
    python = bindings_or_skip(version).write_python(board.root / "python", CUDA_STAND_IN_CAPABILITY="8.7")
    lines = python.read_text().splitlines()
    lines.insert(-1, f"export PYTHONPATH='{before}':$PYTHONPATH")
    python.write_text("\n".join(lines) + "\n")
    return python


@pytest.mark.contract
@pytest.mark.parametrize(
    ("shell", "version", "asked"),
    [("dash", "8.6.1", ["--quantization", "implicit"]), ("bash", "10.3.0", [])],
)
def test_bundle_reaches_its_place_through_trt_opt(
    folder: Path, tmp_path: Path, shell: str, version: str, asked: list[str]
) -> None:
    """Without trtexec: trt-opt and its child build and judge, a second time with less when the first was killed."""
    board = made_board(tmp_path / shell_of(shell), version)
    (board.programs / "trtexec").unlink()
    board.program("trt-opt", f'exec "{sys.executable}" -m trt_opt "$@"\n')
    python = stand_in_python(board, version)
    bundle = bundled(folder, version, *asked)
    done = board.run(shell, "build_on_device.sh", "--engines", "engines", "--tensorrt-python", python, bundle)
    assert done.returncode == 0, done.stderr
    engine = Path(done.stdout.strip())
    record = record_of(engine)
    assert (record["ATTEMPT"], record["WORKSPACE_MIB"], record["TENSORRT"]) == ("2", "512", version)
    assert (record["VERDICT"], record["VERIFIED_BY"]) == ("PASS", "trt-opt")
    assert record["CALIBRATION_CACHE"] == ("TRT-8601-EntropyCalibration2" if asked else "")
    installed = board.run(shell, "install_engine.sh", "--check", 'test -s "$TRT_OPT_ENGINE"', engine, "target")
    assert installed.returncode == 0, installed.stderr
    assert (Path(installed.stdout.strip()) / "model.engine").read_bytes() == (engine / "model.engine").read_bytes()
