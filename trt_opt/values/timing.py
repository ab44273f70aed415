"""How fast a model is: how it was timed, what every round gave, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from trt_opt.errors import RequestError
from trt_opt.values.engine import FileRecord
from trt_opt.values.machine_state import Environment
from trt_opt.values.runner import Runner

Arrays = Mapping[str, NDArray[np.generic]]

RunnerKind = Literal["onnxruntime", "tensorrt", "tensorrt_rtx", "trtexec"]


@dataclass(frozen=True, slots=True)
class TimingSettings:
    """How a model is timed, in words that mean the same for every runner; none is left to a library.

    Attributes:
        rounds: How often each side is timed; sides take turns.
        round_s: How long a round lasts at least, seconds.
        warm_up_s: How long a side may take until its times are stable, seconds.
        streams: Requests in flight at the same time: CUDA streams on a GPU, calling threads in ONNX Runtime.
        cuda_graph: Whether the work is captured once and replayed as a CUDA graph; False where there is no GPU.
        transfers: Whether end-to-end latency includes the copies to and from the GPU.
        threads: ONNX Runtime's threads within one request; None leaves it to ONNX Runtime, and nothing else has them.
        layers: Whether each layer is timed as well, in a pass of its own behind the rounds.
    """

    rounds: int = 20
    round_s: float = 0.2
    warm_up_s: float = 10.0
    streams: int = 1
    cuda_graph: bool = False
    transfers: bool = True
    threads: int | None = None
    layers: bool = False

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("streams", 1), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise RequestError(f"{name} must be {least} or more, not {value}")
        for name in ("round_s", "warm_up_s"):
            if not 0 < getattr(self, name) < 3600:
                raise RequestError(f"{name} must be above 0 and below 3600 seconds, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True, eq=False)
class RoundSamples:
    """What a runner measured in one round, one entry per request.

    Attributes:
        latency_ms: End to end, milliseconds: from handing over the inputs until the outputs are there.
        wall_s: How long the round took as a whole, seconds; with several streams less than the sum of the latencies.
        compute_ms: On the GPU alone, by CUDA events; empty without a GPU.
        enqueue_ms: What the calling thread spends on a request before the GPU has it; empty without a GPU.
    """

    latency_ms: tuple[float, ...]
    wall_s: float
    compute_ms: tuple[float, ...] = ()
    enqueue_ms: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What a side took.

    Attributes:
        peak_resident_bytes: The most main memory its process held; None where that cannot be told.
        gpu_bytes: Memory on the GPU, of engine, weights and scratch; None without a GPU.
    """

    peak_resident_bytes: int | None = None
    gpu_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer under the library's profiler, which slows everything down: shares say more than times.

    Attributes:
        name: The library's name for it, after fusion: "conv1 + relu1".
        kind: Its operator, as far as the library says.
        median_ms: Median over the requests, milliseconds.
    """

    name: str
    kind: str
    median_ms: float


class TimedRunner(Runner, Protocol):
    """A runner in a process of its own that can time itself."""

    @property
    def kind(self) -> RunnerKind:
        """Which library."""

    @property
    def library(self) -> str:
        """Name and version, known inside the `with` block: "onnxruntime 1.32.0"."""

    def prepare(self, feed: Arrays, settings: TimingSettings) -> None:
        """Hands over what every request is fed with, and how; nothing of it is timed later.

        Raises:
            DataError: The feed does not fit.
            RequestError: A setting that this runner does not have.
        """

    def run_round(self, requests: int) -> RoundSamples:
        """Runs and times so many requests on each stream."""

    def memory(self) -> MemoryUse:
        """What it took so far."""

    def layer_times(self, requests: int) -> tuple[LayerTime, ...]:
        """Runs so many requests with the library's profiler on; nothing where it has none."""


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """The distribution of a latency over all requests of all rounds, milliseconds.

    Percentiles are linear interpolations between order statistics (NumPy's default).

    Attributes:
        count: Requests.
        cv: Coefficient of variation: standard deviation over mean.
    """

    count: int
    mean_ms: float
    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    cv: float


@dataclass(frozen=True, slots=True)
class RoundTiming:
    """One round of one side.

    Attributes:
        requests: Timed requests, over all streams.
        latency_ms: Their median latency end to end.
        compute_ms: Their median time on the GPU; None without one.
        throughput_per_s: Samples (rows of the batch) per second.
    """

    requests: int
    latency_ms: float
    compute_ms: float | None
    throughput_per_s: float


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What came before the first round.

    Attributes:
        requests: Requests that were run and not counted.
        seconds: How long it took.
        stable: Whether times had stopped changing when it ended; if not, the clock ended it.
    """

    requests: int
    seconds: float
    stable: bool


@dataclass(frozen=True, slots=True)
class Timing:
    """One side, timed in one setting.

    Attributes:
        name: What it is called: "INT8 + FP16", or the file's name.
        kind: Which library ran it.
        library: That library's name and version.
        device: What it ran on: "NVIDIA H200", or the CPU's name.
        precision: "FP32", "FP16", "INT8 + FP16"; empty where nobody knows.
        file: The model or engine.
        shapes: The shape of every input that was fed.
        batch: Rows per request: the first dimension of the inputs, where they agree on it; else 1.
        settings: How it was timed.
        warm_up: What came before.
        rounds: Every round, in order.
        latency: End to end.
        compute: On the GPU alone; None without one.
        enqueue: The calling thread's part; None without a GPU.
        throughput_per_s: Samples per second over all rounds.
        memory: What it took.
        build_s: How long the engine's build took; None where no manifest says.
        problems: Why this timing is not to be trusted; empty when it is.
        layers: Every layer's time, in order of execution; empty unless it was asked for.
    """

    name: str
    kind: RunnerKind
    library: str
    device: str
    precision: str
    file: FileRecord
    shapes: Mapping[str, tuple[int, ...]]
    batch: int
    settings: TimingSettings
    warm_up: WarmUp
    rounds: tuple[RoundTiming, ...]
    latency: LatencySummary
    compute: LatencySummary | None
    enqueue: LatencySummary | None
    throughput_per_s: float
    memory: MemoryUse = MemoryUse()
    build_s: float | None = None
    problems: tuple[str, ...] = ()
    layers: tuple[LayerTime, ...] = ()


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What `trt-opt bench` measured.

    Attributes:
        tool: "trt-opt 0.1.0".
        measured_at: UTC, ISO 8601.
        environment: The machine before, during and after.
        timings: Every side in every setting.
        random_data: Whether random numbers were fed.
        command: The arguments, for repeating it; empty where it was called from Python.
    """

    tool: str
    measured_at: str
    environment: Environment
    timings: tuple[Timing, ...]
    random_data: bool
    command: tuple[str, ...] = field(default=())

    @property
    def problems(self) -> tuple[str, ...]:
        """Why this run is invalid: the machine's problems, then those of each side; empty when it is valid."""
        own = (f"{timing.name}: {problem}" for timing in self.timings for problem in timing.problems)
        return (*self.environment.problems, *own)

    @property
    def is_valid(self) -> bool:
        """Whether the figures may be used; an invalid run is not a slow one."""
        return not self.problems
