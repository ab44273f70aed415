"""Engines timed: CUDA events around the kernels, the clock around everything, on one stream or several.

Every stream has an execution context, buffers and a thread of its own. Memory on the host is pinned, so that copies
run beside kernels. A CUDA graph, where one is asked for, holds the kernels and no copies.
"""

from __future__ import annotations

import ctypes
import resource
import sys
import threading
import time as clock

import cudart
import networks

import engines

TO_DEVICE, TO_HOST = 1, 2
"""Kinds of cudaMemcpy."""

CAPTURE_THREAD_LOCAL = 1
"""Of cudaStreamCaptureMode: what other threads do meanwhile is their own affair."""

LANES = []
"""What is ready to be timed, one entry per stream."""


class TimingError(Exception):
    """The engine cannot be timed as asked."""


def prepare(request, send):
    """Makes contexts and buffers, copies the inputs over, and runs each stream once."""
    release()
    feed = engines.fed(request)
    engine = engines.LOADED["engine"]
    if engines.needs_profile_of_its_own(engine):
        if request["streams"] > 1:
            text = "before TensorRT 10 contexts with dynamic shapes cannot share an optimization profile: --streams 1"
            raise TimingError(text)
        engines.forget_runner()
    LANES.extend(Lane(engine, feed, request) for _ in range(request["streams"]))
    for lane in LANES:
        lane.request()
    return {}


def time(request, send):
    """Times so many requests on every stream."""
    if not LANES:
        raise TimingError("nothing is prepared to be timed")
    found = [Times() for _ in LANES]
    threads = [threading.Thread(target=run, args=(*pair, request["requests"])) for pair in zip(LANES, found)]  # noqa: B905
    start = clock.perf_counter()
    for thread in threads[1:]:
        thread.start()
    run(LANES[0], found[0], request["requests"])
    for thread in threads[1:]:
        thread.join()
    wall_s = clock.perf_counter() - start
    for times in found:
        if times.error is not None:
            raise times.error
    return {
        "latency_ms": [value for times in found for value in times.latency_ms],
        "compute_ms": [value for times in found for value in times.compute_ms],
        "enqueue_ms": [value for times in found for value in times.enqueue_ms],
        "wall_s": wall_s,
    }


def memory(request, send):
    """What was taken on the GPU since before the engine was loaded, and the most main memory of this process."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    before = engines.LOADED.get("free_before")
    gpu = None if before is None else max(0, before - cudart.free_bytes())
    return {"peak_resident_bytes": peak, "gpu_bytes": gpu}


def release():
    """Frees whatever the last preparation made."""
    while LANES:
        LANES.pop().close()


engines.CLEANUPS.append(release)


def run(lane, times, count):
    """One stream's requests, in its own thread."""
    try:
        for _ in range(count):
            times.add(*lane.request())
    except Exception as error:  # noqa: BLE001  the thread that asked raises it
        times.error = error


class Times:
    """What one stream measured, milliseconds."""

    def __init__(self):
        self.latency_ms, self.compute_ms, self.enqueue_ms = [], [], []
        self.error = None

    def add(self, latency_ms, compute_ms, enqueue_ms):
        """One request."""
        self.latency_ms.append(latency_ms)
        self.compute_ms.append(compute_ms)
        self.enqueue_ms.append(enqueue_ms)


class Buffer:
    """An input or output: pinned host memory and, unless the engine reads it on the host, its twin on the GPU."""

    def __init__(self, size, on_host):
        self.size = max(1, size)
        self.host, self.device = ctypes.c_void_p(), ctypes.c_void_p()
        cudart.call("cudaMallocHost", ctypes.byref(self.host), ctypes.c_size_t(self.size))
        if not on_host:
            cudart.call("cudaMalloc", ctypes.byref(self.device), ctypes.c_size_t(self.size))

    @property
    def address(self):
        """Where the engine reads or writes."""
        return self.device.value or self.host.value

    def copy(self, kind, stream):
        """Copies to or from the GPU, in the stream's order."""
        if not self.device.value:
            return
        to, source = (self.device, self.host) if kind == TO_DEVICE else (self.host, self.device)
        cudart.call("cudaMemcpyAsync", to, source, ctypes.c_size_t(self.size), kind, stream)

    def close(self):
        """Frees both."""
        cudart.runtime().cudaFreeHost(self.host)
        if self.device.value:
            cudart.runtime().cudaFree(self.device)


