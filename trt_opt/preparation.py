"""From a model file to the graph to build: what the verbs build, calibrate and quantize have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import onnx

from calibrators import Auto, calibrator_from_text
from trt_opt.acceptance import Judge
from trt_opt.backends.tensorrt_versions import support_of
from trt_opt.buildable import ImportChoice, PassChoice, made_buildable
from trt_opt.cache_import import CacheImport, cache_from_file, imported_cache
from trt_opt.calibrate.ranges import calibration_pass, calibration_table
from trt_opt.calibrate.table import check_table, table_from_file
from trt_opt.compare import metric_from_text
from trt_opt.compare.metrics import UserMetric
from trt_opt.datasets import open_dataset
from trt_opt.datasets.preprocess import Preprocess, preprocess_from_text
from trt_opt.ends import with_asked_ends
from trt_opt.errors import DataError, RequestError
from trt_opt.explanations import passes_among
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.graph.float_types import holds_half_floats, widened_to_float32
from trt_opt.graph.load import load_model
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.opset import converted_to_opset, with_standard_operators
from trt_opt.graph.query import graph_inputs, opset
from trt_opt.implicit.native import is_native
from trt_opt.importing import SAMPLES_TO_MEASURE
from trt_opt.quantize.importing.normal_form import normal_form
from trt_opt.quantize.methods import METHODS, method_called
from trt_opt.quantize.methods.implicit import Implicit
from trt_opt.quantize.methods.static import Static
from trt_opt.quantize.stage import FloatGraph, PrecisionRequest, float_graph, is_quantized, least_opset
from trt_opt.quantize.target_needs import require_target
from trt_opt.range_choice import chosen_table
from trt_opt.recipe import FALLBACK_CALIBRATOR, Recipe, zero_points_from_text
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.placement import Taps
from trt_opt.values.progress import Progress
from trt_opt.values.rewriting import RewriteReport
from trt_opt.values.samples import Dataset, Sample
from trt_opt.values.shapes import Shape, shapes_from_text
from trt_opt.values.target import Target, TensorRTTarget, target_from_text

OLDEST_OPSET = 7
"""ONNX Runtime and TensorRT's parser run nothing older; such a model is converted before anything else."""

MODERN_OPSET = 13

SAMPLES_FOR_PASSES = 2
"""On how many samples the passes' results are compared: a wrong pass shows on the first."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceModel:
    """The model as given (its opset raised if it was too old to run), and as rewritten for what follows.

    Where it was split at NonMaxSuppression, both are the engine's part, and `tail` is the rest.
    """

    path: Path
    original: onnx.ModelProto
    rewritten: onnx.ModelProto
    report: RewriteReport
    tail: onnx.ModelProto | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DataSets:
    """The samples of a request."""

    calibration: Dataset | None
    evaluation: Dataset | None

    @property
    def first_samples(self) -> tuple[Sample, ...]:
        """A few samples for checks; none without data."""
        return tuple(islice(self.calibration or self.evaluation or (), SAMPLES_FOR_PASSES))


def data_sets(recipe: Recipe, model: onnx.ModelProto) -> DataSets:
    """Opens calibration and evaluation data and checks them against the model's inputs.

    Raises:
        RequestError: INT8 was asked for without data or a table, and the model does not come quantised; or there is no
            such metric.
        DataError: The data do not fit.
    """
    if _lacks_data(recipe) and not is_quantized(model):
        label = method_called(recipe.method or "static").label(PrecisionRequest())
        raise RequestError(
            f"{label} needs calibration data: samples like those the model will see",
            hint="--calib-data DATA.npz, a folder of .npz files or images (with --preprocess), module:function; "
            "or --calib-data random:64, which is good for timing only",
        )
    if recipe.table is not None and not Path(recipe.table).is_file():
        raise DataError("there is no such calibration table", where=recipe.table)
    if recipe.from_cache is not None:
        cache_from_file(Path(recipe.from_cache))
    inputs = graph_inputs(model)
    preprocess = preprocess_from_text(recipe.preprocess) if recipe.preprocess else None
    shapes = opt_shapes(recipe)
    any_labels = recipe.metric is not None and metric_from_text(recipe.metric).any_labels

    def opened(source: str | None) -> Dataset | None:
        if source is None:
            return None
        return open_dataset(source, inputs, preprocess=preprocess, shapes=shapes, any_labels=any_labels)

    return DataSets(opened(recipe.calib_data), opened(recipe.eval_data))


def metric_sha256(recipe: Recipe) -> str | None:
    """The hash of the file with the user's own metric; None without one. Other code measures something else."""
    metric = None if recipe.metric is None else metric_from_text(recipe.metric)
    return metric.code.sha256 if isinstance(metric, UserMetric) else None


