r"""What calibration costs over a plain forward pass of the same samples: time and peak memory.

    python scripts/benchmarks/calibration_cost.py --samples 32 128 512 --repeat 5 \
        --json cost.json --output docs/measured/calibration_cost.md

The model is the ResNet-50 of onnx's own backend tests with seeded random weights; the tensors looked at are those of an
INT8 + FP16 build. Every measurement is a process of its own, and the subjects take turns, so that a noisy minute hits
all of them: the floor (the samples through ONNX Runtime, nothing else), the calibration with entropy and with minmax
(everything `calibration_table` does: session, data pass, hashes, thresholds), and, on the smallest number of samples
and under a memory limit, ONNX Runtime's own entropy calibrator, which keeps all activations.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
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
import resnet50
from numpy.typing import NDArray

from calibrators import calibrator_from_text
from trt_opt.acceptance import TableJudge
from trt_opt.backends.machine import package_versions
from trt_opt.buildable import PassChoice
from trt_opt.calibrate.ranges import calibration_table
from trt_opt.datasets import open_dataset
from trt_opt.graph.query import graph_inputs
from trt_opt.preparation import source_model
from trt_opt.quantize.stage import PrecisionRequest, float_graph, least_opset
from trt_opt.values.placement import Taps
from trt_opt.values.progress import Silent
from trt_opt.values.target import RtxTarget

FLOOR, PEER = "forward", "ONNX Runtime's entropy"
CALIBRATORS = ("entropy", "minmax")
MODEL, TAPS = "float.onnx", "taps.json"

Measurement = Mapping[str, float]
Row = dict[str, float | int | str]


def prepare(folder: Path) -> None:
    """Writes the float model as `trt-opt build --int8` calibrates it, and which tensors it looks at."""
    request = PrecisionRequest(method="static", fp16=True)
    choice = PassChoice(least_opset=least_opset(request))
    source = source_model(Path("resnet50"), resnet50.model(), (), TableJudge(RtxTarget()), Silent(), choice=choice)
    graph = float_graph(source.rewritten, request)
    onnx.save(graph.model, folder / MODEL)
    (folder / TAPS).write_text(json.dumps([graph.taps.calibrated, graph.taps.watched]), encoding="utf-8")


def run_forward(folder: Path) -> dict[str, float]:
    """All samples through ONNX Runtime; creating the session is timed apart.

    ONNX Runtime's defaults but for spinning, which `calibration_table` turns off too: on a busy machine, threads that
    spin slow each other down, and a slow floor would flatter.
    """
    start = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(os.fspath(folder / MODEL), options, providers=["CPUExecutionProvider"])
    ready = time.perf_counter()
    for feed in resnet50.images():
        session.run(None, feed)
    return {"seconds": time.perf_counter() - ready, "session_seconds": ready - start}


def run_calibration(folder: Path, calibrator: str) -> dict[str, float]:
    """A whole calibration; the samples come from a function, as with --calib-data resnet50:images."""
    model = onnx.load(folder / MODEL)
    calibrated, watched = json.loads((folder / TAPS).read_text(encoding="utf-8"))
    dataset = open_dataset("resnet50:images", graph_inputs(model))
    start = time.perf_counter()
    calibration_table(
        model, Taps(tuple(calibrated), tuple(watched)), dataset, calibrator_from_text(calibrator), Silent()
    )
    return {"seconds": time.perf_counter() - start}


def run_peer(folder: Path, memory_bytes: int) -> dict[str, float]:
    """ONNX Runtime's own entropy calibration of inputs and outputs of the layers that it would quantise."""
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = resnet50.images()

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._feeds, None)

    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        calibrator = create_calibrator(
            folder / MODEL,
            ["Conv", "Gemm", "MatMul"],
            os.fspath(Path(scratch) / "tapped.onnx"),
            CalibrationMethod.Entropy,
        )
        calibrator.collect_data(Reader())
        calibrator.compute_data()
        return {"seconds": time.perf_counter() - start}


def child(subject: str, options: argparse.Namespace) -> None:
    """Does one thing, and prints how long it took and how much memory this process had at most."""
    resnet50.samples = options.samples[0]
    folder = options.folder
    match subject:
        case "prepare":
            prepare(folder)
            result: dict[str, float] = {}
        case "forward":
            result = run_forward(folder)
        case _ if subject == PEER:
            result = run_peer(folder, int(options.peer_memory_gib * 2**30))
        case _:
            result = run_calibration(folder, subject)
    print(json.dumps({**result, "peak_bytes": peak_bytes()}))


