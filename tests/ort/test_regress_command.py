"""`trt-opt regress record|check|accept|show|export|import` over real results of `bench` and `compare`."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from command_line import run
from store_entries import fill
from typer.testing import Result

from trt_opt.errors import RequestError
from trt_opt.regressing.checking import latest_report
from trt_opt.regressing.figures import figures_of, origins_of
from trt_opt.regressing.recording import observations_of
from trt_opt.samples import DIGITS
from trt_opt.values.codec import json_from_value, value_from_json
from trt_opt.values.engine import BuildOutcome
from trt_opt.values.history import Observation
from trt_opt.values.json_schema import json_schema_of
from trt_opt.values.machine_state import CpuState, Environment, MachineIdentity, MachineState
from trt_opt.values.model_comparison import ModelComparison
from trt_opt.values.regression import ABResult, RegressionReport
from trt_opt.values.timing import Benchmark, LatencySummary, Timing

MODEL = str(DIGITS / "model.onnx")
DATA = str(DIGITS / "test.npz")

Write = Callable[..., str]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """What `bench` wrote of the digits model."""
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    quick = ("--rounds", "2", "--round-s", "0.02", "--warm-up-s", "0.5", "--allow-invalid")
    done = run("bench", MODEL, *quick, "-o", str(file))
    assert done.exit_code == 0, done.output
    found = value_from_json(Benchmark, file.read_text(), where="bench")
    # Whatever the state of this machine, the figures are taken as good.
    timings = tuple(dataclasses.replace(timing, problems=()) for timing in found.timings)
    return dataclasses.replace(
        found, timings=timings, environment=dataclasses.replace(found.environment, problems=()), random_data=False
    )


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> ModelComparison:
    """What `compare` wrote of the digits model against itself."""
    file = tmp_path_factory.mktemp("compare") / "compare.json"
    done = run("compare", MODEL, MODEL, "--data", DATA, "--no-timing", "-o", str(file))
    assert done.exit_code == 0, done.output
    return value_from_json(ModelComparison, file.read_text(), where="compare")


def scaled(timing: Timing, factor: float) -> Timing:
    """The timing of a machine so many times slower."""
    fields = [field.name for field in dataclasses.fields(LatencySummary) if field.name.endswith("_ms")]
    latency = dataclasses.replace(timing.latency, **{name: getattr(timing.latency, name) * factor for name in fields})
    return dataclasses.replace(timing, latency=latency, throughput_per_s=timing.throughput_per_s / factor)


@pytest.fixture
def write(benchmark: Benchmark, tmp_path: Path) -> Write:
    """Writes a result of the model that is so many times slower, and returns its file."""
    count = 0

    def written(
        factor: float = 1.0, *, host: str | None = None, problems: tuple[str, ...] = (), size: float = 1.0
    ) -> str:
        nonlocal count
        count += 1
        environment = dataclasses.replace(benchmark.environment, problems=problems)
        if host is not None:
            environment = dataclasses.replace(environment, machine=dataclasses.replace(environment.machine, host=host))
        timings = tuple(scaled(timing, factor) for timing in benchmark.timings)
        files = [dataclasses.replace(one.file, bytes=round(one.file.bytes * size)) for one in timings]
        timings = tuple(dataclasses.replace(one, file=file) for one, file in zip(timings, files, strict=True))
        result = dataclasses.replace(
            benchmark, timings=timings, environment=environment, measured_at=f"{benchmark.measured_at} {count}"
        )
        file = tmp_path / f"result-{count}.json"
        file.write_text(json_from_value(result), encoding="utf-8")
        return str(file)

    return written


@pytest.fixture
def regress(tmp_path: Path) -> Callable[..., Result]:
    """`trt-opt regress VERB …` with this test's history."""
    return lambda *arguments: run("regress", *arguments, "--history", str(tmp_path / "H.db"))


Regress = Callable[..., Result]


def nights(regress: Regress, write: Write, count: int = 12) -> None:
    """So many nights, one part in a thousand apart."""
    for night in range(count):
        assert regress("record", write(1.0 + 0.001 * (night % 3)), "--label", f"night {night}").exit_code == 0


