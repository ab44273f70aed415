"""The samples of a bundle: what is fed, what the float model answers, and what the simulated quantised model does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from trt_opt.bundling.layout import ELEMENT_TYPES, input_file, output_file, quantised_file
from trt_opt.compare import Limits, compare_many
from trt_opt.errors import RequestError
from trt_opt.values.accuracy import Comparison
from trt_opt.values.bundle import Bundle
from trt_opt.values.progress import Progress
from trt_opt.values.runner import Runner
from trt_opt.values.samples import DataProvenance, Sample

Array = NDArray[np.generic]
Floats = NDArray[np.float32]

FLOAT_MODEL = "the float model"


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One sample and both models' answers to it.

    Attributes:
        feed: Input → array of the engine's element type.
        expected: Output → what the float model gives, float32.
        simulated: Output → what the simulated quantised model gives, float32.
    """

    feed: Mapping[str, Array]
    expected: Mapping[str, Floats]
    simulated: Mapping[str, Floats]


def files_from_recordings(recordings: Sequence[Recording]) -> dict[str, bytes]:
    """The files under `samples/`."""
    files: dict[str, bytes] = {}
    for sample, recording in enumerate(recordings):
        for number, array in enumerate(recording.feed.values()):
            files[input_file(sample, number)] = array.astype(ELEMENT_TYPES[array.dtype.name]).tobytes()
        for number, (name, floats) in enumerate(recording.expected.items()):
            files[output_file(sample, number)] = floats.astype("<f4").tobytes()
            files[output_file(sample, number, "txt")] = text_from_floats(floats)
            files[quantised_file(sample, number)] = text_from_floats(recording.simulated[name])
    return files


def recordings_from_folder(bundle: Bundle, folder: Path) -> tuple[Recording, ...]:
    """Reads them back from an unpacked bundle.

    Raises:
        RequestError: A text does not hold as many numbers as its output has.
    """
    return tuple(_recording(bundle, folder, sample) for sample in range(bundle.samples))


def text_from_floats(floats: Floats) -> bytes:
    """One number per line, with the nine digits that tell every float32 from its neighbours."""
    return ("%.9g\n" * floats.size % tuple(floats.reshape(-1).tolist())).encode("ascii")


def _recording(bundle: Bundle, folder: Path, sample: int) -> Recording:
    feed: dict[str, Array] = {}
    for number, given in enumerate(bundle.inputs):
        raw = np.fromfile(folder / input_file(sample, number), ELEMENT_TYPES[given.dtype])
        feed[given.name] = raw.astype(given.dtype).reshape(given.shape)
    expected: dict[str, Floats] = {}
    simulated: dict[str, Floats] = {}
    for number, output in enumerate(bundle.outputs):
        raw = np.fromfile(folder / output_file(sample, number), "<f4")
        expected[output.name] = raw.astype(np.float32).reshape(output.shape)
        file = quantised_file(sample, number)
        simulated[output.name] = _floats_from_text(folder / file, file, raw.size).reshape(output.shape)
    return Recording(feed, expected, simulated)


def _floats_from_text(path: Path, where: str, count: int) -> Floats:
    try:
        floats = np.array([float(line) for line in path.read_text("ascii").splitlines()], np.float32)
    except ValueError as error:
        raise RequestError(f"not one number a line ({error})", where=where) from error
    if floats.size != count:
        raise RequestError(f"{floats.size} numbers were found, and its output has {count}", where=where)
    return floats


def compared(
    recordings: Sequence[Recording],
    simulated: str,
    engine: Runner | None,
    least_sqnr_db: float | None,
    progress: Progress,
) -> tuple[Comparison, ...]:
    """The simulated model, and the engine if there is one, against the float model's answers.

    Args:
        recordings: The samples.
        simulated: What the simulated model is called.
        engine: Runs the engine; its outputs that are not in the recordings are left out.
        least_sqnr_db: The bound of the verdict; None leaves it open.
        progress: Told of every sample.
    """
    candidates: list[Runner] = [_Recorded(simulated, [entry.simulated for entry in recordings])]
    if engine is not None:
        candidates.append(_Judged(engine, frozenset(recordings[0].expected)))
    reference = _Recorded(FLOAT_MODEL, [entry.expected for entry in recordings])
    limits = Limits(min_sqnr_db=least_sqnr_db)
    return compare_many(reference, candidates, _Recordings(recordings), limits=limits, progress=progress)


@dataclass(frozen=True, slots=True)
class _Recordings:
    """The recordings as a data set."""

    recordings: Sequence[Recording]
    source: str = "the bundle"
    is_random: bool = False
    has_labels: bool = False

    def __len__(self) -> int:
        return len(self.recordings)

    def __iter__(self) -> Iterator[Sample]:
        return (Sample(f"samples/{number:03}", entry.feed) for number, entry in enumerate(self.recordings))

    def provenance(self) -> DataProvenance:
        """Nobody asks: a comparison does not carry it."""
        return DataProvenance(self.source, "", len(self.recordings))


class _Recorded:
    """Gives recorded answers, one after the other: a comparison asks once per sample, in order."""

    def __init__(self, name: str, answers: Sequence[Mapping[str, Floats]]) -> None:
        self.name = name
        self._answers = answers
        self._left: Iterator[Mapping[str, Floats]] = iter(())

    def infer(self, feed: Mapping[str, Array], /) -> Mapping[str, Array]:
        """The next answer."""
        del feed
        return next(self._left)

    def __enter__(self) -> _Recorded:
        self._left = iter(self._answers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        return None


class _Judged:
    """An engine of which some outputs are looked at, as float32."""

    def __init__(self, engine: Runner, outputs: frozenset[str]) -> None:
        self._engine = engine
        self._outputs = outputs

    @property
    def name(self) -> str:
        """The engine's."""
        return self._engine.name

    def infer(self, feed: Mapping[str, Array], /) -> Mapping[str, Array]:
        """Those outputs of the engine."""
        found = self._engine.infer(feed)
        return {name: array.astype(np.float32) for name, array in found.items() if name in self._outputs}

    def __enter__(self) -> _Judged:
        self._engine.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        return self._engine.__exit__(kind, error, trace)
