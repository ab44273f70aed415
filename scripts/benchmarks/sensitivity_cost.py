r"""What finding the layers that INT8 hurts costs over plain forward passes of the same samples.

    python scripts/benchmarks/sensitivity_cost.py --repeat 5 --json cost.json --output docs/measured/sensitivity_cost.md

The model is a residual network of 100 quantised layers with seeded random weights. Every measurement is a process of
its own, and the subjects take turns, so that a noisy minute hits all of them: the floor (the samples through ONNX
Runtime, nothing else), the ranking by itself (`damages`: every layer's error at its own output, and alone at the
graph's), the whole report (`report_of`: cumulative errors, statistics and reasons too), and the whole report with the
calibration before it. A unit is one forward pass: all samples through ONNX Runtime once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from calibration_cost import cpu_model, peak_bytes
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibrators import calibrator_from_text
from trt_opt.backends.machine import package_versions
from trt_opt.calibrate.ranges import calibration_table
from trt_opt.datasets import open_dataset
from trt_opt.graph.query import graph_inputs
from trt_opt.quantize.stage import FloatGraph, PrecisionRequest, float_graph
from trt_opt.sensitivity.end_to_end import damages
from trt_opt.sensitivity.layers import quantized_layers
from trt_opt.sensitivity.measure import Study, report_of
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.codec import json_from_value, value_from_json
from trt_opt.values.progress import Silent

FLOOR = "forward"
SUBJECTS = ("ranking", "report", "calibration + report")
MODEL, TABLE, DATA = "float.onnx", "table.json", "data.npz"
GOAL = 30

Measurement = Mapping[str, float]
Row = dict[str, float | int | str]


def network(layers: int, width: int, size: int) -> onnx.ModelProto:
    """A residual network whose blocks are two 3x3 convolutions and a sum, with `layers` convolutions in all.

    Args:
        layers: An even number.
        width: Channels everywhere.
        size: Height and width of the image; halved after the first layer and in the middle.
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    generator = np.random.default_rng(0)

    def convolution(name: str, source: str, channels: int, stride: int, gain: float) -> str:
        scale = gain * np.sqrt(2 / (9 * channels))
        values = (generator.standard_normal((width, channels, 3, 3)) * scale).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"{name}_w"))
        weights.append(numpy_helper.from_array(np.full(width, 0.05, np.float32), f"{name}_b"))
        operands, strides = [source, f"{name}_w", f"{name}_b"], [stride, stride]
        nodes.append(helper.make_node("Conv", operands, [f"{name}_c"], name=name, pads=[1] * 4, strides=strides))
        return f"{name}_c"

    def relu(source: str) -> str:
        nodes.append(helper.make_node("Relu", [source], [f"{source}_r"], name=f"{source}_relu"))
        return f"{source}_r"

    last = relu(convolution("stem", "x", 3, 2, 1.0))
    for block in range((layers - 2) // 2):
        inner = relu(convolution(f"block{block}a", last, width, 1, 1.0))
        outer = convolution(f"block{block}b", inner, width, 1, 0.3)
        nodes.append(helper.make_node("Add", [outer, last], [f"block{block}_s"], name=f"block{block}"))
        last = relu(f"block{block}_s")
    last = convolution("head", last, width, 2, 1.0)
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"], name="average"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["y"], name="flatten"))
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, width])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


class Clock:
    """Time since it was made: of the wall, and of this process on all cores, which others' work disturbs less."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Both, in seconds."""
        return {"seconds": time.perf_counter() - self._wall, "cpu_seconds": time.process_time() - self._cpu}


