"""Every rule of the lint has a model that breaks it, one that does not, and something that mends the first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from lint_models import CASES, T, early, feed, float_two, network, node, normalized, pair, second, tail, twice, two
from ort_session import outputs_of
from ort_session import sqnr_db as sqnr

from trt_opt.errors import RequestError
from trt_opt.graph.check import check_model
from trt_opt.linting import LintRequest, lint_file
from trt_opt.quantize.lint import RULES, findings_of
from trt_opt.values.lint import LintReport
from trt_opt.values.progress import Silent

IMPORT_SQNR_DB = 40.0
"""Folding zero-points moves results that lie half-way between two steps, and nothing else."""

FOLDED = 2e-6
"""What rounding a scale or a weight once more costs, relative to the largest output."""


def broken(model: onnx.ModelProto) -> set[str]:
    """The rules that the model breaks."""
    return {entry.rule for entry in findings_of(model)}


def fixed(model: onnx.ModelProto, folder: Path, *rules: str) -> tuple[onnx.ModelProto, LintReport]:
    """What `--fix` writes, asked to look at these rules alone, and its report."""
    onnx.save(model, folder / "given.onnx")
    request = LintRequest(str(folder / "given.onnx"), fix=True, output=str(folder / "fixed.onnx"), rule=rules)
    report = lint_file(request, Silent())
    return onnx.load(folder / "fixed.onnx"), report


def test_every_rule_has_a_case() -> None:
    """A rule without its three parts does not pass."""
    assert set(CASES) == set(RULES)
    for name, case in CASES.items():
        assert RULES[name].about.is_fixable == (case.outcome is not None)
        assert (case.remedy is None) != (case.outcome is None)


@pytest.mark.parametrize("rule", RULES)
def test_a_model_breaks_the_rule(rule: str) -> None:
    """The finding names a node of the model, and says what is wrong and what to do."""
    model = CASES[rule].bad()
    found = [entry for entry in findings_of(model) if entry.rule == rule]
    assert found
    assert {name for entry in found for name in entry.nodes} <= {node.name for node in model.graph.node}
    assert all(entry.message and entry.remedy for entry in found)


@pytest.mark.parametrize("rule", RULES)
def test_a_model_like_it_does_not(rule: str) -> None:
    """What is wrong is told from what is right."""
    assert rule not in broken(CASES[rule].good())


@pytest.mark.parametrize("rule", [name for name, case in CASES.items() if case.remedy is not None])
def test_the_advice_helps(rule: str) -> None:
    """What the finding tells to do ends it, and nothing worse than a note is left."""
    remedy = CASES[rule].remedy
    assert remedy is not None
    mended = remedy(CASES[rule].bad())
    check_model(mended, rule)
    assert rule not in broken(mended)
    assert not [entry for entry in findings_of(mended) if entry.severity == "error"]


@pytest.mark.parametrize("rule", [name for name, case in CASES.items() if case.outcome is not None])
def test_the_fix_helps(rule: str, tmp_path: Path) -> None:
    """`--fix` ends the finding; the numbers stay, or come closer to the float model's."""
    case = CASES[rule]
    bad = case.bad()
    model, report = fixed(bad, tmp_path, rule)
    assert not report.findings
    assert rule not in broken(model)
    assert {entry.rule for entry in report.mended} == {rule}
    found = outputs_of(model, feed())["y"]
    expected = outputs_of((case.like or case.bad)(), feed())["y"]
    match case.outcome:
        case "same":
            assert np.abs(found - expected).max() <= FOLDED * np.abs(expected).max()
        case "imported":
            assert sqnr(expected, found) > IMPORT_SQNR_DB
        case "closer":
            assert sqnr(expected, found) > sqnr(expected, outputs_of(bad, feed())["y"])


def test_a_pair_in_front_of_another_goes_altogether(tmp_path: Path) -> None:
    """It moves behind the Relu, where it is one of two in a row."""
    front = [*pair("early", "h", "hd", "u"), node("Relu", "relu", ["hd"], "r")]
    model = tail(*front, *second(), t=T, u=np.float32(0.07))
    mended, report = fixed(model, tmp_path)
    assert [entry.op_type for entry in mended.graph.node] == [entry.op_type for entry in two().graph.node]
    rules = ["pair-between-conv-and-activation", "double-quantization"]
    assert [entry.rule for entry in report.mended] == rules
    expected, before, after = (outputs_of(entry, feed())["y"] for entry in (float_two(), model, mended))
    assert sqnr(expected, after) > sqnr(expected, before)


def test_a_pair_moves_behind_the_relu_exactly(tmp_path: Path) -> None:
    """The Relu reads the convolution, the pair the Relu, and not a bit changes."""
    mended, _ = fixed(early(), tmp_path, "pair-between-conv-and-activation")
    makers = {name: entry for entry in mended.graph.node for name in entry.output}
    relu = next(entry for entry in mended.graph.node if entry.op_type == "Relu")
    assert makers[relu.input[0]].name == "conv"
    np.testing.assert_array_equal(outputs_of(mended, feed())["y"], outputs_of(early(), feed())["y"])


def test_a_pair_before_another_activation_than_relu_stays(tmp_path: Path) -> None:
    """Rounding and a Sigmoid do not commute: nothing is done, and the finding stays."""
    nodes = [*pair("early", "h", "hd", "t"), node("Sigmoid", "act", ["hd"], "y")]
    mended, report = fixed(tail(*nodes, t=T), tmp_path, "pair-between-conv-and-activation")
    assert not report.mended
    assert [entry.rule for entry in report.findings] == ["pair-between-conv-and-activation"]
    assert [entry.name for entry in mended.graph.node] == [entry.name for entry in tail(*nodes, t=T).graph.node]