def data_warnings(data: DataSets, *, allow_same: bool) -> tuple[str, ...]:
    """What the user should know about the data a result rests on.

    Args:
        data: The samples.
        allow_same: Say nothing where calibration and evaluation data are the same.
    """
    calibration, evaluation = data.calibration, data.evaluation
    notes = []
    if calibration is not None and calibration.is_random:
        notes.append(
            "the ranges come from RANDOM data: this engine is good for timing, its answers are not to be trusted"
        )
    hashes = [dataset.provenance().sha256 for dataset in (calibration, evaluation) if dataset is not None]
    if len(hashes) == 2 and hashes[0] == hashes[1] and not allow_same:
        notes.append(
            "calibration and evaluation data are the same: the accuracy shown is flattering; give others, or say "
            "--allow-same-data"
        )
    return tuple(notes)


def opt_shapes(recipe: Recipe) -> dict[str, Shape]:
    """The most frequent shapes as the recipe tells them."""
    return shapes_from_text(recipe.opt_shapes or recipe.max_shapes or "")


def source_model(
    path: Path,
    model: onnx.ModelProto,
    samples: tuple[Sample, ...],
    judge: Judge,
    progress: Progress,
    *,
    choice: PassChoice | None = None,
) -> SourceModel:
    """Rewrites a model until its target takes it; half-precision weights become float32 first, exactly.

    Args:
        path: Where the model came from.
        model: The model.
        samples: On which every pass is verified.
        judge: Says what the target refuses.
        progress: Told of every pass.
        choice: Which passes may run.
    """
    original = runnable(model)
    wide = widened_to_float32(original) if holds_half_floats(original) else original
    rewritten, report = made_buildable(wide, judge, samples, progress, choice=choice)
    return SourceModel(path, original, with_unique_node_names(rewritten), report)


def runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its opset raised if ONNX Runtime does not run it, and standard operators if it imports none."""
    model = with_standard_operators(model)
    return model if opset(model) >= OLDEST_OPSET else converted_to_opset(model, MODERN_OPSET)


def require_method(recipe: Recipe, target: Target) -> None:
    """Refuses, before any work is done, a quantisation method that the target has no kernels or no interface for.

    Raises:
        TargetError: The target's library reads no calibration cache, or no FP8 or INT4.
        UnsupportedModelError: A GPU of the target lacks the kernels.
    """
    if recipe.method is not None:
        require_target(recipe.method, target, recipe.weights)


def _lacks_data(recipe: Recipe) -> bool:
    """Whether the method needs ranges and there is nothing to take them from."""
    wants = recipe.method is not None and METHODS[recipe.method].needs_data
    return wants and recipe.calib_data is None and recipe.table is None and recipe.from_cache is None


def precision_request(recipe: Recipe) -> PrecisionRequest:
    """The recipe's part about precision.

    Without data there is no method: only a model that comes quantised gets so far, and it keeps what it has.
    """
    return PrecisionRequest(
        method=None if _lacks_data(recipe) else recipe.method,
        fp16=recipe.wants_fp16,
        io_fp16=recipe.io_fp16,
        exclude=recipe.exclude,
        activation_products=recipe.activation_products,
        weights=recipe.weights,
        block_size=recipe.block_size,
        image=_image(recipe),
        typed=_types_decide(recipe),
    )


def _types_decide(recipe: Recipe) -> bool:
    """Whether the types in the graph decide every precision where it is to be built, and not the builder's flags."""
    target = target_from_text(recipe.target) if recipe.target else None
    if recipe.method == Implicit.name:
        return False
    return not isinstance(target, TensorRTTarget) or target.version is None or support_of(target.version).binds_types


