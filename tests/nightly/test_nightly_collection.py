"""Simulated nights over the digits model and five real ones, from empty to report, with everything planted at once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from collection import FOLDER, data_folder, needs_collection
from nights import made_site, make_bigger, make_slower, spoil_weights

pytestmark = [pytest.mark.models, needs_collection]

LARGEST_BYTES = 600_000
"""Of a model that takes part: the night is to be over soon."""


def first_models(folder: Path, count: int) -> list[tuple[str, Path, Path]]:
    """The first float models of the collection that are small and have inputs: name, copy and data."""
    found: list[tuple[str, Path, Path]] = []
    for file in sorted((FOLDER / "models").glob("*_fp32.onnx")) + sorted((FOLDER / "models").glob("*.onnx")):
        if len(found) == count:
            break
        name = f"net{len(found)}"
        if file.stat().st_size > LARGEST_BYTES or any(copy.read_bytes() == file.read_bytes() for _, copy, _ in found):
            continue
        try:
            data = data_folder(file.stem, 2, folder / f"{name}_data")
        except subprocess.CalledProcessError:  # It has no inputs.
            continue
        copy = folder / f"{name}.onnx"
        shutil.copyfile(file, copy)
        copy.chmod(0o644)
        found.append((name, copy, data))
    return found


def test_nights_over_real_models_find_everything_that_was_planted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slower, a less accurate, a bigger and a broken model and a damaged history: each is told, the rest is fine."""
    monkeypatch.setenv("TRT_OPT_LOG", str(tmp_path / "log.txt"))
    site = made_site(tmp_path, 64)
    found = first_models(tmp_path, 5)
    assert len(found) == 5
    models = [{"name": name, "file": str(file), "data": str(data)} for name, file, data in found]
    digits = {"name": "digits", "file": "model.onnx"}
    timed_models = [digits, models[0], models[2]]
    for kind, watched in (("accuracy", [digits, *models]), ("perf", timed_models)):
        site.configure(watched)
        night = site.run(kind, "2026-01-01")
        assert night.returncode == 0, night.stderr
    site.configure([digits, *models])
    site.quiet_nights("accuracy", "2026-01-01")

    spoil_weights(site.folder / "model.onnx")
    make_slower(found[0][1])
    make_bigger(found[1][1])
    found[2][1].write_bytes(found[2][1].read_bytes()[: found[2][1].stat().st_size // 2])
    with site.history.open("r+b") as file:
        file.write(b"\xff" * 4096)
    second = site.run("accuracy", "2026-01-02")
    assert second.returncode == 4, second.stderr
    units = site.verdict("accuracy", "2026-01-02")["units"]
    assert units["digits-fp32-cpu"]["verdict"] == "FAIL" and "top1" in " ".join(units["digits-fp32-cpu"]["worse"])
    assert any("onnx_bytes" in name for name in units["net1-fp32-cpu"]["worse"])
    assert units["net2-fp32-cpu"]["status"] == "failed"
    assert [units[f"net{place}-fp32-cpu"]["status"] for place in (3, 4)] == ["done", "done"]
    assert any(site.history.parent.glob("history.db.corrupt-*"))

    site.configure(timed_models)
    third = site.run("perf", "2026-01-02")
    assert third.returncode == 4, third.stderr
    timed = site.verdict("perf", "2026-01-02")["units"]
    assert timed["net0-fp32-cpu"]["reason"].startswith("ab: ")
    assert timed["net2-fp32-cpu"]["status"] == "failed"
    for kind in ("accuracy", "perf"):
        assert (site.folder / "out" / "2026-01-02" / kind / "report.html").stat().st_size > 10_000
