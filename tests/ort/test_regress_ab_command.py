"""Files against files, timed in turns by ONNX Runtime on whatever machine this is."""

from __future__ import annotations

import json
import math
from pathlib import Path

import onnx
import pytest
import typer
from typer.testing import CliRunner

from trt_opt.cli.regress_ab import ab
from trt_opt.errors import DataError, ModelFileError, RequestError
from trt_opt.regress.ab import ABLimits
from trt_opt.regressing.ab import ABRequest, ab_result
from trt_opt.values.codec import json_from_value, value_from_json
from trt_opt.values.regression import ABResult
from trt_opt.values.timing import TimingSettings

SHORT = TimingSettings(rounds=3, round_s=0.02, warm_up_s=0.1, threads=1)


def chain(folder: Path, layers: int) -> str:
    """So many matrix products in a row, as an ONNX file."""
    steps = "\n".join(f"h{index} = MatMul({'x' if index == 0 else f'h{index - 1}'}, w)" for index in range(layers - 1))
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    chain (float[128, 256] x) => (float[128, 256] y) {{
        shape = Constant <value = int64[2] {{256, 256}}> ()
        w = ConstantOfShape <value = float[1] {{0.01}}> (shape)
        {steps}
        y = MatMul(h{layers - 2}, w)
    }}"""
    file = folder / f"chain_{layers}.onnx"
    onnx.save(onnx.parser.parse_model(text), file)
    return str(file)


def asked(base: str, candidate: str, **more: object) -> ABRequest:
    """Few short launches, on a machine that need not be quiet."""
    few = {"launches": 5, "most_launches": 5, "settings": SHORT, "allow_invalid": True}
    return ABRequest(base, candidate, **{**few, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("number", range(3))
def test_a_model_is_not_slower_than_itself(tmp_path: Path, number: int) -> None:
    """However busy the machine: it passes, or nothing can be told."""
    base = chain(tmp_path, 8)
    result = ab_result(asked(base, base))
    assert result.verdict != "FAIL", result.reason
    assert result.pilot is not None
    assert len(result.base.rounds) == len(result.candidate.rounds) == 15


def test_a_model_with_four_times_the_work_fails(tmp_path: Path) -> None:
    """What no machine can hide is found, and told as a ratio."""
    result = ab_result(asked(chain(tmp_path, 4), chain(tmp_path, 16), most_launches=15))
    assert result.verdict == "FAIL", result.reason
    assert result.effect is not None
    assert math.exp(result.effect.worse) > 2
    assert value_from_json(ABResult, json_from_value(result), where="") == result


def test_less_work_passes(tmp_path: Path) -> None:
    """An improvement is no regression, and no pilot is needed to see it."""
    result = ab_result(asked(chain(tmp_path, 16), chain(tmp_path, 4), most_launches=15, pilot=False))
    assert result.verdict == "PASS", result.reason
    assert (result.pilot, result.metric) == (None, "latency_ms")


def test_what_cannot_be_told_takes_more_launches(tmp_path: Path) -> None:
    """A floor that nobody can exclude is looked for until the launches are used up."""
    base = chain(tmp_path, 4)
    result = ab_result(asked(base, base, most_launches=7, limits=ABLimits(floor=1e-9)))
    assert result.verdict == "INCONCLUSIVE" or (result.effect is not None and result.effect.interval[1] < 1e-9)
    assert len(result.base.rounds) in (15, 21)


def test_the_verb_writes_its_result_and_exits_by_the_verdict(tmp_path: Path) -> None:
    """Exit code 1 for a regression, a sentence for people, JSON for the rest."""
    app = typer.Typer()
    app.command()(ab)
    output = tmp_path / "ab.json"
    short = ["--launches", "5", "--rounds", "3", "--round-s", "0.02", "--warm-up-s", "0.1", "--threads", "1"]
    files = [chain(tmp_path, 4), chain(tmp_path, 16)]
    told = CliRunner().invoke(app, [*files, *short, "--allow-invalid", "-o", str(output)])
    assert told.exit_code == 1, told.output
    assert "FAIL" in told.output and "slower by" in told.output and "base against itself" in told.output
    written = json.loads(output.read_text(encoding="utf-8"))
    assert (written["kind"], written["verdict"]) == ("ABResult", "FAIL")
    again = CliRunner().invoke(app, [*files, *short, "-o", str(output)])
    assert again.exit_code == 2


@pytest.mark.parametrize("option", [["--floor", "2"], ["--confidence", "100"], ["--launches", "3"]])
def test_options_that_mean_nothing_are_refused_before_anything_runs(tmp_path: Path, option: list[str]) -> None:
    """Exit code 2, and what to write instead."""
    app = typer.Typer()
    app.command()(ab)
    base = chain(tmp_path, 4)
    assert CliRunner().invoke(app, [base, base, *option]).exit_code == 2


def test_a_file_that_is_none_and_data_that_do_not_fit_are_told(tmp_path: Path) -> None:
    """Nothing is started for them."""
    base = chain(tmp_path, 4)
    with pytest.raises(ModelFileError):
        ab_result(asked(base, str(tmp_path / "nothing.onnx")))
    with pytest.raises(DataError):
        ab_result(asked(base, base, data=str(tmp_path / "nothing.npz")))
    with pytest.raises(RequestError):
        ABRequest(base, base, launches=4)
