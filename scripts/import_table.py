"""Measures what importing quantised models costs, and writes the table in docs/measured/import.md.

    python scripts/import_table.py --models ../shared/models --output docs/measured/import.md

Every figure comes from `trt-opt build --json` itself: the accuracy of the model as given, run in ONNX Runtime, and of
the imported graph, with zero-points folded into biases and with grids chosen anew. ONNX Runtime's quantiser makes the
forms of the digits sample and of squeezenet here; the other models are read from a folder with `models/*.onnx` and a
`feeds.py`, and are left out, visibly, where it is absent.
"""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from accuracy_table import Case, cifar_labels, feeds_module, imagenet_labels, write_npz
from measured_page import asked_for, write_page
from numpy.typing import NDArray
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from trt_opt.backends.machine import package_versions
from trt_opt.build.store import GRAPH
from trt_opt.samples import DIGITS

Array = NDArray[np.generic]
CALIBRATED_WITH = 32
MODES = ("fold", "regrid")

MADE: Mapping[str, Mapping[str, Any]] = {
    "quantize_static, defaults": {},
    "quantize_static, UINT8 x INT8 per channel": {"activation_type": QuantType.QUInt8, "per_channel": True},
    "quantize_static, QOperator": {"quant_format": QuantFormat.QOperator},
    "quantize_dynamic": {"weight_type": QuantType.QUInt8},
}


def kws_labels(root: Path) -> Array:
    """Class numbers of the utterances."""
    return np.load(root / "data/mlperf_tiny/kws01_994.npz")["y"]


GIVEN: tuple[tuple[Case, bool], ...] = (
    (Case("mlperf_ic01_int8", 200, 1, cifar_labels), True),
    (Case("mlperf_kws_int8", 994, 1, kws_labels), True),
    (Case("mlperf_sww_int8", 45, 1, kws_labels), False),
    (Case("squeezenet_qop_int8", 300, 1, imagenet_labels), True),
    (Case("mlperf_kws_fp32", 994, 1, kws_labels), True),
)
"""The models that came quantised, and whether there are labels."""


