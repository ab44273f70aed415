"""Engines timed by CUDA events, as `trt-opt bench` does, with what NVML says of the GPU meanwhile."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import Any

from gpu_checks.bench import Bench
from gpu_checks.running import FailedError, Found

from trt_opt.telemetry import Telemetry
from trt_opt.values.timing import RoundSamples, TimingSettings

REQUESTS, WARM_UP = 200, 20

SLACK = 1.05
"""Events are read to half a microsecond and the host's clock is another: the GPU's time may exceed it by so much."""


def events(bench: Bench, name: str) -> Found:
    """Times between CUDA events fit into those of the host's clock, with and without a CUDA graph."""
    outcome = next(iter(bench.built(name).values()), None) or bench.engine(name, "fp32")
    feed = bench.feed(name)
    figures: dict[str, Any] = {}
    with Telemetry(on_gpu=True) as watch, bench.runner(outcome) as runner:
        for graph in (False, True):
            runner.prepare(feed, TimingSettings(cuda_graph=graph))
            runner.run_round(WARM_UP)
            found = runner.run_round(REQUESTS)
            watch.read()
            figures["cuda_graph" if graph else "plain"] = _summary(found)
        figures["memory"] = asdict(runner.memory())
    environment = watch.environment()
    figures["environment"] = asdict(environment)
    wrong = [f"{way}: {reason}" for way in ("plain", "cuda_graph") if (reason := figures[way].pop("wrong"))]
    if wrong:
        raise FailedError("; ".join(wrong), figures)
    words = ", ".join(
        f"{way} {figures[way]['compute_ms']:.4f} ms of {figures[way]['latency_ms']:.4f} ms, enqueued in "
        f"{figures[way]['enqueue_ms']:.4f} ms"
        for way in ("plain", "cuda_graph")
    )
    watched = "; ".join((*environment.problems, *environment.notes)) or "the GPU was quiet"
    return Found(f"median on the GPU: {words}; {watched}", figures)


def _summary(found: RoundSamples) -> dict[str, Any]:
    """Medians, and what cannot be so; nothing there where all can."""
    compute, latency, enqueue = (
        median(part or (0.0,)) for part in (found.compute_ms, found.latency_ms, found.enqueue_ms)
    )
    counts = {len(found.compute_ms), len(found.latency_ms), len(found.enqueue_ms)}
    wrong = ""
    if counts != {REQUESTS}:
        wrong = f"{REQUESTS} requests gave {sorted(counts)} times"
    elif not 0 < compute <= SLACK * latency:
        wrong = f"{compute:.4f} ms on the GPU within {latency:.4f} ms end to end"
    return {"compute_ms": compute, "latency_ms": latency, "enqueue_ms": enqueue, "wrong": wrong}
