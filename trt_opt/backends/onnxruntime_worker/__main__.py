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

    def load(self, request: Answer) -> Answer:
        """Loads a model file; with `threads` None ONNX Runtime takes as many as there are cores."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = SILENT
        if request["threads"] is not None:
            options.intra_op_num_threads = request["threads"]
        if not request["optimised"]:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(request["model"], options, providers=providers)
        self.names = [output.name for output in self.session.get_outputs()]
        return {"version": onnxruntime.__version__}

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

    def _run(self, times: list[float], count: int) -> None:
        run, names, feed, clock = self.session.run, self.names, self.feed, time.perf_counter
        for _ in range(count):
            start = clock()
            run(names, feed)
            times.append(1e3 * (clock() - start))


def arrays_of(request: Answer) -> dict[str, Any]:
    """The arrays of a file, by their inputs' names."""
    with np.load(request["feed"], allow_pickle=False) as arrays:
        return {name: arrays[str(number)] for number, name in enumerate(request["inputs"])}


def main() -> None:
    """Answers requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    model = Model()
    verbs = {verb: getattr(model, verb) for verb in ("load", "infer", "prepare", "time", "memory")}
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
