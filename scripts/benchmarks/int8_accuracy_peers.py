"""Quantises one model with a peer for int8_accuracy.py; run as a process of its own, in the peer's environment.

    PYTHON scripts/benchmarks/int8_accuracy_peers.py TOOL MODEL CALIBRATION_FOLDER OUTPUT

TOOL is `onnxruntime:METHOD` (onnx, onnxruntime, sympy) or `modelopt:METHOD` (an environment of its own, because it pins
other versions: `pip install nvidia-modelopt[onnx]`). Nothing of trt-opt is imported here.

Every peer gets more than a user would think of: initialisers that are no inputs, opset 13 or later, one size per
dimension where all samples have one, what its own preprocessing makes of the model, and, should that fail, the model as
it came. What remains is in FP32.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader

Array = NDArray[np.generic]
MODERN_OPSET = 13
"""DequantizeLinear has an axis from here on, which one scale per channel needs."""

COMPUTE_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Samples(CalibrationDataReader):
    """The .npz files of a folder, one feed each, as ONNX Runtime and ModelOpt want to be fed."""

    def __init__(self, folder: Path) -> None:
        self._files = sorted(folder.glob("*.npz"))
        self.rewind()

    def get_next(self) -> Mapping[str, Array] | None:
        """The next feed, None after the last."""
        return next(self._feeds, None)

    def get_first(self) -> Mapping[str, Array]:
        """The first feed, whatever was read before."""
        return next(self._all())

    def rewind(self) -> None:
        """Begins again."""
        self._feeds = self._all()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Input → its shape in all samples; inputs whose shape varies are left out."""
        seen: dict[str, set[tuple[int, ...]]] = {}
        for feed in self._all():
            for name, array in feed.items():
                seen.setdefault(name, set()).add(array.shape)
        return {name: next(iter(shapes)) for name, shapes in seen.items() if len(shapes) == 1}

    def _all(self) -> Iterator[Mapping[str, Array]]:
        for file in self._files:
            with np.load(file) as stored:
                yield {name: stored[name] for name in stored.files}


def prepared(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """The model without the peers' known stumbling blocks."""
    ready = onnx.ModelProto()
    ready.CopyFrom(model)
    constants = {tensor.name for tensor in ready.graph.initializer}
    inputs = [value for value in ready.graph.input if value.name not in constants]
    del ready.graph.input[:]
    ready.graph.input.extend(inputs)
    ready.ir_version = max(ready.ir_version, 8)
    standard = next((entry.version for entry in ready.opset_import if entry.domain in ("", "ai.onnx")), MODERN_OPSET)
    if standard < MODERN_OPSET:
        ready = raised(ready)
    for value in ready.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    del ready.graph.value_info[:]
    if len(shapes) == len(inputs):
        for value in ready.graph.output:
            for dim in value.type.tensor_type.shape.dim:
                if not dim.HasField("dim_value"):
                    dim.Clear()
    return onnx.shape_inference.infer_shapes(ready)


def raised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at opset 13, or as it is where onnx's own converter fails."""
    try:
        return onnx.version_converter.convert_version(model, MODERN_OPSET)
    except Exception as error:  # noqa: BLE001  the peer then gets the opset that the model has
        print(f"opset not raised: {error}", file=sys.stderr)
        return model


def by_onnxruntime(method: str, model: Path, samples: Samples, output: Path) -> None:
    """What TensorRT takes of quantize_static: pairs, symmetric INT8, one weight scale per channel, float biases."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    algorithm, _, which = method.partition("-")
    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    preprocessed = output.with_suffix(".preprocessed.onnx")
    try:
        quant_pre_process(model, preprocessed)
    except Exception as error:  # noqa: BLE001  symbolic shape inference gives up on some models
        print(f"pre-processing without symbolic shapes: {error}", file=sys.stderr)
        quant_pre_process(model, preprocessed, skip_symbolic_shape=True)
    quantize_static(
        preprocessed,
        output,
        samples,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(COMPUTE_OPS) if which == "compute" else None,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=methods[algorithm],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
    preprocessed.unlink()


def by_modelopt(method: str, model: Path, samples: Samples, output: Path) -> None:
    """ModelOpt with its defaults but FP32 for the rest, on the CPU."""
    from modelopt.onnx.quantization import quantize

    shapes = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in samples.shapes.items() if shape)
    options: dict[str, Any] = {"calibration_shapes": shapes} if shapes else {}
    quantize(
        str(model),
        quantize_mode="int8",
        calibration_method=method,
        calibration_data_reader=samples,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(output),
        log_level="WARNING",
        **options,
    )


TOOLS: Mapping[str, Callable[[str, Path, Samples, Path], None]] = {
    "onnxruntime": by_onnxruntime,
    "modelopt": by_modelopt,
}


def quantized(tool: str, model: Path, samples: Samples, output: Path) -> None:
    """Writes a file that ONNX Runtime loads, from the prepared model or, failing that, from the given one.

    Raises:
        Exception: What the peer said about the prepared model, if neither worked.
    """
    with TemporaryDirectory() as folder:
        ready = Path(folder) / "model.onnx"
        onnx.save(prepared(onnx.load(model), samples.shapes), ready)
        try:
            attempt(tool, ready, samples, output)
        except Exception as error:  # noqa: BLE001  the model as it came is the second attempt
            print(f"the prepared model: {error}", file=sys.stderr)
            try:
                attempt(tool, model, samples, output)
            except Exception:  # noqa: BLE001  whatever it is, the prepared model's failure tells more
                output.unlink(missing_ok=True)
                raise error from None


def attempt(tool: str, model: Path, samples: Samples, output: Path) -> None:
    """Writes the file and loads it."""
    name, _, method = tool.partition(":")
    samples.rewind()
    output.unlink(missing_ok=True)
    TOOLS[name](method, model, samples, output)
    load(output)


def load(file: Path) -> None:
    """Checks the file, and loads it as the judge will."""
    onnx.checker.check_model(onnx.load(file))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Quantises; a failure is the last line on standard error."""
    tool, model, folder, output = sys.argv[1:]
    try:
        quantized(tool, Path(model), Samples(Path(folder)), Path(output))
    except Exception as error:  # the caller shows the message
        lines = " ".join(str(error).split()) or repr(error)
        print(f"{type(error).__name__}: {lines}", file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
