"""What a nightly run is told: one TOML file, read strictly."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What names are made of: they become names of files."""

T = TypeVar("T")


class ConfigError(Exception):
    """The configuration is wrong; the text names the file and the key."""


@dataclass(frozen=True)
class Model:
    """A model that is watched.

    Attributes:
        name: What it is called in the history.
        file: The ONNX file.
        data: Samples: the first is timed with, all are compared on and, unless `calib_data` is given, calibrated with.
        calib_data: Samples for the ranges.
        reference: What it is compared with; the file itself where it is empty.
        preprocess: How images become inputs.
        precisions: Names of the precisions it is made in; empty is all.
        targets: Names of its targets; empty is all.
        min_sqnr, max_drop, min_agreement, metric: Instead of those of [accuracy].
    """

    name: str
    file: str
    data: str
    calib_data: str = ""
    reference: str = ""
    preprocess: str = ""
    precisions: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    min_sqnr: float | None = None
    max_drop: float | None = None
    min_agreement: float | None = None
    metric: str = ""


@dataclass(frozen=True)
class Precision:
    """One way of making a model smaller; neither INT8 nor FP16 leaves the file as it is.

    Attributes:
        name: What it is called.
        int8: INT8 where the placement policy says so.
        fp16: FP16 for what is not INT8.
        options: More options of `trt-opt quantize` and `trt-opt build`.
    """

    name: str
    int8: bool = False
    fp16: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """Where a model runs.

    Attributes:
        name: What it is called.
        target: "onnxruntime", or what `trt-opt build --target` takes: "rtx:8.6", "tensorrt".
        python: The interpreter that has TensorRT.
        options: More options of `trt-opt build`.
        gpu: "required": without one the night has failed; "if-present": engines are built, and not run without one.
    """

    name: str
    target: str
    python: str = ""
    options: tuple[str, ...] = ()
    gpu: str = "if-present"

    @property
    def is_engine(self) -> bool:
        """Whether a builder makes an engine for it."""
        return self.target != "onnxruntime"


@dataclass(frozen=True)
class Accuracy:
    """Limits of `trt-opt compare`, for models that name no others; percent and dB."""

    min_sqnr: float | None = None
    max_drop: float | None = None
    min_agreement: float | None = None
    metric: str = ""


@dataclass(frozen=True)
class Perf:
    """How `trt-opt bench` and `trt-opt regress ab` time.

    Attributes:
        rounds, round_s, warm_up_s: As `trt-opt bench` has them.
        threads: ONNX Runtime's; 0 is its own choice.
        streams: Requests in flight.
        options: More options of `trt-opt bench`.
        ab: Whether a graph that changed is timed in turns with that of the last good night.
        ab_floor: The least slowdown that matters there.
        ab_launches: How often both are started for that.
        ab_allow_invalid: Judge on a busy machine too: both sides bore it.
    """

    rounds: int = 20
    round_s: float = 0.2
    warm_up_s: float = 10.0
    threads: int = 0
    streams: int = 1
    options: tuple[str, ...] = ()
    ab: bool = True
    ab_floor: str = "2%"
    ab_launches: int = 10
    ab_allow_invalid: bool = False


@dataclass(frozen=True)
class Check:
    """How a run is held against its history.

    Attributes:
        floors: Metric → the least change that matters: {latency_ms = "3%"}.
        allow_inconclusive: Whether "could not be told" lets the night pass: the first nights have no history.
        options: More options of `trt-opt regress check`.
    """

    floors: Mapping[str, str] = field(default_factory=dict)
    allow_inconclusive: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timeouts:
    """Seconds after which a step is ended."""

    quantize_s: float = 1800.0
    build_s: float = 3600.0
    compare_s: float = 3600.0
    bench_s: float = 1800.0
    ab_s: float = 1800.0
    other_s: float = 600.0


@dataclass(frozen=True)
class Config:
    """A night.

    Attributes:
        path: The file it was read from.
        models, precisions, targets: What is made of what, for what.
        output: Where the dated folders go.
        history: The history's file.
        keep_nights: Dated folders to keep; 0 keeps all.
        least_free_mib: Free space without which nothing is started.
    """

    path: Path
    models: tuple[Model, ...]
    precisions: tuple[Precision, ...]
    targets: tuple[Target, ...]
    output: Path
    history: Path
    keep_nights: int = 30
    least_free_mib: int = 1024
    accuracy: Accuracy = Accuracy()
    perf: Perf = Perf()
    check: Check = Check()
    timeouts: Timeouts = Timeouts()


SECTIONS: Mapping[str, type[Any]] = MappingProxyType(
    {"accuracy": Accuracy, "perf": Perf, "check": Check, "timeouts": Timeouts}
)
LISTS: Mapping[str, type[Any]] = MappingProxyType({"models": Model, "precisions": Precision, "targets": Target})
PLAIN: Mapping[str, str] = MappingProxyType(
    {"output": "str", "history": "str", "keep_nights": "int", "least_free_mib": "int"}
)


