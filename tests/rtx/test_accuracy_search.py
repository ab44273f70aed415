"""INT8 to an accuracy budget, and the floor without one, on models with one layer that INT8 ruins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run
from planted_faults import PLANTED, Planted

from trt_opt.quantizing import quantized_file
from trt_opt.recipe import Recipe
from trt_opt.values.progress import Silent

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx

REWRITES_OFF = tuple(
    part
    for name in (
        "equalize_channels",
        "migrate_scales",
        "isolate_outlier_channels",
        "round_adaptively",
        "correct_bias",
    )
    for part in ("--skip-pass", name)
)


@pytest.fixture(scope="module", params=sorted(PLANTED))
def planted(request: pytest.FixtureRequest) -> Planted:
    """Every fault."""
    return PLANTED[request.param]()


@pytest.fixture(scope="module")
def outlier() -> Planted:
    """One fault is enough where the fault is not the subject."""
    return PLANTED["outlier_channel"]()


def command(planted: Planted, folder: Path, *more: str, verb: str = "quantize") -> list[str]:
    """The command line for a planted fault, whose files it writes."""
    onnx.save(planted.model, folder / "model.onnx")
    np.savez(folder / "calibration.npz", **planted.calibration)
    np.savez(folder / "evaluation.npz", **planted.labelled)
    products = ["--activation-products"] if planted.activation_products else []
    output = ["-o", "out.onnx", "--force"] if verb == "quantize" else ["--int8", "--no-baselines"]
    data = ["--calib-data", "calibration.npz", "--eval-data", "evaluation.npz", "--target", "rtx:8.6"]
    return [verb, "model.onnx", *output, *data, *products, *more]


def report_of(*arguments: str, exit_code: int = 0) -> dict[str, Any]:
    """What `--json` says."""
    done = run(*arguments, "--json")
    assert done.exit_code == exit_code, done.output
    return json.loads(done.stdout)


def spared_in(report: dict[str, Any]) -> list[str]:
    """The layers left in float for accuracy."""
    return [layer["node"] for layer in report["search"]["spared"]]


def top1(report: dict[str, Any]) -> float:
    """Right answers on the evaluation samples, in percent."""
    return 100 * report["accuracy"]["candidate_task"]["top1"]


def test_without_a_budget_the_guilty_layer_alone_stays_in_float_and_is_named(planted: Planted, folder: Path) -> None:
    """Without rewrites, where other ranges do not help: the accuracy is kept, and the reason tells the damage."""
    report = report_of(*command(planted, folder, *REWRITES_OFF))
    search = report["search"]
    assert search["kind"] == "floor"
    assert top1(report) == 100.0
    decision = next(layer for layer in report["plan"]["layers"] if layer["node"] == planted.guilty)
    if search["ranges"] != search["ranges_before"] and not search["spared"]:
        assert decision["precision"] == "int8"
        return
    assert spared_in(report) == [planted.guilty]
    assert decision["precision"] in ("fp16", "fp32") and decision["rule"] == "accuracy"
    assert "INT8 in this layer alone leaves" in decision["reason"]


def test_without_a_budget_rewrites_come_before_layers_in_float(planted: Planted, folder: Path) -> None:
    """The accuracy is kept with the guilty layer in INT8 where a rewrite helps, in float only after all were tried."""
    report = report_of(*command(planted, folder))
    assert top1(report) >= 99.0
    assert spared_in(report) in ([], [planted.guilty])
    tried = [entry["name"] for entry in report["search"]["improvements"]]
    assert (
        tried == [name for name in REWRITES_OFF if name != "--skip-pass"][: None if spared_in(report) else len(tried)]
    )


def test_int8_all_quantises_the_guilty_layer_too(planted: Planted, folder: Path) -> None:
    """Nothing is searched, and the accuracy is ruined: the fault is one."""
    report = report_of(*command(planted, folder, "--int8-all"))
    assert report["search"] is None
    decision = next(layer for layer in report["plan"]["layers"] if layer["node"] == planted.guilty)
    assert decision["precision"] == "int8"
    assert top1(report) < 90.0


def test_a_budget_recovers_the_accuracy_by_touching_few_layers(planted: Planted, folder: Path) -> None:
    """With every rewrite off: the guilty layer goes back to float, with one other at most; or other ranges do."""
    report = report_of(*command(planted, folder, "--max-drop", "0.5", *REWRITES_OFF))
    search = report["search"]
    others = [node for node in spared_in(report) if node != planted.guilty]
    assert len(others) <= 1
    assert planted.guilty in spared_in(report) or search["ranges"] != search["ranges_before"]
    assert report["search"]["verdict"] == "PASS"
    assert report["search"]["reported"]["metric"]["drop_points"] <= 0.5
    assert not list(folder.glob(".*jsonl"))


def test_a_budget_with_all_its_means_keeps_the_accuracy(planted: Planted, folder: Path) -> None:
    """Ranges and rewrites come first; whatever they gain, the verdict is PASS and no more layers are spared."""
    report = report_of(*command(planted, folder, "--max-drop", "0.5"))
    assert report["search"]["verdict"] == "PASS"
    assert len(spared_in(report)) <= 2


def test_build_keeps_the_search_in_the_manifest_and_the_verdict_in_its_exit_code(
    outlier: Planted, folder: Path
) -> None:
    """The engine's graph has the guilty layer in float; a budget out of reach exits with 1, again when reused."""
    report = report_of(*command(outlier, folder, "--min-sqnr", "20", *REWRITES_OFF, verb="build"))
    manifest = report["manifest"]
    assert manifest["search"]["verdict"] == "PASS"
    assert outlier.guilty in spared_in(manifest)
    hopeless = command(outlier, folder, "--min-sqnr", "200", *REWRITES_OFF, verb="build")
    assert report_of(*hopeless, exit_code=1)["manifest"]["search"]["verdict"] == "FAIL"
    assert report_of(*hopeless, exit_code=1)["reused"]


