"""Measures what INT8 costs on models with labelled data, and writes the table in docs/measured/accuracy.md.

    python scripts/accuracy_table.py --models ../shared/models --output docs/measured/accuracy.md

Every figure comes from `trt-opt build --json` itself. The digits sample is in the project; the other models are read
from a folder with `models/*.onnx` and a `feeds.py` that yields their inputs, and are left out, visibly, where it is
absent. Calibration and evaluation samples are disjoint: every n-th is calibrated with, because some sets are sorted by
class, and the rest are judged.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from measured_page import asked_for, write_page
from numpy.typing import NDArray

from trt_opt.backends.machine import package_versions
from trt_opt.samples import DIGITS

Array = NDArray[np.generic]
DEFAULT = "(default)"
"""What `--int8` does without more words: as placed where that is good, else other ranges and rewrites."""

CALIBRATORS = (DEFAULT, "entropy", "minmax", "percentile", "mse", "auto")
WORTH_A_LOOK_POINTS = 1.0


@dataclass(frozen=True)
class Case:
    """A model and how its data are split.

    Attributes:
        name: The model.
        samples: How many samples are used, at most.
        every: Each how many-th of them is calibrated with.
        labels: Reads all labels from the folder of models.
    """

    name: str
    samples: int
    every: int
    labels: Callable[[Path], Array]


def imagenet_labels(root: Path) -> Array:
    """Class numbers of the photographs."""
    with (root / "data/imagenet1000_256/labels.csv").open() as file:
        return np.array([int(row["class_index"]) for row in csv.DictReader(file)])


def mnist_labels(root: Path) -> Array:
    """Digits, from the IDX file."""
    with gzip.open(root / "data/mnist/t10k-labels-idx1-ubyte.gz") as file:
        return np.frombuffer(file.read()[8:], np.uint8).astype(np.int64)


def cifar_labels(root: Path) -> Array:
    """Class numbers of the CIFAR-10 images."""
    return np.load(root / "data/mlperf_tiny/ic01_cifar10_200.npz")["y"]


def gesture_labels(root: Path) -> Array:
    """Column 0 of the key points, in the order in which the feeds come."""
    rows = np.loadtxt(root / "data/gesture/keypoint.csv", delimiter=",", dtype=np.float32)
    return rows[np.random.RandomState(0).permutation(len(rows)), 0].astype(np.int64)


CASES = (
    Case("squeezenet_fp32", 300, 5, imagenet_labels),
    Case("mnist_cntk", 2128, 16, mnist_labels),
    Case("winml_cifar_cnn", 200, 4, cifar_labels),
    Case("mlperf_ic01_fp32", 200, 4, cifar_labels),
    Case("gesture_keypoint_mlp", 4450, 16, gesture_labels),
)


@dataclass(frozen=True)
class Row:
    """One model under one calibrator: top-1 in percent, SQNR in dB (None where outputs are class numbers)."""

    model: str
    calibrator: str
    samples: int
    fp32: float
    fp16: float
    int8: float
    sqnr_db: float | None
    agreement: float | None

    @property
    def drop(self) -> float:
        """Points of top-1 lost from FP32 to INT8."""
        return self.fp32 - self.int8


def feeds_module(root: Path) -> Any:
    """The folder's own reader."""
    spec = importlib.util.spec_from_file_location("feeds", root / "feeds.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{root}: there is no feeds.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_data(case: Case, root: Path, folder: Path) -> tuple[Path, Path]:
    """Writes the case's two .npz files."""
    feeds: list[Mapping[str, Array]] = list(feeds_module(root).feeds(case.name, case.samples))
    labels = case.labels(root)[: len(feeds)]
    calibrates = np.arange(len(feeds)) % case.every == 0
    paths = folder / "calibration.npz", folder / "evaluation.npz"
    write_npz(paths[0], [feed for feed, chosen in zip(feeds, calibrates, strict=True) if chosen], None)
    write_npz(
        paths[1], [feed for feed, chosen in zip(feeds, calibrates, strict=True) if not chosen], labels[~calibrates]
    )
    return paths


def write_npz(path: Path, feeds: list[Mapping[str, Array]], labels: Array | None) -> None:
    """One array per input, samples along the first axis."""
    arrays = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    np.savez(path, **arrays, **({} if labels is None else {"labels": labels}))


def measure(model: Path, data: tuple[Path, Path], calibrator: str, name: str) -> Row:
    """Runs `trt-opt build` once and reads its JSON."""
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, "-m", "trt_opt", "build", str(model), "--int8", "--json", "--target", "rtx:8.6"]
        command += ["--calib-data", str(data[0]), "--eval-data", str(data[1])]
        command += ["--calibrator", calibrator, "--int8-all"] if calibrator != DEFAULT else []
        done = subprocess.run([*command, "--output", store], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}, {calibrator}: exit {done.returncode}\n{done.stderr}")
    variants = {entry["name"]: entry["accuracy"] for entry in json.loads(done.stdout)["manifest"]["variants"]}
    top1 = {key: 100 * accuracy["candidate_task"]["top1"] for key, accuracy in variants.items()}
    output = variants["INT8 + FP16"]["outputs"][0]
    rows = variants["INT8 + FP16"]["candidate_task"]["rows"]
    agreement = None if output["top1_agreement"] is None else 100 * output["top1_agreement"]
    sqnr = output["sqnr_db"] if output["name"] and not output["identical"] else None
    return Row(name, calibrator, rows, top1["FP32"], top1["FP16"], top1["INT8 + FP16"], sqnr, agreement)


