"""Engines that run: loaded, fed, and asked what their layers became.

The parent checks an engine against its manifest first, and never asks where there is no GPU: TensorRT's runtime
crashes without a driver.
"""

from __future__ import annotations

import listening
import networks

LOADED = {}
"""The runner of the engine that is loaded, under "runner"."""


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
    LOADED.update(runner=runner, runtime=runtime, log=log)
    return {"warnings": log.warnings}


def infer(request, send):
    """Runs the loaded engine on the arrays of a file and writes its outputs to another.

    Both are .npz files whose entries are numbered; `inputs` names the first's, the answer's `outputs` the second's.
    """
    import numpy

    runner = LOADED["runner"]
    with numpy.load(request["feed"], allow_pickle=False) as arrays:
        feed = {name: arrays[str(number)] for number, name in enumerate(request["inputs"])}
    seconds = []
    for _ in range(request.get("repeat", 1)):
        outputs = runner.infer(feed)
        seconds.append(runner.last_inference_time())
    names = list(outputs)
    numpy.savez(request["result"], **{str(number): outputs[name] for number, name in enumerate(names)})
    return {"outputs": names, "seconds": seconds}


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