class Samples(CalibrationDataReader):
    """Feeds for ONNX Runtime's calibration."""

    def __init__(self, feeds: Sequence[Mapping[str, Array]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Mapping[str, Array] | None:
        """The next feed, or None behind the last."""
        return next(self._feeds, None)


@dataclass(frozen=True)
class Row:
    """One model in one mode: top-1 in percent, SQNR in dB against the model as given."""

    model: str
    mode: str
    samples: int
    given: float | None
    imported: float | None
    agreement: float | None
    sqnr: str
    pads: int
    layers: str
    engine_bytes: int


def measured(model: Path, data: Path, name: str, mode: str) -> Row:
    """Runs `trt-opt build` once and reads its JSON."""
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, "-m", "trt_opt", "build", str(model), "--no-baselines"]
        command += ["--json", "--target", "rtx:8.6", "--eval-data", str(data), "--zero-points", mode]
        done = subprocess.run([*command, "--output", store], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}, {mode}: exit {done.returncode}\n{done.stderr}")
        outcome = json.loads(done.stdout)
        graph = onnx.load(Path(outcome["engine"]).parent / GRAPH, load_external_data=False)
    manifest = outcome["manifest"]
    variant = manifest["variants"][-1]
    accuracy, output = variant["accuracy"], variant["accuracy"]["outputs"][0]
    tasks = [accuracy[side] for side in ("reference_task", "candidate_task")]
    given, imported = (None if task is None else 100 * task["top1"] for task in tasks)
    return Row(
        model=name,
        mode=mode,
        samples=manifest["evaluation"]["samples"],
        given=given,
        imported=imported,
        agreement=None if output["top1_agreement"] is None else 100 * output["top1_agreement"],
        sqnr="equal" if output["identical"] else f"{output['sqnr_db']:.1f} dB",
        pads=sum(node.op_type == "Pad" for node in graph.graph.node),
        layers=_layers(manifest["precision"]["layers"]),
        engine_bytes=variant["engine_bytes"],
    )


def _layers(layers: Sequence[Mapping[str, str]]) -> str:
    """Of the convolutions and products: how many are INT8, have INT8 weights, are float."""
    compute = [
        layer["precision"] for layer in layers if layer["op_type"] in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    ]
    int8, weights = compute.count("int8"), compute.count("int8-weights")
    return f"{int8} / {weights} / {len(compute) - int8 - weights}"


def forms_of(source: Path, feeds: Sequence[Mapping[str, Array]], folder: Path) -> Iterator[tuple[str, Path]]:
    """The model in every form that ONNX Runtime's quantiser writes."""
    logging.disable(logging.WARNING)
    for number, (name, options) in enumerate(MADE.items()):
        target = folder / f"form{number}.onnx"
        if name == "quantize_dynamic":
            quantize_dynamic(source, target, **options)
        else:
            quantize_static(source, target, Samples(feeds), **options)
        yield name, target


def rows_of(name: str, source: Path, data: Path, feeds: Sequence[Mapping[str, Array]]) -> Iterator[Row]:
    """Every form in both modes; a dynamic one has no zero-points left."""
    with tempfile.TemporaryDirectory() as folder:
        for form, model in forms_of(source, feeds, Path(folder)):
            for mode in MODES if form != "quantize_dynamic" else MODES[:1]:
                yield measured(model, data, f"{name}: {form}", mode)


def all_rows(root: Path | None) -> Iterator[Row]:
    """Every model in both modes."""
    pixels = np.load(DIGITS / "calibration.npz")["image"]
    feeds = [{"image": pixels[at : at + 1]} for at in range(CALIBRATED_WITH)]
    yield from rows_of("digits", DIGITS / "model.onnx", DIGITS / "test.npz", feeds)
    if root is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        for case, labelled in GIVEN:
            given = list(feeds_module(root).feeds(case.name, case.samples))
            data = Path(folder) / f"{case.name}.npz"
            write_npz(data, given, case.labels(root)[: len(given)] if labelled else None)
            for mode in MODES if case.name != "mlperf_kws_fp32" else MODES[:1]:
                yield measured(root / "models" / f"{case.name}.onnx", data, case.name, mode)
        source = Path(folder) / "squeezenet.onnx"
        onnx.save(_modern(onnx.load(root / "models/squeezenet_fp32.onnx")), source)
        feeds = list(feeds_module(root).feeds("squeezenet_fp32", 300))
        data = Path(folder) / "squeezenet.npz"
        write_npz(data, feeds, imagenet_labels(root))
        yield from rows_of("squeezenet", source, data, feeds[::10])


def _modern(model: onnx.ModelProto) -> onnx.ModelProto:
    """In an opset that the quantiser takes, without constants among the inputs."""
    names = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in names]
    model.ir_version = 8
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return version_converter.convert_version(model, 13)


def table_of(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| model | zero-points | samples | top-1 given | top-1 imported | same answer | SQNR "
        "| INT8 / weights / float | Pads | engine |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = ["-" if value is None else f"{value:.2f} %" for value in (row.given, row.imported, row.agreement)]
        lines.append(
            f"| {row.model} | {row.mode} | {row.samples} | {' | '.join(shares)} | {row.sqnr} | {row.layers} "
            f"| {row.pads} | {row.engine_bytes / 1e6:.2f} MB |"
        )
    return "\n".join(lines)


def page_of(rows: Sequence[Row], complete: bool) -> str:
    """The page in docs/measured."""
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    missing = "" if complete else "\nThe collection of real models was not there: only the digits sample is shown.\n"
    return f"""# What importing quantised models costs

Models quantised elsewhere, imported by `trt-opt build MODEL --target rtx:8.6`, against the model as
given on ONNX Runtime. "fold" keeps every grid and moves its zero-point into biases, "regrid" chooses symmetric grids.
Simulated on ONNX Runtime: no engine ran. The last but two columns count convolutions and products by precision, and the
Pads that fold puts in front of padded convolutions.
{missing}
{table_of(rows)}

Written on {date.today().isoformat()} by `python scripts/import_table.py`, Python {platform.python_version()},
{versions}.
"""


def main() -> None:
    """Measures, prints, and writes the page."""
    options = asked_for(__doc__)
    rows = []
    for row in all_rows(options.models):
        print(table_of([row]).splitlines()[-1], flush=True)
        rows.append(row)
    write_page(page_of(rows, complete=options.models is not None), options.output)


if __name__ == "__main__":
    main()