def report_of(done: Result) -> RegressionReport:
    """The check, which its schema admits."""
    jsonschema.validate(json.loads(done.stdout), json_schema_of(RegressionReport))
    return value_from_json(RegressionReport, done.stdout, where="stdout")


def verdicts(report: RegressionReport) -> dict[str, str]:
    return {check.metric.name: check.verdict for check in report.checks}


def test_from_nothing_to_a_regression(regress: Regress, write: Write, tmp_path: Path) -> None:
    """Too little history is INCONCLUSIVE, the same again PASS, much slower FAIL, and PASS once it is accepted."""
    first = regress("record", write())
    assert first.exit_code == 0
    assert first.stdout.count("\n") == 1
    check = regress("check", "--json")
    assert (check.exit_code, report_of(check).verdict) == (1, "INCONCLUSIVE")
    assert report_of(check).run == first.stdout.strip()
    assert "not enough history" in report_of(check).reason
    assert regress("check", "--allow-inconclusive").exit_code == 0

    nights(regress, write)
    check = regress("check", "--json")
    assert (check.exit_code, report_of(check).verdict) == (0, "PASS")

    for _ in range(3):
        run_id = regress("record", write(1.5)).stdout.strip()
    check = regress("check", "--json", "--allow-inconclusive")
    assert (check.exit_code, report_of(check).verdict) == (1, "FAIL")
    assert verdicts(report_of(check))["latency_ms"] == "FAIL"
    assert verdicts(report_of(check))["onnx_bytes"] == "PASS"
    assert regress("check", "--run", first.stdout.strip(), "--allow-inconclusive").exit_code == 0
    assert regress("check", "--floor", "latency_ms=60%", "--floor", "throughput_per_s=60%").exit_code == 0

    accepted = regress("accept", run_id, "--reason", "a more accurate kernel")
    assert accepted.exit_code == 0, accepted.output
    for _ in range(6):
        assert regress("record", write(1.5)).exit_code == 0
    assert regress("check").exit_code == 0


def test_a_bigger_file_fails(regress: Regress, write: Write) -> None:
    """Size regresses too, while its times do not."""
    nights(regress, write)
    for _ in range(2):
        assert regress("record", write(size=1.3)).exit_code == 0
    check = regress("check", "--json")
    assert check.exit_code == 1
    assert verdicts(report_of(check)) == {
        "onnx_bytes": "FAIL",
        "latency_ms": "PASS",
        "throughput_per_s": "PASS",
        "memory_bytes": "PASS",
    }


def test_a_less_accurate_model_fails(regress: Regress, comparison: ModelComparison, tmp_path: Path) -> None:
    """Accuracy regresses too, from wherever it was measured."""
    for night in range(9):
        worse = night == 8
        task = comparison.comparisons[0].candidate_task
        assert task is not None
        one = dataclasses.replace(
            comparison.comparisons[0], candidate_task=dataclasses.replace(task, top1=task.top1 - 0.05 * worse)
        )
        sides = tuple(
            dataclasses.replace(side, precision=precision)
            for side, precision in zip(comparison.sides, ("FP32", "INT8"), strict=True)
        )
        result = dataclasses.replace(comparison, comparisons=(one,), sides=sides, measured_at=f"night {night}")
        file = tmp_path / f"{night}.json"
        file.write_text(json_from_value(result), encoding="utf-8")
        assert regress("record", str(file), "--model", "digits").exit_code == 0
    report = report_of(regress("check", "--json"))
    assert report.verdict == "FAIL"
    (failed,) = [check for check in report.checks if check.verdict == "FAIL"]
    assert (failed.metric.name, failed.key.precision, failed.key.model) == ("top1", "INT8", "digits")


def test_an_invalid_run_is_kept_and_not_judged(regress: Regress, write: Write) -> None:
    """A slow run on a hot machine is INCONCLUSIVE, and does not spoil what comes after it."""
    nights(regress, write)
    assert regress("record", write(5.0, problems=("the GPU was hot",))).exit_code == 0
    check = regress("check", "--json")
    assert check.exit_code == 1
    report = report_of(check)
    (latency,) = [check for check in report.checks if check.metric.name == "latency_ms"]
    assert latency.verdict == "INCONCLUSIVE"
    assert "the GPU was hot" in latency.reason
    assert [point.is_valid for point in latency.points] == [True] * 12 + [False]
    assert regress("record", write()).exit_code == 0
    assert regress("check").exit_code == 0


