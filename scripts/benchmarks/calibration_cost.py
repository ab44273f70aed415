"""What calibration costs over a plain forward pass of the same samples: time and peak memory.

    python scripts/benchmarks/calibration_cost.py --samples 32 128 512 --output docs/measured/calibration_cost.md

The model is the ResNet-50 of onnx's own backend tests, whose placeholder weights are replaced by seeded random ones;
the taps are those of an INT8 + FP16 build. Every measurement runs in a process of its own, the floor (a plain ONNX
Runtime forward) and the calibrations in turns; the table gives medians and ratios. Everything is timed from the model
in memory to the result, creating the session included. ONNX Runtime's own entropy calibrator, which keeps every
activation, runs on the smallest number of samples only, under a memory limit.
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
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper

from calibrators import calibrator_from_text
from trt_opt.backends.machine import package_versions
from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.calibrate.ranges import calibration_table
from trt_opt.preparation import source_model
from trt_opt.quantize.stage import FloatGraph, PrecisionRequest, float_graph, least_opset
from trt_opt.values.progress import Silent
from trt_opt.values.samples import DataProvenance, Sample

INPUT = "gpu_0/data_0"
SHAPE = (1, 3, 224, 224)
PEER_MEMORY_BYTES = 9 * 2**30
SUBJECTS = ("forward", "entropy", "minmax")


class RandomImages:
    """Seeded samples, made as they are asked for, so that they take no memory."""

    source, is_random, has_labels = "seeded random images", True, False

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        for number in range(self._count):
            array = np.random.default_rng(number).random(SHAPE, np.float32) * 4 - 2
            yield Sample(f"image {number}", {INPUT: array})

    def provenance(self) -> DataProvenance:
        """Seeds need no hash."""
        return DataProvenance(self.source, "0" * 64, self._count, random=True)


def resnet50() -> onnx.ModelProto:
    """The ResNet-50 of onnx, seeded random weights of He's scale, batch normalisations that keep the scale."""
    folder = Path(onnx.backend.test.__file__).parent / "data" / "light"
    model = onnx.load(folder / "light_resnet50.onnx")
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    generator = np.random.default_rng(0)
    made = []
    for node in [node for node in model.graph.node if node.op_type == "ConstantOfShape"]:
        made.append(numpy_helper.from_array(random_weights(shapes[node.input[0]], generator), node.output[0]))
        model.graph.node.remove(node)
    model.graph.initializer.extend(made)
    fed = [value for value in model.graph.input if value.name == INPUT]
    del model.graph.input[:]
    model.graph.input.extend(fed)
    model.ir_version = 8
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            set_statistics(model, node)
    return model


