"""What `trt-opt` is told of a unit: its options, as words."""

from __future__ import annotations

from night_config import Config, Model, Target
from night_units import Unit


def input_files(model: Model) -> tuple[str, ...]:
    """The files whose change makes a step run again."""
    return tuple(
        one for one in (model.file, f"{model.file}.data", model.data, model.calib_data, model.reference) if one
    )


def precision_options(unit: Unit) -> list[str]:
    """What `quantize` or `build` is told of a precision."""
    precision, model = unit.precision, unit.model
    words = ["--fp16" if precision.fp16 else "--no-fp16"]
    if unit.target.is_engine:
        words += ["--int8"] if precision.int8 else []
    else:
        words += ["--int8" if precision.int8 else "--no-int8"]
    if precision.int8:
        words += ["--calib-data", model.calib_data or model.data]
    if unit.target.is_engine:
        # Tells the sizes of dynamic inputs; the simulated accuracy is recorded where no GPU runs the engine.
        words += ["--eval-data", model.data]
    has_data = precision.int8 or unit.target.is_engine
    return [*words, *(preprocess_options(model) if has_data else ()), *precision.options]


def limit_options(unit: Unit, config: Config) -> list[str]:
    """The model's own limits, else those of all."""
    words = []
    for name in ("min_sqnr", "max_drop", "min_agreement", "metric"):
        own, general = getattr(unit.model, name), getattr(config.accuracy, name)
        value = general if own in (None, "") else own
        if value not in (None, ""):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def timing_options(config: Config) -> list[str]:
    """How `bench` times."""
    perf = config.perf
    words = ["--rounds", str(perf.rounds), "--round-s", str(perf.round_s), "--warm-up-s", str(perf.warm_up_s)]
    words += ["--streams", str(perf.streams)]
    return [*words, "--threads", str(perf.threads)] if perf.threads else words


def preprocess_options(model: Model) -> list[str]:
    """How images become inputs."""
    return ["--preprocess", model.preprocess] if model.preprocess else []


def python_options(target: Target) -> list[str]:
    """The interpreter that has the target's TensorRT."""
    return ["--tensorrt-python", target.python] if target.python else []
