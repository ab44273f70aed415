"""The runner: order, fixed point, checks, comparison and undoing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from passes_models import floats, model_of, operators, random_samples

from trt_opt.errors import RequestError, UnsupportedModelError
from trt_opt.passes import ON_REQUEST, PASSES, explain
from trt_opt.passes.base import DOCSTRING_SECTIONS, GraphEdit, GraphPass, Pass
from trt_opt.passes.runner import rewrite
from trt_opt.values.rewriting import Change, PassReport


class DoubleWeights(GraphPass):
    """Doubles every constant, which is wrong, once."""

    name = "double_weights"

    def apply(self, edit: GraphEdit) -> None:
        """Doubles."""
        for node in edit.graph.nodes:
            for tensor in node.inputs:
                if tensor.name == "w" and tensor.values[0] < 100:
                    tensor.values = tensor.values + 100
                    edit.changed(node, "doubled")


class BreakGraph(Pass):
    """Reads a tensor nobody makes."""

    name = "break_graph"

    def run(self, model: ModelProto) -> tuple[ModelProto, PassReport]:
        """Misbehaves."""
        if model.graph.node[0].input[0] == "nobody":
            return model, PassReport(self.name)
        broken = ModelProto()
        broken.CopyFrom(model)
        broken.graph.node[0].input[0] = "nobody"
        return broken, PassReport(self.name, (Change("first", "broken"),))


class NeverEnds(Pass):
    """Says it changed something, for ever."""

    name = "never_ends"

    def run(self, model: ModelProto) -> tuple[ModelProto, PassReport]:
        """Misbehaves."""
        copy = ModelProto()
        copy.CopyFrom(model)
        return copy, PassReport(self.name, (Change("all", "copied"),))


def small() -> ModelProto:
    return model_of("g (float[2] x) => (float[2] y) { i = Identity(x) a = Add(i, w) y = Relu(a) }", w=floats(2))


def with_pass(entry: Pass) -> dict[str, Pass]:
    return {entry.name: entry, **PASSES}


def old_style() -> ModelProto:
    """IR 3, weights as inputs, Constant nodes, BatchNormalization behind an Identity, a scale, a dead node."""
    rng = np.random.default_rng(0)
    weights = {name: rng.uniform(0.5, 1.5, size=4).astype(np.float32) for name in "stmv"}
    listed = ", ".join(f"float[4] {name}" for name in weights)
    return model_of(
        f"""g (float[1,3,6,6] x, float[4,3,3,3] w, {listed}) => (float[1,4,4,4] y) {{
              c = Conv(x, w) i = Identity(c) n = BatchNormalization(i, s, t, m, v)
              two = Constant<value = float {{2}}>() four = Mul(two, two) k = Mul(n, four) dead = Neg(k)
              y = Relu(k) }}""",
        ir_version=3,
        opset=9,
        w=floats(4, 3, 3, 3),
        **weights,
    )


def test_passes_feed_one_another() -> None:
    """Only after the Identity is gone does the BatchNormalization fold, and only then the scale: all in one call."""
    model = old_style()
    after, report = rewrite(model, samples=random_samples(model))
    assert operators(after) == {"Conv": 1, "Relu": 1}
    assert (report.nodes_before, report.nodes_after) == (8, 2)
    assert report.compared_samples == 2
    assert report.max_relative_error is not None
    assert report.max_relative_error < 1e-5
    assert [entry.name for entry in report.passes] == list(PASSES)
    assert not any(entry.rolled_back for entry in report.passes)


def test_rewriting_twice_changes_nothing() -> None:
    """A second rewrite gives back the very same model."""
    once, _ = rewrite(old_style())
    twice, report = rewrite(once)
    assert twice is once
    assert not any(entry.changed for entry in report.passes)


def test_model_given_is_not_edited() -> None:
    """The caller's model stays as it was."""
    model = old_style()
    before = model.SerializeToString(deterministic=True)
    rewrite(model, samples=random_samples(model))
    assert model.SerializeToString(deterministic=True) == before


def test_wrong_pass_is_undone_and_named() -> None:
    """A pass that changes the numbers is rolled back; the others do their work all the same."""
    model = small()
    after, report = rewrite(model, passes=with_pass(DoubleWeights()), samples=random_samples(model))
    guilty, *others = report.passes
    assert guilty.name == "double_weights"
    assert "output 'y' differs" in str(guilty.rolled_back)
    assert not guilty.changed
    assert [entry.name for entry in others if entry.changed] == ["remove_identities"]
    assert operators(after) == {"Add": 1, "Relu": 1}
    assert report.max_relative_error == 0


