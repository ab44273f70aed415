"""Nights over the digits model with the real `trt-opt`: what is caught, what is survived, what is not done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from nights import ENVIRONMENT, SCRIPTS, Site, made_site, make_bigger, make_slower, spoil_weights

SLEEPING = "import time\n\n\ndef samples():\n    time.sleep(600)\n    yield {}\n"
ABORTING = "import os\n\n\ndef samples():\n    os.abort()\n    yield {}\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A folder with the digits model and the configuration that watches it."""
    monkeypatch.setenv("TRT_OPT_LOG", str(tmp_path / "log.txt"))
    made = made_site(tmp_path)
    made.configure([{"name": "digits", "file": "model.onnx"}])
    return made


def started(site: Site, kind: str, night: str) -> subprocess.Popen[bytes]:
    """A night that runs on, in a process group of its own."""
    return subprocess.Popen(
        site.command(kind, night),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        cwd=site.folder,
        start_new_session=True,
    )


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Waits until a file is there and not empty."""
    for _ in range(1200):
        if path.exists() and path.stat().st_size:
            return
        assert process.poll() is None, "the night ended before it came so far"
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


def alive_in(folder: Path) -> list[str]:
    """Commands of processes that name this folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(folder) in words and "pytest" not in words:
                found.append(words)
    return found


def test_accuracy_from_empty_to_report_and_its_regressions_are_caught(site: Site) -> None:
    """A night leaves all its files; spoilt weights and a bigger file are both found against the nights before."""
    first = site.run("accuracy", "2026-01-01")
    assert first.returncode == 0, first.stderr
    out = site.folder / "out" / "2026-01-01" / "accuracy"
    assert {path.name for path in out.iterdir()} >= {
        "summary.md",
        "junit.xml",
        "metrics.txt",
        "verdict.json",
        "report.html",
    }
    site.quiet_nights("accuracy", "2026-01-01")
    spoil_weights(site.folder / "model.onnx")
    make_bigger(site.folder / "model.onnx")
    second = site.run("accuracy", "2026-01-02")
    assert second.returncode == 1, second.stderr
    worse = " ".join(site.verdict("accuracy", "2026-01-02")["units"]["digits-fp32-cpu"]["worse"])
    assert "top1" in worse
    assert "onnx_bytes" in worse
    assert "What became worse" in (site.folder / "out" / "2026-01-02" / "accuracy" / "summary.md").read_text()


def test_a_slower_model_is_caught_in_turns_and_keeps_the_good_baseline(site: Site) -> None:
    """A graph that does four times the work fails against that of the last good night, however noisy the nights."""
    site.configure([{"name": "digits", "file": "model.onnx"}])
    first = site.run("perf", "2026-01-01")
    assert first.returncode == 0, first.stderr
    baseline = site.folder / "out" / "baseline" / "digits-fp32-cpu.onnx"
    good = baseline.read_bytes()
    make_slower(site.folder / "model.onnx")
    second = site.run("perf", "2026-01-02")
    assert second.returncode == 1, second.stderr
    unit = site.verdict("perf", "2026-01-02")["units"]["digits-fp32-cpu"]
    assert unit["reason"].startswith("ab: slower")
    assert unit["verdict"] == "FAIL"
    assert baseline.read_bytes() == good


def test_models_that_fail_stop_nobody_else(site: Site) -> None:
    """A missing file, one that is no ONNX, one whose data abort the process or never come: all told, the last runs."""
    (site.folder / "broken.onnx").write_bytes(b"\x08\x07this is not a model")
    (site.folder / "aborting.py").write_text(ABORTING)
    (site.folder / "sleeping.py").write_text(SLEEPING)
    site.configure(
        [
            {"name": "missing", "file": "nowhere.onnx"},
            {"name": "broken", "file": "broken.onnx"},
            {"name": "aborting", "file": "model.onnx", "data": "aborting:samples"},
            {"name": "sleeping", "file": "model.onnx", "data": "sleeping:samples"},
            {"name": "digits", "file": "model.onnx"},
        ],
        tables="[timeouts]\ncompare_s = 45",
    )
    done = site.run("accuracy", "2026-01-01")
    assert done.returncode == 4, done.stderr
    units = site.verdict("accuracy", "2026-01-01")["units"]
    assert [unit["status"] for unit in units.values()] == ["failed"] * 4 + ["done"]
    reasons = [unit["reason"] for unit in units.values()]
    for reason, part in zip(
        reasons, ("there is no such file", "broken.onnx", "signal 6", "longer than 45 s"), strict=False
    ):
        assert part in reason
    summary = (site.folder / "out" / "2026-01-01" / "accuracy" / "summary.md").read_text()
    assert all(f"| {name} |" in summary for name in ("missing", "broken", "aborting", "sleeping", "digits"))


