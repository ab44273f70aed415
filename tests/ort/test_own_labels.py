"""Boxes as labels, from the file to the verdict: only the user's own metric reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import run
from graphs import model_of, node, weights
from numpy.typing import NDArray

FEATURES, BOXES, SAMPLES = 32, 6, 40
X = np.random.default_rng(0).normal(scale=0.25, size=(SAMPLES, FEATURES)).astype(np.float32)

METRIC = '''
import numpy as np

def overlap(first, second):
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = np.clip(high - low, 0, None).prod()
    return shared / ((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - shared)

class F1:
    """Of boxes found; a label is the image's boxes, filled up with NaN."""

    def __init__(self):
        self.right, self.found, self.there = 0, 0, 0

    def add(self, outputs, reference, label):
        (found,), (there,) = outputs["boxes"], label
        found, there = found[found[:, 4] > 0], there[np.isfinite(there[:, 0])]
        best = [max((overlap(box[:4], other) for box in found), default=0.0) for other in there]
        self.right += sum(value > 0.7 for value in best)
        self.found += len(found)
        self.there += len(there)

    def value(self):
        return 2 * self.right / (self.found + self.there)
'''


def detector(step: float | None = None) -> onnx.ModelProto:
    """Boxes [1, 6, 5] (two corners and a score) of float32 `x` [1, 32]; the weights are rounded to steps of `step`."""
    kernel = weights(FEATURES, BOXES * 5)
    if step is not None:
        kernel = (np.round(kernel / step) * step).astype(np.float32)
    corners = np.tile(np.array([0, 0, 2, 2, 0], np.float32), BOXES)
    nodes = [
        node("MatMul", "moved", ["x", "w"], "moves"),
        node("Add", "placed", ["moves", "corners"], "flat"),
        node("Reshape", "boxes", ["flat", "shape"], "boxes"),
    ]
    constants = {"w": kernel, "corners": corners, "shape": np.array([1, BOXES, 5])}
    return model_of(nodes, {"x": [1, FEATURES]}, {"boxes": [1, BOXES, 5]}, constants)


def true_boxes() -> NDArray[np.float32]:
    """What the exact detector finds: [samples, 6, 4], NaN where there is no box."""
    found = (X @ weights(FEATURES, BOXES * 5)).reshape(SAMPLES, BOXES, 5) + np.array([0, 0, 2, 2, 0], np.float32)
    return np.where(found[:, :, 4:] > 0, found[:, :, :4], np.float32(np.nan))


@pytest.fixture
def folder(folder: Path) -> Path:
    """The current folder: two detectors, the metric, labelled data in each of three forms."""
    onnx.save(detector(), folder / "exact.onnx")
    onnx.save(detector(step=0.5), folder / "coarse.onnx")
    (folder / "boxes_f1.py").write_text(METRIC)
    labels = true_boxes()
    np.savez(folder / "data.npz", x=X, labels=labels)
    (folder / "one_a_file").mkdir()
    for index in range(SAMPLES):
        kept = labels[index][np.isfinite(labels[index, :, 0])]
        np.savez(folder / "one_a_file" / f"{index:02}.npz", x=X[index : index + 1], labels=kept[np.newaxis])
    (folder / "boxes_feeds.py").write_text(
        "import numpy as np\n"
        "def feeds():\n"
        "    data = np.load('data.npz')\n"
        "    for x, labels in zip(data['x'], data['labels'], strict=True):\n"
        "        yield {'x': x[None]}, [labels.tolist()]\n"
    )
    return folder


@pytest.mark.parametrize("data", ["data.npz", "one_a_file", "boxes_feeds:feeds"])
def test_detectors_are_compared_by_an_own_f1(folder: Path, data: str) -> None:
    """The exact one keeps its F1 of 1, the coarse one misses the limit; no top-1 is told."""
    asked = ("--data", data, "--metric", "boxes_f1:F1", "--max-drop", "1", "--no-timing", "--json")
    same = run("compare", "exact.onnx", "exact.onnx", *asked)
    assert same.exit_code == 0, same.stderr
    coarse = run("compare", "exact.onnx", "coarse.onnx", *asked)
    assert coarse.exit_code == 1, coarse.stderr
    (found,) = json.loads(coarse.stdout)["comparisons"]
    assert (found["verdict"], found["metric"]["name"], found["metric"]["reference"]) == ("FAIL", "boxes_f1:F1", 1.0)
    assert 0.3 < found["metric"]["candidate"] < 0.98
    assert found["reference_task"] is found["candidate_task"] is None
    shown = run("compare", "exact.onnx", "coarse.onnx", *asked[:-1])
    assert (shown.exit_code, "boxes_f1:F1" in shown.stdout) == (1, True)


@pytest.mark.parametrize("metric", [(), ("--metric", "top1"), ("--metric", "cosine")])
def test_boxes_are_refused_without_an_own_metric(folder: Path, metric: tuple[str, ...]) -> None:
    """At once: named metrics take class numbers."""
    refused = run("compare", "exact.onnx", "coarse.onnx", "--data", "data.npz", *metric)
    assert refused.exit_code == 2
    assert "labels are class numbers, so integers, not float32" in refused.stderr


@pytest.mark.parametrize("limits", [(), ("--max-drop", "5"), ("--int8-all",)])
def test_a_detector_is_quantized_with_boxes_in_all_its_data(folder: Path, limits: tuple[str, ...]) -> None:
    """Also where calibration samples alone say what INT8 costs: nobody takes their boxes for class numbers."""
    data = ("--calib-data", "data.npz", "--eval-data", "one_a_file", "--metric", "boxes_f1:F1")
    written = run("quantize", "exact.onnx", "-o", "int8.onnx", *data, *limits, "--json")
    assert written.exit_code == 0, written.stderr
    accuracy = json.loads(written.stdout)["accuracy"]
    assert accuracy["metric"]["name"] == "boxes_f1:F1"
    assert accuracy["metric"]["candidate"] > 0.9
    assert accuracy["candidate_task"] is None
