"""The models of int8_accuracy.py: which samples calibrate, which judge, and what counts as right."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_opt.samples import DIGITS

Array = NDArray[np.generic]
Outputs = Mapping[str, Array]
Parts = dict[str, list[Mapping[str, Array]]]
Counts = tuple[float, float]
"""Hits and what they are a share of; both are summed over the samples before they are divided."""


@dataclass(frozen=True)
class Task:
    """What a model is for, as a share in percent of which more is better.

    Attributes:
        name: How the page calls the figure.
        counts: The float model's outputs, the candidate's and the label of one sample → hits and total.
        labels: Reads the labels from the folder of models; None where the float model is the judge.
    """

    name: str
    counts: Callable[[Outputs, Outputs, int], Counts]
    labels: Callable[[Path], Array] | None = None


def top1(output: str, labels: Callable[[Path], Array]) -> Task:
    """Top-1 accuracy against labels; class numbers are taken as they are."""
    return Task("top-1", lambda _reference, found, label: (float(_answer(found[output]) == label), 1.0), labels)


def agreement(output: str, threshold: float | None = None) -> Task:
    """The share of samples with the float model's answer: the arg-max, or which side of a threshold."""

    def counts(reference: Outputs, found: Outputs, _label: int) -> Counts:
        answers = [
            _answer(side[output]) if threshold is None else bool(side[output].reshape(-1)[0] > threshold)
            for side in (reference, found)
        ]
        return float(answers[0] == answers[1]), 1.0

    return Task("same answer", counts)


def detection_f1(scores: Callable[[Outputs], Array], threshold: float) -> Task:
    """F1 of the anchors (or time-frequency cells) above a score, those of the float model being the truth."""

    def counts(reference: Outputs, found: Outputs, _label: int) -> Counts:
        truth, positive = (scores(side) > threshold for side in (reference, found))
        return 2.0 * np.count_nonzero(truth & positive), float(np.count_nonzero(truth) + np.count_nonzero(positive))

    return Task(f"F1 at {threshold:g}", counts)


def mask_iou(output: str, threshold: float) -> Task:
    """Intersection over union of the masks, summed over all samples."""

    def counts(reference: Outputs, found: Outputs, _label: int) -> Counts:
        truth, positive = (side[output] > threshold for side in (reference, found))
        return float(np.count_nonzero(truth & positive)), float(np.count_nonzero(truth | positive))

    return Task("mask IoU", counts)


def points_within(output: str, pixels: float) -> Task:
    """The share of landmarks (x, y, z in pixels) that lie within some pixels of the float model's, in x and y."""

    def counts(reference: Outputs, found: Outputs, _label: int) -> Counts:
        difference = (reference[output] - found[output]).reshape(-1, 3)[:, :2]
        near = np.hypot(difference[:, 0], difference[:, 1]) <= pixels
        return float(np.count_nonzero(near)), float(near.size)

    return Task(f"points within {pixels:g} px", counts)


def _answer(output: Array) -> int:
    return int(output.reshape(-1)[0]) if output.dtype.kind in "iu" else int(np.argmax(output.reshape(-1)))


def yunet_scores(outputs: Outputs) -> Array:
    """The geometric mean of class and object score over the three strides, as OpenCV's FaceDetectorYN takes it."""
    parts = [np.clip(outputs[f"cls_{s}"], 0, 1) * np.clip(outputs[f"obj_{s}"], 0, 1) for s in (8, 16, 32)]
    return np.sqrt(np.concatenate([part.reshape(-1) for part in parts]))


def ultraface_scores(outputs: Outputs) -> Array:
    """The softmax score of "face"."""
    return outputs["scores"][..., 1]


def logits(output: str) -> Callable[[Outputs], Array]:
    """The model gives logits: the threshold 0 is the probability 0.5."""
    return lambda outputs: outputs[output]


def imagenet_labels(root: Path) -> Array:
    """Class numbers of the photographs."""
    with (root / "data/imagenet1000_256/labels.csv").open() as file:
        return np.array([int(row["class_index"]) for row in csv.DictReader(file)])


def mnist_labels(root: Path) -> Array:
    """Digits, from the IDX file."""
    with gzip.open(root / "data/mnist/t10k-labels-idx1-ubyte.gz") as file:
        return np.frombuffer(file.read()[8:], np.uint8).astype(np.int64)


def npz_labels(file: str) -> Callable[[Path], Array]:
    """Class numbers in an archive of the MLPerf Tiny data."""
    return lambda root: np.load(root / "data/mlperf_tiny" / file)["y"]


def gesture_labels(root: Path) -> Array:
    """Column 0 of the key points, in the order in which the feeds come."""
    rows = np.loadtxt(root / "data/gesture/keypoint.csv", delimiter=",", dtype=np.float32)
    return rows[np.random.RandomState(0).permutation(len(rows)), 0].astype(np.int64)