def test_invalid_figures_are_judged_with_where_that_is_allowed(regress: Regress, write: Write, tmp_path: Path) -> None:
    """With --allow-invalid nights on a busy machine are a history like any other; without it they say nothing."""
    busy = ("other processes kept the cores busy",)
    for night in range(12):
        assert regress("record", write(1.0 + 0.001 * (night % 3), problems=busy)).exit_code == 0
    assert regress("check", "--allow-invalid").exit_code == 0
    assert regress("record", write(5.0, problems=busy)).exit_code == 0
    judged = report_of(regress("check", "--allow-invalid", "--json"))
    assert verdicts(judged)["latency_ms"] == "FAIL"
    assert verdicts(latest_report(tmp_path / "H.db"))["latency_ms"] == "INCONCLUSIVE"


def test_another_environment_is_not_compared(regress: Regress, write: Write) -> None:
    """Times of another machine are no history, what differs is said, and the user may say that it does not matter."""
    nights(regress, write)
    assert regress("record", write(host="elsewhere")).exit_code == 0
    check = regress("check", "--json")
    assert check.exit_code == 1
    report = report_of(check)
    assert verdicts(report)["latency_ms"] == "INCONCLUSIVE"
    assert verdicts(report)["onnx_bytes"] == "PASS"
    (latency,) = [check for check in report.checks if check.metric.name == "latency_ms"]
    assert "12 more were measured under other conditions" in latency.reason
    assert "now elsewhere" in latency.reason
    assert len(latency.points) == 1
    assert regress("check", "--across", "host").exit_code == 0


def test_the_same_result_twice(regress: Regress, write: Write) -> None:
    """It is told and not recorded again, unless it is forced."""
    file = write()
    first = regress("record", file).stdout.strip()
    again = regress("record", file)
    assert (again.exit_code, again.stdout.strip()) == (0, first)
    assert "recorded already" in again.stderr
    forced = regress("record", file, "--force")
    assert forced.exit_code == 0
    assert forced.stdout.strip() != first


def test_several_results_are_one_run(
    regress: Regress, write: Write, comparison: ModelComparison, tmp_path: Path
) -> None:
    """A benchmark, a comparison and a build of one night are recorded together."""
    compared = tmp_path / "compare.json"
    side = dataclasses.replace(comparison.sides[1], precision="INT8")
    compared.write_text(json_from_value(dataclasses.replace(comparison, sides=(comparison.sides[0], side))))
    store = tmp_path / "store"
    store.mkdir()
    fill(store)
    done = regress("record", write(), str(compared), str(store), "--json")
    assert done.exit_code == 0, done.output
    run = json.loads(done.stdout)["run"]
    found = {(one["metric"], one["key"]["target"]) for one in run["observations"]}
    assert found >= {("latency_ms", "onnxruntime"), ("top1", "onnxruntime"), ("engine_bytes", "rtx:8.6+8.9")}
    assert ("build_s", "rtx:8.6+8.9") in found


def test_a_manifest_names_the_engine_that_was_timed(benchmark: Benchmark, tmp_path: Path) -> None:
    """An engine's figures belong to the model, precision and target it was built for."""
    manifest = fill(tmp_path)
    timing = dataclasses.replace(
        benchmark.timings[0], kind="tensorrt_rtx", file=manifest.engine, precision="", name="model.engine"
    )
    result = dataclasses.replace(benchmark, timings=(timing,))
    (latency,) = [one for one in observations_of([result, manifest]) if one.metric == "latency_ms"]
    assert (latency.key.model, latency.key.precision, latency.key.target) == ("model", "FP32", "rtx:8.6+8.9")
    sizes = [one for one in observations_of([result, manifest]) if one.metric == "engine_bytes"]
    assert {one.value for one in sizes} == {float(manifest.engine.bytes)}


