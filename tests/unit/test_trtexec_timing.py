"""NVIDIA's trtexec timed: what each version is told, and what is read from what it writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from trt_opt.backends.trtexec import TrtexecRunner, samples_of, timing_options, words_for
from trt_opt.errors import StageError
from trt_opt.values.timing import TimingSettings

OPTIONS = Path(__file__).parents[1] / "jetson" / "trtexec_options.json"

KNOWN = {
    version: set(names.split())
    for version, names in json.loads(OPTIONS.read_text(encoding="utf-8")).items()
    if version[0].isdigit()
}
"""Version → the options of that trtexec."""

PROGRAM = """#!{python}
import json, sys
from pathlib import Path
given = dict(argument[2:].partition("=")[::2] for argument in sys.argv[1:])
unknown = set(given) - set({known})
if unknown:
    print("[E] Unknown option: --" + unknown.pop())
    sys.exit(1)
folder = Path(__file__).parent
with open(folder / "calls.jsonl", "a") as calls:
    calls.write(json.dumps(given) + "\\n")
sizes = [Path(part.rpartition(":")[2]).stat().st_size for part in given["loadInputs"].split(",")]
(folder / "sizes.json").write_text(json.dumps(sizes))
entries = [
    {{
        "startEnqMs": at, "endEnqMs": at + 0.1, "startH2dMs": at, "endH2dMs": at + 0.5,
        "startComputeMs": at + 0.5, "endComputeMs": at + 2.5, "startD2hMs": at + 2.5, "endD2hMs": at + 3,
        "h2dMs": 0.5, "computeMs": 2, "d2hMs": 0.5, "latencyMs": 3,
    }}
    for at in range(0, 4 * int(given["iterations"]) * int(given["streams"]), 4)
]
Path(given["exportTimes"]).write_text(json.dumps(entries))
"""

FEED = {"image:0": np.zeros((2, 3), np.float32), "count": np.zeros((), np.int64)}


def program(folder: Path, version: str) -> Path:
    """A stand-in that takes the options of one version alone, and takes 2 ms on the GPU and 3 ms in all."""
    path = folder / "trtexec"
    path.write_text(PROGRAM.format(python=sys.executable, known=sorted(KNOWN[version])), encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version", KNOWN)
@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("transfers", [False, True])
def test_every_version_is_told_in_its_own_words(version: str, *, cuda_graph: bool, transfers: bool) -> None:
    """No option that it does not have; and all three of 11's new defaults are spoken for, whatever they are."""
    told = timing_options(version, TimingSettings(cuda_graph=cuda_graph, transfers=transfers), 5)
    names = {option.lstrip("-").partition("=")[0] for option in told}
    assert names <= KNOWN[version]
    assert ("useCudaGraph" in names) is cuda_graph
    assert ("noDataTransfers" in names) is not transfers
    if version.startswith("11."):
        assert ("noCudaGraph" in names) is not cuda_graph
        assert ("includeDataTransfers" in names) is transfers
        assert "noSpinWait" in names


def test_the_words_change_with_11() -> None:
    """Not before, and not for versions yet unknown."""
    assert words_for("10.16.1.11") is words_for("8.5.3")
    assert words_for("11.4.0.106") is words_for("11.0.0") is words_for("12.1")
    assert words_for("10.16.1.11") is not words_for("11.0.0")


@pytest.mark.parametrize("version", KNOWN)
def test_a_round_is_an_invocation(version: str, tmp_path: Path) -> None:
    """With the inputs' bytes, their shapes, and times per request; a name with a colon is no trouble."""
    with TrtexecRunner(tmp_path / "model.engine", str(program(tmp_path, version)), version) as runner:
        runner.prepare(FEED, TimingSettings(streams=2))
        found = runner.run_round(3)
        runner.run_round(1)
    assert found.compute_ms == (2.0,) * 6
    assert found.latency_ms == (3.0,) * 6
    assert found.enqueue_ms == pytest.approx((0.1,) * 6)
    assert found.wall_s == pytest.approx((5 * 4 + 3) / 1e3)
    calls = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert [call["iterations"] for call in calls] == ["3", "1"]
    assert calls[0]["shapes"] == "image:0:2x3,count:scalar"
    assert json.loads((tmp_path / "sizes.json").read_text()) == [24, 8]


def test_without_transfers_latency_is_the_gpus_time(tmp_path: Path) -> None:
    """There is nothing else in it."""
    with TrtexecRunner(tmp_path / "model.engine", str(program(tmp_path, "10.3.0")), "10.3.0") as runner:
        runner.prepare(FEED, TimingSettings(transfers=False))
        assert runner.run_round(2).latency_ms == (2.0, 2.0)


def test_what_trtexec_refuses_is_told(tmp_path: Path) -> None:
    """In its own words: here options of 11 given to 10.3."""
    with TrtexecRunner(tmp_path / "model.engine", str(program(tmp_path, "10.3.0")), "11.1.0") as runner:
        runner.prepare(FEED, TimingSettings())
        with pytest.raises(StageError, match="Unknown option"):
            runner.run_round(1)


@pytest.mark.parametrize("entries", [[], [{}], [{"computeMs": "fast"}], {"computeMs": 1}, [None]])
def test_times_of_another_form_are_refused(entries: object) -> None:
    """Rather than taken for no time at all."""
    with pytest.raises(StageError, match="not of the form"):
        samples_of(entries, transfers=True)  # type: ignore[arg-type]
