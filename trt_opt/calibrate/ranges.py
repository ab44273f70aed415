"""The data pass: every sample through the float model once, every tapped tensor reduced to its range as it appears."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import onnx

from calibrators import Calibrator, Histogram
from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.calibrate.reduction import Reduction, Tensors, reduction_threads
from trt_opt.datasets.generator import FunctionDataset
from trt_opt.errors import DataError, TrtOptError
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.placement import Taps
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Dataset, Sample
from trt_opt.values.shapes_seen import ShapesSeen


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationPass:
    """What one walk through the data gave.

    Attributes:
        table: Every tapped tensor's range.
        histograms: Calibrated tensor → its magnitudes; none where the calibrator keeps no more than extremes (minmax).
    """

    table: CalibrationTable
    histograms: Mapping[str, Histogram]


def calibration_table(
    model: onnx.ModelProto,
    taps: Taps,
    dataset: Dataset,
    calibrator: Calibrator,
    progress: Progress,
    *,
    optimised: bool = True,
) -> CalibrationTable:
    """The range of every tapped tensor: `calibration_pass` without the histograms.

    Raises:
        DataError: The data do not serve, see `calibration_pass`.
        UnsupportedModelError: ONNX Runtime cannot load the model, or cannot run a sample, which is then named.
    """
    return calibration_pass(model, taps, dataset, calibrator, progress, optimised=optimised).table


def calibration_pass(
    model: onnx.ModelProto,
    taps: Taps,
    dataset: Dataset,
    calibrator: Calibrator,
    progress: Progress,
    *,
    optimised: bool = True,
) -> CalibrationPass:
    """Runs the float model over the data and returns the range of every tapped tensor, and what was counted for it.

    A sample's tensors are reduced to histograms while the next sample runs, and dropped: memory does not grow with the
    number of samples.

    Args:
        model: The float model that the taps belong to.
        taps: Which tensors, and which of them need a threshold.
        dataset: The samples; each is run once.
        calibrator: Chooses the thresholds.
        progress: Told of every sample.
        optimised: Whether ONNX Runtime may fuse; of a quantised model it would make kernels that may saturate.

    Raises:
        DataError: There is no sample, one with which a calibrated tensor becomes NaN or infinite, or the data changed
            while they were read.
        UnsupportedModelError: ONNX Runtime cannot load the model, or cannot run a sample, which is then named.
    """
    reduction = Reduction(taps, calibrator, threads=reduction_threads())
    # Hashing leaves the interpreter lock, and creating the session keeps one core busy.
    with ThreadPoolExecutor(1) as aside:
        model_sha256 = aside.submit(fingerprint, model)
        seen = _data_pass(OnnxRuntimeRunner(model, optimised=optimised, outputs=taps.all), dataset, reduction, progress)
    table = CalibrationTable(
        model_sha256=model_sha256.result(),
        data=dataset.provenance(),
        calibrator=str(calibrator),
        ranges=reduction.ranges(),
        shapes=seen.ranges(),
        values=seen.values(),
    )
    return CalibrationPass(table, reduction.histograms())


def _data_pass(model: OnnxRuntimeRunner, dataset: Dataset, reduction: Reduction, progress: Progress) -> ShapesSeen:
    """Runs all samples, gives their tensors to the reduction, and returns the shapes and values they had."""
    seen = ShapesSeen()
    with model as runner, reduction.running() as reduce:
        progress.start("calibrate", _known_length(dataset))
        for sample in dataset:
            # No variable holds the tensors: they would outlive their reduction by one more run of the model.
            reduce(sample.name, _tensors(runner, sample))
            seen.add(sample)
            progress.advance()
    progress.finish()
    _check_count(dataset, seen.samples)
    return seen


def _tensors(runner: OnnxRuntimeRunner, sample: Sample) -> Tensors:
    """What the sample feeds and what the model makes of it; an error names the sample."""
    try:
        return {**sample.feed, **runner.infer(sample.feed)}
    except TrtOptError as error:
        error.where = sample.name if error.where is None else f"{sample.name}, {error.where}"
        raise


def _known_length(dataset: Dataset) -> int | None:
    """The number of samples, or None where counting them would call the user's function for all of them."""
    return None if isinstance(dataset, FunctionDataset) else len(dataset)


def _check_count(dataset: Dataset, counted: int) -> None:
    if not counted:
        raise DataError("there is no sample to calibrate with", where=dataset.source)
    # After a whole walk even a function's samples are counted, so this costs no second one.
    expected = dataset.provenance().samples
    if counted != expected:
        raise DataError(f"{counted} of {expected} samples were seen: the data changed meanwhile", where=dataset.source)