def test_ab_results_and_build_outcomes(benchmark: Benchmark, tmp_path: Path, regress: Regress) -> None:
    """The candidate of an A/B run is recorded, and what `build --json` printed is its manifest."""
    candidate = dataclasses.replace(benchmark.timings[0], name="candidate", throughput_per_s=7.0)
    result = ABResult(
        benchmark.timings[0], candidate, "latency_ms", None, None, "INCONCLUSIVE", "why", benchmark.environment
    )
    figures = figures_of(result, naming := _naming())
    assert naming.model is None
    assert [one.value for one in figures if one.metric == "throughput_per_s"] == [7.0]
    outcome = BuildOutcome("model.engine", "manifest.json", fill(tmp_path), reused=False)
    file = tmp_path / "build.json"
    file.write_text(json_from_value(outcome))
    assert regress("record", str(file)).exit_code == 0


def _naming():  # type: ignore[no-untyped-def]
    from trt_opt.regressing.figures import Naming

    return Naming(None, origins_of(()))


def test_two_models_in_one_series_are_refused(benchmark: Benchmark) -> None:
    """Two files of one precision under one name cannot be told apart."""
    other = scaled(benchmark.timings[0], 2.0)
    with pytest.raises(RequestError, match="one series"):
        observations_of([dataclasses.replace(benchmark, timings=(benchmark.timings[0], other))], "mine")


def test_results_of_two_machines_are_refused(regress: Regress, write: Write, tmp_path: Path) -> None:
    """One run has one environment."""
    done = regress("record", write(), write(2.0, host="elsewhere"), "--model", "x")
    assert done.exit_code == 2


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1]",
        "null",
        '{"kind": 3}',
        '{"schema_version": 1, "kind": "SensitivityReport"}',
        '{"schema_version": 9, "kind": "Benchmark"}',
        '{"schema_version": 1, "kind": "Benchmark"}',
        "[" * 100_000,
    ],
)
def test_what_is_no_result_is_refused(regress: Regress, tmp_path: Path, content: str) -> None:
    """With exit code 2 and the file's name, and no figure is recorded."""
    file = tmp_path / "wrong.json"
    file.write_text(content)
    done = regress("record", str(file))
    assert done.exit_code == 2, done.output
    assert "wrong.json" in done.stderr
    assert regress("show").stdout.strip() in ("", "nothing is recorded yet")


def test_requests_that_cannot_be(regress: Regress, write: Write, tmp_path: Path) -> None:
    """Each is refused with exit code 2 before anything is done."""
    assert regress("check").exit_code == 2
    assert regress("show").exit_code == 2
    assert regress("accept", "2026", "--reason", "why").exit_code == 2
    assert not (tmp_path / "H.db").exists()
    assert regress("record", str(tmp_path / "missing.json")).exit_code == 2
    assert regress("record", write()).exit_code == 0
    for wrong in (
        ("check", "--run", "1999"),
        ("check", "--model", "other"),
        ("check", "--floor", "latency_ms"),
        ("check", "--floor", "latency=3%"),
        ("check", "--floor", "latency_ms=300%"),
        ("check", "--floor", "latency_ms=-1%"),
        ("check", "--floor", "latency_ms=nan"),
        ("check", "--floor", "sqnr_db=5%"),
        ("check", "--across", "weather"),
        ("check", "--confidence", "120"),
        ("check", "--junit", str(tmp_path / "H.db")),
        ("check", "--junit", str(tmp_path / "no" / "folder.xml")),
        ("show", "--model", "other"),
        ("show", "--wait", "-1"),
        ("export", str(tmp_path / "H.db")),
        ("import", str(tmp_path / "missing.jsonl")),
        ("record", write(), "--model", " "),
    ):
        done = regress(*wrong)
        assert done.exit_code == 2, (wrong, done.output)
        assert done.stderr.startswith("error: "), wrong


def test_all_forms_are_written(regress: Regress, write: Write, tmp_path: Path) -> None:
    """One check fills the three files, over older ones too."""
    assert regress("record", write()).exit_code == 0
    files = [tmp_path / name for name in ("j.xml", "m.md", "o.txt")]
    files[0].write_text("older")
    options = [word for name, file in zip(("junit", "markdown", "openmetrics"), files, strict=True)
               for word in (f"--{name}", str(file))]  # fmt: skip
    assert regress("check", *options).exit_code == 1
    assert "<failure" in files[0].read_text()
    assert regress("check", "--allow-inconclusive", *options).exit_code == 0
    assert "<failure" not in files[0].read_text()
    assert "INCONCLUSIVE" in files[1].read_text()
    assert files[2].read_text().endswith("# EOF\n")


