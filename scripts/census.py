"""How many models of ONNX's own test suite a target takes, before and after rewriting, and which of these are right.

    python scripts/census.py --work FOLDER [--only REGEX] [--report docs/measured/census.md]

Every model is rewritten as `trt-opt rewrite` does it: first by default, inputs and outputs as they are; then, where the
target still refuses it, with the options that change them (--freeze-input, --widen-io). "Accepted" means that the
target's parser and builder take it; "verified" that the rewritten model also gives the suite's expected outputs, on
ONNX Runtime or else onnx's reference implementation. Results go to FOLDER/census.jsonl one by one: started again, it
goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from census_cases import Case, all_cases
from census_report import report_of

from trt_opt.acceptance import Judge, LibraryJudge
from trt_opt.backends import Backend, backend_for
from trt_opt.buildable import made_buildable
from trt_opt.ends import EndsRequest, with_asked_ends
from trt_opt.errors import RequestError, TrtOptError
from trt_opt.graph.build_time_inputs import build_time_inputs
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.passes.verification import run_in_reference, run_model
from trt_opt.preparation import runnable
from trt_opt.values.progress import Silent
from trt_opt.values.rewriting import Acceptance, RewriteReport
from trt_opt.values.samples import Sample
from trt_opt.values.target import target_from_text

RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""The tolerances of onnx's own test runner, against the suite's expected outputs."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `trt-opt rewrite` that one attempt used."""

    freeze: tuple[str, ...] = ()
    widen_io: bool = False

    def text(self) -> str:
        """As they are written in the report."""
        told = [f"--freeze-input {name}" for name in self.freeze] + ["--widen-io"] * self.widen_io
        return " ".join(told)


class WithFeed:
    """A judge that knows the sizes even where the model itself cannot be run."""

    def __init__(self, judge: Judge, samples: Sequence[Sample]) -> None:
        self._judge = judge
        self._samples = samples

    def acceptance(self, model: onnx.ModelProto, samples: Sequence[Sample]) -> Acceptance:
        """Asks with the case's own feed."""
        return self._judge.acceptance(model, samples or self._samples)


def record_of(case: Case, judge: Judge, *, opt_ins: bool = True) -> dict[str, Any]:
    """What becomes of one model: as it is, rewritten by default, and with options."""
    started = time.monotonic()
    first = attempt(case, judge, Options())
    if runnable(case.model) is not case.model:
        first["before"] = is_taken(judge.acceptance(with_unique_node_names(case.model), _samples(case.model, case)))
    record = {"key": case.key, "operators": sorted({node.op_type for node in case.model.graph.node}), **first}
    if opt_ins and not (first["accepted"] and first["verified"]):
        for options in options_worth_trying(case):
            found = attempt(case, judge, options)
            if found["accepted"] and found["verified"]:
                record["with_options"] = {**found, "options": options.text()}
                break
    return {**record, "seconds": round(time.monotonic() - started, 2)}


def attempt(case: Case, judge: Judge, options: Options) -> dict[str, Any]:
    """Rewrites a model with these options and says what came of it."""
    try:
        ends = EndsRequest(_frozen(case, options), widen_io=options.widen_io)
        model = runnable(with_asked_ends(case.model, ends).model)
    except TrtOptError as error:
        return {"accepted": False, "verified": False, "refused": [["", "", str(error)]]}
    try:
        rewritten, report = _rewritten(case, model, judge)
    except TrtOptError as error:
        return {"accepted": False, "verified": False, "refused": [["", "", str(error)]]}
    found = _figures(report)
    wrong = why_wrong(case, rewritten) if found["accepted"] else ""
    return {**found, "verified": found["accepted"] and not wrong, "wrong": wrong}


def _rewritten(case: Case, model: onnx.ModelProto, judge: Judge) -> tuple[onnx.ModelProto, RewriteReport]:
    samples = _samples(model, case)
    asked = WithFeed(judge, samples)
    try:
        return made_buildable(model, asked, samples, Silent())
    except TrtOptError:
        # Neither ONNX Runtime nor onnx can run the model as it is: rewritten it may still be judged by its outputs.
        return made_buildable(model, asked, (), Silent())


def _samples(model: onnx.ModelProto, case: Case) -> tuple[Sample, ...]:
    feed = feed_for(model, case)
    return () if feed is None else (Sample("the suite's", feed),)


def is_taken(found: Acceptance | None) -> bool:
    """Whether parser and builder take the model and read it as ONNX means it."""
    return found is not None and found.built and not found.refused


def _figures(report: RewriteReport) -> dict[str, Any]:
    before, after = report.before, report.after
    return {
        "before": is_taken(before),
        "accepted": is_taken(after),
        "passes": [entry.name for entry in report.passes if entry.changed],
        "rolled_back": {entry.name: entry.rolled_back for entry in report.passes if entry.rolled_back},
        "refused": [[entry.node, entry.op_type, entry.reason, entry.hint] for entry in after.refused] if after else [],
        "notes": list(after.notes) if after else [],
        "compared": report.compared_samples,
    }


def feed_for(model: onnx.ModelProto, case: Case) -> dict[str, Any] | None:
    """The case's inputs in the types the model wants now; None where one is no tensor, or there is none."""
    feed = {}
    for spec in graph_inputs(model):
        value = case.feed.get(spec.name)
        if not isinstance(value, np.ndarray):
            return None
        feed[spec.name] = value.astype(spec.dtype) if spec.dtype in ("int32", "int64") else value
    return feed


