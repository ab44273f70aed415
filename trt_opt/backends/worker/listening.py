"""Hears what TensorRT says while it works, and tells the parent how far it is."""

from __future__ import annotations

import sys


def listener(trt):
    """A TensorRT logger that passes everything on to the log and remembers warnings and errors.

    The class is made on demand: its base belongs to whichever library is loaded.
    """

    class Listener(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.warnings = []
            self.errors = []

        def log(self, severity, message):
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.WARNING and message not in self.warnings:
                self.warnings.append(message)
            if severity != trt.ILogger.VERBOSE:
                sys.stderr.write("[{}] {}\n".format(str(severity).rsplit(".", 1)[-1], message))

    return Listener()


def progress_monitor(trt, send):
    """TensorRT's progress as events for the parent, which can stop the build by cancelling it."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self):
            trt.IProgressMonitor.__init__(self)
            self.top = None

        def phase_start(self, phase_name, parent_phase, num_steps):
            if parent_phase is None or self.top is None:
                self.top = phase_name
                send({"event": "progress", "phase": phase_name, "steps": num_steps})

        def step_complete(self, phase_name, step):
            if phase_name == self.top:
                send({"event": "step", "phase": phase_name, "step": step})
            return not send.cancelled.is_set()

        def phase_finish(self, phase_name):
            if phase_name == self.top:
                self.top = None

    return Monitor()
