r"""How the time of a rewrite grows with the number of nodes, and what it is beside the floor.

    python scripts/benchmarks/rewrite_cost.py --nodes 1250 2500 5000 10000 --repeat 3 \
        --output docs/measured/rewrite_cost.md

The model is what exporters write: blocks of Conv, BatchNormalization and Relu whose constants are Constant nodes, each
followed by a Reshape to a shape computed node by node (Shape, Gather, Unsqueeze, Concat), and every tenth block a
dilated MaxPool that TensorRT-RTX refuses. Subjects, in turns, each in a process of its own: the floor (parse the file,
onnx's checker, one shape inference: what any tool does before it begins), the whole rewrite as `trt-opt rewrite` does
it with the real parser and builder and a comparison in ONNX Runtime, the builder alone, and the peer, Polygraphy's
constant folding.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trt_opt.backends import backend_for
from trt_opt.backends.machine import package_versions
from trt_opt.conversions import RewriteRequest, rewritten_file
from trt_opt.files import write_atomically
from trt_opt.values.engine import BuildFiles, BuildOptions
from trt_opt.values.progress import Silent
from trt_opt.values.target import target_from_text

SUBJECTS = ("floor", "rewrite", "builder", "Polygraphy")
TARGET, REWRITTEN, TIMEOUT_S = "rtx:8.6", ".rewritten.onnx", 600.0
PEER_NODES = 2500
"""Up to here the peer is measured too: it takes four times as long for twice the nodes."""

CHANNELS, SIZE = 4, 12
NODES_PER_BLOCK = 20


HEADER = """# What a rewrite costs

A model as exporters write it (convolutions whose constants are Constant nodes, shapes computed node by node, now and
then a pooling that TensorRT-RTX refuses) at several sizes. Each measurement is a process of its own; turns: {repeat},
medians. **floor**: parse the file, onnx's checker, one shape inference. **rewrite**: all of `trt-opt rewrite`, with the
real parser and builder in their child process, every pass checked and compared in ONNX Runtime. **builder**: the one
build of the result that a rewrite ends with, alone, its process included. **Polygraphy**: its constant folding alone,
which asks and compares nothing; it is measured up to {peer} nodes. The machine was shared: read the ratios.

| nodes | floor | rewrite | builder | rewrite - builder, ms per node | rewrite ÷ floor | Polygraphy ÷ floor |
|---|---|---|---|---|---|---|"""


class Exporter:
    """Grows a graph block by block, every constant a node of its own, as exporters write it."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._rng = np.random.default_rng(0)

    def constant(self, name: str, values: np.ndarray) -> str:
        """A Constant node; its output."""
        value = numpy_helper.from_array(values)
        self.nodes.append(helper.make_node("Constant", [], [name], name=f"make_{name}", value=value))
        return name

    def add(self, op: str, name: str, *inputs: str, **attributes: object) -> str:
        """Any node; its output, which is called `name`."""
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"{op}_{name}", **attributes))
        return name

    def layer(self, at: str, tensor: str) -> str:
        """Conv, BatchNormalization and Relu."""
        # Close to the identity, so that hundreds of layers neither blow their input up nor wipe it out.
        mixing = np.eye(CHANNELS) + 0.01 * self._rng.standard_normal((CHANNELS, CHANNELS))
        weight = (mixing / np.linalg.norm(mixing, 2)).astype(np.float32).reshape(CHANNELS, CHANNELS, 1, 1)
        ones = np.ones(CHANNELS, np.float32)
        convolved = self.add("Conv", f"{at}conv", tensor, self.constant(f"{at}w", weight))
        parameters = [self.constant(f"{at}{name}", ones) for name in ("scale", "bias", "mean", "variance")]
        return self.add("Relu", f"{at}relu", self.add("BatchNormalization", f"{at}norm", convolved, *parameters))

    def reshaped(self, at: str, tensor: str) -> str:
        """A Reshape to the tensor's own shape, of which every size is looked up."""
        shape = self.add("Shape", f"{at}shape", tensor)
        axes = self.constant(f"{at}axes", np.array([0]))
        sizes = []
        for axis in range(2):
            size = self.add("Gather", f"{at}size{axis}", shape, self.constant(f"{at}axis{axis}", np.array(axis)))
            sizes.append(self.add("Unsqueeze", f"{at}listed{axis}", size, axes))
        rest = self.constant(f"{at}rest", np.array([SIZE, SIZE]))
        return self.add("Reshape", f"{at}reshaped", tensor, self.add("Concat", f"{at}target", *sizes, rest, axis=0))


