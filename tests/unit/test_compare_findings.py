"""The plain sentences: what they say of figures, and what they keep silent about."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trt_opt.comparing.findings import TIMES, findings
from trt_opt.comparing.ratio import SpeedRatio, speed_ratio
from trt_opt.values.accuracy import Comparison, OutputAccuracy
from trt_opt.values.engine import FileRecord
from trt_opt.values.machine_state import Environment, MachineIdentity
from trt_opt.values.metric import MetricAccuracy
from trt_opt.values.model_comparison import Side
from trt_opt.values.timing import LatencySummary, RoundTiming, RunnerKind, Timing, TimingSettings, WarmUp

QUIET = Environment(MachineIdentity("host", "a processor", 2, None, "Linux"))

FILE = FileRecord("f", 1, "0" * 64)


def side(name: str, kind: RunnerKind = "tensorrt", **more: object) -> Side:
    return replace(Side(name, FILE, name, kind, f"{kind} 1.0"), **more)  # type: ignore[arg-type]


def comparison(drop: float | None = 0.3, *, rows: int = 1000, **output: object) -> Comparison:
    """With labels and a drop in points, or without."""
    one = replace(OutputAccuracy("y", 10, 0.1, 0.01, 0.99, 36.4, identical=False, top1_agreement=0.987,
                                 within_tolerance=None, rows=rows), **output)  # fmt: skip
    metric = MetricAccuracy("top1", "share", 0.9, 0.9, None, drop, (-0.1, 0.7), rows, rows)
    return Comparison("r", "c", rows, (one,), None, None, "PASS", "", None if drop is None else metric)


def timing(name: str, ms: float, kind: RunnerKind = "tensorrt", *, noise: float = 0.01, rounds: int = 10) -> Timing:
    """Rounds that scatter a little around a time on the GPU, or on the processor."""
    generator = np.random.default_rng(list(name.encode()))
    times = [ms * float(np.exp(noise * generator.normal())) for _ in range(rounds)]
    made = tuple(RoundTiming(10, one, None if kind == "onnxruntime" else one, 1000 / one) for one in times)
    summary = LatencySummary(10, ms, ms, ms, ms, ms, ms, ms, 0.0)
    return Timing(name, kind, f"{kind} 1.0", "a GPU", name, FILE, {}, 1, TimingSettings(), WarmUp(1, 0.1, True),
                  made, summary, None, None, 1000 / ms)  # fmt: skip


def told(
    sides: list[Side], comparisons: list[Comparison], timings: list[Timing], environment: Environment | None = QUIET
) -> tuple[str, ...]:
    return findings(sides, comparisons, {one.name: one for one in timings}, environment)


def test_speed_is_against_fp16_and_accuracy_against_the_reference() -> None:
    """The sentence that a user needs: 1.7 times FP16, 0.3 points below FP32."""
    sides = [side("FP32"), side("FP16"), side("INT8 + FP16")]
    timings = [timing("FP32", 4), timing("FP16", 1.73), timing("INT8 + FP16", 1)]
    half, int8 = told(sides, [comparison(0.0), comparison(0.3)], timings)
    assert half.startswith("FP16 is 2.3")
    assert f"{TIMES} FP32 (95 %: " in half
    assert half.endswith("level with FP32 in top1 (95 %: -0.70 to +0.10)")
    assert int8.startswith("INT8 + FP16 is 1.7")
    assert f"{TIMES} FP16 (95 %: 1.7" in int8
    assert int8.endswith(", 0.30 points of top1 below FP32 (95 %: -0.70 to +0.10)")


def test_what_is_slower_says_why_and_what_to_use() -> None:
    """By the engine's own layers; by the graph's where it was not asked; without either, without a reason."""
    sides = [
        side("FP32"),
        side("FP16"),
        side("INT8", int8_layers=3, float_layers=7, reformats=12, layers_from="engine"),
    ]
    timings = [timing("FP32", 4), timing("FP16", 1), timing("INT8", 1.25)]
    found = told(sides, [comparison(), comparison()], timings)
    assert found[1].startswith("INT8 is slower than FP16 here, 0.8")
    assert found[1].endswith(": 12 reformats, 7 float layers; use --fp16")
    assert found[2].startswith("INT8 is 0.30 points of top1 below FP32")
    sides[2] = replace(sides[2], reformats=None, layers_from="graph")
    found = told(sides, [comparison(), comparison()], timings)
    assert found[1].endswith(": 7 float layers by the graph, as the engine was not asked; use --fp16")
    sides[2] = replace(sides[2], float_layers=None)
    assert told(sides, [comparison(), comparison()], timings)[1].endswith(f"{TIMES}); use --fp16")
    without = told([sides[0], sides[2]], [comparison()], [timing("FP32", 1), timing("INT8", 2)])
    assert without[0].endswith("; build it with --fp16 and without --int8, and compare")


def test_a_difference_that_may_be_chance_is_none() -> None:
    """1 % with 10 % noise."""
    timings = [timing("FP32", 1, noise=0.1), timing("FP16", 1.01, noise=0.1)]
    (found,) = told([side("FP32"), side("FP16")], [comparison(0.0)], timings)
    assert found.startswith("FP16 is as fast as FP32 as far as this run can tell (95 %: ")


@pytest.mark.parametrize("whose", ["the machine", "a side"])
def test_an_invalid_run_tells_no_speed(whose: str) -> None:
    """But why it is invalid, and the accuracy all the same."""
    timings = [timing("FP32", 4), timing("FP16", 1)]
    environment = QUIET
    if whose == "the machine":
        environment = replace(QUIET, problems=("the GPU was throttled",))
    else:
        timings[1] = replace(timings[1], problems=("its times were still changing",))
    found = told([side("FP32"), side("FP16")], [comparison()], timings, environment)
    assert not any(TIMES in finding for finding in found)
    assert found[0].startswith("FP16 is 0.30 points of top1 below FP32")
    assert "told" in found[1]
    assert ("the GPU was throttled" if whose == "the machine" else "still changing") in found[1]


def test_a_processor_says_nothing_of_a_gpu() -> None:
    """ONNX Runtime's speed is told as its own, and never held against an engine's; what it ran is simulated."""
    sides = [side("FP32", "onnxruntime"), side("INT8", "onnxruntime")]
    timings = [timing("FP32", 1, "onnxruntime"), timing("INT8", 2, "onnxruntime")]
    found = told(sides, [comparison()], timings)
    assert found[0].startswith("INT8 is slower than FP32 here, 0.5")
    assert "use --fp16" not in found[0]
    assert "on this processor" in found[0]
    assert "speeds on this processor are of ONNX Runtime's CPU kernels, which says nothing of TensorRT's speed" in found
    assert "INT8: simulated on ONNX Runtime, from which an engine's rounding differs" in found
    mixed = told([sides[0], side("INT8")], [comparison()], [timings[0], timing("INT8", 0.1)])
    assert not any(TIMES in finding or "is not told" in finding for finding in mixed)
    assert "FP32 ran on ONNX Runtime, whose speed is not held against an engine's" in mixed
    assert isinstance(speed_ratio(timings[0], timing("INT8", 0.1)), str)


def test_accuracy_without_labels_is_told_in_what_there_is() -> None:
    """Answers and SQNR; NaN and equality by their names; too few rows as what they are."""
    sides = [side("FP32"), side("INT8")]

    def said(found: Comparison) -> str:
        return told(sides, [found], [], None)[0]

    assert said(comparison(None)) == (
        "INT8 is of the same answer as FP32 in 98.70 % of the rows and 36.4 dB (SQNR) from FP32"
    )
    assert said(comparison(None, top1_agreement=None)) == "INT8 is 36.4 dB (SQNR) from FP32"
    assert said(comparison(None, top1_agreement=None, sqnr_db=None)) == "INT8 is up to 0.1 from FP32"
    assert said(comparison(0.3, not_finite=3)) == "INT8 is NaN or infinite where FP32 is not"
    assert said(comparison(0.3, identical=True)) == "INT8 is identical to FP32 in every element"
    assert said(comparison(0.3, rows=5)).endswith(", which 5 rows cannot tell")
    assert said(comparison(-0.3)).startswith("INT8 is 0.30 points of top1 above FP32")
    assert said(replace(comparison(), outputs=())) == "INT8 is not compared with FP32: there is nothing in common"


def test_the_interval_of_a_ratio_holds_the_truth() -> None:
    """Twice as fast, with 3 % noise."""
    ratio = speed_ratio(timing("FP16", 2, noise=0.03), timing("INT8", 1, noise=0.03))
    assert isinstance(ratio, SpeedRatio)
    assert ratio.interval[0] < 2 < ratio.interval[1]
    assert ratio.on_gpu
    assert ratio.is_faster
    assert isinstance(speed_ratio(timing("FP16", 2, rounds=3), timing("INT8", 1, rounds=3)), str)
