"""Engines that run: loaded, fed, and asked what their layers became.

The parent checks an engine against its manifest first, and never asks where there is no GPU: TensorRT's runtime
crashes without a driver.
"""

from __future__ import annotations

import cudart
import listening
import networks

LOADED = {}
"""The engine that is loaded, and its runner once it has run: under "engine" and "runner"."""


CLEANUPS = []
"""Functions that free what was made for the loaded engine elsewhere."""


class UnusableEngineError(Exception):
    """The library does not take the engine."""


def inspect(request, send):
    """Writes what TensorRT says of an engine's layers, as JSON text, to the file `output`."""
    trt = networks.load_library()
    engine, _runtime, log = deserialised(trt, request)
    inspector = engine.create_engine_inspector()
    with open(request["output"], "w", encoding="utf-8") as file:
        file.write(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return {"warnings": log.warnings}


def load(request, send):
    """Makes an engine ready to run; one at a time."""
    unload(request, send)
    trt = networks.load_library()
    before = cudart.free_bytes()
    engine, runtime, log = deserialised(trt, request)
    LOADED.update(engine=engine, runtime=runtime, log=log, free_before=before)
    return {"warnings": log.warnings, "version": trt.__version__}


def runner_of_loaded():
    """What runs the loaded engine on arrays; made when it is first wanted, because it takes memory on the GPU."""
    from polygraphy.backend.trt import TrtRunner

    if "runner" not in LOADED:
        if needs_profile_of_its_own(LOADED["engine"]):
            clean_up()
        runner = TrtRunner(LOADED["engine"])
        runner.activate()
        LOADED["runner"] = runner
    return LOADED["runner"]


def infer(request, send):
    """Runs the loaded engine on the arrays of a file and writes its outputs to another.

    Both are .npz files whose entries are numbered; `inputs` names the first's, the answer's `outputs` the second's.
    """
    import numpy

    feed, runner, seconds = fed(request), runner_of_loaded(), []
    for _ in range(request.get("repeat", 1)):
        outputs = runner.infer(feed)
        seconds.append(runner.last_inference_time())
    names = list(outputs)
    numpy.savez(request["result"], **{str(number): outputs[name] for number, name in enumerate(names)})
    return {"outputs": names, "seconds": seconds}


def fed(request):
    """The arrays of a file by their inputs' names, as the loaded engine takes them."""
    import numpy

    with numpy.load(request["feed"], allow_pickle=False) as arrays:
        feed = {name: arrays[str(number)] for number, name in enumerate(request["inputs"])}
    return {name: as_taken(LOADED["engine"], name, array) for name, array in feed.items()}


def as_taken(engine, name, array):
    """An INT64 input in INT32 where the engine takes that: before TensorRT 10 parsers make INT32 of all INT64.

    Raises:
        UnusableEngineError: A value does not fit.
    """
    trt = networks.load_library()
    if str(array.dtype) != "int64" or engine.get_tensor_dtype(name) != trt.DataType.INT32:
        return array
    narrow = array.astype("int32")
    if (narrow != array).any():
        raise UnusableEngineError("the input {!r} holds integers beyond INT32, which the engine takes".format(name))
    return narrow


def unload(request, send):
    """Frees the loaded engine, if there is one."""
    clean_up()
    forget_runner()
    LOADED.clear()
    return {}


def clean_up():
    """Frees what was made elsewhere: contexts, buffers."""
    for free in CLEANUPS:
        free()


def needs_profile_of_its_own(engine):
    """Whether each context needs an optimization profile that no other uses: so with dynamic shapes before TensorRT 10.

    Source: IExecutionContext::setOptimizationProfileAsync of TensorRT 8.6's NvInferRuntime.h, and
    PreviewFeature.PROFILE_SHARING_0806, which 10.0 made the rule.
    """
    trt = networks.load_library()
    if trt.__name__ != "tensorrt" or int(trt.__version__.split(".")[0]) >= 10:
        return False
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return any(-1 in tuple(engine.get_tensor_shape(name)) for name in names)


def forget_runner():
    """Frees what `infer` made, and with it the optimization profile."""
    runner = LOADED.pop("runner", None)
    if runner is not None:
        runner.deactivate()


def deserialised(trt, request):
    """The engine of a file, its runtime, which must outlive it, and the log.

    Raises:
        UnusableEngineError: With what TensorRT says.
    """
    log = listening.listener(trt)
    runtime = trt.Runtime(log)
    if request.get("version_compatible"):
        runtime.engine_host_code_allowed = True
    with open(request["engine"], "rb") as file:
        engine = runtime.deserialize_cuda_engine(file.read())
    if engine is None:
        raise UnusableEngineError(" ".join(log.errors) or "TensorRT gave no reason")
    return engine, runtime, log