def exported_model(nodes: int) -> onnx.ModelProto:
    """A chain of about so many nodes."""
    exporter = Exporter()
    tensor = "x"
    for block in range(nodes // NODES_PER_BLOCK):
        at = f"b{block}_"
        tensor = exporter.reshaped(at, exporter.layer(at, tensor))
        if block % 10 == 9:
            pooling = {"kernel_shape": [2, 2], "dilations": [2, 2], "pads": [1, 1, 1, 1]}
            tensor = exporter.add("MaxPool", f"{at}pool", tensor, **pooling)
    ends = [1, CHANNELS, SIZE, SIZE]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        exporter.nodes, "exported", [value("x", TensorProto.FLOAT, ends)], [value(tensor, TensorProto.FLOAT, ends)]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def seconds_of(subject: str, file: Path) -> float:
    """How long one subject takes on a model file, in this process; imports are not counted."""
    if subject == "Polygraphy":
        from polygraphy.backend.onnx import fold_constants
    started = time.perf_counter()
    match subject:
        case "floor":
            model = onnx.load(file)
            onnx.checker.check_model(model)
            onnx.shape_inference.infer_shapes(model)
        case "rewrite":
            output = str(file.with_suffix(REWRITTEN))
            report = rewritten_file(RewriteRequest(str(file), output, target=TARGET, force=True), Silent())
            if report.after is None or report.after.refused or not report.compared_samples:
                raise SystemExit(f"the rewrite did not do what is measured here: {report.after}")
        case "builder":
            with backend_for(target_from_text(TARGET)) as backend:
                options = BuildOptions(TARGET, optimization_level=0)
                engine = file.with_suffix(".engine")
                backend.build(BuildFiles(file.with_suffix(REWRITTEN), engine), options, Silent(), TIMEOUT_S)
        case _:
            fold_constants(onnx.load(file), allow_onnxruntime_shape_inference=False)
    return time.perf_counter() - started


def measured(sizes: Sequence[int], repeat: int) -> dict[tuple[str, int], float]:
    """The median seconds of every subject and size; all take turns."""
    found: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {size: Path(folder) / f"{size}.onnx" for size in sizes}
        for size, file in files.items():
            onnx.save(exported_model(size), file)
        for _ in range(repeat):
            for size, file in files.items():
                for subject in SUBJECTS if size <= PEER_NODES else SUBJECTS[:3]:
                    command = [sys.executable, __file__, "--measure", subject, str(file)]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    found.setdefault((subject, size), []).append(json.loads(done.stdout.splitlines()[-1]))
    return {key: statistics.median(seconds) for key, seconds in found.items()}


def page(found: dict[tuple[str, int], float], sizes: Sequence[int], repeat: int) -> str:
    """The figures as Markdown."""
    lines = [HEADER.format(repeat=repeat, peer=PEER_NODES)]
    for size in sizes:
        floor, rewrite, builder, peer = (found.get((subject, size)) or 0.0 for subject in SUBJECTS)
        beside = f"{peer / floor:.1f}" if peer else "not measured"
        lines.append(
            f"| {size} | {floor:.2f} s | {rewrite:.2f} s | {builder:.2f} s | {1000 * (rewrite - builder) / size:.2f} | "
            f"{rewrite / floor:.0f} | {beside} |"
        )
    first, last = sizes[0], sizes[-1]
    own = [found["rewrite", size] - found["builder", size] for size in (first, last)]
    lines += [
        "",
        f"{last / first:.0f} times the nodes take {own[1] / own[0]:.1f} times as long without the builder, and "
        f"{found['builder', last] / found['builder', first]:.1f} times as long in the builder.",
        "",
        f"Written on {date.today().isoformat()} by `python scripts/benchmarks/rewrite_cost.py --nodes "
        f"{' '.join(map(str, sizes))} --repeat {repeat}`,",
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in package_versions().items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1250, 2500, 5000, 10000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path, help="the Markdown page to write")
    parser.add_argument("--measure", nargs=2, metavar=("SUBJECT", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(seconds_of(options.measure[0], Path(options.measure[1]))))
        return
    text = page(measured(options.nodes, options.repeat), options.nodes, options.repeat)
    print(text)
    if options.output is not None:
        write_atomically(options.output, text)


if __name__ == "__main__":
    main()
