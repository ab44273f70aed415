"""Engines that run: loaded, fed, and asked what their layers became.

The parent checks an engine against its manifest first, and never asks where there is no GPU: TensorRT's runtime
crashes without a driver.
"""

from __future__ import annotations

import listening
import networks

LOADED = {}
"""The engine that is loaded and its runner, under "engine" and "runner"."""


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
    from polygraphy.backend.trt import TrtRunner

    unload(request, send)
    trt = networks.load_library()
    engine, runtime, log = deserialised(trt, request)
    runner = TrtRunner(engine)
    runner.activate()
    LOADED.update(runner=runner, engine=engine, runtime=runtime, log=log)
    return {"warnings": log.warnings}


def infer(request, send):
    """Runs the loaded engine on the arrays of a file and writes its outputs to another.

    Both are .npz files whose entries are numbered; `inputs` names the first's, the answer's `outputs` the second's.
    """
    import numpy

    runner = LOADED["runner"]
    with numpy.load(request["feed"], allow_pickle=False) as arrays:
        feed = {name: arrays[str(number)] for number, name in enumerate(request["inputs"])}
    feed = {name: as_taken(LOADED["engine"], name, array) for name, array in feed.items()}
    seconds = []
    for _ in range(request.get("repeat", 1)):
        outputs = runner.infer(feed)
        seconds.append(runner.last_inference_time())
    names = list(outputs)
    numpy.savez(request["result"], **{str(number): outputs[name] for number, name in enumerate(names)})
    return {"outputs": names, "seconds": seconds}


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
    runner = LOADED.pop("runner", None)
    if runner is not None:
        runner.deactivate()
    LOADED.clear()
    return {}


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
