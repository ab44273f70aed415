"""Engines timed through NVIDIA's bindings, with CUDA's runtime on host memory: what is called, counted and added up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import run

from trt_opt.bench import Contender, timed
from trt_opt.build.manifest import record_of_file
from trt_opt.errors import DataError
from trt_opt.runnables import Runnable, runnable
from trt_opt.samples import DIGITS
from trt_opt.telemetry import Telemetry
from trt_opt.values.progress import Silent
from trt_opt.values.timing import Timing, TimingSettings

pytestmark = pytest.mark.contract

FEED = {"image": np.zeros((1, 1, 8, 8), np.float32)}


@pytest.fixture
def engine(tensorrt_python: Path, folder: Path) -> Runnable:
    """The digits model built with the stand-in, ready to run."""
    shapes = [f"--{name}-shapes=image:{rows}x1x8x8" for name, rows in (("min", 1), ("opt", 4), ("max", 8))]
    options = ("--target", "tensorrt", "--tensorrt-python", str(tensorrt_python), "--no-baselines", *shapes)
    done = run("build", str(DIGITS / "model.onnx"), "--fp16", *options)
    assert done.exit_code == 0, done.output
    return runnable(str(next(folder.glob("engines/*/*/model.engine"))), str(tensorrt_python))


def timing_of(engine: Runnable, settings: TimingSettings) -> Timing:
    """The engine alone, timed."""
    side = Contender("engine", engine.timed_runner(settings), FEED, record_of_file(engine.file))
    with Telemetry(on_gpu=True) as watch:
        return timed((side,), settings, watch, Silent())[0]


def is_before_10(engine: Runnable) -> bool:
    """Whether TensorRT 8 built it."""
    assert engine.manifest is not None
    return engine.manifest.library.startswith("tensorrt 8.")


@pytest.mark.parametrize("graph", [False, True], ids=["plain", "cuda_graph"])
def test_every_request_has_its_times(engine: Runnable, *, graph: bool) -> None:
    """A latency, a time between events and a time to enqueue; on two streams where they can share a profile."""
    streams = 1 if is_before_10(engine) else 2
    settings = TimingSettings(rounds=3, round_s=0.02, warm_up_s=0.5, streams=streams, cuda_graph=graph)
    found = timing_of(engine, settings)
    assert found.kind == "tensorrt"
    assert found.library == engine.manifest.library  # type: ignore[union-attr]
    assert [one.requests for one in found.rounds] == [found.rounds[0].requests] * 3
    assert found.rounds[0].requests % streams == 0
    assert found.compute is not None
    assert found.enqueue is not None
    assert found.latency.count == found.compute.count == found.enqueue.count
    assert 0 < found.compute.median_ms <= found.latency.median_ms
    assert found.memory.gpu_bytes == 0  # the stand-in's GPU never fills


def test_streams_that_cannot_share_a_profile_are_refused(engine: Runnable) -> None:
    """Before TensorRT 10, with dynamic shapes."""
    if not is_before_10(engine):
        pytest.skip("profiles are shared since TensorRT 10")
    settings = TimingSettings(streams=2)
    with engine.timed_runner(settings) as runner, pytest.raises(DataError, match="--streams 1"):
        runner.prepare(FEED, settings)


def test_without_transfers_less_is_done(engine: Runnable) -> None:
    """Latency covers the copies only where they are asked for: it is never below the time between the events."""
    settings = TimingSettings(rounds=2, round_s=0.02, warm_up_s=0.5, transfers=False)
    found = timing_of(engine, settings)
    assert found.compute is not None
    assert found.latency.median_ms >= found.compute.median_ms


def test_a_shape_beyond_the_profile_is_told(engine: Runnable) -> None:
    """The engine's own words about the input, not a crash."""
    settings = TimingSettings()
    with engine.timed_runner(settings) as runner, pytest.raises(DataError, match="image"):
        runner.prepare({"image": np.zeros((500, 1, 8, 8), np.float32)}, settings)


def test_an_engine_gives_numbers_before_and_after_it_is_timed(engine: Runnable) -> None:
    """Timing has contexts of its own and leaves the ones for results alone."""
    settings = TimingSettings()
    with engine.timed_runner(settings) as runner:
        before = runner.infer(FEED)
        runner.prepare(FEED, settings)
        runner.run_round(3)
        after = runner.infer(FEED)
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])


def test_layers_are_timed_by_tensorrts_profiler(engine: Runnable) -> None:
    """By the engine's own names, in every version, and with a CUDA graph asked for as well."""
    settings = TimingSettings(rounds=1, round_s=0.02, warm_up_s=0.2, cuda_graph=True, layers=True)
    found = timing_of(engine, settings).layers
    assert found
    assert len({layer.name for layer in found}) == len(found)
    assert all(layer.median_ms == pytest.approx(0.01) for layer in found)  # what the stand-in says of every layer
