"""TensorRT's own profiler: how long every layer of the prepared engine takes."""

from __future__ import annotations

import statistics

import networks
import timing


def profile(request, send):
    """Runs the first stream's request so often with the profiler on; median milliseconds of every layer, in order."""
    if not timing.LANES:
        raise timing.TimingError("nothing is prepared to be timed")
    lane, times = timing.LANES[0], {}
    graph, lane.graph = lane.graph, None  # a graph's kernels are not reported
    lane.context.profiler = profiler(networks.load_library(), times)
    try:
        for _ in range(request["requests"]):
            lane.request()
    finally:
        lane.graph = graph
    return {"layers": [[name, statistics.median(found)] for name, found in times.items()]}


def profiler(trt, times):
    """Keeps milliseconds by layer; the class is made on demand: its base belongs to whichever library is loaded."""

    class Profiler(trt.IProfiler):
        def __init__(self):
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name, ms):
            times.setdefault(layer_name, []).append(ms)

    return Profiler()
