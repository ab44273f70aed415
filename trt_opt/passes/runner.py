"""Running passes to a fixed point, with every step checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from onnx import ModelProto

from trt_opt.errors import TrtOptError, UnsupportedModelError
from trt_opt.graph.check import check_model, strictness_of
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.query import count_nodes
from trt_opt.passes import PASSES, find_pass
from trt_opt.passes.base import Pass
from trt_opt.passes.verification import Outputs, difference, run_in_reference, run_model
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
    listener = progress or Silent()
    rewriting = Rewriting(model, samples, listener)
    listener.start("rewrite", None, "passes")
    rewriting.run(chosen_passes(passes, tuple(only), tuple(skip)))
    listener.finish()
    return rewriting.model, rewriting.report()


def chosen_passes(passes: Mapping[str, Pass], only: tuple[str, ...], skip: tuple[str, ...]) -> tuple[Pass, ...]:
    """The passes that `only` and `skip` leave, in order; `only` may name passes that otherwise run on request.

    Raises:
        RequestError: No pass of such a name.
    """
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
    undone: tuple[Change, ...] = ()

    def report(self, name: str) -> PassReport:
        return PassReport(name, tuple(self.changed), self.declined, self.rolled_back, self.undone)


class _Judge:
    """Says whether a new model may take the place of the one before it.

    Outputs come from ONNX Runtime. Where it says that they differ, but onnx's reference implementation says of both
    models that they do not, one of its kernels is inexact (QLinearConv of UINT8 x INT8 saturates on CPUs without
    VNNI): from then on the reference judges.
    """

    def __init__(self, model: ModelProto, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self.first_model = self.latest_model = model
        self.first = self.latest = run_model(model, samples) if samples else ()
        self.by_reference = False
        self.strictness = strictness_of(model)

    def why_refused(self, model: ModelProto, name: str) -> str:
        """Why the model may not, or an empty text; its outputs are then what the next is compared with."""
        try:
            self._check(model, name)
            outputs = self._run(model)
        except TrtOptError as error:
            return error.what
        _, reason = difference(self.latest, outputs)
        if reason and not self.by_reference and self._agrees_by_reference(model):
            return ""
        if not reason:
            self.latest_model, self.latest = model, outputs
        return reason

    def error_since_start(self) -> float:
        return difference(self.first, self.latest)[0]

    def _check(self, model: ModelProto, name: str) -> None:
        try:
            check_model(
                model, name, shapes=self.strictness.shapes, known_operators_only=self.strictness.known_operators_only
            )
        except TrtOptError as error:
            if error.what != self.strictness.broken_rule:
                raise
            if not self.samples:
                what = f"the model breaks a rule of ONNX as it is, and nothing could be compared: {error.what}"
                raise UnsupportedModelError(what) from error

    def _run(self, model: ModelProto) -> Outputs:
        if not self.samples:
            return ()
        return run_in_reference(model, self.samples) or () if self.by_reference else run_model(model, self.samples)

    def _agrees_by_reference(self, model: ModelProto) -> bool:
        first, before, after = (
            run_in_reference(entry, self.samples) for entry in (self.first_model, self.latest_model, model)
        )
        if first is None or before is None or after is None or difference(before, after)[1]:
            return False
        self.by_reference, self.first, self.latest, self.latest_model = True, first, after, model
        return True


class Rewriting:
    """A model on its way through passes, each step checked; what was done in several calls makes one report.

    Args:
        model: Is not edited.
        samples: Feeds to compare before and after on.
        progress: Told of every pass; whoever runs several rounds starts and finishes it.

    Attributes:
        model: As it is now.

    Raises:
        UnsupportedModelError: The model cannot be run as it is, so nothing can be compared.
    """

    def __init__(self, model: ModelProto, samples: Sequence[Sample] = (), progress: Progress | None = None) -> None:
        self.model = model
        self._nodes_before = count_nodes(model)
        self._judge = _Judge(model, samples)
        self._progress = progress or Silent()
        self._logs: dict[str, _Log] = {}
        self._settled: dict[tuple[str, frozenset[str] | None], ModelProto] = {}

    def run(self, passes: Sequence[Pass]) -> bool:
        """Runs the passes, each and all together, until nothing changes; says whether anything did."""
        start = self.model
        for _ in range(MAX_ROUNDS):
            before = self.model
            for entry in passes:
                self._run_to_fixed_point(entry)
                self._progress.advance()
            if self.model is before:
                break
        return self.model is not start

    def name_nodes(self) -> None:
        """Gives every node a name of its own, which is no change of what the model computes."""
        self.model = with_unique_node_names(self.model)

    def report(self) -> RewriteReport:
        """What was done so far."""
        samples = self._judge.samples
        return RewriteReport(
            passes=tuple(log.report(name) for name, log in self._logs.items()),
            nodes_before=self._nodes_before,
            nodes_after=count_nodes(self.model),
            compared_samples=len(samples),
            max_relative_error=self._judge.error_since_start() if samples else None,
            by_reference=self._judge.by_reference,
        )

    def _run_to_fixed_point(self, entry: Pass) -> None:
        """Repeats one pass; all its rounds are kept, or, where one is refused, none of this call's."""
        log = self._logs.setdefault(entry.name, _Log())
        if log.rolled_back is not None or self._settled.get((entry.name, entry.refused)) is self.model:
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
            self._settled[entry.name, entry.refused] = model
            return
        reason = self._judge.why_refused(model, entry.name)
        if reason:
            log.rolled_back, log.undone = reason, tuple(changes)
            return
        self.model = model
        self._settled[entry.name, entry.refused] = model
        log.changed += changes
