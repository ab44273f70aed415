"""Sides timed in turns, with runners whose times are known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import pytest

from trt_opt.bench import Contender, notes_on, timed
from trt_opt.bench.notes import two_speeds
from trt_opt.bench.rounds import batch_of
from trt_opt.bench.summary import summary_of
from trt_opt.bench.warm_up import PIECES, requests_for, warm_up
from trt_opt.errors import StageError
from trt_opt.values.engine import FileRecord
from trt_opt.values.progress import Silent
from trt_opt.values.timing import LayerTime, MemoryUse, RoundSamples, RunnerKind, TimedRunner, TimingSettings


@dataclass
class Scripted:
    """A runner whose n-th round takes what a function says, and that writes down when it runs."""

    name: str
    latency_ms: Callable[[int], float]
    calls: list[str] = field(default_factory=list)
    kind: RunnerKind = "onnxruntime"
    library: str = "a script"
    rounds: int = 0
    entered: bool = False

    def __enter__(self) -> Scripted:
        self.entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.entered = False

    def infer(self, feed: Mapping[str, np.ndarray], /) -> Mapping[str, np.ndarray]:
        return feed

    def prepare(self, feed: Mapping[str, np.ndarray], settings: TimingSettings) -> None:
        assert self.entered

    def run_round(self, requests: int) -> RoundSamples:
        assert self.entered
        self.calls.append(self.name)
        each = self.latency_ms(self.rounds)
        self.rounds += 1
        return RoundSamples((each,) * requests, requests * each / 1e3)

    def memory(self) -> MemoryUse:
        return MemoryUse(peak_resident_bytes=7)

    def layer_times(self, requests: int) -> tuple[LayerTime, ...]:
        return (LayerTime("conv", "Conv", 1.0 / requests),)


class NoWatch:
    """A machine nobody looks at."""

    def read(self) -> None:
        """Nothing."""


def side(runner: TimedRunner, rows: int = 1) -> Contender:
    """A contender with an input of so many rows."""
    return Contender(runner.name, runner, {"x": np.zeros((rows, 3), np.float32)}, FileRecord("m.onnx", 1, "0" * 64))


def test_sides_take_turns_and_swap_places() -> None:
    """Each of three sides is first, and last, equally often; none runs twice before all have run once."""
    calls: list[str] = []
    sides = [side(Scripted(name, lambda _: 50.0, calls)) for name in "abc"]
    timed(sides, TimingSettings(rounds=6, round_s=0.1), NoWatch(), Silent())
    rounds = calls[3 * PIECES :]
    turns = ["".join(rounds[start : start + 3]) for start in range(0, 18, 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert sorted(turn[0] for turn in turns) == sorted(turn[-1] for turn in turns) == ["a", "a", "b", "b", "c", "c"]


def test_two_sides_cancel_a_linear_drift() -> None:
    """A machine that gets slower by the same step with every round gives both sides one median of pairs."""
    clock = iter(range(1000))
    both = [side(Scripted(name, lambda _: 100.0 + next(clock))) for name in "ab"]
    a, b = timed(both, TimingSettings(rounds=8, round_s=0.1), NoWatch(), Silent())
    differences = [other.latency_ms - one.latency_ms for one, other in zip(a.rounds, b.rounds, strict=True)]
    assert sum(differences) == 0
    assert set(differences) == {1.0, -1.0}


def test_the_figures_of_a_timing_follow_from_its_rounds() -> None:
    """Requests, median and throughput: rows per request times requests over seconds."""
    (found,) = timed(
        [side(Scripted("a", lambda _: 20.0), rows=4)], TimingSettings(rounds=3, round_s=0.1), NoWatch(), Silent()
    )
    assert [one.requests for one in found.rounds] == [5, 5, 5]
    assert found.latency.count == 15
    assert found.latency.median_ms == 20.0
    assert found.latency.cv == 0.0
    assert found.batch == 4
    assert found.throughput_per_s == pytest.approx(4 / 0.020)
    assert found.compute is None
    assert found.memory.peak_resident_bytes == 7
    assert found.warm_up.stable
    assert not found.problems


def test_warm_up_goes_on_while_times_fall() -> None:
    """It ends once the last pieces agree, not before."""
    runner = Scripted("a", lambda number: 100.0 if number >= 12 else 400.0 - 20 * number)
    done, latency_ms = warm_up(runner.__enter__(), 10.0)
    assert done.stable
    assert runner.rounds >= 12 + PIECES - 1
    assert latency_ms == 100.0


def test_a_side_that_never_settles_is_told() -> None:
    """The clock ends its warm-up, and its timing says why it is not to be trusted."""
    restless = Scripted("a", lambda number: 50.0 * (1 + number % 2))
    (found,) = timed([side(restless)], TimingSettings(rounds=2, round_s=0.1, warm_up_s=0.01), NoWatch(), Silent())
    assert not found.warm_up.stable
    assert "still changing" in found.problems[0]


def test_times_of_nothing_are_an_error() -> None:
    """A clock that stands still measured nothing."""
    with pytest.raises(StageError, match="took no time"):
        timed([side(Scripted("a", lambda _: 0.0))], TimingSettings(rounds=1, warm_up_s=0.01), NoWatch(), Silent())


def test_all_are_left_when_one_cannot_be_loaded() -> None:
    """No child process stays behind."""

    class Broken(Scripted):
        def __enter__(self) -> Scripted:
            raise StageError("no")

    good = Scripted("a", lambda _: 1.0)
    with pytest.raises(StageError):
        timed([side(good), side(Broken("b", lambda _: 1.0))], TimingSettings(), NoWatch(), Silent())
    assert not good.entered


def test_percentiles_are_numpys() -> None:
    """Linear interpolation between order statistics."""
    found = summary_of([float(value) for value in range(1, 101)])
    assert found is not None
    assert (found.median_ms, found.p90_ms, found.p99_ms) == (50.5, pytest.approx(90.1), pytest.approx(99.01))
    assert summary_of([]) is None


@pytest.mark.parametrize(
    ("shapes", "rows"), [([(8, 3), (8,)], 8), ([(8, 3), (2,)], 1), ([()], 1), ([(), (4, 2)], 4), ([], 1)]
)
def test_rows_are_what_all_inputs_agree_on(shapes: list[tuple[int, ...]], rows: int) -> None:
    """Scalars have no say; where inputs differ a request is one sample."""
    assert batch_of({str(number): np.zeros(shape) for number, shape in enumerate(shapes)}) == rows


def test_a_round_has_a_request_at_least() -> None:
    """However slow one is."""
    assert requests_for(0.1, 5000.0) == 1
    assert requests_for(0.1, 10.0) == 10


def test_the_file_of_a_side_is_told(tmp_path: Path) -> None:
    """With its hash."""
    (found,) = timed([side(Scripted("a", lambda _: 1.0))], TimingSettings(rounds=1), NoWatch(), Silent())
    assert found.file.sha256 == "0" * 64


def test_two_clocks_are_told_apart() -> None:
    """Rounds at 1.0 and 1.2 ms are two groups, whatever their order."""
    noise = np.random.default_rng(0).normal(0, 0.005, 20)
    found = two_speeds([(1.2 if n % 3 == 0 else 1.0) + noise[n] for n in range(20)])
    assert found == pytest.approx((1.0, 1.2), abs=0.01)


def test_one_speed_with_noise_and_outliers_is_one() -> None:
    """Log-normal noise of 5 %, two slow rounds among them: in 300 tries at most 3 look like two groups."""
    random = np.random.default_rng(1)
    tries = [np.exp(random.normal(0, 0.05, 20)) for _ in range(300)]
    for medians in tries:
        medians[3:5] *= 3
    assert sum(two_speeds(list(medians)) is not None for medians in tries) <= 3


def test_too_few_requests_for_a_percentile_are_told() -> None:
    """Six of them; 600 are enough."""
    slow, fast = Scripted("slow", lambda _: 10.0), Scripted("fast", lambda _: 0.1)
    settings = TimingSettings(rounds=2, round_s=0.03, warm_up_s=0.1)
    few, many = timed([side(slow), side(fast)], settings, NoWatch(), Silent())
    assert len(notes_on(few)) == 1
    assert f"slow, batch 1: {few.latency.count} requests are too few" in notes_on(few)[0]
    assert notes_on(many) == ()
