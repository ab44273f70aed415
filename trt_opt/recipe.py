"""A build request: one value whether it was typed, read from a TOML file, or taken from a manifest."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from calibrators import CalibratorError, calibrator_from_text
from trt_opt.build.manifest import read_manifest
from trt_opt.ends import EndsRequest
from trt_opt.errors import RecipeError, RequestError
from trt_opt.implicit.native import is_native
from trt_opt.quantize.methods import method_called
from trt_opt.values.codec import plain_from_value
from trt_opt.values.engine import Manifest
from trt_opt.values.importing import ZeroPoints
from trt_opt.values.shapes import shapes_from_text
from trt_opt.values.target import RtxTarget, target_from_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WEIGHT_TYPES = ("int8", "int4")
ZERO_POINTS: tuple[ZeroPoints, ...] = ("fold", "regrid")

CACHE_METHODS = ("static", "full-integer", "implicit")
"""The quantisation methods that take thresholds for INT8; FP8's scales are extremes."""

FALLBACK_CALIBRATOR = "minmax"
"""Who looks at the ranges where TensorRT chooses the thresholds itself."""

PATHS = ("model", "calib_data", "eval_data", "output", "table", "from_cache")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build. The field names are the command line's and a recipe file's.

    Attributes:
        model: The ONNX file.
        int8: INT8 where the placement policy says so.
        quantization: The quantisation method, a name of `quantize.methods.METHODS`; None means "static" with `int8`.
        weights: What "weights-only" stores: "int8" or "int4".
        block_size: How many INT4 weights share one scale.
        zero_points: What becomes of the zero-points of a model that comes quantised: "fold" keeps its grids and moves
            the zero-points into biases, "regrid" chooses symmetric grids.
        image_input: With "full-integer": a UINT8 NHWC image goes in, its preprocessing is part of the engine.
        fp16: FP16 elsewhere; None means yes with quantisation, no without.
        io_fp16: FP16 graph inputs and outputs.
        calib_data: What INT8 ranges come from.
        eval_data: What accuracy is measured on.
        preprocess: How images become inputs.
        calibrator: "entropy", "minmax", "percentile(percent=99.9)" …; "auto" chooses per tensor.
        target: "rtx:8.6", "tensorrt" …; None for what is here.
        min_shapes: Smallest shapes, `name:1x3x224x224,…`.
        opt_shapes: Most frequent shapes.
        max_shapes: Largest shapes.
        output: Folder of the engine store.
        exclude: Nodes to leave in float.
        activation_products: INT8 for MatMuls of two activations too, as in attention.
        table: A calibration table to use instead of a data pass; refused if it was made for something else.
        reuse_table: Use the table, or the cache, even then.
        from_cache: A TensorRT calibration cache that INT8 ranges come from; asks for INT8. Refused if it hardly fits.
        baselines: Build and compare the FP32 and FP16 variants too.
        workspace_mib: Limit of the builder's scratch memory, MiB.
        optimization_level: Builder optimisation level, 0 … 5.
        timeout_s: How long the builder may take, seconds.
        freeze_input: Graph inputs that become constants: `name=value`, or an .npz file with one array per name.
        widen_io: Graph inputs and outputs of integer types that TensorRT lacks become int32 or int64.
        fp8_as_qdq: Casts to and from 8-bit floats become Q/DQ pairs of scale 1.
        nms: NonMaxSuppression: "keep" it, make it TensorRT's "plugin", or "split" the model there.
        skip_pass: Graph passes, and rewrites against INT8's error, to leave out.
        max_drop: Budget: most points that the metric may lose against the float model.
        min_sqnr: Budget: least SQNR of every output, dB.
        min_agreement: Budget: least share of equal top-1 answers, percent.
        metric: What `max_drop` is about: a name of `compare.metrics.METRICS`, or `package.module:function`.
        int8_all: INT8 also for layers that ruin the output.
        allow_same_data: Do not warn where calibration and evaluation data are the same.
        tensorrt_python: The Python that has TensorRT; None looks for one.
        use_dla: The Deep Learning Accelerator to build for; None for the GPU.
        gpu_fallback: Whether what the accelerator cannot run may run on the GPU.
        version_compatible: An engine that newer versions of TensorRT run too.
        hardware_compatible: An engine for every GPU since Ampere.
        tactic_sources: The libraries TensorRT may take kernels from, by its names; none leaves it to TensorRT.
        seed: What choices by chance come from: which samples steer a search, and which judge it.
    """

    model: str
    int8: bool = False
    quantization: str | None = None
    weights: str = "int8"
    block_size: int = 128
    zero_points: str = "fold"
    image_input: bool = False
    fp16: bool | None = None
    io_fp16: bool = False
    calib_data: str | None = None
    eval_data: str | None = None
    preprocess: str | None = None
    calibrator: str = "entropy"
    target: str | None = None
    min_shapes: str | None = None
    opt_shapes: str | None = None
    max_shapes: str | None = None
    output: str = "engines"
    exclude: tuple[str, ...] = ()
    activation_products: bool = False
    table: str | None = None
    reuse_table: bool = False
    from_cache: str | None = None
    baselines: bool = True
    workspace_mib: int | None = None
    optimization_level: int | None = None
    timeout_s: int = 3600
    freeze_input: tuple[str, ...] = ()
    widen_io: bool = False
    fp8_as_qdq: bool = False
    nms: str = "keep"
    skip_pass: tuple[str, ...] = ()
    max_drop: float | None = None
    min_sqnr: float | None = None
    min_agreement: float | None = None
    metric: str | None = None
    int8_all: bool = False
    allow_same_data: bool = False
    tensorrt_python: str | None = None
    use_dla: int | None = None
    gpu_fallback: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False
    tactic_sources: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.model:
            raise RequestError("no model was given", hint="trt-opt build MODEL, or a recipe with a model")
        if self.io_fp16 and not self.wants_fp16:
            raise RequestError("FP16 inputs and outputs need FP16", hint="add --fp16, or leave --io-fp16 out")
        if self.reuse_table and self.table is None and self.from_cache is None:
            raise RequestError("there is no table to use again", hint="name it: --table FILE")
        self._check_from_cache()
        self._check_texts()
        self._check_image_input()
        self._check_weights()
        self._check_budget()
        self._check_builder()
        if self.seed < 0:
            raise RequestError(f"the seed is 0 or more, not {self.seed}")
        level = self.optimization_level
        if level is not None and not 0 <= level <= 5:
            raise RequestError(f"the optimisation level is 0 to 5, not {level}")
        if (self.workspace_mib is not None and self.workspace_mib <= 0) or self.timeout_s <= 0:
            raise RequestError("the workspace and the time-out must be above 0")

    def _check_from_cache(self) -> None:
        if self.from_cache is None:
            return
        if self.table is not None:
            raise RequestError("ranges come from a table or from a calibration cache", hint="one of both")
        if is_native(self.calibrator):
            raise RequestError(
                f"--calibrator {self.calibrator} makes ranges of its own, those of a calibration cache are given",
                hint="one of both",
            )
        if self.method not in CACHE_METHODS:
            raise RequestError(
                f"a calibration cache holds thresholds for INT8 activations, not for {self.method}",
                hint=f"one of --quantization {', '.join(CACHE_METHODS)}; or leave --from-cache out",
            )
        if self.has_budget:
            raise RequestError(
                "a search for a budget chooses its own ranges, those of a calibration cache are given",
                hint="leave --from-cache out and give --calib-data DATA, or leave the budget out",
            )

    def _check_builder(self) -> None:
        """Options that TensorRT alone has."""
        if self.use_dla is not None and self.use_dla < 0:
            raise RequestError(f"a DLA core is 0 or more, not {self.use_dla}")
        if self.gpu_fallback and self.use_dla is None:
            raise RequestError("--gpu-fallback is about Deep Learning Accelerators", hint="add --use-dla 0")
        rtx = self.target is not None and isinstance(target_from_text(self.target), RtxTarget)
        for name in ("use_dla", "version_compatible", "hardware_compatible", "tactic_sources"):
            value = getattr(self, name)
            if rtx and value is not None and value is not False and value != ():  # DLA core 0 is a wish
                raise RequestError(
                    f"TensorRT-RTX has no --{name.replace('_', '-')}", hint=f"--target tensorrt, not {self.target}"
                )

    def _check_weights(self) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
        for name in ("weights", "block_size"):
            if getattr(self, name) != defaults[name] and self.method != "weights-only":
                raise RequestError(
                    f"--{name.replace('_', '-')} is about weights-only quantisation",
                    hint="add --quantization weights-only, or leave it out",
                )

    def _check_budget(self) -> None:
        """What can be told without the data; bounds are checked where they are used."""
        if not self.has_budget:
            return
        if self.method not in ("static", "full-integer"):
            raise RequestError(
                "an accuracy budget is about how much runs in INT8", hint="add --int8, or leave the budget out"
            )
        if self.int8_all:
            raise RequestError(
                "a budget decides which layers run in INT8, --int8-all takes them all", hint="one of both"
            )
        if (self.max_drop or 0.0) < 0:
            raise RequestError(f"the budget is a loss of 0 points or more, not {self.max_drop:g}")

    def _check_image_input(self) -> None:
        if self.io_fp16 and self.method == "full-integer":
            raise RequestError("inputs and outputs are integers or FP16, not both", hint="leave --io-fp16 out")
        if self.image_input and self.method != "full-integer":
            raise RequestError("an image input goes with integer ends", hint="add --quantization full-integer")
        if self.image_input and self.preprocess is None:
            raise RequestError(
                "an image input needs its preprocessing, which becomes part of the engine",
                hint="--preprocess resize=256,crop=224,scale=1/255,mean=…,std=…",
            )

    def _check_texts(self) -> None:
        """What is written in a notation of its own is read once here, so that a slip shows before any work is done."""
        native = is_native(self.calibrator)
        if native and self.method != "implicit":
            raise RequestError(
                f"{self.calibrator} is TensorRT's own calibrator, which calibrates while it builds",
                hint="add --quantization implicit, or take --calibrator entropy",
            )
        try:
            calibrator_from_text(FALLBACK_CALIBRATOR if native else self.calibrator)
        except CalibratorError as error:
            raise RequestError(str(error)) from error
        if self.target is not None:
            target_from_text(self.target)
        _ = self.ends
        if self.method is not None:
            method_called(self.method)
        zero_points_from_text(self.zero_points)
        if self.weights not in WEIGHT_TYPES:
            raise RequestError(f"there is no --weights {self.weights}", hint=f"one of {', '.join(WEIGHT_TYPES)}")
        for text in (self.min_shapes, self.opt_shapes, self.max_shapes):
            shapes_from_text(text or "")

    @property
    def ends(self) -> EndsRequest:
        """What may change of the model's inputs and outputs."""
        return EndsRequest(self.freeze_input, self.widen_io, self.fp8_as_qdq, self.nms)

    @property
    def has_budget(self) -> bool:
        """Whether an accuracy was asked for."""
        return any(bound is not None for bound in (self.max_drop, self.min_sqnr, self.min_agreement))

    @property
    def wants_fp16(self) -> bool:
        """Whether layers that are not INT8 run in FP16."""
        return self.method is not None if self.fp16 is None else self.fp16

    @property
    def method(self) -> str | None:
        """The quantisation method; None where none was asked for."""
        return self.quantization or ("static" if self.int8 or self.from_cache is not None else None)


