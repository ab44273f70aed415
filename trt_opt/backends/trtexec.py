"""NVIDIA's trtexec as a runner that is timed: one invocation per round, every flag stated.

What trtexec does when it is told nothing changed with 11.0: before, copies are timed, the processor sleeps while it
waits, and there is no CUDA graph; since, it is the other way round in all three. So nothing is left to it.

Sources: samples/common/sampleOptions.cpp and sampleReporting.cpp of NVIDIA/TensorRT at 8.5.3, 8.6.1, 10.3, 10.16 and
11.1.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_opt.errors import DataError, MissingError, StageError
from trt_opt.values.hardware import numbers_of
from trt_opt.values.timing import LayerTime, MemoryUse, RoundSamples, RunnerKind, TimingSettings

TRTEXEC_VARIABLE = "TRT_OPT_TRTEXEC"

PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec")
"""Where it lies on JetPack and in NVIDIA's containers when it is not on PATH."""

ROUND_TIMEOUT_S = 3600.0

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class TrtexecWords:
    """How versions from one on are told what is timed.

    Attributes:
        since: The first such version.
        transfers: With copies to and from the GPU.
        no_transfers: Without.
        cuda_graph: With a CUDA graph.
        no_cuda_graph: Without.
        sleeping: The processor sleeps while it waits.
    """

    since: tuple[int, ...]
    transfers: tuple[str, ...]
    no_transfers: tuple[str, ...]
    cuda_graph: tuple[str, ...]
    no_cuda_graph: tuple[str, ...]
    sleeping: tuple[str, ...]


WORDS = (
    TrtexecWords((8, 5), (), ("--noDataTransfers",), ("--useCudaGraph",), (), ()),
    TrtexecWords(
        (11, 0),
        ("--includeDataTransfers",),
        ("--noDataTransfers",),
        ("--useCudaGraph",),
        ("--noCudaGraph",),
        ("--noSpinWait",),
    ),
)


def words_for(version: str) -> TrtexecWords:
    """The row for a version."""
    fitting = [row for row in WORDS if row.since <= numbers_of(version)]
    return fitting[-1] if fitting else WORDS[0]


def timing_options(version: str, settings: TimingSettings, requests: int) -> list[str]:
    """What trtexec of a version is told so that it times as the settings say.

    Args:
        version: TensorRT's.
        settings: How it is to be timed.
        requests: How many requests on each stream. Its own warm-up is left out: ours came before.
    """
    words = words_for(version)
    return [
        f"--iterations={requests}",
        "--duration=0",
        "--warmUp=0",
        "--avgRuns=1",
        f"--streams={settings.streams}",
        *(words.transfers if settings.transfers else words.no_transfers),
        *(words.cuda_graph if settings.cuda_graph else words.no_cuda_graph),
        *words.sleeping,
    ]


def found_trtexec(*, rtx: bool = False) -> str:
    """The program: what TRT_OPT_TRTEXEC names, or one on PATH, or where NVIDIA puts it.

    Raises:
        MissingError: There is none.
    """
    name = "tensorrt_rtx" if rtx else "trtexec"
    asked = os.environ.get(TRTEXEC_VARIABLE)
    found = shutil.which(asked or name) or next((place for place in PLACES if Path(place).is_file() and not rtx), None)
    if found is None or (asked and shutil.which(asked) is None):
        raise MissingError(
            f"there is no program {asked or name}", where="--via trtexec", hint=f"PATH, or {TRTEXEC_VARIABLE}=/…/{name}"
        )
    return found


class TrtexecRunner:
    """An engine that trtexec loads and times anew for every round; a `TimedRunner` that gives times and no outputs.

    Args:
        engine: The engine.
        executable: The program.
        version: TensorRT's version, which decides the flags.
        version_compatible: Whether the engine carries a runtime of its own, which must be allowed.
        name: What results call it.
    """

    kind: RunnerKind = "trtexec"

    def __init__(
        self, engine: Path, executable: str, version: str, *, version_compatible: bool = False, name: str = "trtexec"
    ) -> None:
        self.name = name
        self.library = f"trtexec {version}"
        self._command = [executable, f"--loadEngine={engine}"]
        self._command += ["--versionCompatible"] if version_compatible else []
        self._version = version
        self._settings = TimingSettings()

    def __enter__(self) -> TrtexecRunner:
        self._folder = tempfile.TemporaryDirectory(prefix="trt-opt-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def infer(self, feed: Arrays, /) -> Arrays:
        """Trtexec is asked for times alone.

        Raises:
            StageError: Always.
        """
        del feed
        raise StageError("trtexec times engines and gives no outputs here", where=self.name)

    def prepare(self, feed: Arrays, settings: TimingSettings) -> None:
        """Writes the inputs where trtexec reads them.

        Raises:
            DataError: A name that its options cannot hold.
        """
        folder = Path(self._folder.name)
        files, shapes = [], []
        for number, (name, array) in enumerate(feed.items()):
            if "," in name:
                raise DataError(f"trtexec cannot be told of an input called {name!r}", where=self.name)
            file = folder / f"input-{number}.bin"
            file.write_bytes(np.ascontiguousarray(array).tobytes())
            files.append(f"{name}:{file}")
            shapes.append(f"{name}:{'x'.join(map(str, array.shape)) or 'scalar'}")
        self._fed = [f"--loadInputs={','.join(files)}", f"--shapes={','.join(shapes)}"] if feed else []
        self._settings = settings

    def run_round(self, requests: int) -> RoundSamples:
        """Runs and times so many requests on each stream.

        Raises:
            StageError: trtexec failed; its last words are told.
        """
        times = Path(self._folder.name) / "times.json"
        options = timing_options(self._version, self._settings, requests)
        self._run([*self._command, *self._fed, *options, f"--exportTimes={times}"])
        try:
            entries = json.loads(times.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StageError(f"trtexec wrote no times that can be read: {error}", where=self.name) from error
        return samples_of(entries, transfers=self._settings.transfers)

    def memory(self) -> MemoryUse:
        """Nothing: the process is gone."""
        return MemoryUse()

    def layer_times(self, requests: int) -> tuple[LayerTime, ...]:
        """Nothing: it is asked for whole requests alone."""
        del requests
        return ()

    def _run(self, command: Sequence[str]) -> None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=ROUND_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StageError(f"trtexec cannot be run: {error}", where=command[0]) from error
        if done.returncode:
            said = [line for line in (done.stdout + done.stderr).splitlines() if "[E]" in line] or [done.stdout[-300:]]
            raise StageError(f"trtexec failed: {said[-1].strip()}", where=command[0], hint=" ".join(command[1:]))


def samples_of(entries: Sequence[Mapping[str, Any]], *, transfers: bool) -> RoundSamples:
    """What --exportTimes holds, one entry per request; all its times are the GPU's, in milliseconds.

    Raises:
        StageError: There is nothing in it, or not what is known.
    """
    try:
        compute = tuple(float(entry["computeMs"]) for entry in entries)
        latency = tuple(float(entry["latencyMs"]) for entry in entries) if transfers else compute
        enqueue = tuple(float(entry["endEnqMs"]) - float(entry["startEnqMs"]) for entry in entries)
        start = min(min(float(entry["startH2dMs"]), float(entry["startComputeMs"])) for entry in entries)
        end = max(max(float(entry["endD2hMs"]), float(entry["endComputeMs"])) for entry in entries)
    except (KeyError, TypeError, ValueError) as error:
        raise StageError(f"trtexec's times are not of the form that is known: {error}") from error
    return RoundSamples(latency, (end - start) / 1e3, compute, enqueue)