def test_without_samples_nothing_is_claimed() -> None:
    """Nothing compared is said as such."""
    _, report = rewrite(small())
    assert (report.compared_samples, report.max_relative_error) == (0, None)


def test_invalid_graph_is_undone_and_named() -> None:
    """Even without samples a pass that breaks the graph is undone."""
    after, report = rewrite(small(), passes=with_pass(BreakGraph()))
    assert "nobody" in str(report.passes[0].rolled_back)
    onnx.checker.check_model(after)


def test_endless_pass_is_stopped_and_named() -> None:
    """A pass that never settles is undone."""
    after, report = rewrite(small(), passes=with_pass(NeverEnds()))
    assert "did not come to an end" in str(report.passes[0].rolled_back)
    assert operators(after) == {"Add": 1, "Relu": 1}


def test_node_names_used_twice_are_no_obstacle() -> None:
    """ONNX Runtime refuses such a model; it is compared all the same, and comes out with unique names."""
    model = small()
    for node in model.graph.node:
        node.name = "same"
    model.graph.node[2].name = "same_2"
    after, report = rewrite(model, skip=["remove_identities"], samples=random_samples(model))
    assert [node.name for node in after.graph.node] == ["same", "same_3", "same_2"]
    assert report.passes[0].changed == (Change("same", "renamed: another node has this name"),)


def test_only_and_skip() -> None:
    """Passes are chosen by name, in registry order; those on request run when named."""
    model = old_style()
    after, report = rewrite(model, only=["remove_dead_nodes"])
    assert [entry.name for entry in report.passes] == ["remove_dead_nodes"]
    assert len(after.graph.input) == 6
    _, report = rewrite(model, skip=["fold_constants"])
    assert "fold_constants" not in [entry.name for entry in report.passes]
    after, report = rewrite(model, only=["raise_opset"])
    assert after.opset_import[0].version == 19


@pytest.mark.parametrize("argument", ["only", "skip"])
def test_unknown_pass_names_the_closest(argument: str) -> None:
    """A misspelt name is refused with the one that was meant."""
    with pytest.raises(RequestError, match="did you mean fold_constants"):
        rewrite(small(), **{argument: ["fold-constant"]})


def test_model_that_cannot_run_is_refused_only_with_samples() -> None:
    """Custom operators: nothing can be compared, but the rewrite itself works."""
    model = small()
    model.graph.node[2].domain = "ours"
    model.opset_import.add(domain="ours", version=1)
    with pytest.raises(UnsupportedModelError):
        rewrite(model, samples=random_samples(model))
    after, _ = rewrite(model)
    assert operators(after) == {"Add": 1, "ours::Relu": 1}


def test_errors_the_model_had_before_are_no_pass_fault() -> None:
    """A model with an operator of no opset, or with shapes that contradict, is still rewritten."""
    model = small()
    model.graph.node[2].op_type = "Frobnicate"
    after, report = rewrite(model)
    assert operators(after) == {"Add": 1, "Frobnicate": 1}
    assert not any(entry.rolled_back for entry in report.passes)


@pytest.mark.parametrize("name", [*PASSES, *ON_REQUEST])
def test_every_pass_explains_itself(name: str) -> None:
    """Each pass says what it does, why, with an example, and when it declines."""
    text = explain(name)
    positions = [text.find(section) for section in DOCSTRING_SECTIONS]
    assert -1 not in positions
    assert positions == sorted(positions)


def test_explaining_an_unknown_pass_lists_the_known() -> None:
    """The registry is named in the error."""
    with pytest.raises(RequestError, match="remove_dead_nodes"):
        explain("polish")


def test_progress_is_told() -> None:
    """A listener hears of every pass."""
    heard: list[str] = []

    class Listener:
        def start(self, stage: str, total: int | None, unit: str = "samples") -> None:
            heard.append(f"{stage} {total} {unit}")

        def advance(self, amount: int = 1) -> None:
            heard.extend(["one"] * amount)

        def finish(self) -> None:
            heard.append("end")

    rewrite(small(), progress=Listener())
    assert heard[0] == "rewrite None passes"
    rounds, rest = divmod(len(heard) - 2, len(PASSES))
    assert heard[1:] == ["one"] * (rounds * len(PASSES)) + ["end"]
    assert rounds >= 1
    assert rest == 0
