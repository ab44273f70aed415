"""`trt-opt regress ab`."""

from __future__ import annotations

from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb


@verb
def ab(
    base: Annotated[str, typer.Argument(help="The ONNX file or engine as it was.", show_default=False)],
    candidate: Annotated[str, typer.Argument(help="The ONNX file or engine as it is now.", show_default=False)],
    data: Annotated[
        str | None, typer.Option(help="Samples; the first one is fed.", show_default="random numbers")
    ] = None,
    preprocess: options.PreprocessText = None,
    batch: Annotated[int | None, typer.Option(help="Rows per request.", show_default=False)] = None,
    shape: Annotated[
        str | None, typer.Option(help="Shapes of dynamic inputs: name:1x3x224x224,…", show_default=False)
    ] = None,
    floor: Annotated[str, typer.Option(help="The least slowdown that matters.")] = "2%",
    confidence: Annotated[float, typer.Option(help="How sure a FAIL and a PASS must be, percent.")] = 99.0,
    pilot: Annotated[
        bool, typer.Option("--pilot/--no-pilot", help="Time the base against itself in the same turns.")
    ] = True,
    launches: Annotated[int, typer.Option(help="How often all sides are started before there is a verdict.")] = 10,
    most_launches: Annotated[
        int | None,
        typer.Option(help="How often at most, while the verdict is INCONCLUSIVE.", show_default="3 times --launches"),
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often each side is timed in a launch, in turns.")] = 5,
    round_s: Annotated[float, typer.Option(help="How long a round lasts, seconds.")] = 0.1,
    warm_up_s: Annotated[float, typer.Option(help="How long a side may warm up in a launch, seconds.")] = 1.0,
    streams: options.Streams = 1,
    threads: options.Threads = None,
    cuda_graph: options.CudaGraph = False,
    transfers: options.Transfers = True,
    tensorrt_python: options.TensorrtPython = None,
    allow_inconclusive: Annotated[
        bool, typer.Option("--allow-inconclusive", help="Exit with 0 where nothing could be told.")
    ] = False,
    allow_invalid: Annotated[
        bool, typer.Option("--allow-invalid", help="Judge even if the machine was not quiet; both sides bore it.")
    ] = False,
    output: options.ResultFile = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Time a candidate against a base, in turns; exits 1 if it is slower, or if that cannot be told."""
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.files import require_free, write_atomically
    from trt_opt.regress.ab import ABLimits, share_from_text
    from trt_opt.regressing.ab import ABRequest, ab_result
    from trt_opt.report.ab import show_ab
    from trt_opt.report.show import show
    from trt_opt.values.codec import json_from_value
    from trt_opt.values.shapes import shapes_from_text
    from trt_opt.values.timing import TimingSettings

    if output is not None:
        require_free(output, force=force)
    request = ABRequest(
        base=base,
        candidate=candidate,
        data=data,
        preprocess=preprocess,
        shapes=shapes_from_text(shape or ""),
        batch=batch,
        python=tensorrt_python,
        launches=launches,
        most_launches=3 * launches if most_launches is None else most_launches,
        settings=TimingSettings(rounds, round_s, warm_up_s, streams, cuda_graph, transfers, threads),
        pilot=pilot,
        limits=ABLimits(floor=share_from_text(floor), confidence=confidence / 100),
        allow_invalid=allow_invalid,
    )
    progress = TerminalProgress(session().err)
    result = ab_result(request, progress)
    if output is not None:
        write_atomically(output, json_from_value(result))
    show(result, show_ab, session().out, as_json=json)
    if result.verdict == "FAIL" or (result.verdict == "INCONCLUSIVE" and not allow_inconclusive):
        raise typer.Exit(1)