def parser_notes(recipe: Recipe, model: onnx.ModelProto) -> tuple[str, ...]:
    """What the user should know about the opset, where a version of TensorRT is to read the model.

    Args:
        recipe: The request, with its target.
        model: What its parser reads.
    """
    target = target_from_text(recipe.target) if recipe.target else None
    if not isinstance(target, TensorRTTarget) or target.version is None:
        return ()
    newest = support_of(target.version).newest_opset
    if newest is None or opset(model) <= newest:
        return ()
    return (
        f"the graph has opset {opset(model)}, the parser of TensorRT {target.version} is documented up to {newest}: "
        "what changed since may be refused or misread; export the model with an older one",
    )


def import_notes(recipe: Recipe, source: SourceModel) -> tuple[str, ...]:
    """What the user should know about the quantisation that the model came with."""
    found = source.report.imported
    if found is None or found.undone is not None:
        return ()
    notes = []
    method = precision_request(recipe).method
    if "dynamic" in found.kinds and method is None:
        notes.append(
            "the model came dynamically quantised, which TensorRT does not have: its weights stay INT8, its "
            "activations are float; --int8 --calib-data DATA makes them INT8 too"
        )
    elif "dynamic" in found.kinds and method is not None and METHODS[method].needs_data:
        notes.append("the model came dynamically quantised; its activations got fixed ranges from the calibration data")
    elif "dynamic" in found.kinds:
        notes.append("the model came dynamically quantised, which TensorRT does not have: its activations are float")
    measured_only = recipe.method is not None and recipe.calib_data is not None and found.zero_points != "regrid"
    if is_quantized(source.rewritten) and measured_only:
        notes.append("the model came quantised and keeps its scales: the calibration data only tell what FP16 can hold")
    return tuple(notes)


def _image(recipe: Recipe) -> Preprocess | None:
    """How the UINT8 image that goes in becomes the model's input; None without `image_input`."""
    return preprocess_from_text(recipe.preprocess) if recipe.image_input and recipe.preprocess else None


def ranges_table(
    recipe: Recipe, graph: FloatGraph, data: Dataset | None, progress: Progress
) -> CalibrationTable | None:
    """The ranges the graph's precisions need: from a table if one was given, else from a data pass.

    The calibrator "auto" looks at some of the samples a second time, to choose between thresholds.

    Returns:
        None where nothing has to be looked at, or there is nothing to look with (FP16 without data).

    Raises:
        StaleError: The table was made for something else.
    """
    if not graph.taps.all:
        return None
    calibrator = calibrator_from_text(FALLBACK_CALIBRATOR if is_native(recipe.calibrator) else recipe.calibrator)
    if recipe.table is not None:
        table = table_from_file(Path(recipe.table))
        if not recipe.reuse_table:
            check_table(
                table,
                model_sha256=fingerprint(graph.model),
                calibrator=table.calibrator if table.data.cache is not None else str(calibrator),
                dataset=data,
                where=recipe.table,
            )
        return table
    if data is None:
        return None
    optimised = not graph.came_quantized
    found = calibration_pass(graph.model, graph.taps, data, calibrator, progress, optimised=optimised)
    return chosen_table(graph, found, data, progress) if isinstance(calibrator, Auto) else found.table


