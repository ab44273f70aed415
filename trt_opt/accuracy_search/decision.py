"""Which layers run in INT8: as placed, above the floor, or as a budget wants it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from trt_opt.accuracy_search.budget import SEARCHED_METHODS, Budget, budget_of, limits_of
from trt_opt.accuracy_search.floor import floor_of
from trt_opt.accuracy_search.journal import Journal
from trt_opt.accuracy_search.judging import Judge
from trt_opt.accuracy_search.reasons import causes_of, told_reasons
from trt_opt.accuracy_search.reporting import notes_on, report_of
from trt_opt.accuracy_search.search import Search
from trt_opt.accuracy_search.state import State, assigned
from trt_opt.accuracy_search.steps import Steps
from trt_opt.compare import Limits
from trt_opt.errors import RequestError
from trt_opt.preparation import DataSets, SourceModel
from trt_opt.quantize.stage import FloatGraph, QuantizedGraph, quantized_graph
from trt_opt.recipe import Recipe
from trt_opt.values.accuracy import Comparison
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Dataset
from trt_opt.values.search import SearchReport


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """The graph to build, and how it came about.

    Attributes:
        source: Its float graph.
        table: Its ranges; None without calibration.
        graph: The graph.
        limits: The bounds that the verdict is about, none without a budget, and the metric asked for.
        judged_on: The samples to tell its accuracy on, which a search never saw; None without evaluation data.
        search: What was searched and found; None where INT8 stayed as placed.
        warnings: What the user should know.
        journal: The search's memory, to be closed when all is done.
    """

    source: FloatGraph
    table: CalibrationTable | None
    graph: QuantizedGraph
    limits: Limits
    judged_on: Dataset | None
    search: SearchReport | None = None
    warnings: tuple[str, ...] = ()
    journal: Journal | None = None

    def reported(self, found: Comparison | None) -> SearchReport | None:
        """The search's report with the verdict of the samples it never saw.

        Args:
            found: The graph against the model as given on `judged_on`, judged by `limits`.
        """
        if self.search is None or self.search.kind == "floor" or found is None:
            return self.search
        return replace(
            self.search, reported=found, samples_reported=found.samples, verdict=found.verdict, reason=found.reason
        )


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A model with its ranges, of which layers may go back to float.

    Attributes:
        recipe: The request.
        source: The model as given and as rewritten.
        data: The samples.
        graph: The rewritten model made ready, every layer placed that the policy allows.
        table: The ranges; None where none are needed.
        progress: Told of everything.
        journal: Where a search keeps what it measured; None keeps nothing.
    """

    recipe: Recipe
    source: SourceModel
    data: DataSets
    graph: FloatGraph
    table: CalibrationTable | None
    progress: Progress
    journal: Path | None = None


def decided(question: Question, key: str) -> Decision:
    """Decides which layers run in INT8, and writes the graph.

    Args:
        question: The model.
        key: What decides every measurement of the search; a journal of another key is begun anew.

    Raises:
        RequestError: A budget was asked for that nothing can be searched or judged with.
        DataError: The data do not fit.
    """
    recipe, calibration, table = question.recipe, question.data.calibration, question.table
    budget = budget_of(recipe, question.data)
    if table is None or calibration is None or question.graph.request.method not in SEARCHED_METHODS:
        if budget is not None:
            raise _unsearchable(question.graph)
        return _as_placed(question)
    if table.data.cache is not None:
        if budget is not None:
            raise _unsearchable(question.graph)
        return _as_placed(question)
    if budget is None and (recipe.int8_all or calibration.is_random):
        return _as_placed(question)
    return _searched(question, table, calibration, budget, key)


def _unsearchable(graph: FloatGraph) -> RequestError:
    if graph.came_quantized:
        return RequestError(
            "the model came quantised and keeps its quantisation: there is nothing to search",
            hint="give the float model it was made from, or leave the budget out",
        )
    return RequestError("a budget is about INT8 of calibrated ranges", hint="--int8 --calib-data DATA")


def _as_placed(question: Question) -> Decision:
    table = question.table
    graph = quantized_graph(question.graph, table.ranges if table else {})
    return Decision(question.graph, table, graph, limits_of(question.recipe), question.data.evaluation)


def _searched(
    question: Question, table: CalibrationTable, calibration: Dataset, budget: Budget | None, key: str
) -> Decision:
    """The graph that a search ends with: for a budget, or to stay above the floor where there is none."""
    recipe, progress, aim = question.recipe, question.progress, budget or floor_of(calibration)
    state = State(table.calibrator, question.source.rewritten, question.graph.request, question.graph, table)
    journal = Journal(None if budget is None else question.journal, key)
    judge = Judge(question.source.original, aim, calibration, journal, progress)
    try:
        answer = Search(state, judge, Steps(recipe, calibration, progress), aim, progress).run()
    except KeyboardInterrupt:
        if journal.kept_in is not None:
            progress.note(f"what was measured is kept in {journal.kept_in}: the same command goes on from there")
        raise
    if budget is None and answer.is_as_placed:
        return _as_placed(question)
    causes = causes_of(answer.state, answer.spared, question.source.original, calibration, progress)
    reasons = told_reasons(answer.spared, answer.state.request.wide, causes)
    assignment = assigned(answer.state, reasons, calibration)
    report = report_of(answer, judge, aim, assignment, reasons, recalled=journal.recalled)
    return Decision(
        assignment.source,
        assignment.table,
        assignment.graph,
        limits_of(recipe),
        question.data.evaluation if budget is None else budget.report,
        report,
        notes_on(report),
        journal,
    )
