"""TensorRT's own calibration in the child: feeds stored batches, reads and writes its cache, and counts.

A request's `calibration` holds
    algorithm    "entropy" or "minmax"
    module       path of calibrators/native.py
    batches      folder of .npz files in the order of their names, or None: then the cache alone must do
    expected     what the folder holds: {"inputs": [name, …], "batches": N, "batch_size": N}; an input's array is
                 called input-K, K being its place in `inputs`
    read_cache   path of a cache for TensorRT to read, or None; the parent has checked that it belongs to the model
    write_cache  path to write TensorRT's cache to, or None
    raised       for `settle`: whether the builder failed
"""

from __future__ import annotations

import importlib.util
import os
import sys


class CalibrationError(Exception):
    """TensorRT calibrated with something else than it was meant to, or not at all."""


def calibrator_of(trt, calibration, log):
    """A calibrator for the builder's configuration; `attach` and `settle` belong to it.

    Raises:
        CalibrationError: The batches or the cache are not where they should be.
        NativeCalibrationError: This TensorRT has no calibrators.
    """
    native = module_at(calibration["module"])
    stored = cache = None
    if calibration["batches"] is not None:
        stored = StoredBatches(calibration["batches"], calibration["expected"])
    if calibration["read_cache"] is not None:
        cache = content_of(calibration["read_cache"])
    size = 1 if stored is None else stored.batch_size
    found = "no batches" if stored is None else "{} batches".format(len(stored))
    log.log(trt.ILogger.INFO, "calibration ({}): {}".format(calibration["algorithm"], found))
    return native.native_calibrator(trt, calibration["algorithm"], stored, cache=cache, batch_size=size)


def attach(trt, builder, network, config, calibrator, calibration):
    """Gives the configuration a calibration profile with the batches' shapes, and the calibrator the inputs' types.

    To be called after Polygraphy's CreateConfig, which sets the last optimization profile: calibration runs with that
    one's `opt` shapes, MIN and MAX being overwritten by OPT (docstring of set_calibration_profile), whatever shapes
    the batches have. What is raised here `settle` raises again, behind whatever Polygraphy makes of it.

    Raises:
        CalibrationError: An input's shape differs from the network's, has no data, or decides shapes.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    calibrator.feed.expect({tensor.name: word_of(tensor.dtype) for tensor in inputs})
    if calibration["batches"] is None:
        return
    try:
        shapes = StoredBatches(calibration["batches"], calibration["expected"]).shapes()
        profile = builder.create_optimization_profile()
        for tensor in inputs:
            shape = shape_for(tensor, shapes)
            profile.set_shape(tensor.name, shape, shape, shape)
        if not config.set_calibration_profile(profile):
            raise CalibrationError("TensorRT does not take the calibration profile {}".format(shapes))
    except CalibrationError as error:
        calibrator.feed.error = error
        raise


def settle(calibrator, calibration):
    """Raises what the calibrator had to hide from TensorRT, frees its buffers, writes the cache, and tells counts.

    Returns:
        "batches": how many TensorRT took; "offered": how many there were; "from_cache": whether it took the cache
        instead; "wrote_cache". Nothing where the builder failed for reasons of its own.

    Raises:
        NativeCalibrationError: Something went wrong inside the calibrator.
        CalibrationError: TensorRT asked for no batch, or gave no cache; nothing is written then.
    """
    feed = calibrator.outcome()
    if calibration.get("raised"):
        return {}
    from_cache = feed.cache() is not None and not feed.was_asked
    if not from_cache and not feed.batches:
        raise CalibrationError(
            "TensorRT asked for no batch and calibrated nothing: has the graph Q/DQ pairs, or no layer for INT8?"
        )
    writes = calibration["write_cache"] is not None and not from_cache
    if writes:
        if feed.written is None:
            raise CalibrationError("TensorRT calibrated, but gave no calibration cache")
        write_whole(calibration["write_cache"], feed.written)
    offered = 0 if calibration["batches"] is None else calibration["expected"]["batches"]
    return {"batches": feed.batches, "offered": offered, "from_cache": from_cache, "wrote_cache": writes}


class StoredBatches:
    """The batches in a folder; only one is in memory at a time.

    Args:
        folder: The folder.
        expected: What it is promised to hold.

    Raises:
        CalibrationError: It holds another number of batches, or none.
    """

    def __init__(self, folder, expected):
        self._inputs = expected["inputs"]
        self.batch_size = expected["batch_size"]
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith(".npz"))
        except OSError as error:
            raise CalibrationError("the batches cannot be read: {}".format(error)) from error
        self._files = [os.path.join(folder, name) for name in names]
        if len(names) != expected["batches"] or not names:
            raise CalibrationError(
                "{} holds {} batches, and {} were promised".format(folder, len(names), expected["batches"])
            )

    def __len__(self):
        return len(self._files)

    def __iter__(self):
        for file in self._files:
            yield self._batch(file)

    def shapes(self):
        """Input → its shape in the first batch; the feed holds the others to it."""
        return {name: array.shape for name, array in self._batch(self._files[0]).items()}

    def _batch(self, file):
        import zipfile

        import numpy

        try:
            # NumPy leaves a file that it cannot read open.
            with open(file, "rb") as opened, numpy.load(opened, allow_pickle=False) as arrays:
                return {name: arrays["input-{}".format(number)] for number, name in enumerate(self._inputs)}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CalibrationError("{} cannot be read: {}".format(file, error)) from error


def shape_for(tensor, shapes):
    """The shape an input is calibrated with.

    Raises:
        CalibrationError: See `attach`.
    """
    if tensor.name not in shapes:
        raise CalibrationError("there are no data for the input {!r}".format(tensor.name))
    shape = tuple(shapes[tensor.name])
    if tensor.is_shape_tensor:
        raise CalibrationError(
            "the input {!r} decides a shape, which this calibration does not support; "
            "--freeze-input makes it a constant".format(tensor.name)
        )
    wanted = tuple(tensor.shape)
    fits = len(shape) == len(wanted) and all(
        want in (-1, size)
        for size, want in zip(shape, wanted)  # noqa: B905  Python 3.8
    )
    if not fits:
        raise CalibrationError(
            "the batches hold {} for the input {!r}, the network takes {}".format(shape, tensor.name, wanted)
        )
    return shape


def module_at(path):
    """The module of a file, under a name of its own."""
    name = "trt_opt_native_calibrators"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def content_of(path):
    """The bytes of a cache.

    Raises:
        CalibrationError: There is none.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise CalibrationError("the calibration cache cannot be read: {}".format(error)) from error
    if not content:
        raise CalibrationError("the calibration cache {} is empty".format(path))
    return content


def write_whole(path, content):
    """Writes a file under another name and renames it, so that nobody sees half a cache."""
    temporary = path + ".tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def word_of(dtype):
    """The name of an element type, "INT32": the same in every version."""
    return str(dtype).rsplit(".", 1)[-1]
