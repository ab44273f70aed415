"""`trt-opt report`: what was asked for, gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from trt_opt import __version__
from trt_opt.errors import RequestError
from trt_opt.regressing.checking import latest_report
from trt_opt.run_report.distributions import distributions_of
from trt_opt.run_report.reading import results_of
from trt_opt.values.engine import Manifest
from trt_opt.values.progress import Progress
from trt_opt.values.report_content import Distribution, ReportContent


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """What a page is to show.

    Attributes:
        runs: Results, engines' folders, folders of results.
        history: A history of `trt-opt regress`; its newest run is shown against it.
        model: The float model whose histograms are wanted.
        calib_data: Its data.
        layers: Which layers' inputs.
        title: What the page is called; None makes one up.
    """

    runs: tuple[str, ...] = ()
    history: str | None = None
    model: str | None = None
    calib_data: str | None = None
    layers: tuple[str, ...] = ()
    title: str | None = None

    def __post_init__(self) -> None:
        if not self.runs and self.history is None and self.model is None:
            raise RequestError(
                "there is nothing to report", hint="name results or an engine's folder, or give --history DB"
            )
        if (self.model is None) != (self.calib_data is None):
            raise RequestError("histograms need both --model and --calib-data")
        if self.layers and self.model is None:
            raise RequestError(
                "--layers chooses histograms, for which there are no data", hint="--model and --calib-data"
            )


def content_of(request: ReportRequest, progress: Progress) -> ReportContent:
    """Reads everything, and runs the calibration data where histograms are wanted.

    Raises:
        RequestError: A file is missing, or holds something else.
        DataError: The data do not fit the model.
    """
    found = results_of(request.runs)
    if request.history is not None:
        found["regressions"] += (latest_report(Path(request.history)),)
    distributions: tuple[Distribution, ...] = ()
    if request.model is not None and request.calib_data is not None:
        distributions = distributions_of(
            request.model, request.calib_data, request.layers, found["sensitivities"], progress
        )
    sources = (*request.runs, *filter(None, (request.history, request.model, request.calib_data)))
    return ReportContent(
        title=request.title or _title(request, found["manifests"]),
        made_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tool=f"trt-opt {__version__}",
        distributions=distributions,
        sources=sources,
        **found,
    )


def _title(request: ReportRequest, manifests: Sequence[Manifest]) -> str:
    """The engine's name where there is one engine, else those of the files."""
    if len(manifests) == 1:
        return f"{manifests[0].model.name} in {manifests[0].variants[-1].name}"
    names = [Path(file).resolve().name for file in (*request.runs, *filter(None, (request.history,)))]
    known = ", ".join(names[:3]) or Path(request.model or "").name
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"trt-opt report: {known}{more}"