def why_wrong(case: Case, model: onnx.ModelProto) -> str:
    """Why the model's outputs are not the expected ones; an empty text where they are."""
    samples = _samples(model, case)
    if not samples or not case.expected:
        return "the suite has no data for it"
    try:
        reason = _first_difference(run_model(model, samples)[0], case)
    except TrtOptError as error:
        return str(error)
    if reason and (outputs := run_in_reference(model, samples)) is not None:
        return _first_difference(outputs[0], case) and reason
    return reason


def _first_difference(outputs: Mapping[str, Any], case: Case) -> str:
    names = [spec.name for spec in graph_outputs(case.model)]
    reasons = {name: _difference(outputs[name], value) for name, value in zip(names, case.expected, strict=False)}
    return next((f"{name}: {reason}" for name, reason in reasons.items() if reason), "")


def _difference(found: Any, expected: Any) -> str:
    one, other = np.asarray(found), np.asarray(expected)
    if one.shape != other.shape:
        return f"shape {one.shape}, expected {other.shape}"
    if other.dtype.kind in "OSU":
        return "" if np.array_equal(one.astype(str), other.astype(str)) else "strings differ"
    kind = np.complex128 if "c" in (one.dtype.kind, other.dtype.kind) else np.float64
    with np.errstate(all="ignore"):
        same = np.isclose(one.astype(kind), other.astype(kind), RELATIVE, ABSOLUTE, equal_nan=True)
    return "" if same.all() else f"{int((~same).sum())} of {same.size} values differ"


def options_worth_trying(case: Case) -> Iterator[Options]:
    """What a user would try next: fix the inputs that decide shapes, widen the ends, both."""
    freeze = tuple(name for name in build_time_inputs(case.model) if isinstance(case.feed.get(name), np.ndarray))
    widen = any(spec.dtype in _WIDENED for spec in (*graph_inputs(case.model), *graph_outputs(case.model)))
    if freeze:
        yield Options(freeze=freeze)
    if widen:
        yield Options(widen_io=True)
    if freeze and widen:
        yield Options(freeze=freeze, widen_io=True)


_WIDENED = ("int8", "uint8", "int16", "uint16", "uint32", "uint64")


def _frozen(case: Case, options: Options) -> list[str]:
    return [f"{name}={json.dumps(np.asarray(case.feed[name]).tolist())}" for name in options.freeze]


_WORKER: dict[str, Any] = {}


def start_worker(target: str) -> None:
    """Loads the suite and starts the target's library, once per process."""
    os.nice(5)
    backend: Backend = backend_for(target_from_text(target)).__enter__()
    _WORKER.update(judge=LibraryJudge(backend, thorough=True), cases={case.key: case for case in all_cases()})


def work(key: str, *, opt_ins: bool) -> dict[str, Any]:
    """One model, in a worker process; a defect of ours is recorded and does not end the census."""
    try:
        return record_of(_WORKER["cases"][key], _WORKER["judge"], opt_ins=opt_ins)
    except Exception:  # noqa: BLE001  the boundary of the process
        defect = traceback.format_exc()
        return {"key": key, "accepted": False, "verified": False, "defect": defect, "refused": [["", "", "defect"]]}


def main() -> None:
    """Goes through the suite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the results so far")
    parser.add_argument("--target", default="rtx:8.6")
    parser.add_argument("--only", default="", help="a regular expression over the keys")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="measure models again that failed")
    parser.add_argument("--no-options", action="store_true", help="measure the default alone")
    parser.add_argument("--report", type=Path, help="a Markdown file to write")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    file = options.work / "census.jsonl"
    done = known_records(file, failed=not options.again)
    keys = [case.key for case in all_cases()]
    todo = [key for key in keys if key not in done and re.search(options.only, key)]
    print(f"{len(keys)} models, {len(done)} known, {len(todo)} to do", file=sys.stderr)
    with file.open("a", encoding="utf-8") as out:
        for position, record in enumerate(measured(todo, options), 1):
            done[record["key"]] = record
            out.write(json.dumps(record) + "\n")
            out.flush()
            if position % 100 == 0 or position == len(todo):
                print(f"{position}/{len(todo)}", file=sys.stderr)
    text = report_of([done[key] for key in keys if key in done], options.target)
    print(text)
    if options.report is not None:
        options.report.write_text(text, encoding="utf-8")


def known_records(file: Path, *, failed: bool) -> dict[str, Mapping[str, Any]]:
    """What an earlier run measured; a line cut off by an interruption is left out."""
    known: dict[str, Mapping[str, Any]] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        known[record["key"]] = record
    return {key: record for key, record in known.items() if failed or record["verified"] or "with_options" in record}


def measured(keys: Sequence[str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The records, as they come."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        options.workers, mp_context=context, initializer=start_worker, initargs=(options.target,)
    ) as pool:
        for future in as_completed([pool.submit(work, key, opt_ins=not options.no_options) for key in keys]):
            yield future.result()


if __name__ == "__main__":
    if not sys.flags.dev_mode:
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
    try:
        main()
    except RequestError as error:
        sys.exit(str(error))