def ranged(
    recipe: Recipe, source: SourceModel, data: DataSets, progress: Progress
) -> tuple[FloatGraph, CalibrationTable | None, CacheImport | None]:
    """The model made ready and its ranges: from a calibration cache, a table, or a data pass.

    Returns:
        The graph, in which layers that a calibration cache has no ranges for stay in float; its ranges, as
        `ranges_table` gives them; and how the cache fitted, None without one.

    Raises:
        RequestError: A cache was given for a model that came quantised.
        DataError: The cache cannot be read.
        StaleError: The table or the cache was made for something else.
        UnsupportedModelError: No layer can be quantised.
    """
    graph = float_graph(source.rewritten, precision_request(recipe))
    if recipe.from_cache is None:
        return graph, ranges_table(recipe, graph, data.calibration, progress), None
    if graph.came_quantized:
        raise RequestError(
            "the model came quantised and keeps its scales: a calibration cache has nothing to do",
            hint="give the float model it was made from, or leave --from-cache out",
        )
    found = imported_cache(recipe, source.original, graph, (data.calibration, data.evaluation), progress)
    return found.graph, found.table, found


def import_choice(recipe: Recipe, model: onnx.ModelProto, data: DataSets, progress: Progress) -> ImportChoice:
    """How a model that comes quantised is imported: on a few samples, and with the ranges of all where these count."""
    samples = tuple(islice(data.calibration or data.evaluation or (), SAMPLES_TO_MEASURE))
    ranges: dict[str, tuple[float, float]] = {}
    if recipe.zero_points == "regrid" and data.calibration is not None and is_quantized(model):
        ranges = _ranges_seen(model, data.calibration, progress)
    return ImportChoice(
        zero_points=zero_points_from_text(recipe.zero_points),
        samples=samples,
        ranges=ranges,
        float_weights=precision_request(recipe).method is not None,
    )


def _ranges_seen(model: onnx.ModelProto, data: Dataset, progress: Progress) -> dict[str, tuple[float, float]]:
    """The lowest and highest number of everything that a quantised model quantises, over all samples."""
    normal = normal_form(with_unique_node_names(runnable(model))).model
    quantised = dict.fromkeys(node.input[0] for node in normal.graph.node if node.op_type == "QuantizeLinear")
    taps, calibrator = Taps((), tuple(quantised)), calibrator_from_text("minmax")
    table = calibration_table(normal, taps, data, calibrator, progress, optimised=False)
    return {name: (seen.low, seen.high) for name, seen in table.ranges.items()}


def loaded(recipe: Recipe, judge: Judge, progress: Progress) -> tuple[SourceModel, DataSets]:
    """The first steps of every verb: read the model, change its ends as asked, open the data, import, run the passes.

    Raises:
        RequestError: A method was asked for that has nothing to do, because the model came quantised.
    """
    path = Path(recipe.model)
    asked = with_asked_ends(load_model(path), recipe.ends)
    data = data_sets(recipe, asked.model)
    request = precision_request(recipe)
    choice = PassChoice(
        skip=passes_among(recipe.skip_pass),
        on_request=recipe.ends.passes,
        least_opset=least_opset(request),
        importing=import_choice(recipe, asked.model, data, progress),
    )
    source = source_model(path, asked.model, data.first_samples, judge, progress, choice=choice)
    if recipe.method not in (None, Static.name):
        _require_use(recipe, source)
    return replace(source, tail=asked.tail), data


def _require_use(recipe: Recipe, source: SourceModel) -> None:
    """Refuses a method that has nothing to do, or nothing to do it with, because the model came quantised."""
    if is_quantized(source.rewritten):
        raise RequestError(
            f"the model came quantised and keeps its quantisation: --quantization {recipe.method} has nothing to do",
            hint="give the float model it was made from, or leave the option out",
        )
    if _lacks_data(recipe):
        raise RequestError(
            f"--quantization {recipe.method} needs ranges, and this quantised model brings none that could be kept",
            hint="--calib-data DATA; or leave the option out, its weights stay quantised then",
        )