def prepare(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Writes the float model, its samples and its ranges."""
    onnx.save(network(options.layers, options.width, options.size), folder / MODEL)
    shape = (options.samples, 3, options.size, options.size)
    np.savez(folder / DATA, x=np.random.default_rng(1).standard_normal(shape).astype(np.float32))
    graph = _graph(folder)
    table = _calibrated(folder, graph)
    (folder / TABLE).write_text(json_from_value(table), encoding="utf-8")
    return {"layers": len(quantized_layers(graph, table.ranges))}


def run_forward(folder: Path) -> dict[str, float]:
    """All samples through ONNX Runtime; creating the session is not counted.

    ONNX Runtime's defaults but for spinning: on a busy machine, threads that spin slow each other down, and a slow
    floor would flatter.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(os.fspath(folder / MODEL), options, providers=["CPUExecutionProvider"])
    images: NDArray[np.float32] = np.load(folder / DATA)["x"]
    session.run(None, {"x": images[:1]})
    clock = Clock()
    for number in range(len(images)):
        session.run(None, {"x": images[number : number + 1]})
    return clock.read()


def run_subject(folder: Path, subject: str) -> dict[str, float]:
    """One of the subjects, sessions and reading of samples included."""
    graph = _graph(folder)
    dataset = open_dataset(os.fspath(folder / DATA), graph_inputs(graph.model))
    table = value_from_json(CalibrationTable, (folder / TABLE).read_text(encoding="utf-8"), where=TABLE)
    clock = Clock()
    if subject == "ranking":
        damages(graph, quantized_layers(graph, table.ranges), dataset, Silent())
    else:
        found = table if subject == "report" else _calibrated(folder, graph)
        report_of(Study(graph, found, dataset), MODEL, Silent())
    return clock.read()


def _graph(folder: Path) -> FloatGraph:
    return float_graph(onnx.load(folder / MODEL), PrecisionRequest(method="static"))


def _calibrated(folder: Path, graph: FloatGraph) -> CalibrationTable:
    dataset = open_dataset(os.fspath(folder / DATA), graph_inputs(graph.model))
    return calibration_table(graph.model, graph.taps, dataset, calibrator_from_text("entropy"), Silent())


def child(subject: str, options: argparse.Namespace) -> None:
    """Does one thing, and prints how long it took and how much memory this process had at most."""
    match subject:
        case "prepare":
            result = prepare(options.folder, options)
        case "forward":
            result = run_forward(options.folder)
        case _:
            result = run_subject(options.folder, subject)
    print(json.dumps({**result, "peak_bytes": peak_bytes()}))


class Bench:
    """Runs subjects in child processes.

    Args:
        folder: Holds the prepared model.
        options: The command line's.
    """

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder = folder
        self._options = options

    def measured(self, subject: str) -> Measurement:
        """One child's result."""
        command = [sys.executable, __file__, "--child", subject, "--folder", os.fspath(self._folder)]
        for name in ("samples", "layers", "width", "size"):
            command += [f"--{name}", str(getattr(self._options, name))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{subject}: exit {done.returncode}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        return result

    def rows(self) -> Iterator[Row]:
        """One row per subject: medians over the turns. Each is held against the mean of the floors around it."""
        ratios: dict[str, list[tuple[float, float]]] = {subject: [] for subject in SUBJECTS}
        found: dict[str, list[Measurement]] = {subject: [] for subject in (FLOOR, *SUBJECTS)}
        floor = self.measured(FLOOR)
        for turn in range(self._options.repeat):
            for subject in SUBJECTS:
                own, after = self.measured(subject), self.measured(FLOOR)
                wall, cpu = (2 * own[key] / (floor[key] + after[key]) for key in ("seconds", "cpu_seconds"))
                ratios[subject].append((wall, cpu))
                found[subject].append(own)
                found[FLOOR].append(floor)
                print(f"turn {turn + 1}  {subject:<22} {wall:6.1f} {cpu:6.1f}", file=sys.stderr, flush=True)
                floor = after
        yield _row(FLOOR, [(1.0, 1.0)], found[FLOOR])
        yield from (_row(subject, ratios[subject], found[subject]) for subject in SUBJECTS)


def _row(subject: str, ratios: Sequence[tuple[float, float]], found: Sequence[Measurement]) -> Row:
    walls, cpus = zip(*ratios, strict=True)
    return {
        "subject": subject,
        "turns": len(found),
        "ratio": statistics.median(walls),
        "least_ratio": min(walls),
        "most_ratio": max(walls),
        "cpu_ratio": statistics.median(cpus),
        "least_cpu_ratio": min(cpus),
        "most_cpu_ratio": max(cpus),
        "seconds": statistics.median(own["seconds"] for own in found),
        "peak_mib": statistics.median(own["peak_bytes"] for own in found) / 2**20,
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| what | forward passes, time | spread | forward passes, processor time | spread | seconds | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    line = (
        "| {subject} | {ratio:.1f} | {least_ratio:.1f} … {most_ratio:.1f} | {cpu_ratio:.1f} "
        "| {least_cpu_ratio:.1f} … {most_cpu_ratio:.1f} | {seconds:.1f} | {peak_mib:.0f} MiB |"
    )
    lines += [line.format(**row) for row in rows]
    return "\n".join(lines)


def page(rows: Sequence[Row], layers: int, options: argparse.Namespace) -> str:
    """The table as a page of docs/measured."""
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    return f"""# What finding the layers that INT8 hurts costs

A residual network of {layers} quantised layers ({options.layers} 3x3 convolutions of {options.width} channels on
{options.size // 2}x{options.size // 2}, sums and a pool) with seeded random weights, {options.samples} samples. A
forward pass is all samples through ONNX Runtime's optimised float model once, one by one. Each measurement is a process
of its own; {options.repeat} turns, in which the subjects follow one another with a forward pass between them, and each
is divided by the mean of the two around it; medians, and the least and the largest ratio. The machine was shared while
this was measured, so the seconds are noisy: read the ratios; those of processor time are the calmer ones. The goal is
{GOAL} at most.

{table(rows)}

* **ranking** is `damages`: every layer's error at its own output over all samples, then each layer alone in INT8 to the
  graph's output, on as many samples as come to 6 passes.
* **report** is everything that `trt-opt sensitivity` shows: the ranking, all layers up to each one in INT8 to the
  graph's output (3 passes), everything in INT8 against float at every layer, statistics and reasons.
* **calibration + report** has the entropy calibration in it too: the whole verb, but for rewriting the model.

Written on {date.today().isoformat()} by `python scripts/benchmarks/sensitivity_cost.py --samples {options.samples}
--layers {options.layers} --width {options.width} --size {options.size} --repeat {options.repeat}`
on {cpu_model()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}.
"""


def main() -> None:
    """Measures in children, prints the table, writes JSON and the page where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64, help="how many samples")
    parser.add_argument("--layers", type=int, default=100, help="how many convolutions, an even number")
    parser.add_argument("--width", type=int, default=32, help="channels of every layer")
    parser.add_argument("--size", type=int, default=64, help="height and width of the image")
    parser.add_argument("--repeat", type=int, default=5, help="turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table as a Markdown page")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options)
        return
    with tempfile.TemporaryDirectory(prefix="trt-opt-bench-") as folder:
        bench = Bench(Path(folder), options)
        layers = int(bench.measured("prepare")["layers"])
        rows = list(bench.rows())
    print(table(rows))
    if options.json is not None:
        written = {"rows": rows, "layers": layers, "cpu": cpu_model(), **package_versions()}
        options.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    if options.output is not None:
        options.output.write_text(page(rows, layers, options), encoding="utf-8")


if __name__ == "__main__":
    main()