def test_a_budget_out_of_reach_gives_the_best_found_and_the_curve(outlier: Planted, folder: Path) -> None:
    """Exit 1; the file is there; the curve has what was tried, most INT8 first."""
    report = report_of(*command(outlier, folder, "--min-sqnr", "200"), exit_code=1)
    assert report["search"]["verdict"] == "FAIL"
    assert (folder / "out.onnx").is_file()
    curve = report["search"]["curve"]
    shares = [point["int8_share"] for point in curve]
    assert len(curve) > 3 and shares == sorted(shares, reverse=True)
    best = max(point["sqnr_db"] for point in curve)
    assert report["search"]["searched"]["outputs"][0]["sqnr_db"] == pytest.approx(best)


def test_a_budget_met_at_once_costs_one_check(outlier: Planted, folder: Path) -> None:
    """Nothing is tried beyond INT8 as placed."""
    report = report_of(*command(outlier, folder, "--max-drop", "100"))
    search = report["search"]
    assert (search["checks"], search["spared"], search["improvements"]) == (1, [], [])
    assert search["int8_share"] == search["placed_share"] == 1.0


def test_a_budget_of_zero_is_a_budget(outlier: Planted, folder: Path) -> None:
    """Not one point may be lost, and none is."""
    report = report_of(*command(outlier, folder, "--max-drop", "0", *REWRITES_OFF))
    assert report["search"]["reported"]["metric"]["drop_points"] <= 0
    assert report["search"]["verdict"] == "PASS"


def test_a_poor_float_model_is_no_yardstick(outlier: Planted, folder: Path) -> None:
    """Labels by chance: the float model is right no more often than chance, and no drop from there is a pass."""
    arguments = command(outlier, folder, "--max-drop", "0.5")
    labels = np.random.default_rng(0).permutation(outlier.labels)
    np.savez(folder / "evaluation.npz", **outlier.evaluation, labels=labels)
    report = report_of(*arguments, exit_code=1)
    assert report["search"]["verdict"] == "INCONCLUSIVE"
    assert "chance" in report["search"]["reason"]


def test_three_samples_cannot_tell(outlier: Planted, folder: Path) -> None:
    """The answer is written, the verdict is open and says why."""
    arguments = command(outlier, folder, "--max-drop", "0.5")
    few = {name: array[:3] for name, array in outlier.labelled.items()}
    np.savez(folder / "evaluation.npz", **few)
    report = report_of(*arguments, exit_code=1)
    assert report["search"]["verdict"] == "INCONCLUSIVE"
    assert (folder / "out.onnx").is_file()