def peak_bytes() -> int:
    """This process's peak resident memory.

    Linux carries `ru_maxrss` over from the parent through fork and exec; VmHWM starts anew.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Bench:
    """Runs subjects in child processes.

    Args:
        folder: Holds the prepared model.
        options: The command line's.
    """

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder = folder
        self._options = options

    def measured(self, subject: str, samples: int) -> Measurement | None:
        """One child's result; None if it failed, which is told on stderr."""
        command = [sys.executable, __file__, "--child", subject, "--samples", str(samples)]
        command += ["--folder", os.fspath(self._folder), "--peer-memory-gib", str(self._options.peer_memory_gib)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            print(f"{subject}, {samples} samples: exit {done.returncode}: {reason}", file=sys.stderr)
            return None
        result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        return result

    def rows(self) -> Iterator[Row]:
        """One row per subject and number of samples: medians over the repetitions."""
        for samples in self._options.samples:
            found: dict[str, list[Measurement]] = {}
            for turn in range(self._options.repeat):
                subjects = [FLOOR, *CALIBRATORS]
                if samples == min(self._options.samples) and turn == 0 and self._options.peer_memory_gib:
                    subjects.append(PEER)
                for subject in subjects:
                    result = self.measured(subject, samples)
                    if result is not None:
                        found.setdefault(subject, []).append(result)
            yield from (_row(subject, samples, found) for subject in found)


def _row(subject: str, samples: int, found: Mapping[str, Sequence[Measurement]]) -> Row:
    """Medians; the ratios are the medians of each turn's ratio to the floor of the same turn."""
    turns = [*zip(found[subject], found.get(FLOOR, ()), strict=False)]
    floors = [floor["seconds"] for _, floor in turns]
    with_session = [floor["seconds"] + floor["session_seconds"] for _, floor in turns]
    seconds = [own["seconds"] for own, _ in turns]
    wholes = with_session if subject == FLOOR else seconds
    return {
        "samples": samples,
        "subject": subject,
        "turns": len(turns),
        "ratio": _median_ratio(wholes, with_session),
        "ratio_to_samples_alone": _median_ratio(seconds, floors),
        "least_ratio": min(own / floor for own, floor in zip(wholes, with_session, strict=True)),
        "most_ratio": max(own / floor for own, floor in zip(wholes, with_session, strict=True)),
        "seconds": statistics.median(wholes),
        "peak_mib": statistics.median(own["peak_bytes"] for own in found[subject]) / 2**20,
    }


def _median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    return statistics.median(top / bottom for top, bottom in zip(numerators, denominators, strict=True))


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, ratios first."""
    lines = [
        "| samples | what | time ÷ plain forward | spread | ÷ forward without its session | seconds | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        "| {samples} | {subject} | {ratio:.2f} | {least_ratio:.2f} … {most_ratio:.2f} | {ratio_to_samples_alone:.2f} "
        "| {seconds:.1f} | {peak_mib:.0f} MiB |".format(**row)
        for row in rows
    ]
    return "\n".join(lines)


def memory_growth(rows: Sequence[Row]) -> dict[str, float]:
    """Calibrator → its peak memory at the largest number of samples ÷ that at the smallest."""
    peaks = {(row["subject"], row["samples"]): float(row["peak_mib"]) for row in rows}
    counts = [int(row["samples"]) for row in rows]
    ends = max(counts), min(counts)
    return {
        name: peaks[name, ends[0]] / peaks[name, ends[1]]
        for name in CALIBRATORS
        if all((name, end) in peaks for end in ends)
    }


def page(rows: Sequence[Row], options: argparse.Namespace) -> str:
    """The table as a page of docs/measured."""
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    command = f"python scripts/benchmarks/calibration_cost.py --samples {' '.join(map(str, options.samples))}"
    growth = ", ".join(f"{name} {ratio:.2f}" for name, ratio in memory_growth(rows).items())
    return f"""# What calibration costs

ResNet-50 with seeded random weights, samples of 1x3x224x224 from a function, the tensors of an INT8 + FP16 build. Each
measurement is a process of its own; {options.repeat} turns, in which the subjects follow one another; medians, and the
least and the largest ratio of a turn. The machine was shared while this was measured, so the seconds are noisy: read
the ratios.

{table(rows)}

* **forward** is the floor: the same samples through plain ONNX Runtime, its session included. **entropy** and
  **minmax** are whole calibrations: session, data pass, hashes of model and data, threshold search.
* **÷ forward without its session** is the stricter ratio: the whole calibration over the floor's samples alone.
* **{PEER}** is `onnxruntime.quantization.calibrate` on the same samples, which keeps all activations until the end; it
  ran once, under a limit of {options.peer_memory_gib:g} GiB of address space.
* Peak memory at {max(options.samples)} samples ÷ that at {min(options.samples)}: {growth}.

Written on {date.today().isoformat()} by `{command} --repeat {options.repeat}`
on {cpu_model()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}.
"""


def cpu_model() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def main() -> None:
    """Measures in children, prints the table, writes JSON and the page where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[32, 128, 512], help="numbers of samples to measure")
    parser.add_argument("--repeat", type=int, default=5, help="turns per number of samples")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table as a Markdown page")
    parser.add_argument(
        "--peer-memory-gib", type=float, default=9, help="limit for ONNX Runtime's own calibrator; 0 leaves it out"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options)
        return
    with tempfile.TemporaryDirectory(prefix="trt-opt-bench-") as folder:
        bench = Bench(Path(folder), options)
        if bench.measured("prepare", 0) is None:
            sys.exit(1)
        rows = []
        for row in bench.rows():
            rows.append(row)
            print("{samples:>5}  {subject:<24} {ratio:6.2f}".format(**row), file=sys.stderr, flush=True)
    print(table(rows))
    if options.json is not None:
        written = {"rows": rows, "memory_growth": memory_growth(rows), "cpu": cpu_model(), **package_versions()}
        options.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    if options.output is not None:
        options.output.write_text(page(rows, options), encoding="utf-8")


if __name__ == "__main__":
    main()