def magika_labels(root: Path) -> Array:
    """The files' names up to `__`, as numbers in the model's list of labels."""
    names = json.loads((root / "data/labels/magika_fast_v2_1_config.min.json").read_text())["target_labels_space"]
    files = [path for path in sorted((root / "data/magika_files").iterdir()) if path.stat().st_size >= 8]
    kinds = [path.name.split("__")[0] for path in files]
    return np.array([names.index(kind) if kind in names else -1 for kind in kinds])


@dataclass(frozen=True)
class Case:
    """A model and how its data are used.

    Attributes:
        name: The model.
        samples: How many samples are used, at most.
        every: Each how many-th of them calibrates; the rest judge.
        task: What it is for; None where only the numbers can be compared.
    """

    name: str
    samples: int
    every: int
    task: Task | None = None


DIGITS_CASE = Case("digits", 0, 0, top1("logits", lambda _root: np.load(DIGITS / "test.npz")["labels"]))

CASES = (
    DIGITS_CASE,
    Case("squeezenet_fp32", 200, 5, top1("softmaxout_1", imagenet_labels)),
    Case("squeezenet_fp16", 80, 5, top1("softmaxout_1", imagenet_labels)),
    Case("mnist_cntk", 1600, 16, top1("Plus214_Output_0", mnist_labels)),
    Case("winml_cifar_cnn", 200, 4, top1("modelOutput", npz_labels("ic01_cifar10_200.npz"))),
    Case("mlperf_ic01_fp32", 200, 4, top1("Identity", npz_labels("ic01_cifar10_200.npz"))),
    Case("mlperf_kws_fp32", 400, 8, top1("Identity", npz_labels("kws01_994.npz"))),
    Case("magika_fast_v2_1", 68, 4, top1("target_label", magika_labels)),
    Case("gesture_keypoint_mlp", 2000, 16, top1("class_ids", gesture_labels)),
    Case("ultraface_rfb_320", 24, 3, detection_f1(ultraface_scores, 0.7)),
    Case("ultraface_slim_320", 24, 3, detection_f1(ultraface_scores, 0.7)),
    Case("yunet_n_640", 24, 3, detection_f1(yunet_scores, 0.7)),
    Case("yunet_n_dynamic", 24, 3, detection_f1(yunet_scores, 0.7)),
    Case("mp_palm_detection_lite", 40, 4, detection_f1(logits("Identity_1"), 0.0)),
    Case("mp_face_detection_short", 24, 3, detection_f1(logits("classificators"), 0.0)),
    Case("mp_face_landmark", 59, 4, points_within("conv2d_21", 1.0)),
    Case("selfie_segmentation", 64, 4, mask_iou("activation_10", 0.5)),
    Case("superres_x3_core", 3, 3),
    Case("ppocr_dir_cls", 209, 8, agreement("softmax_0.tmp_0")),
    Case("silero_vad_ifless_op18", 96, 4, agreement("output", 0.5)),
    Case("dtln_1", 128, 4),
    Case("dtln_2", 128, 4),
    Case("basic_pitch_nmp", 5, 3, detection_f1(logits("StatefulPartitionedCall:1"), 0.3)),
    Case("credsweeper_lstm", 120, 4, agreement("Prediction", 0.5)),
)


def feeds_module(root: Path) -> Any:
    """The folder's own reader."""
    spec = importlib.util.spec_from_file_location("feeds", root / "feeds.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{root}: there is no feeds.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_samples(case: Case, root: Path | None, folder: Path) -> None:
    """Writes `calibration` and `evaluation`, one .npz file per sample, and `labels.npy` with those of the evaluation.

    Samples are taken apart by their number, because some sets are sorted by class.
    """
    parts = _digits() if case is DIGITS_CASE else _split(case, root)
    for part, feeds in parts.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for number, feed in enumerate(feeds):
            np.savez(folder / part / f"{number:05}.npz", **feed)
    if case.task is not None and case.task.labels is not None:
        labels = case.task.labels(root or DIGITS)
        if case is not DIGITS_CASE:
            used = np.arange(min(case.samples, len(labels)))
            labels = labels[used[used % case.every != 0]]
        np.save(folder / "labels.npy", labels)


def _digits() -> Parts:
    return {"calibration": list(_rows("calibration.npz")), "evaluation": list(_rows("test.npz"))}


def _split(case: Case, root: Path | None) -> Parts:
    if root is None:
        raise SystemExit(f"{case.name} needs --models")
    parts: Parts = {"calibration": [], "evaluation": []}
    for number, feed in enumerate(islice(feeds_module(root).feeds(case.name), case.samples)):
        parts["evaluation" if number % case.every else "calibration"].append(feed)
    return parts


def _rows(file: str) -> Iterator[Mapping[str, Array]]:
    """The samples of a file of the digits, without their labels."""
    with np.load(DIGITS / file) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "labels"}
    for number in range(len(next(iter(arrays.values())))):
        yield {name: array[number : number + 1] for name, array in arrays.items()}