class Lane:
    """One stream with its context, its buffers and, if asked for, its CUDA graph."""

    def __init__(self, engine, feed, request):
        self.transfers = request["transfers"]
        self.stream, self.before, self.after = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self.inputs, self.outputs = [], []
        self.graph = None
        self.context = engine.create_execution_context()
        if self.context is None:
            raise TimingError("TensorRT made no execution context: the GPU's memory may be full")
        cudart.call("cudaStreamCreate", ctypes.byref(self.stream))
        for event in (self.before, self.after):
            cudart.call("cudaEventCreate", ctypes.byref(event))
        self.bind(engine, feed)
        if request["cuda_graph"]:
            self.enqueue()  # first runs allocate, which a capture may not
            self.wait()
            self.graph = self.captured()

    def bind(self, engine, feed):
        """Gives every input and output its shape and its memory."""
        trt = networks.load_library()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        given = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        for name in given:
            array = feed[name]
            on_host = engine.get_tensor_location(name) == trt.TensorLocation.HOST
            if not on_host and not self.context.set_input_shape(name, array.shape):
                text = "the engine's profile does not admit {!r} with shape {}"
                raise engines.UnusableEngineError(text.format(name, list(array.shape)))
            buffer = Buffer(array.nbytes, on_host)
            ctypes.memmove(buffer.host, array.tobytes(), array.nbytes)
            self.inputs.append(buffer)
            self.context.set_tensor_address(name, buffer.address)
        for buffer in self.inputs:
            buffer.copy(TO_DEVICE, self.stream)
        self.wait()
        for name in (name for name in names if name not in given):
            self.outputs.append(self.output(engine, name))

    def output(self, engine, name):
        """The memory of an output, bound."""
        shape = tuple(self.context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            text = "the shape of the output {!r} depends on the data: such engines are not timed here (--via trtexec)"
            raise TimingError(text.format(name))
        bits = bits_of(networks.load_library(), engine.get_tensor_dtype(name))
        elements = 1
        for size in shape:
            elements *= int(size)
        on_host = engine.get_tensor_location(name) == networks.load_library().TensorLocation.HOST
        buffer = Buffer((elements * bits + 7) // 8, on_host)
        self.context.set_tensor_address(name, buffer.address)
        return buffer

    def request(self):
        """One request: its latency, its time on the GPU, and the time to enqueue it, milliseconds."""
        start = clock.perf_counter()
        if self.transfers:
            for buffer in self.inputs:
                buffer.copy(TO_DEVICE, self.stream)
        cudart.call("cudaEventRecord", self.before, self.stream)
        handed = clock.perf_counter()
        self.enqueue()
        taken = clock.perf_counter()
        cudart.call("cudaEventRecord", self.after, self.stream)
        if self.transfers:
            for buffer in self.outputs:
                buffer.copy(TO_HOST, self.stream)
        self.wait()
        end = clock.perf_counter()
        elapsed = ctypes.c_float()
        cudart.call("cudaEventElapsedTime", ctypes.byref(elapsed), self.before, self.after)
        return 1e3 * (end - start), elapsed.value, 1e3 * (taken - handed)

    def enqueue(self):
        """Hands the kernels to the GPU."""
        if self.graph is not None:
            cudart.call("cudaGraphLaunch", self.graph, self.stream)
        elif not self.context.execute_async_v3(self.stream.value):
            raise TimingError(" ".join(engines.LOADED["log"].errors) or "TensorRT did not run the engine")

    def captured(self):
        """The kernels of one request as a CUDA graph."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        cudart.call("cudaStreamBeginCapture", self.stream, CAPTURE_THREAD_LOCAL)
        taken = self.context.execute_async_v3(self.stream.value)
        code = cudart.runtime().cudaStreamEndCapture(self.stream, ctypes.byref(graph))
        if not taken or code != 0:
            text = "this engine cannot be captured in a CUDA graph (CUDA error {}): --no-cuda-graph"
            raise TimingError(text.format(code))
        flags = ctypes.c_ulonglong(0)
        cudart.call("cudaGraphInstantiateWithFlags", ctypes.byref(executable), graph, flags)
        cudart.runtime().cudaGraphDestroy(graph)
        return executable

    def wait(self):
        """Returns once the stream has done everything."""
        cudart.call("cudaStreamSynchronize", self.stream)

    def close(self):
        """Frees all of it."""
        if self.graph is not None:
            cudart.runtime().cudaGraphExecDestroy(self.graph)
        self.context = None
        for buffer in self.inputs + self.outputs:
            buffer.close()
        for event in (self.before, self.after):
            cudart.runtime().cudaEventDestroy(event)
        cudart.runtime().cudaStreamDestroy(self.stream)


def bits_of(trt, kind):
    """Bits of an element; numpy has no name for some of TensorRT's types."""
    name = str(kind).rsplit(".", 1)[-1]
    known = {"FLOAT": 32, "HALF": 16, "INT8": 8, "INT32": 32, "BOOL": 8, "UINT8": 8, "FP8": 8, "BF16": 16, "INT64": 64}
    known.update({"INT4": 4, "FP4": 4, "E8M0": 8})
    if name not in known:
        raise TimingError("elements of type {} are not known".format(name))
    return known[name]