def test_a_killed_night_goes_on_and_leaves_nobody_behind(site: Site) -> None:
    """After SIGKILL in the middle nothing runs on, the lock is free, and what was done is not done again."""
    (site.folder / "sleeping.py").write_text(SLEEPING)
    slow = {"name": "slow", "file": "model.onnx", "data": "sleeping:samples"}
    site.configure([{"name": "digits", "file": "model.onnx"}, slow])
    night = started(site, "accuracy", "2026-01-01")
    log = site.folder / "out" / "2026-01-01" / "logs" / "compare-slow-fp32-cpu.log"
    wait_for(log, night)
    os.killpg(night.pid, signal.SIGKILL)
    night.wait()
    before = site.journal("2026-01-01")
    with (site.folder / "out" / "2026-01-01" / "journal.jsonl").open("a") as journal:
        journal.write('{"step": "torn')
    for _ in range(200):
        if not alive_in(site.folder):
            break
        time.sleep(0.1)
    assert alive_in(site.folder) == []
    site.configure([{"name": "digits", "file": "model.onnx"}])
    again = site.run("accuracy", "2026-01-01")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("already done") == len(before) == 3
    fresh = site.run("accuracy", "2026-01-01", "--fresh")
    assert fresh.returncode == 0, fresh.stderr
    assert "already" not in fresh.stderr


def test_two_runs_are_kept_apart_and_sigterm_leaves_a_night_to_go_on_with(site: Site) -> None:
    """The second run ends with 75 and touches nothing; SIGTERM ends the first with 143."""
    (site.folder / "sleeping.py").write_text(SLEEPING)
    site.configure([{"name": "slow", "file": "model.onnx", "data": "sleeping:samples"}])
    night = started(site, "perf", "2026-01-01")
    wait_for(site.folder / "out" / "2026-01-01" / "logs" / "bench-slow-fp32-cpu.log", night)
    second = site.run("accuracy", "2026-01-02")
    assert second.returncode == 75
    assert f"process {night.pid}" in second.stderr
    assert not (site.folder / "out" / "2026-01-02").exists()
    night.send_signal(signal.SIGTERM)
    assert night.wait(60) == 143
    assert alive_in(site.folder) == []
    site.configure([{"name": "digits", "file": "model.onnx"}])
    assert site.run("perf", "2026-01-01").returncode == 0


def test_a_damaged_history_is_recovered_and_told(site: Site) -> None:
    """Bytes overwritten in the history: the night goes on with the backup's runs, and its summary says so."""
    assert site.run("accuracy", "2026-01-01").returncode == 0
    with site.history.open("r+b") as file:
        file.write(b"\xff" * 4096)
    second = site.run("accuracy", "2026-01-02")
    assert second.returncode == 0, second.stderr
    reason = site.verdict("accuracy", "2026-01-02")["units"]["digits-fp32-cpu"]["reason"]
    assert "the history was damaged" in reason
    checks = (site.folder / "out" / "2026-01-02" / "results" / "accuracy" / "digits-fp32-cpu.check.json").read_text()
    assert "2026-01-01" in checks


def test_a_run_recorded_right_before_a_crash_is_not_recorded_twice(site: Site) -> None:
    """Without the journal's line for `record` the run is found in the history again."""
    assert site.run("accuracy", "2026-01-01").returncode == 0
    journal = site.folder / "out" / "2026-01-01" / "journal.jsonl"
    before = site.journal("2026-01-01")
    lines = [line for line in journal.read_text().splitlines() if line.startswith('{"step": "compare')]
    journal.write_text("\n".join(lines) + "\n")
    again = site.run("accuracy", "2026-01-01")
    assert again.returncode == 0, again.stderr
    ids = [step["facts"]["run"] for step in (*before, *site.journal("2026-01-01")) if step["step"].startswith("record")]
    assert len(ids) == 2
    assert ids[0] == ids[1]


def test_old_nights_go_and_strangers_stay(site: Site) -> None:
    """`keep_nights` removes the oldest nights; a folder without a journal is not ours, and links are not followed."""
    site.configure([{"name": "digits", "file": "nowhere.onnx"}], top="keep_nights = 2")
    out = site.folder / "out"
    (out / "2025-01-01").mkdir(parents=True)
    (out / "2025-01-01" / "mine.txt").write_text("kept")
    (out / "2025-01-02").symlink_to(site.folder)
    for day in (1, 2, 3):
        assert site.run("perf", f"2026-01-0{day}").returncode == 4
    assert sorted(path.name for path in out.glob("20*")) == ["2025-01-01", "2025-01-02", "2026-01-02", "2026-01-03"]
    assert "removed 2026-01-01" in (out / "2026-01-03" / "perf" / "summary.md").read_text()


def test_a_full_disk_is_told_before_anything_starts(site: Site) -> None:
    """With less space than asked for the night ends with 4 and says how to go on."""
    site.configure([{"name": "digits", "file": "model.onnx"}])
    text = site.config.read_text().replace("least_free_mib = 1\n", "least_free_mib = 900000000\n")
    site.config.write_text(text)
    done = site.run("perf", "2026-01-01")
    assert done.returncode == 4
    assert "MiB are free" in done.stderr


def test_bisect_calls_a_slower_model_bad(site: Site) -> None:
    """`git bisect run` hears 1 of a commit whose model does four times the work."""
    good = site.folder / "good.onnx"
    good.write_bytes((site.folder / "model.onnx").read_bytes())
    make_slower(site.folder / "model.onnx")
    command = [
        str(SCRIPTS / "bisect.sh"),
        "--base",
        str(good),
        "--model",
        "made.onnx",
        "--make",
        "cp model.onnx made.onnx",
    ]
    limits = ["--launches", "5", "--most-launches", "15", "--round-s", "0.02", "--warm-up-s", "0.2"]
    options = [*limits, "--threads", "1", "--allow-invalid"]
    done = subprocess.run(
        [*command, "--", *options], cwd=site.folder, env=ENVIRONMENT, capture_output=True, check=False
    )
    assert done.returncode == 1, done.stderr