def all_rows(root: Path | None) -> Iterator[Row]:
    """Every model under every calibrator."""
    for calibrator in CALIBRATORS:
        data = DIGITS / "calibration.npz", DIGITS / "test.npz"
        yield measure(DIGITS / "model.onnx", data, calibrator, "digits (in the project)")
    for case in CASES if root is not None else ():
        with tempfile.TemporaryDirectory() as folder:
            data = write_data(case, root, Path(folder))
            for calibrator in CALIBRATORS:
                yield measure(root / "models" / f"{case.name}.onnx", data, calibrator, case.name)


def table_of(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| model | judged on | calibrator | FP32 | FP16 | INT8 | drop, points | same answer as FP32 | SQNR |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sqnr = "-" if row.sqnr_db is None else f"{row.sqnr_db:.1f} dB"
        agreement = "-" if row.agreement is None else f"{row.agreement:.2f} %"
        drop = f"**{row.drop:.2f}**" if row.drop > WORTH_A_LOOK_POINTS else f"{row.drop:.2f}"
        lines.append(
            f"| {row.model} | {row.samples} | {row.calibrator} | {row.fp32:.2f} % | {row.fp16:.2f} % "
            f"| {row.int8:.2f} % | {drop} | {agreement} | {sqnr} |"
        )
    return "\n".join(lines)


def page_of(rows: list[Row], complete: bool) -> str:
    """The page in docs/measured."""
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    missing = (
        "" if complete else "\nThe collection of real models was not there: only the project's own sample is shown.\n"
    )
    return f"""# What INT8 costs in accuracy

Top-1 accuracy of the same evaluation samples in FP32, FP16 and INT8 + FP16; calibration samples are others. INT8 and
FP16 are simulated on ONNX Runtime with its optimisations off: no engine ran. The first line of each model is what
`--int8` does by itself; the others are INT8 as placed (`--int8-all`) with the ranges of one calibrator. A positive
drop is a loss. Bold: above {WORTH_A_LOOK_POINTS:.0f} point, which has to be explained below the table.
{missing}
{table_of(rows)}

Written on {date.today().isoformat()} by `python scripts/accuracy_table.py`, Python {platform.python_version()},
{versions}.
"""


def main() -> None:
    """Measures, prints, and writes the page."""
    options = asked_for(__doc__)
    rows = []
    for row in all_rows(options.models):
        print(f"{row.model:<26} {row.calibrator:<11} {row.fp32:7.2f} {row.fp16:7.2f} {row.int8:7.2f}", flush=True)
        rows.append(row)
    write_page(page_of(rows, complete=options.models is not None), options.output)


if __name__ == "__main__":
    main()
