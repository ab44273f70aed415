"""`trt-opt regress record|check|accept|show|export|import|ab`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.regress_ab import ab
from trt_opt.cli.session import session, verb

if TYPE_CHECKING:
    from trt_opt.regress.history import History
    from trt_opt.values.regression import RegressionReport

regress = typer.Typer(help="Keep measurements, and say whether something became worse.", no_args_is_help=True)
regress.command("ab")(ab)

HistoryFile = Annotated[
    Path, typer.Option("--history", help="The history: one SQLite file on a local disk.", show_default=True)
]
Wait = Annotated[float, typer.Option("--wait", help="How long to wait for other writers, seconds.")]
Written = Annotated[Path | None, typer.Option(help="Write the check in this form too.", show_default=False)]
Run = Annotated[str | None, typer.Option(help="A run's id, or how it begins.", show_default="the newest", metavar="ID")]

DEFAULT = Path("history.db")
WAIT_S = 30.0


@regress.command()
@verb
def record(
    results: Annotated[
        list[Path], typer.Argument(help="What bench, compare, build or regress ab wrote.", show_default=False)
    ],
    history: HistoryFile = DEFAULT,
    label: Annotated[str, typer.Option(help="Your word for this run: a commit, a build number.")] = "",
    model: Annotated[
        str | None, typer.Option(help="What the model is called in the history.", show_default="the file's name")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Record again what was recorded before.")] = False,
    wait: Wait = WAIT_S,
    json: options.Json = False,
) -> None:
    """Record results together as one run, and print its id."""
    from trt_opt.regressing.recording import record_files
    from trt_opt.report.regress import show_recorded, show_recording_notes
    from trt_opt.report.show import show

    with _opened(history, wait, writable=True) as opened:
        recorded = record_files(results, opened, label=label, model=model, force=force)
    show(recorded, show_recorded, session().out, as_json=json)
    show(recorded, show_recording_notes, session().err, as_json=False)


@regress.command()
@verb
def check(
    run: Run = None,
    history: HistoryFile = DEFAULT,
    model: Annotated[
        str | None, typer.Option(help="Only this model's series.", show_default="every one of the run")
    ] = None,
    floor: Annotated[
        list[str] | None,
        typer.Option(help="The least change that matters, as in latency_ms=3%; several times.", show_default=False),
    ] = None,
    confidence: Annotated[float, typer.Option(help="How sure a FAIL must be, percent.")] = 99.0,
    across: Annotated[
        list[str] | None,
        typer.Option(
            help="A part of the environment that may differ: host, cores, driver, power_mode, clocks_locked, governor; "
            "several times.",
            show_default=False,
        ),
    ] = None,
    allow_invalid: Annotated[
        bool, typer.Option("--allow-invalid", help="Judge with figures of a machine that was not quiet, too.")
    ] = False,
    allow_inconclusive: Annotated[
        bool, typer.Option("--allow-inconclusive", help="Exit with 0 where nothing could be told.")
    ] = False,
    junit: Written = None,
    markdown: Written = None,
    openmetrics: Written = None,
    wait: Wait = WAIT_S,
    json: options.Json = False,
) -> None:
    """Hold a run against its history; exits 1 if something became worse, or if that cannot be told."""
    from trt_opt.errors import RequestError
    from trt_opt.files import require_free
    from trt_opt.regressing.checking import PARTS, CheckRequest, check_run, floors_from_text
    from trt_opt.report.regress import show_check
    from trt_opt.report.show import show

    for part in across or ():
        if part not in PARTS:
            raise RequestError(f"the environment has no part {part!r}", hint=f"one of {', '.join(PARTS)}")
    for file in filter(None, (junit, markdown, openmetrics)):
        require_free(file, force=True, source=str(history))
    request = CheckRequest(
        run, model, floors_from_text(floor or ()), confidence / 100, tuple(across or ()), allow_invalid
    )
    with _opened(history, wait, writable=False) as opened:
        report = check_run(opened, request)
    _write_forms(report, {"junit": junit, "markdown": markdown, "openmetrics": openmetrics}, allow_inconclusive)
    show(report, show_check, session().out, as_json=json)
    if report.verdict == "FAIL" or (report.verdict == "INCONCLUSIVE" and not allow_inconclusive):
        raise typer.Exit(1)


@regress.command()
@verb
def accept(
    run: Annotated[str, typer.Argument(help="The run's id, or how it begins.", metavar="RUN", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why this change is meant.", show_default=False)],
    history: HistoryFile = DEFAULT,
    model: Annotated[str, typer.Option(help="Only this model's series.", show_default="every one of the run")] = "",
    metric: Annotated[str, typer.Option(help="Only this figure, as in engine_bytes.", show_default="every one")] = "",
    wait: Wait = WAIT_S,
    json: options.Json = False,
) -> None:
    """Accept what changed with a run: from it on, figures are no longer held against older ones."""
    from trt_opt.regress.metrics import metric_of
    from trt_opt.report.regress import show_acceptance
    from trt_opt.report.show import show

    if metric:
        metric_of(metric)
    with _opened(history, wait, writable=True, existing=True) as opened:
        accepted = opened.accept(opened.run(run).id, reason, model=model, metric=metric)
    show(accepted, show_acceptance, session().out, as_json=json)


@regress.command("show")
@verb
def show_history(
    history: HistoryFile = DEFAULT,
    model: Annotated[str | None, typer.Option(help="Only this model.", show_default="all")] = None,
    metric: Annotated[str | None, typer.Option(help="Only this figure, as in latency_ms.", show_default="all")] = None,
    wait: Wait = WAIT_S,
    json: options.Json = False,
) -> None:
    """Show the series of a history."""
    from trt_opt.regressing.checking import listing
    from trt_opt.report.regress import show_listing
    from trt_opt.report.show import show

    with _opened(history, wait, writable=False) as opened:
        found = listing(opened, model=model, metric=metric)
    show(found, show_listing, session().out, as_json=json)


@regress.command("export")
@verb
def export_history(
    file: Annotated[Path, typer.Argument(help="The file to write, one run per line.", show_default=False)],
    history: HistoryFile = DEFAULT,
    force: options.Force = False,
    wait: Wait = WAIT_S,
    json: options.Json = False,
) -> None:
    """Write a history as JSON lines."""
    from trt_opt.files import require_free, written_whole
    from trt_opt.regress.exchange import Exported, lines_of
    from trt_opt.report.regress import show_exported
    from trt_opt.report.show import show

    require_free(file, force=force, source=str(history))
    with _opened(history, wait, writable=False) as opened:
        runs = opened.stored()
    with written_whole(file) as out:
        out.writelines(line.encode() for line in lines_of(runs))
    show(Exported(str(file), len(runs)), show_exported, session().out, as_json=json)


@regress.command("import")
@verb
def import_history(
    file: Annotated[Path, typer.Argument(help="What `regress export` wrote.", show_default=False)],
    history: HistoryFile = DEFAULT,
    wait: Wait = WAIT_S,
    json: options.Json = False,
) -> None:
    """Take the runs of another history; those that are here already are left out."""
    from trt_opt.errors import RequestError
    from trt_opt.regress.exchange import runs_of
    from trt_opt.report.regress import show_imported
    from trt_opt.report.show import show

    try:
        text = file.read_bytes().decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RequestError(
            f"it cannot be read ({reason})", where=str(file), hint="what regress export wrote"
        ) from error
    runs = runs_of(text, where=str(file))
    with _opened(history, wait, writable=True) as opened:
        imported = opened.take(runs)
    show(imported, show_imported, session().out, as_json=json)


@contextmanager
def _opened(file: Path, wait_s: float, *, writable: bool, existing: bool = False) -> Iterator[History]:
    """The history, and what it has to say of itself on stderr."""
    from trt_opt.errors import RequestError
    from trt_opt.regress.history import History

    if not 0 <= wait_s <= 3600:
        raise RequestError(f"--wait is between 0 and 3600 seconds, not {wait_s:g}")
    told = 0
    if existing:
        with _opened(file, wait_s, writable=False):
            pass
    with History(file, writable=writable, timeout_s=wait_s) as opened:
        try:
            for note in opened.notes:
                session().err.write(f"warning: {note}\n")
            told = len(opened.notes)
            yield opened
        finally:
            for note in opened.notes[told:]:
                session().err.write(f"warning: {note}\n")


def _write_forms(report: RegressionReport, files: dict[str, Path | None], allow_inconclusive: bool) -> None:
    from trt_opt.files import write_atomically
    from trt_opt.report.junit import junit_text
    from trt_opt.report.markdown import markdown_text
    from trt_opt.report.openmetrics import openmetrics_text

    forms: dict[str, Callable[[], str]] = {
        "junit": lambda: junit_text(report, allow_inconclusive=allow_inconclusive),
        "markdown": lambda: markdown_text(report),
        "openmetrics": lambda: openmetrics_text(report),
    }
    for name, file in files.items():
        if file is not None:
            write_atomically(file, forms[name]())