def test_equal_pairs_in_a_row_become_one_without_a_change(tmp_path: Path) -> None:
    """Quantising what lies on the grid already does nothing."""
    mended, _ = fixed(twice(3 / 127), tmp_path, "double-quantization")
    assert sum(entry.op_type == "QuantizeLinear" for entry in mended.graph.node) == 1
    np.testing.assert_array_equal(outputs_of(mended, feed())["y"], outputs_of(twice(3 / 127), feed())["y"])


@pytest.mark.parametrize("zero", [-128, 0, 60])
def test_a_pair_that_is_taken_out_leaves_what_it_cut_off(zero: int, tmp_path: Path) -> None:
    """A grid from zero upwards stands for a Relu: its rounding goes, and nothing moves by more than half a step."""
    constants = {"low": np.array(zero, np.int8), "step": np.array(0.01, np.float32), "one": np.array(1, np.float32)}
    model = tail(*pair("idle", "h", "hd", "step", "low"), node("Add", "add", ["hd", "one"], "y"), **constants)
    mended, report = fixed(model, tmp_path, "orphan-pair")
    assert not report.findings
    assert [entry.op_type for entry in mended.graph.node][-2:] == ["Clip", "Add"]
    after, before = (outputs_of(entry, feed())["y"] for entry in (mended, model))
    assert np.abs(after - before).max() <= 0.005 * 1.0001
    np.testing.assert_allclose([after.min(), after.max()], [before.min(), before.max()], rtol=1e-6)


def test_a_pair_whose_ends_nothing_reaches_leaves_no_clip(tmp_path: Path) -> None:
    """A Sigmoid stays within 0 … 1."""
    nodes = [
        node("Sigmoid", "gate", ["h"], "g"),
        *pair("idle", "g", "gd", "step"),
        node("Add", "add", ["gd", "one"], "y"),
    ]
    mended, _ = fixed(tail(*nodes, one=np.float32(1), step=np.float32(1 / 127)), tmp_path, "orphan-pair")
    assert [entry.op_type for entry in mended.graph.node][-3:] == ["Conv", "Sigmoid", "Add"]


def test_of_two_pairs_the_one_that_cuts_off_more_is_left(tmp_path: Path) -> None:
    """Whichever comes first: what was cut off still is."""
    wide, narrow = 0.05, 0.01
    for first, then in ((wide, narrow), (narrow, wide)):
        chain = [*pair("first", "x", "a", "u"), *pair("x", "a", "xd", "v")]
        mended, _ = fixed(network(chain, u=np.float32(first), v=np.float32(then)), tmp_path, "double-quantization")
        quantizers = [entry for entry in mended.graph.node if entry.op_type == "QuantizeLinear"]
        values = {entry.name: onnx.numpy_helper.to_array(entry) for entry in mended.graph.initializer}
        assert [values[entry.input[1]] for entry in quantizers] == [np.float32(narrow)]
        (tmp_path / "fixed.onnx").unlink()


@pytest.mark.parametrize(("activation", "left"), [("Relu", ["Relu", "Clip"]), ("Sigmoid", ["Sigmoid"])])
def test_a_pair_on_an_output_goes_and_the_output_keeps_its_name(
    activation: str, left: list[str], tmp_path: Path
) -> None:
    """What is given out is what was in front of the pair."""
    model = tail(node(activation, "act", ["h"], "r"), *pair("last", "r", "y", "t"), t=T)
    mended, _ = fixed(model, tmp_path, "orphan-pair")
    kinds = ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv", *left]
    assert [entry.op_type for entry in mended.graph.node] == kinds
    assert [value.name for value in mended.graph.output] == ["y"]
    assert np.abs(outputs_of(mended, feed())["y"] - outputs_of(model, feed())["y"]).max() <= T / 2 * 1.0001


def test_all_rules_together_leave_a_model_that_runs(tmp_path: Path) -> None:
    """Fixes that follow from one another: the pair moves, and then the normalisation behind the layer is folded."""
    constants = {"g": np.full(16, 2, np.float32), "o": np.zeros(16, np.float32)}
    nodes = [
        node("BatchNormalization", "norm", ["h", "g", "o", "o", "g"], "n"),
        node("Relu", "relu", ["n"], "r"),
        *pair("again", "r", "ra", "t"),
        *second("ra"),
    ]
    mended, report = fixed(tail(*nodes, t=T, **constants), tmp_path)
    assert not report.findings
    assert [entry.op_type for entry in mended.graph.node] == [entry.op_type for entry in two().graph.node]
    assert any("moved the outputs by" in note for note in report.notes)


def test_a_normalization_over_minus_128_stays(tmp_path: Path) -> None:
    """INT8 has no 128: a negative gain cannot be folded into weights that reach -128."""
    model = normalized()
    stored = next(entry for entry in model.graph.initializer if entry.name == "w_i")
    values = onnx.numpy_helper.to_array(stored).copy()
    values[0, 0, 0, 0] = -128
    stored.CopyFrom(onnx.numpy_helper.from_array(values, "w_i"))
    _, report = fixed(model, tmp_path, "batchnorm-not-folded")
    assert [entry.rule for entry in report.findings] == ["batchnorm-not-folded"]


def test_the_output_is_not_overwritten_unasked(tmp_path: Path) -> None:
    """An existing file stops the request before anything is done."""
    onnx.save(two(), tmp_path / "given.onnx")
    (tmp_path / "there.onnx").write_text("mine")
    request = LintRequest(str(tmp_path / "given.onnx"), fix=True, output=str(tmp_path / "there.onnx"))
    with pytest.raises(RequestError, match="exists already"):
        lint_file(request, Silent())
    assert (tmp_path / "there.onnx").read_text() == "mine"