def zero_points_from_text(text: str) -> ZeroPoints:
    """What is written after --zero-points.

    Raises:
        RequestError: There is no such thing.
    """
    for known in ZERO_POINTS:
        if text == known:
            return known
    raise RequestError(f"there is no --zero-points {text}", hint=f"one of {', '.join(ZERO_POINTS)}")


def recipe_from_file(path: Path) -> dict[str, Any]:
    """The options in a TOML recipe; its paths are relative to its folder.

    Raises:
        RecipeError: Not readable, not TOML, or with an unknown or ill-typed option.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"the recipe cannot be read: {error}", where=str(path)) from error
    options = _known_options({key.replace("-", "_"): value for key, value in table.items()}, str(path))
    return {key: _beside(path, value) if key in PATHS else value for key, value in options.items()}


def recipe_from_manifest(path: Path) -> tuple[dict[str, Any], Manifest]:
    """The options of an earlier build, and its manifest.

    Raises:
        RecipeError: Not readable, or not a manifest.
    """
    manifest = read_manifest(path)
    return _known_options(dict(manifest.recipe), str(path)), manifest


def plain_from_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe's options for a manifest: those that differ from their defaults, local paths made absolute."""
    plain: dict[str, Any] = plain_from_value(recipe)
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    told = {key: value for key, value in plain.items() if value != plain_from_value(defaults[key])}
    return {key: _absolute(value) if key in PATHS else value for key, value in told.items()}


def _known_options(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = {field.name: str(field.type) for field in dataclasses.fields(Recipe)}
    for key, value in table.items():
        if key not in known:
            close = get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known options: {', '.join(known)}"
            raise RecipeError(f"unknown option {key!r}", where=where, hint=hint)
        if not _fits(value, known[key]):
            raise RecipeError(f"{key} must be {known[key]}, not {value!r}", where=where)
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _fits(value: object, kind: str) -> bool:
    kinds = {part.strip() for part in kind.split("|")}
    if value is None:
        return "None" in kinds
    if isinstance(value, int) and not isinstance(value, bool) and "float" in kinds:
        return True
    if isinstance(value, list):
        return "tuple[str, ...]" in kinds and all(isinstance(item, str) for item in value)
    return type(value).__name__ in kinds


def _beside(recipe: Path, value: str) -> str:
    candidate = recipe.parent / value
    return value if Path(value).is_absolute() or _is_no_path(value) else str(candidate)


def _absolute(value: object) -> object:
    return value if not isinstance(value, str) or _is_no_path(value) else str(Path(value).absolute())


def _is_no_path(value: str) -> bool:
    """Whether a data source names a function or random data instead of a file."""
    return ":" in value and not Path(value).exists()
