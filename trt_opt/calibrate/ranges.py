"""The data pass: every sample through the float model once, every tapped tensor reduced to its range as it appears."""

from __future__ import annotations

import onnx

from calibrators import Calibrator
from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.calibrate.reduction import Reduction
from trt_opt.errors import DataError
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.placement import Taps
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Dataset
from trt_opt.values.shapes_seen import ShapesSeen


def calibration_table(
    model: onnx.ModelProto, taps: Taps, dataset: Dataset, calibrator: Calibrator, progress: Progress
) -> CalibrationTable:
    """Runs the float model over the data and returns the range of every tapped tensor.

    One tensor at a time is reduced to a histogram and dropped, so memory does not grow with the samples.

    Args:
        model: The float model that the taps belong to.
        taps: Which tensors, and which of them need a threshold.
        dataset: The samples; each is run once.
        calibrator: Chooses the thresholds.
        progress: Told of every sample.

    Raises:
        DataError: There is no sample, or one with which a tapped tensor becomes NaN or infinite.
    """
    reduction = Reduction(taps, calibrator)
    shapes = ShapesSeen()
    with OnnxRuntimeRunner(model, optimised=True, outputs=taps.all) as runner, reduction.running() as reduce:
        progress.start("calibrate", len(dataset))
        for sample in dataset:
            tensors = {**sample.feed, **runner.infer(sample.feed)}
            reduce(sample.name, {name: tensors[name] for name in taps.all})
            shapes.add(sample)
            progress.advance()
    progress.finish()
    if not shapes.samples:
        raise DataError("there is no sample to calibrate with", where=dataset.source)
    return CalibrationTable(
        fingerprint(model), dataset.provenance(), str(calibrator), reduction.ranges(), shapes.ranges()
    )
