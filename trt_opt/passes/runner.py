"""Running passes to a fixed point, with every step checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from onnx import ModelProto

from trt_opt.errors import TrtOptError
from trt_opt.graph.check import check_model
from trt_opt.graph.query import count_nodes
from trt_opt.passes import PASSES, find_pass
from trt_opt.passes.base import Pass
from trt_opt.passes.verification import Outputs, difference, run_model
from trt_opt.values.progress import Progress, Silent
from trt_opt.values.rewriting import Change, Decline, PassReport, RewriteReport
from trt_opt.values.samples import Sample

MAX_ROUNDS = 20
"""A pass that still changes something after this many rounds is undoing its own work, or another's."""


def rewrite(
    model: ModelProto,
    *,
    passes: Mapping[str, Pass] = PASSES,
    samples: Sequence[Sample] = (),
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    progress: Progress | None = None,
) -> tuple[ModelProto, RewriteReport]:
    """Runs the passes, each and all together, until nothing changes.

    After every pass that changed something the graph is checked and, with samples, run in ONNX Runtime; a pass whose
    graph is invalid or whose outputs differ beyond `verification.TOLERANCE` from those before it is undone, named in
    the report, and not run again.

    Args:
        model: Is not edited.
        passes: What to run, in order.
        samples: Feeds to compare before and after on; all of them are run after every pass, so a few are enough.
        only: Names of passes; all others are left out. Passes that run only on request may be named too.
        skip: Names of passes to leave out.
        progress: Told of every pass.

    Raises:
        RequestError: No pass of such a name.
        UnsupportedModelError: ONNX Runtime cannot run the model as it is, so nothing can be compared.
    """
    chosen = _choose(passes, tuple(only), tuple(skip))
    state = _State(model, _Judge(model, samples), progress or Silent())
    state.progress.start("rewrite", None, "passes")
    for _ in range(MAX_ROUNDS):
        before = state.model
        for entry in chosen:
            state.run_to_fixed_point(entry)
            state.progress.advance()
        if state.model is before:
            break
    state.progress.finish()
    report = RewriteReport(
        passes=tuple(state.logs[entry.name].report(entry.name) for entry in chosen),
        nodes_before=count_nodes(model),
        nodes_after=count_nodes(state.model),
        compared_samples=len(samples),
        max_relative_error=state.judge.error_since_start() if samples else None,
    )
    return state.model, report


def _choose(passes: Mapping[str, Pass], only: tuple[str, ...], skip: tuple[str, ...]) -> tuple[Pass, ...]:
    for name in (*only, *skip):
        if name not in passes:
            find_pass(name)
    extra = [find_pass(name) for name in only if name not in passes]
    kept = [entry for name, entry in passes.items() if (not only or name in only) and name not in skip]
    return (*extra, *kept)


@dataclass
class _Log:
    changed: list[Change] = field(default_factory=list)
    declined: tuple[Decline, ...] = ()
    rolled_back: str | None = None

    def report(self, name: str) -> PassReport:
        return PassReport(name, tuple(self.changed), self.declined, self.rolled_back)


class _Judge:
    """Says whether a new model may take the place of the one before it."""

    def __init__(self, model: ModelProto, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self.first = self.latest = run_model(model, samples) if samples else ()
        self.known_operators_only, self.shapes = _strictest_check(model)

    def why_refused(self, model: ModelProto, name: str) -> str:
        """Why the model may not, or an empty text; its outputs are then what the next is compared with."""
        try:
            check_model(model, name, shapes=self.shapes, known_operators_only=self.known_operators_only)
            outputs: Outputs = run_model(model, self.samples) if self.samples else ()
        except TrtOptError as error:
            return error.what
        _, reason = difference(self.latest, outputs)
        if not reason:
            self.latest = outputs
        return reason

    def error_since_start(self) -> float:
        return difference(self.first, self.latest)[0]


def _strictest_check(model: ModelProto) -> tuple[bool, bool]:
    """How strictly the model can be checked: what it fails before any pass, no pass is blamed for."""
    for known_operators_only, shapes in ((True, True), (True, False), (False, True)):
        try:
            check_model(model, "model", shapes=shapes, known_operators_only=known_operators_only)
        except TrtOptError:
            continue
        return known_operators_only, shapes
    return False, False


class _State:
    def __init__(self, model: ModelProto, judge: _Judge, progress: Progress) -> None:
        self.model = model
        self.judge = judge
        self.progress = progress
        self.logs: dict[str, _Log] = {}

    def run_to_fixed_point(self, entry: Pass) -> None:
        """Repeats one pass; all its rounds are kept, or, where one is refused, none of this call's."""
        log = self.logs.setdefault(entry.name, _Log())
        if log.rolled_back is not None:
            return
        model, changes = self.model, list[Change]()
        for _ in range(MAX_ROUNDS):
            model, report = entry.run(model)
            log.declined = report.declined
            if not report.changed:
                break
            changes += report.changed
        else:
            log.rolled_back = f"it did not come to an end within {MAX_ROUNDS} rounds"
            return
        if not changes:
            return
        reason = self.judge.why_refused(model, entry.name)
        if reason:
            log.rolled_back = reason
            return
        self.model = model
        log.changed += changes