@pytest.mark.parametrize(
    ("more", "labels", "said"),
    [
        (("--max-drop", "-1"), True, "0 points or more"),
        (("--max-drop", "0.5", "--int8-all"), True, "--int8-all"),
        (("--max-drop", "0.5", "--no-int8"), True, "add --int8"),
        (("--max-drop", "0.5"), False, "no labels"),
        (("--max-drop", "0.5", "--metric", "sqnr"), True, "--min-sqnr"),
        (("--max-drop", "0.5", "--metric", "top2"), True, "top2"),
        (("--min-agreement", "101"), True, "percentage"),
        (("--max-drop", "1", "--seed", "-1"), True, "seed"),
        (("--max-drop", "0.5", "--quantization", "weights-only"), True, "INT8"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_and_leaves_nothing(
    outlier: Planted, folder: Path, more: tuple[str, ...], labels: bool, said: str
) -> None:
    """Exit 2, before any file is written."""
    arguments = command(outlier, folder, *more)
    if not labels:
        np.savez(folder / "evaluation.npz", **outlier.evaluation)
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert not (folder / "out.onnx").exists() and not list(folder.glob(".*jsonl"))


def test_labels_of_the_wrong_length_are_refused(outlier: Planted, folder: Path) -> None:
    """The data say so before anything is searched."""
    arguments = command(outlier, folder, "--max-drop", "0.5")
    np.savez(folder / "evaluation.npz", **outlier.evaluation, labels=outlier.labels[:-1])
    done = run(*arguments)
    assert done.exit_code == 2
    assert "labels" in done.output


def test_without_evaluation_data_there_is_no_budget(outlier: Planted, folder: Path) -> None:
    """Samples to judge on are asked for, others than those calibrated with."""
    arguments = command(outlier, folder, "--min-sqnr", "20")
    position = arguments.index("--eval-data")
    done = run(*arguments[:position], *arguments[position + 2 :])
    assert done.exit_code == 2 and "--eval-data" in done.output


def test_the_same_data_twice_are_warned_of_unless_allowed(outlier: Planted, folder: Path) -> None:
    """The note is in the report; --allow-same-data takes it away."""
    arguments = command(outlier, folder, "--min-sqnr", "20", *REWRITES_OFF)
    arguments[arguments.index("evaluation.npz")] = "calibration.npz"
    warned = report_of(*arguments)
    assert any("are the same" in warning for warning in warned["warnings"])
    allowed = report_of(*arguments, "--allow-same-data")
    assert not any("are the same" in warning for warning in allowed["warnings"])


class Impatient(Silent):
    """Interrupts after so many notes, as Ctrl-C would."""

    def __init__(self, notes: int) -> None:
        self.left = notes
        self.said = ""

    def note(self, text: str) -> None:
        """Counts the answers of the search."""
        self.left -= 1
        self.said = text
        if self.left < 0:
            raise KeyboardInterrupt


def test_an_interrupted_search_goes_on_where_it_was(outlier: Planted, folder: Path) -> None:
    """What was measured before is recalled, the answer is that of a search in one go, and the journal is gone."""
    command(outlier, folder)
    recipe = Recipe(
        model="model.onnx",
        int8=True,
        calib_data="calibration.npz",
        eval_data="evaluation.npz",
        target="rtx:8.6",
        min_sqnr=20,
        skip_pass=REWRITES_OFF[1::2],
    )
    whole = quantized_file(recipe, folder / "whole.onnx", Silent(), force=False)
    impatient = Impatient(3)
    with pytest.raises(KeyboardInterrupt):
        quantized_file(recipe, folder / "parts.onnx", impatient, force=False)
    assert not (folder / "parts.onnx").exists()
    assert ".parts.onnx.search.jsonl" in impatient.said
    parts = quantized_file(recipe, folder / "parts.onnx", Silent(), force=False)
    assert whole.search is not None and parts.search is not None
    assert parts.search.recalled >= 3
    assert (parts.search.spared, parts.search.curve) == (whole.search.spared, whole.search.curve)
    assert (folder / "parts.onnx").read_bytes() == (folder / "whole.onnx").read_bytes()
    assert not list(folder.glob(".*jsonl"))


def test_a_search_does_not_go_on_with_what_another_metric_measured(outlier: Planted, folder: Path) -> None:
    """The metric's file was changed after the interruption: its name alone says nothing."""
    command(outlier, folder)
    own = folder / "changed_metric.py"
    score = (
        "def score(outputs, reference, label):\n    return float(outputs['y'].argmax() == reference['y'].argmax())\n"
    )
    own.write_text(score)
    recipe = Recipe(
        model="model.onnx",
        int8=True,
        calib_data="calibration.npz",
        eval_data="evaluation.npz",
        target="rtx:8.6",
        max_drop=1,
        metric="changed_metric:score",
    )
    lines = []
    for source, notes in ((score, 0), (score, 2), (f"{score}# another one\n", 0)):
        own.write_text(source)
        with pytest.raises(KeyboardInterrupt):
            quantized_file(recipe, folder / "out.onnx", Impatient(notes), force=False)
        (journal,) = folder.glob(".*jsonl")
        lines.append(len(journal.read_text().splitlines()))
    assert lines[0] == lines[2] < lines[1]


def test_integer_ends_stay_integers_whatever_the_budget_asks(folder: Path) -> None:
    """No INT8 input is fine enough for this model: the budget is missed, and the interface is what was asked for."""
    arguments = command(PLANTED["tiny_variance"](), folder, "--min-sqnr", "35", "--quantization", "full-integer")
    report = report_of(*arguments, exit_code=1)
    assert report["search"]["verdict"] == "FAIL"
    (taken,) = onnx.load("out.onnx").graph.input
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.INT8
    assert (folder / "out.preprocessing.txt").is_file()


def test_the_same_seed_gives_the_same_answer_and_another_one_other_halves(outlier: Planted, folder: Path) -> None:
    """Down to every figure of the report."""
    arguments = command(outlier, folder, "--max-drop", "0.5")
    first, second = report_of(*arguments), report_of(*arguments)
    assert first["search"] == second["search"]
    other = report_of(*arguments, "--seed", "7")
    assert other["search"]["seed"] == 7
    assert other["search"]["reported"] != first["search"]["reported"]


def test_your_own_metric_decides(outlier: Planted, folder: Path) -> None:
    """A function in the working directory gets outputs, reference and label, and its drop is the budget's."""
    (folder / "own.py").write_text(
        "def margin(outputs, reference, label):\n"
        "    scores = outputs['y'].reshape(-1)\n"
        "    return float(scores[int(label.reshape(-1)[0])] >= scores.max())\n"
    )
    report = report_of(*command(outlier, folder, "--max-drop", "0.5", "--metric", "own:margin", *REWRITES_OFF))
    metric = report["search"]["reported"]["metric"]
    assert metric["name"] == "own:margin"
    assert metric["drop_points"] <= 0.5
    assert outlier.guilty in spared_in(report)


def test_fp16_inputs_and_outputs_are_searched_on_the_float_data(outlier: Planted, folder: Path) -> None:
    """The data are cast where the graph wants FP16, without a budget and with one."""
    for more in ((), ("--min-sqnr", "20")):
        report = report_of(*command(outlier, folder, "--io-fp16", *more, *REWRITES_OFF))
        assert report["search"]["verdict"] == "PASS"
        assert top1(report) == 100.0
    assert onnx.load(folder / "out.onnx").graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16


def test_a_calibrator_that_was_chosen_is_kept_unless_a_budget_is_asked_for(outlier: Planted, folder: Path) -> None:
    """Without a budget no other ranges are tried; with one they are."""
    kept = report_of(*command(outlier, folder, "--calibrator", "minmax", *REWRITES_OFF))
    assert kept["search"]["ranges"] == kept["search"]["ranges_before"] == "minmax"
    tried = report_of(*command(outlier, folder, "--calibrator", "minmax", "--min-sqnr", "20", *REWRITES_OFF))
    assert any(point["step"] == "ranges: auto" for point in tried["search"]["curve"])
