"""Writes the folder that `trt-opt qat` leaves: the configuration, the script that inserts it, and how to go on."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import onnx

from trt_opt.acceptance import judge_for
from trt_opt.backends import target_or_default
from trt_opt.build.staging import staging_folder
from trt_opt.errors import RequestError, UnsupportedModelError
from trt_opt.files import require_free_folder, sha256_of_file, storage_error, write_atomically
from trt_opt.graph.load import load_model
from trt_opt.graph.names import with_unique_node_names
from trt_opt.preparation import loaded, precision_request, ranges_table
from trt_opt.qat.configuration import configuration_of
from trt_opt.quantize.stage import float_graph, is_quantized
from trt_opt.recipe import Recipe
from trt_opt.values.codec import json_from_value
from trt_opt.values.progress import Progress
from trt_opt.values.qat import QatConfiguration, QatFolder

CONFIGURATION = "qat.json"
SCRIPT = "qat_insert.py"
INSTRUCTIONS = "HOW_TO.md"

_HOW_TO = """\
# Training {model} for INT8

1. `import qat_insert`, then `quantized = qat_insert.prepare(model, example_input)` puts {quantizers} \
fake-quantisers on activations and {layers} on weights, where TensorRT quantises. `model` is the trained PyTorch model.
2. `quantized.train()`, then train as before: same data, same loss, 5 to 10 % of the original epochs.
3. Learning rate: 1 to 3 % of the float training's peak, falling to 0 (cosine), no warm-up; the scales have their own: \
`torch.optim.AdamW(qat_insert.parameter_groups(quantized, 1e-4), weight_decay=1e-2)`.
4. BatchNormalization is folded into the weights, its statistics no longer move; leave it so.
5. Activation scales are learnt too; `prepare(..., learn_scales=False)` keeps them as calibrated.
6. `quantized.eval()` computes what TensorRT will: measure accuracy there, keep the best epoch.
7. `qat_insert.export(quantized, example_input, "qat.onnx")` writes the scales as Q/DQ and the weights as INT8.
8. `trt-opt build qat.onnx --int8 --eval-data DATA` builds it; no calibration data, its scales are kept.
9. A place that is not found is named in the error; `trt-opt qat --exclude NODE` leaves it in float.
10. Needs PyTorch 2.8 or later and onnxscript. `qat.json` holds every place and scale, and what stays float and why.
"""


def written_folder(recipe: Recipe, folder: Path, progress: Progress, *, force: bool) -> QatFolder:
    """Calibrates a model and writes what training it for INT8 needs.

    Args:
        recipe: The model, its data, and what to leave in float; precisions are set here.
        folder: Where to write; made if it does not exist.
        progress: Told of every step.
        force: Replace the three files in a folder that exists.

    Raises:
        RequestError: The folder exists, or the data or an option are wrong.
        UnsupportedModelError: No layer can run in INT8, or the model is quantised already.
        StorageError: The folder cannot be written.
    """
    require_free_folder(folder, force=force)
    configuration = _configuration(replace(recipe, int8=True, quantization="static", fp16=False), progress)
    texts = {
        CONFIGURATION: json_from_value(configuration),
        SCRIPT: files("trt_opt.qat").joinpath(SCRIPT).read_text(encoding="utf-8"),
        INSTRUCTIONS: _HOW_TO.format(
            model=Path(configuration.model).name,
            quantizers=len(configuration.activations),
            layers=sum(bool(layer.scales) for layer in configuration.layers),
        ),
    }
    if folder.is_dir():
        for name, text in texts.items():
            write_atomically(folder / name, text)
    else:
        _write_new(folder, texts)
    return QatFolder(str(folder), tuple(texts), configuration)


def _configuration(recipe: Recipe, progress: Progress) -> QatConfiguration:
    if recipe.calib_data is None and recipe.table is None:
        raise RequestError("there is nothing to calibrate with", hint="--calib-data DATA")
    model = with_unique_node_names(load_model(recipe.model))
    _check_float(model, recipe.model)
    with judge_for(target_or_default(recipe.target), thorough=False) as judge:
        source, data = loaded(recipe, judge, progress)
    graph = float_graph(source.rewritten, precision_request(recipe))
    table = ranges_table(recipe, graph, data.calibration, progress)
    if table is None:
        raise RequestError("this model has no tensor to calibrate", where=recipe.model)
    return configuration_of(graph, table, model, model=recipe.model, model_sha256=sha256_of_file(Path(recipe.model)))


def _check_float(model: onnx.ModelProto, where: str) -> None:
    if is_quantized(model):
        raise UnsupportedModelError(
            "this model is quantised already, training starts from the float model",
            where=where,
            hint="the ONNX file exported before quantisation; or `trt-opt build` this one as it is",
        )


def _write_new(folder: Path, texts: dict[str, str]) -> None:
    """All files or no folder."""
    with staging_folder(folder.absolute().parent) as staging:
        for name, text in texts.items():
            write_atomically(staging / name, text)
        try:
            staging.rename(folder)
        except OSError as error:
            raise storage_error(error, folder) from error
