"""The child process that runs one model in ONNX Runtime: reads requests, one JSON object a line, answers in kind.

It imports nothing of trt_opt, so that what it holds in memory is the model's and ONNX Runtime's. Arrays travel in .npz
files whose entries are numbered. What libraries print becomes the log that the parent opened.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
import traceback
from typing import Any

import numpy as np
import onnxruntime

PROTOCOL = 2

SILENT = 4
"""ONNX Runtime's severity above errors: what it would print is in the exception anyway."""

Answer = dict[str, Any]


class Model:
    """The model that is loaded, and what every timed request is fed with."""

    def __init__(self) -> None:
        self.session: Any = None
        self.names: list[str] = []
        self.feed: dict[str, Any] = {}
        self.streams = 1
        self.loaded: Answer = {}

    def load(self, request: Answer) -> Answer:
        """Loads a model file; with `threads` None ONNX Runtime takes as many as there are cores."""
        self.loaded = request
        self.session = self._session()
        self.names = [output.name for output in self.session.get_outputs()]
        return {"version": onnxruntime.__version__}

    def _session(self, profile: str | None = None) -> Any:
        request, options = self.loaded, onnxruntime.SessionOptions()
        options.log_severity_level = SILENT
        if request["threads"] is not None:
            options.intra_op_num_threads = request["threads"]
        if not request["optimised"]:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        return onnxruntime.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])

    def infer(self, request: Answer) -> Answer:
        """Runs the arrays of a file and writes the outputs to another."""
        outputs = self.session.run(self.names, arrays_of(request))
        np.savez(request["result"], **{str(number): array for number, array in enumerate(outputs)})
        return {"outputs": self.names}

    def prepare(self, request: Answer) -> Answer:
        """Keeps what every timed request is fed with, and runs it once, so that a misfit shows now."""
        self.feed, self.streams = arrays_of(request), request["streams"]
        self.session.run(self.names, self.feed)
        return {}

    def time(self, request: Answer) -> Answer:
        """Times so many requests on every stream, each a thread of its own."""
        count = request["requests"]
        latencies: list[list[float]] = [[] for _ in range(self.streams)]
        others = [threading.Thread(target=self._run, args=(times, count)) for times in latencies[1:]]
        start = time.perf_counter()
        for thread in others:
            thread.start()
        self._run(latencies[0], count)
        for thread in others:
            thread.join()
        wall_s = time.perf_counter() - start
        found = [value for times in latencies for value in times]
        if len(found) != count * self.streams:
            raise RuntimeError(f"{len(found)} of {count * self.streams} requests came back")
        return {"latency_ms": found, "wall_s": wall_s}

    def memory(self, _request: Answer) -> Answer:
        """The most main memory this process held."""
        unit = 1 if sys.platform == "darwin" else 1024
        return {"peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}

    def profile(self, request: Answer) -> Answer:
        """Runs the prepared request so often under ONNX Runtime's profiler; its file lies where `prefix` says."""
        session = self._session(request["prefix"])
        for _ in range(1 + request["requests"]):  # the first allocates
            session.run(self.names, self.feed)
        with open(session.end_profiling(), encoding="utf-8") as file:  # noqa: PTH123
            events = json.load(file)
        return {"layers": layers_of(events, request["requests"])}

    def _run(self, times: list[float], count: int) -> None:
        run, names, feed, clock = self.session.run, self.names, self.feed, time.perf_counter
        for _ in range(count):
            start = clock()
            run(names, feed)
            times.append(1e3 * (clock() - start))


def layers_of(events: list[Answer], requests: int) -> list[list[Any]]:
    """Name, operator and median milliseconds of every node in a profile, in order of execution, the first run left out.

    A node within a loop runs more than once a request: its times are added up.
    """
    times: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            node = name[: -len("_kernel_time")]
            times.setdefault(node, []).append(event["dur"] / 1e3)
            kinds[node] = event.get("args", {}).get("op_name", "")
    return [[node, kinds[node], median_of_requests(found, requests)] for node, found in times.items()]


def median_of_requests(found: list[float], requests: int) -> float:
    """The median over the requests but the first, of a node's times in order."""
    each = max(1, len(found) // (1 + requests))
    sums = [sum(found[start : start + each]) for start in range(each, len(found), each)]
    return float(np.median(sums or found))


def arrays_of(request: Answer) -> dict[str, Any]:
    """The arrays of a file, by their inputs' names."""
    with np.load(request["feed"], allow_pickle=False) as arrays:
        return {name: arrays[str(number)] for number, name in enumerate(request["inputs"])}


def main() -> None:
    """Answers requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    model = Model()
    verbs = {verb: getattr(model, verb) for verb in ("load", "infer", "prepare", "time", "memory", "profile")}
    for line in sys.stdin:
        request = json.loads(line)
        if request["verb"] not in verbs:  # "cancel": nothing here lets itself be stopped
            continue
        try:
            answer = {"event": "done", "protocol": PROTOCOL, **verbs[request["verb"]](request)}
        except Exception as error:  # noqa: BLE001  the boundary of the process: the parent must hear of everything
            traceback.print_exc()
            answer = {"event": "failed", "kind": type(error).__name__, "message": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