def random_weights(shape: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """He initialisation for weights of rank 2 and more, small numbers for biases."""
    sizes = tuple(int(size) for size in shape)
    fan_in = int(np.prod(sizes[1:])) if len(sizes) > 1 else 1
    scale = np.sqrt(2 / fan_in) if len(sizes) > 1 else 0.02
    return (generator.standard_normal(sizes) * scale).astype(np.float32)


def set_statistics(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Scale 0.5, bias as it is, mean 0, variance 1."""
    values = {node.input[1]: 0.5, node.input[3]: 0.0, node.input[4]: 1.0}
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, values[tensor.name], np.float32), tensor.name))


def prepared() -> FloatGraph:
    """The model as `trt-opt build --int8` calibrates it."""
    request = PrecisionRequest(int8=True, fp16=True)
    source = source_model(Path("resnet50"), resnet50(), (), Silent(), least=least_opset(request))
    return float_graph(source.rewritten, request)


def run_forward(samples: int) -> float:
    """Seconds of a plain forward of all samples."""
    model = prepared().model
    start = time.perf_counter()
    with OnnxRuntimeRunner(model, optimised=True) as runner:
        for sample in RandomImages(samples):
            runner.infer(sample.feed)
        return time.perf_counter() - start


def run_calibration(samples: int, calibrator: str) -> float:
    """Seconds of a whole calibration: session, data pass and threshold search."""
    graph = prepared()
    start = time.perf_counter()
    calibration_table(graph.model, graph.taps, RandomImages(samples), calibrator_from_text(calibrator), Silent())
    return time.perf_counter() - start


def run_peer(samples: int) -> float:
    """Seconds of ONNX Runtime's own entropy calibration of the same tensors."""
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._samples = iter(RandomImages(samples))

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self._samples, None)
            return None if sample is None else dict(sample.feed)

    resource.setrlimit(resource.RLIMIT_AS, (PEER_MEMORY_BYTES, PEER_MEMORY_BYTES))
    graph = prepared()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.onnx")  # noqa: PTH118  ONNX Runtime takes text
        onnx.save(graph.model, path)
        start = time.perf_counter()
        calibrator = create_calibrator(
            path, ["Conv", "Gemm", "MatMul"], path + ".tapped", CalibrationMethod.Entropy, extra_options={}
        )
        calibrator.collect_data(Reader())
        calibrator.compute_data()
        return time.perf_counter() - start


def child(subject: str, samples: int) -> None:
    """Measures one thing and prints it as JSON."""
    run: Callable[[int], float] = {
        "forward": run_forward,
        "entropy": lambda count: run_calibration(count, "entropy"),
        "minmax": lambda count: run_calibration(count, "minmax"),
        "onnxruntime entropy": run_peer,
    }[subject]
    seconds = run(samples)
    print(json.dumps({"seconds": seconds, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def measured(subject: str, samples: int) -> dict[str, float] | None:
    """One child's result; None if it ran out of memory."""
    command = [sys.executable, __file__, "--child", subject, "--samples", str(samples)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{subject}, {samples} samples: exit {done.returncode}", file=sys.stderr)
        return None
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def rows(counts: Sequence[int], repeat: int) -> Iterator[dict[str, float | str | int]]:
    """Medians over the repetitions; the subjects take turns, so that a noisy minute hits all of them."""
    for count in counts:
        found: dict[str, list[dict[str, float]]] = {subject: [] for subject in SUBJECTS}
        for _ in range(repeat):
            for subject in SUBJECTS:
                result = measured(subject, count)
                if result is not None:
                    found[subject].append(result)
        if count == min(counts):
            peer = measured("onnxruntime entropy", count)
            found["onnxruntime entropy"] = [peer] if peer else []
        floor = statistics.median(entry["seconds"] for entry in found["forward"])
        for subject, entries in found.items():
            if entries:
                seconds = statistics.median(entry["seconds"] for entry in entries)
                peak = statistics.median(entry["peak_bytes"] for entry in entries)
                yield {
                    "subject": subject,
                    "samples": count,
                    "ratio": seconds / floor,
                    "seconds": seconds,
                    "peak_mib": peak / 2**20,
                }


def page(table: Sequence[dict[str, float | str | int]], options: argparse.Namespace) -> str:
    """The table as a page of docs/measured."""
    lines = ["| samples | what | time ÷ plain forward | seconds | peak memory |", "|---|---|---|---|---|"]
    cells = "| {samples} | {subject} | {ratio:.2f} | {seconds:.2f} | {peak_mib:.0f} MiB |"
    lines += [cells.format(**row) for row in table]
    peaks = {row["samples"]: float(row["peak_mib"]) for row in table if row["subject"] == "entropy"}
    growth = peaks[max(peaks)] / peaks[min(peaks)]
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    command = f"python scripts/benchmarks/calibration_cost.py --samples {' '.join(map(str, options.samples))}"
    return f"""# What calibration costs

ResNet-50 with random weights, samples of 3x224x224, taps of an INT8 + FP16 build; each line is the median of
{options.repeat} processes. "forward" is plain ONNX Runtime over the same samples; the others are whole calibrations,
threshold search included. All start with the model in memory and create their session. Machines of this kind are
noisy: read the ratios, not the seconds.

{chr(10).join(lines)}

Peak memory of entropy at {max(peaks)} samples is {growth:.2f} times that at {min(peaks)}.

Written on {date.today().isoformat()} by `{command} --repeat {options.repeat}`
on {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {versions}.
"""


def main() -> None:
    """Measures in children, prints the table, writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--output", type=Path, help="page to write")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.samples[0])
        return
    table = []
    for row in rows(options.samples, options.repeat):
        table.append(row)
        print(json.dumps(row) if options.json else "{samples:>5}  {subject:<20} {ratio:6.2f}".format(**row), flush=True)
    if options.output is not None:
        options.output.write_text(page(table, options), encoding="utf-8")


if __name__ == "__main__":
    main()
