"""One library's engines: each built once, by whichever check wants it first, and run against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from types import MappingProxyType
from typing import Any

from gpu_checks.libraries import Introduced, Library
from gpu_checks.models import Subject, digits, resnet, transformer
from gpu_checks.running import FailedError, SkippedError

from trt_opt.backends.engine_runner import EngineRunner
from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.compare import compare
from trt_opt.datasets import open_dataset
from trt_opt.errors import TrtOptError
from trt_opt.graph.load import load_model
from trt_opt.graph.query import graph_inputs
from trt_opt.pipeline import build_engine
from trt_opt.recipe import Recipe
from trt_opt.values.accuracy import Comparison
from trt_opt.values.engine import BuildOutcome
from trt_opt.values.progress import Silent
from trt_opt.values.samples import Dataset

PRECISIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "fp32": {},
        "fp16": {"fp16": True},
        "int8": {"int8": True},
        "portable-entropy": {"quantization": "implicit", "calibrator": "entropy"},
        "portable-minmax": {"quantization": "implicit", "calibrator": "minmax"},
        "native-entropy": {"quantization": "implicit", "calibrator": "native-entropy"},
        "native-minmax": {"quantization": "implicit", "calibrator": "native-minmax"},
    }
)
"""Precision → what a recipe asks for. "portable" is implicit quantisation with a cache of our own calibration."""

BUILD_TIMEOUT_S = 400

RUNS, WARM_UP = 100, 10


@dataclass(slots=True)
class Bench:
    """A library, and what was built with it.

    Attributes:
        library: The library.
        folder: Where models, samples and the engine store go.
        samples: How many digits an engine is judged on.
        optimization_level: The builder's effort; None leaves it to TensorRT.
        introduced: What the library says of itself; None before it was asked, or where it cannot be used.
    """

    library: Library
    folder: Path
    samples: int
    optimization_level: int | None = None
    introduced: Introduced | None = None
    _subjects: dict[str, Subject] = field(default_factory=dict)
    _engines: dict[tuple[str, str], BuildOutcome | str] = field(default_factory=dict)

    @property
    def known(self) -> Introduced:
        """What the library says of itself.

        Raises:
            SkippedError: It cannot be used.
        """
        if self.introduced is None:
            raise SkippedError(f"{self.library.name} cannot be used here")
        return self.introduced

    @property
    def label(self) -> str:
        """What the table calls it: name and version, once they are known."""
        return self.library.name if self.introduced is None else self.introduced.library

    @property
    def is_before_10(self) -> bool:
        """Whether it is TensorRT 8 or 9."""
        return not self.library.is_rtx and int(self.known.support.first.partition(".")[0]) < 10

    def subject(self, name: str) -> Subject:
        """A model and its samples, made when they are first wanted."""
        if name not in self._subjects:
            makers: dict[str, Callable[[], Subject]] = {
                "digits": lambda: digits(self.folder, self.samples),
                "resnet50": lambda: resnet(self.folder),
                "transformer": lambda: transformer(self.folder, primitive=self.is_before_10),
            }
            self._subjects[name] = makers[name]()
        return self._subjects[name]

    def engine(self, name: str, precision: str) -> BuildOutcome:
        """A model's engine in a precision.

        Raises:
            SkippedError: It was tried before and could not be built.
            TrtOptError: It cannot be built.
        """
        known = self._engines.get((name, precision))
        if isinstance(known, str):
            raise SkippedError(f"there is no {precision} engine of {name}: {known}")
        if known is None:
            recipe = self.recipe(name, precision)
            # Stands if the clock rings meanwhile.
            self._engines[name, precision] = "it was not finished in time"
            try:
                known = build_engine(recipe, Silent())
            except TrtOptError as error:
                self._engines[name, precision] = error.what
                raise
            self._engines[name, precision] = known
        return known

    def built(self, name: str) -> dict[str, BuildOutcome]:
        """The engines of a model that there are, by precision."""
        found = ((precision, self._engines.get((name, precision))) for precision in PRECISIONS)
        return {precision: engine for precision, engine in found if isinstance(engine, BuildOutcome)}

    def recipe(self, name: str, precision: str, **more: Any) -> Recipe:
        """What is asked of `trt-opt build`."""
        subject, asked = self.subject(name), PRECISIONS[precision]
        if precision.startswith(("portable", "native")) and not self.known.support.int8_calibrators:
            raise SkippedError(f"{self.known.library} has no implicit quantisation")
        quantised = "int8" in asked or "quantization" in asked
        return Recipe(
            model=str(subject.model),
            calib_data=str(subject.calibration) if quantised else None,
            eval_data=str(subject.evaluation),
            target=self.known.target,
            tensorrt_python=None if self.library.is_rtx else self.known.python,
            tactic_sources=self.library.tactic_sources,
            optimization_level=self.optimization_level,
            output=str(self.folder / "engines"),
            baselines=False,
            timeout_s=BUILD_TIMEOUT_S,
            int8_all=subject.int8_all and precision == "int8",
            **asked,
            **more,
        )

    def comparison(self, name: str, outcome: BuildOutcome) -> Comparison:
        """An engine against the float model on ONNX Runtime: the manifest's, or measured here."""
        measured = outcome.manifest.variants[-1].on_gpu
        if measured is not None:
            return measured
        model = load_model(self.subject(name).model)
        reference = OnnxRuntimeRunner(model, optimised=True, name="FP32 on ONNX Runtime")
        return compare(reference, self.runner(outcome), self._judged_on(name))

    def runner(self, outcome: BuildOutcome) -> EngineRunner:
        """What runs an engine."""
        known = self.known
        name = f"the engine on {known.gpu.name}"
        return EngineRunner(Path(outcome.engine), known.python, environment=known.variables, name=name)

    def latency(self, name: str, outcome: BuildOutcome) -> dict[str, float]:
        """How long an engine takes for one sample, transfers to and from the GPU included, milliseconds.

        Raises:
            FailedError: It did not run as often as it was told, or took no time.
        """
        feed = self.feed(name)
        with self.runner(outcome) as runner:
            runner.timed(feed, repeat=WARM_UP)
            runner.timed(feed, repeat=RUNS)
            seconds = runner.last_seconds
        if len(seconds) != RUNS or not min(seconds) > 0:
            raise FailedError(f"{len(seconds)} of {RUNS} runs were timed, the shortest {min(seconds, default=0)} s")
        tenths = quantiles(seconds, n=10)
        return {"median_ms": 1e3 * median(seconds), "p90_ms": 1e3 * tenths[-1], "runs": RUNS}

    def feed(self, name: str) -> Mapping[str, Any]:
        """The first sample that engines are judged on."""
        return next(iter(self._judged_on(name))).feed

    def _judged_on(self, name: str) -> Dataset:
        subject = self.subject(name)
        return open_dataset(str(subject.evaluation), graph_inputs(load_model(subject.model)))