def test_show_export_import(regress: Regress, write: Write, tmp_path: Path) -> None:
    """A history travels as JSON lines, and shows the same series."""
    nights(regress, write, 3)
    lines = tmp_path / "H.jsonl"
    assert regress("export", str(lines)).exit_code == 0
    assert regress("export", str(lines)).exit_code == 2
    assert regress("export", str(lines), "--force").exit_code == 0
    other = ("--history", str(tmp_path / "other.db"))
    assert run("regress", "import", str(lines), *other).exit_code == 0
    again = run("regress", "import", str(lines), *other, "--json")
    assert len(json.loads(again.stdout)["known"]) == 3
    shown = [json.loads(run("regress", "show", "--json", *where).stdout) for where in (other, ("--history", str(tmp_path / "H.db")))]  # fmt: skip # noqa: E501
    assert shown[0]["series"] == shown[1]["series"]
    assert {one["metric"] for one in shown[0]["series"]} == {"latency_ms", "throughput_per_s", "memory_bytes", "onnx_bytes"}  # fmt: skip # noqa: E501
    only = json.loads(regress("show", "--metric", "latency_ms", "--json").stdout)
    assert [one["metric"] for one in only["series"]] == ["latency_ms"]
    assert "latency_ms" in regress("show").stdout


def test_a_corrupted_history_is_recovered_and_said(regress: Regress, write: Write, tmp_path: Path) -> None:
    """The next record goes on with the backup's runs, and says so on stderr."""
    nights(regress, write, 6)
    path = tmp_path / "H.db"
    path.write_bytes(path.read_bytes()[:6000])
    done = regress("record", write())
    assert done.exit_code == 0
    assert "recovered" in done.stderr
    assert done.stdout.count("\n") == 1
    assert len(json.loads(regress("show", "--json").stdout)["series"][0]["points"]) == 7


def test_two_programs_at_once(write: Write, tmp_path: Path) -> None:
    """Four programs that record at the same time, into a history that none of them has made, lose nothing."""
    command = [sys.executable, "-m", "trt_opt", "regress", "record", "--history", str(tmp_path / "H.db")]
    programs = [
        subprocess.Popen([*command, write(1 + number / 10)], stdout=subprocess.PIPE, text=True) for number in range(4)
    ]
    told = [program.communicate(timeout=300)[0].strip() for program in programs]
    assert [program.returncode for program in programs] == [0] * 4
    shown = run("regress", "show", "--json", "--history", str(tmp_path / "H.db"))
    points = json.loads(shown.stdout)["series"][0]["points"]
    assert sorted(point["run"] for point in points) == sorted(told)


def test_environment_parts() -> None:
    """What nobody knows is left out, the rest is text."""
    from trt_opt.regressing.recording import environment_of

    machine = MachineIdentity("h", "cpu", 8, None, "Linux", driver="560.1", clocks_locked=True)
    environment = Environment(machine, (MachineState("now", "before", CpuState("performance")),))
    assert environment_of(environment) == {
        "host": "h", "cores": "8", "driver": "560.1", "clocks_locked": "true", "governor": "performance"
    }  # fmt: skip


def test_a_figure_that_is_no_number_is_invalid(comparison: ModelComparison) -> None:
    """NaN is kept with its problem."""
    output = dataclasses.replace(comparison.comparisons[0].outputs[0], sqnr_db=float("nan"))
    broken = dataclasses.replace(comparison.comparisons[0], outputs=(output,))
    sides = tuple(
        dataclasses.replace(side, precision=precision)
        for side, precision in zip(comparison.sides, ("FP32", "INT8"), strict=True)
    )
    found: tuple[Observation, ...] = observations_of(
        [dataclasses.replace(comparison, comparisons=(broken,), sides=sides)]
    )
    (sqnr,) = [one for one in found if one.metric == "sqnr_db"]
    assert sqnr.problems == ("it is no number",)
