"""The options that several verbs share, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="The ONNX file.", show_default=False)]
OptionalModel = Annotated[str | None, typer.Argument(help="The ONNX file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
CalibData = Annotated[
    str | None,
    typer.Option(
        help="Samples for the ranges: .npz, .npy, a folder of .npz files or images, module:function, random:N.",
        show_default=False,
    ),
]
EvalData = Annotated[
    str | None, typer.Option(help="Samples to measure accuracy on, with `labels` if there are any.", show_default=False)
]
PreprocessText = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        help="How images become inputs: resize=256, crop=224, layout=NCHW, color=RGB, scale=1/255, mean=…, std=… "
        "in one text, quoted.",
        show_default=False,
    ),
]
CalibratorText = Annotated[
    str | None,
    typer.Option(
        "--calibrator", help="entropy, minmax, percentile, mse, or auto: chosen per tensor.", show_default="entropy"
    ),
]
TargetText = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="rtx, rtx:8.6, rtx:8.6+8.9, tensorrt, tensorrt:8.6@orin.",
        show_default="TensorRT with a GPU, else rtx",
    ),
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="A node to leave in float; may be given several times.", show_default=False)
]
Int8 = Annotated[
    bool | None, typer.Option("--int8", help="INT8 where the placement policy says so.", show_default=False)
]
Quantization = Annotated[
    str | None,
    typer.Option(
        help="How to quantise: static, weights-only, full-integer, fp8, implicit.", show_default="static with --int8"
    ),
]
Weights = Annotated[str | None, typer.Option(help="What weights-only stores: int8 or int4.", show_default="int8")]
BlockSize = Annotated[int | None, typer.Option(help="INT4 weights that share one scale.", show_default="128")]
ZeroPoints = Annotated[
    str | None,
    typer.Option(
        "--zero-points",
        help="Of a model that comes quantised: fold them into biases (same numbers), or regrid (fewer nodes).",
        show_default="fold",
    ),
]
ImageInput = Annotated[
    bool | None,
    typer.Option(
        "--image-input",
        help="With full-integer: a UINT8 NHWC image goes in, --preprocess's arithmetic is part of the engine.",
        show_default=False,
    ),
]
Fp16 = Annotated[
    bool | None,
    typer.Option("--fp16/--no-fp16", help="FP16 for the layers that are not INT8.", show_default="yes when quantising"),
]
IoFp16 = Annotated[
    bool | None, typer.Option("--io-fp16", help="FP16 graph inputs and outputs too.", show_default=False)
]
ActivationProducts = Annotated[
    bool | None,
    typer.Option("--activation-products", help="INT8 for MatMuls of two activations too.", show_default=False),
]
Table = Annotated[
    str | None, typer.Option(help="A calibration table to use instead of a data pass.", show_default=False)
]
ReuseTable = Annotated[
    bool | None,
    typer.Option(
        "--reuse-table", help="Use the table or cache even if it was made for something else.", show_default=False
    ),
]
FromCache = Annotated[
    str | None,
    typer.Option("--from-cache", help="A TensorRT calibration cache to take INT8 ranges from.", show_default=False),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the output file.")]
FreezeInput = Annotated[
    list[str] | None,
    typer.Option(
        help="Make a graph input a constant: name=value, or an .npz file with one array per name; several times.",
        show_default=False,
    ),
]
WidenIo = Annotated[
    bool | None,
    typer.Option(
        "--widen-io", help="int16, uint16, uint32, uint64 inputs and outputs become int32 or int64.", show_default=False
    ),
]
Fp8AsQdq = Annotated[
    bool | None,
    typer.Option(
        "--fp8-as-qdq", help="Casts to and from FLOAT8E4M3FN become Q/DQ pairs of scale 1.", show_default=False
    ),
]
Nms = Annotated[
    str | None,
    typer.Option(
        help="NonMaxSuppression: keep it, make it TensorRT's plugin, or split the model there (keep|plugin|split).",
        show_default="keep",
    ),
]
SkipPass = Annotated[
    list[str] | None, typer.Option(help="A graph pass to leave out; may be given several times.", show_default=False)
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        help="Budget: most points of the metric lost; leaves layers in float until it is met.", show_default=False
    ),
]
MinSqnr = Annotated[float | None, typer.Option(help="Budget: least SQNR of every output, dB.", show_default=False)]
MinAgreement = Annotated[
    float | None, typer.Option(help="Budget: least share of equal top-1 answers, percent.", show_default=False)
]
MetricText = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="What --max-drop is about: top1, top5, agreement, cosine, or your package.module:function.",
        show_default="top1",
    ),
]
Int8All = Annotated[
    bool | None,
    typer.Option("--int8-all", help="INT8 also for layers that would ruin the output.", show_default=False),
]
AllowSameData = Annotated[
    bool | None,
    typer.Option(
        "--allow-same-data", help="Calibrate and evaluate with the same data without a warning.", show_default=False
    ),
]
Seed = Annotated[
    int | None, typer.Option(help="Which evaluation samples steer a search, and which judge it.", show_default="0")
]
UseDla = Annotated[
    int | None, typer.Option(help="Build for this core of the Deep Learning Accelerator.", show_default="the GPU")
]
GpuFallback = Annotated[
    bool | None,
    typer.Option("--gpu-fallback", help="With --use-dla: run on the GPU what the DLA cannot.", show_default=False),
]
VersionCompatible = Annotated[
    bool | None,
    typer.Option("--version-compatible", help="An engine that newer versions of TensorRT run too.", show_default=False),
]
HardwareCompatible = Annotated[
    bool | None,
    typer.Option("--hardware-compatible", help="An engine for every GPU since Ampere.", show_default=False),
]
TacticSources = Annotated[
    list[str] | None,
    typer.Option(
        "--tactic-source",
        help="A library TensorRT may take kernels from, by its name (EDGE_MASK_CONVOLUTIONS …); repeatable.",
        show_default="TensorRT's choice",
    ),
]
TensorrtPython = Annotated[
    str | None,
    typer.Option(
        "--tensorrt-python",
        help="The Python that has TensorRT, where it is not this one: JetPack's is /usr/bin/python3.",
        show_default="TRT_OPT_TENSORRT_PYTHON, else the first that has it",
    ),
]
ResultFile = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write the result as JSON too.", show_default=False)
]
Streams = Annotated[int, typer.Option(help="Requests in flight at the same time.")]
Threads = Annotated[
    int | None, typer.Option(help="ONNX Runtime's threads in one request.", show_default="ONNX Runtime's choice")
]
CudaGraph = Annotated[
    bool, typer.Option("--cuda-graph/--no-cuda-graph", help="Replay an engine's kernels as a CUDA graph.")
]
Transfers = Annotated[
    bool, typer.Option("--transfers/--no-transfers", help="Copies to and from the GPU count in the latency.")
]
