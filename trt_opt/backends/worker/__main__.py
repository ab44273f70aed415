"""The child process that alone loads TensorRT: reads requests, one JSON object a line, and answers in kind.

Runs under any Python from 3.8 with tensorrt or tensorrt_rtx, numpy and Polygraphy; imports nothing of trt_opt, because
it may run under another interpreter than the rest. Native libraries write to stdout and stderr as they like: both
become the log the parent opened, and answers go through a duplicate of the original stdout.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

PROTOCOL = 1


def main() -> None:
    """Answers requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: dict) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    for line in sys.stdin:
        try:
            send(answer(json.loads(line), send))
        except Exception as error:  # noqa: BLE001  the boundary of the process: the parent must hear of everything
            traceback.print_exc()
            nodes = getattr(error, "nodes", None)
            send({"event": "failed", "kind": type(error).__name__, "message": str(error), "nodes": nodes})


def answer(request: dict, send: object) -> dict:
    """One request, one answer."""
    import work

    verbs = {"hello": work.hello, "parse": work.parse, "build": work.build}
    result = verbs[request["verb"]](request, send)
    return {"event": "done", "protocol": PROTOCOL, **result}


if __name__ == "__main__":
    main()