def config_from_file(path: Path) -> Config:
    """Reads a configuration; relative paths start at the file's folder.

    Raises:
        ConfigError: It cannot be read, or a key is unknown, missing or of the wrong kind.
    """
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not readable as TOML ({error})") from error
    where = str(path)
    _refuse_unknown(plain, (*PLAIN, *SECTIONS, *LISTS), where)
    base = path.resolve().parent
    top = {key: _typed(plain[key], kind, f"{where}: {key}") for key, kind in PLAIN.items() if key in plain}
    parts = {name: _table(kind, plain.get(name, {}), f"{where}: [{name}]") for name, kind in SECTIONS.items()}
    lists = {name: _tables(kind, plain.get(name), f"{where}: [[{name}]]") for name, kind in LISTS.items()}
    output = base / top.pop("output", "nightly")
    history = base / top.pop("history") if "history" in top else output / "history.db"
    given: dict[str, Any] = {**top, **parts, **lists}
    config = Config(path=path.resolve(), output=output, history=history, **given)
    return _checked(config, where, base)


def _table(kind: type[T], plain: Any, where: str) -> T:
    if not isinstance(plain, dict):
        raise ConfigError(f"{where} is a table, not {_kind_of(plain)}")
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    _refuse_unknown(plain, known, where)
    for name, one in known.items():
        if name not in plain and one.default is MISSING and one.default_factory is MISSING:
            raise ConfigError(f"{where}: {name} is missing")
    return kind(**{key: _typed(value, str(known[key].type), f"{where}: {key}") for key, value in plain.items()})


def _tables(kind: type[T], plain: Any, where: str) -> tuple[T, ...]:
    if not plain or not isinstance(plain, list):
        raise ConfigError(f"{where} is missing: there must be one or more")
    found = tuple(_table(kind, one, f"{where} {place}") for place, one in enumerate(plain, 1))
    names = [one.name for one in found]  # type: ignore[attr-defined]
    for place, name in enumerate(names, 1):
        if not NAME.fullmatch(name):
            raise ConfigError(f"{where} {place}: name: {name!r} holds more than letters, digits, '.', '_' and '-'")
        if name in names[: place - 1]:
            raise ConfigError(f"{where} {place}: name: {name!r} is taken")
    return found


def _typed(value: Any, kind: str, where: str) -> Any:
    """The value as a field's annotation wants it."""
    right: dict[str, bool] = {
        "str": isinstance(value, str),
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, (int, float)) and not isinstance(value, bool),
        "tuple[str, ...]": isinstance(value, list) and all(isinstance(one, str) for one in value),
        "Mapping[str, str]": isinstance(value, dict) and all(isinstance(one, str) for one in value.values()),
    }
    name = kind.removesuffix(" | None")
    if not right[name]:
        wanted = {"tuple[str, ...]": "a list of texts", "Mapping[str, str]": "a table of texts", "str": "a text"}
        raise ConfigError(f"{where} is {wanted.get(name, name)}, not {_kind_of(value)}")
    if name in ("int", "float") and not 0 <= value < 1e9:
        raise ConfigError(f"{where}: {value} is not between 0 and a thousand million")
    return tuple(value) if isinstance(value, list) else value


def _kind_of(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    return repr(value)[:80]


def _refuse_unknown(plain: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    known = tuple(known)
    for key in plain:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {key!r}; {hint}")


def _checked(config: Config, where: str, base: Path) -> Config:
    """The configuration with absolute paths, or an error for what names nothing."""
    for kind, names in (("precisions", config.precisions), ("targets", config.targets)):
        known = [one.name for one in names]
        for place, model in enumerate(config.models, 1):
            for name in getattr(model, kind):
                if name not in known:
                    raise ConfigError(f"{where}: [[models]] {place}: {kind}: there is no {name!r} ({', '.join(known)})")
    for place, target in enumerate(config.targets, 1):
        if not re.match(r"(onnxruntime$|rtx(:|$)|tensorrt(:|$))", target.target):
            raise ConfigError(
                f"{where}: [[targets]] {place}: target: {target.target!r} is no onnxruntime, rtx, tensorrt"
            )
        if target.gpu not in ("required", "if-present"):
            raise ConfigError(f"{where}: [[targets]] {place}: gpu: {target.gpu!r} is neither required nor if-present")
    for one in fields(Timeouts):
        if getattr(config.timeouts, one.name) <= 0:
            raise ConfigError(f"{where}: [timeouts]: {one.name} must be above 0")
    models = tuple(_absolute(model, base) for model in config.models)
    return Config(**{**{one.name: getattr(config, one.name) for one in fields(Config)}, "models": models})


def _absolute(model: Model, base: Path) -> Model:
    given = {one.name: getattr(model, one.name) for one in fields(Model)}
    for key in ("file", "reference", "data", "calib_data"):
        text = given[key]
        # module:function and random:N are no paths.
        if text and not re.match(r"[\w.]+:[\w]+$", text):
            given[key] = str(base / text)
    return Model(**given)
