"""The child process that alone loads TensorRT: reads requests, one JSON object a line, and answers in kind.

Runs under any Python from 3.8 with tensorrt or tensorrt_rtx, numpy and Polygraphy; imports nothing of trt_opt, because
it may run under another interpreter than the rest. Native libraries write to stdout and stderr as they like: both
become the log the parent opened, and answers go through a duplicate of the original stdout. The request "cancel", or
the end of stdin, stops a build that is under way where the library lets itself be stopped.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

# Polygraphy imports PyTorch, where it is installed, before the first inference: seconds for tensors nobody feeds.
sys.modules.setdefault("torch", None)

PROTOCOL = 2


class Channel:
    """Where events and answers go, and whether the parent still wants them.

    Args:
        answers: An open text file.
    """

    def __init__(self, answers):
        self._answers = answers
        self.cancelled = threading.Event()

    def __call__(self, message):
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()


def main() -> None:
    """Answers requests until stdin ends."""
    channel = Channel(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    lines: queue.Queue = queue.Queue()
    threading.Thread(target=listen, args=(channel, lines), daemon=True).start()
    while True:
        line = lines.get()
        if line is None:
            return
        try:
            channel(answer(json.loads(line), channel))
        except Exception as error:  # noqa: BLE001  the boundary of the process: the parent must hear of everything
            traceback.print_exc()
            nodes = getattr(error, "nodes", None)
            kind = "OSError" if isinstance(error, OSError) else type(error).__name__
            channel({"event": "failed", "kind": kind, "message": str(error), "nodes": nodes})


def listen(channel, lines):
    """Hands requests on, and hears a cancellation while one is being worked on."""
    for line in sys.stdin:
        if line.strip() == '{"verb": "cancel"}':
            channel.cancelled.set()
        else:
            lines.put(line)
    channel.cancelled.set()
    lines.put(None)


def answer(request: dict, channel: Channel) -> dict:
    """One request, one answer."""
    import work

    channel.cancelled.clear()
    return {"event": "done", "protocol": PROTOCOL, **work.VERBS[request["verb"]](request, channel)}


if __name__ == "__main__":
    main()
