"""`trt-opt lint`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb

Only = Annotated[
    list[str] | None,
    typer.Option(help="Check this rule and no others; may be given several times.", show_default=False),
]
Ignored = Annotated[
    list[str] | None, typer.Option(help="A rule to leave out; may be given several times.", show_default=False)
]


@verb
def lint(
    model: options.OptionalModel = None,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what is safe to mend, and write the result.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file --fix writes.", show_default=False)
    ] = None,
    sarif: Annotated[
        Path | None, typer.Option(help="Write the findings as SARIF 2.1.0 too.", show_default=False)
    ] = None,
    severity: Annotated[str, typer.Option(help="Show what is at least this severe: note, warning, error.")] = "note",
    fail_on: Annotated[str, typer.Option(help="Exit with 1 if something is: note, warning, error, never.")] = "error",
    rule: Only = None,
    ignore: Ignored = None,
    calib_data: options.CalibData = None,
    preprocess: options.PreprocessText = None,
    table: options.Table = None,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules and why they are there.")] = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Say before any build what will be wrong, slow or inaccurate in TensorRT, and mend what is safe to mend.

    Takes any ONNX model; a quantised one has more to find. Samples or a
    calibration table, if given, tell what would overflow in FP16. The exit
    code is 1 if something is found that is at least as severe as --fail-on.
    """
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.errors import RequestError
    from trt_opt.files import require_free, write_atomically
    from trt_opt.linting import LintRequest, lint_file, shown
    from trt_opt.quantize.lint import chosen_rules
    from trt_opt.report.lint import show_lint, show_rules
    from trt_opt.report.sarif import sarif_text
    from trt_opt.report.show import show
    from trt_opt.values.lint import RANKS, RuleList, Severity

    only, ignored = tuple(rule or ()), tuple(ignore or ())
    checked = tuple(entry.about for entry in chosen_rules(only, ignored))
    if rules:
        show(RuleList(checked), show_rules, session().out, as_json=json)
        return
    if model is None:
        raise RequestError("there is no model to lint", hint="trt-opt lint MODEL.onnx, or --rules")
    for option, text, allowed in (("severity", severity, RANKS), ("fail-on", fail_on, (*RANKS, "never"))):
        if text not in allowed:
            raise RequestError(f"there is no --{option} {text}", hint=f"one of {', '.join(allowed)}")
    if sarif is not None:
        require_free(sarif, force=True)
    written = None if output is None else str(output)
    request = LintRequest(model, fix, written, force, calib_data, preprocess, table, only, ignored)
    report = lint_file(request, TerminalProgress(session().err))
    wanted = shown(report, cast(Severity, severity))
    if sarif is not None:
        write_atomically(sarif, sarif_text(wanted, checked, Path.cwd()))
    show(wanted, show_lint, session().out, as_json=json)
    if fail_on != "never" and report.reaches(cast(Severity, fail_on)):
        raise typer.Exit(1)
