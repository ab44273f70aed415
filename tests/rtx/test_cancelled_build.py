"""A build that is cancelled while it runs, with TensorRT-RTX's own progress monitor."""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import pytest
from graphs import residual_block

from trt_opt.backends.process import FailedRequestError, Worker
from trt_opt.backends.tensorrt_rtx import ENVIRONMENT
from trt_opt.backends.tensorrt_versions import TENSORRT_RTX, support_of

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx


def request_for(folder: Path) -> dict[str, Any]:
    """A build request for a small model."""
    onnx.save(residual_block(), folder / "model.onnx")
    return {
        "model": str(folder / "model.onnx"),
        "engine": str(folder / "model.engine"),
        "support": asdict(support_of("1.7", TENSORRT_RTX)),
        "profile": {},
        "capabilities": [[8, 6]],
    }


class InterruptedAtTheFirstStep:
    """A progress whose user presses Ctrl-C as soon as it moves."""

    def start(self, stage: str, total: int | None, unit: str = "samples") -> None:
        """Nothing yet."""

    def advance(self, amount: int = 1) -> None:
        """Ctrl-C."""
        raise KeyboardInterrupt

    def finish(self) -> None:
        """Never reached."""

    def note(self, text: str) -> None:
        """Nothing."""


def test_ctrl_c_stops_the_builder_and_leaves_the_child_well(tmp_path: Path) -> None:
    """The monitor tells TensorRT to stop; no engine is left, and the same child builds the next one."""
    with Worker(ENVIRONMENT) as worker:
        with pytest.raises(KeyboardInterrupt):
            worker.ask("build", request_for(tmp_path), timeout_s=60, progress=InterruptedAtTheFirstStep())
        assert not (tmp_path / "model.engine").exists()
        assert worker.ask("build", request_for(tmp_path), timeout_s=60)["engine_bytes"] > 0


def test_a_cancelled_build_says_so(tmp_path: Path) -> None:
    """Not a refusal of the model: the child says that it was told to stop."""
    with Worker(ENVIRONMENT) as worker:
        cancel = threading.Event()

        class Cancelling(InterruptedAtTheFirstStep):
            def advance(self, amount: int = 1) -> None:
                if not cancel.is_set():
                    cancel.set()
                    worker._send({"verb": "cancel"})

        with pytest.raises(FailedRequestError, match="cancelled") as caught:
            worker.ask("build", request_for(tmp_path), timeout_s=60, progress=Cancelling())
        assert caught.value.kind == "CancelledError"
