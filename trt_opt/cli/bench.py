"""`trt-opt bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import command_line, session, verb


@verb
def bench(
    files: Annotated[
        list[str], typer.Argument(help="ONNX files and engines; they take turns.", metavar="FILE…", show_default=False)
    ],
    data: Annotated[
        str | None, typer.Option(help="Where the first sample comes from.", show_default="random numbers")
    ] = None,
    preprocess: options.PreprocessText = None,
    batch: Annotated[
        str | None, typer.Option(help="Rows per request, one size after the other: 1,8,32.", show_default=False)
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="Shapes of dynamic inputs: name:1x3x224x224,…", show_default=False)
    ] = None,
    streams: options.Streams = 1,
    cuda_graph: options.CudaGraph = False,
    transfers: options.Transfers = True,
    threads: options.Threads = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Time each layer too, behind the rounds, with the library's profiler.")
    ] = False,
    rounds: Annotated[int, typer.Option(help="How often each side is timed, in turns.")] = 20,
    round_s: Annotated[float, typer.Option(help="How long a round lasts at least, seconds.")] = 0.2,
    warm_up_s: Annotated[float, typer.Option(help="How long a side may warm up, seconds.")] = 10.0,
    via: Annotated[
        str | None, typer.Option(help="trtexec: let NVIDIA's program time engines.", show_default=False)
    ] = None,
    tensorrt_python: options.TensorrtPython = None,
    allow_invalid: Annotated[
        bool, typer.Option("--allow-invalid", help="Exit with 0 even if the machine was not quiet.")
    ] = False,
    output: options.ResultFile = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Time models and engines in turns, and watch the machine meanwhile; exits 1 if the run is invalid."""
    from trt_opt.benching import BenchRequest, batches_from_text, benchmark, via_from_text
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.files import require_free, write_atomically
    from trt_opt.report.bench import show_benchmark
    from trt_opt.report.show import show
    from trt_opt.values.codec import json_from_value
    from trt_opt.values.shapes import shapes_from_text
    from trt_opt.values.timing import TimingSettings

    if output is not None:
        require_free(output, force=force)
    request = BenchRequest(
        files=tuple(files),
        settings=TimingSettings(rounds, round_s, warm_up_s, streams, cuda_graph, transfers, threads, layers),
        batches=batches_from_text(batch),
        data=data,
        preprocess=preprocess,
        shapes=shapes_from_text(shape or ""),
        python=tensorrt_python,
        via=via_from_text(via),
        command=command_line(),
    )
    result = benchmark(request, TerminalProgress(session().err))
    if output is not None:
        write_atomically(output, json_from_value(result))
    show(result, show_benchmark, session().out, as_json=json)
    if not result.is_valid and not allow_invalid:
        raise typer.Exit(1)
