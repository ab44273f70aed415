"""Sequences and optionals inside a graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import ModelProto
from passes_models import applied, model_of, operators, random_samples, refused_by

from trt_opt.passes.clean_up.remove_dead_nodes import RemoveDeadNodes
from trt_opt.passes.control_flow.tensors_instead_of_sequences import TensorsInsteadOfSequences
from trt_opt.values.samples import Sample

PASS = TensorsInsteadOfSequences()


def sequence_model(
    text: str,
    result: str = "float[a, b] y",
    source: str = "float[2,3] x, float[2,3] z",
    **constants: Sequence[int] | int,
) -> ModelProto:
    """A graph of two tensors, with integer constants."""
    weights = {name: np.array(value, np.int64) for name, value in constants.items()}
    return model_of(f"g ({source}) => ({result}) {{ {text} }}", **weights)


@pytest.mark.parametrize(
    ("text", "constants"),
    [
        ("s = SequenceConstruct(x, z) y = SequenceAt(s, p)", {"p": 1}),
        ("s = SequenceConstruct(x, z) y = SequenceAt(s, p)", {"p": -2}),
        ("s = SequenceConstruct(x) t = SequenceInsert(s, z) y = SequenceAt(t, p)", {"p": -1}),
        ("s = SequenceConstruct(x) t = SequenceInsert(s, z, q) y = SequenceAt(t, p)", {"p": 1, "q": 0}),
        ("s = SequenceConstruct(x, x) t = SequenceInsert(s, z, q) y = SequenceAt(t, p)", {"p": 1, "q": -1}),
        ("s = SequenceConstruct(x, z, x) t = SequenceErase(s) y = SequenceAt(t, p)", {"p": -1}),
        ("s = SequenceConstruct(x, z, x) t = SequenceErase(s, q) y = SequenceAt(t, p)", {"p": 1, "q": -2}),
        ("s = SequenceEmpty() t = SequenceInsert(s, x) u = Identity(t) y = SequenceAt(u, p)", {"p": 0}),
        ("s = SplitToSequence(x, q) y = SequenceAt(s, p)", {"p": 1, "q": 1}),
        ("s = SplitToSequence<axis = -1>(x, q) y = SequenceAt(s, p)", {"p": 1, "q": 2}),
        ("s = SplitToSequence<axis = 1>(x, q) y = SequenceAt(s, p)", {"p": -1, "q": [1, 2]}),
        ("s = SplitToSequence<axis = 1>(x) y = SequenceAt(s, p)", {"p": 2}),
        ("s = SequenceConstruct(x, z) y = ConcatFromSequence<axis = 1>(s)", {}),
        ("s = SplitToSequence<axis = 1>(x) y = ConcatFromSequence<axis = -1>(s)", {}),
    ],
)
def test_elements_are_found(text: str, constants: dict[str, Sequence[int] | int]) -> None:
    """Every way to build a sequence, from both ends, and every way to read it."""
    after, report = applied(PASS, sequence_model(text, **constants))
    assert len(report.changed) == 1
    clean, _ = RemoveDeadNodes().run(after)
    assert not any("Sequence" in operator for operator in operators(clean))


def test_axis_is_dropped_or_added() -> None:
    """SplitToSequence without keepdims, and ConcatFromSequence along a new axis."""
    text = """s = SplitToSequence<axis = 1, keepdims = 0>(x) y = SequenceAt(s, p)
              w = ConcatFromSequence<axis = 0, new_axis = 1>(s)"""
    after, _ = applied(PASS, sequence_model(text, "float[2] y, float[3,2] w", p=1))
    assert operators(RemoveDeadNodes().run(after)[0]) == {"Slice": 4, "Squeeze": 4, "Unsqueeze": 3, "Concat": 1}


def test_position_known_at_run_time_gathers() -> None:
    """Any position, negative ones too, selects its element."""
    model = sequence_model(
        "s = SequenceConstruct(x, z, x) y = SequenceAt(s, p)", source="float[2,3] x, float[2,3] z, int32 p"
    )
    [plain] = random_samples(model, 1)
    samples = [Sample(str(p), {**plain.feed, "p": np.int32(p)}) for p in (0, 1, -1, -2, -3)]
    after, _ = applied(PASS, model, samples)
    assert operators(after)["Gather"] == 1


def test_length_needs_no_sizes() -> None:
    """How many parts there are is known from the length of the sizes, be these known at run time only."""
    source = "float[n] x, int64[3] p"
    model = sequence_model("s = SplitToSequence(x, p) y = SequenceLength(s)", "int64 y", source)
    feed = {"x": np.zeros(6, np.float32), "p": np.array([1, 2, 3])}
    after, _ = applied(PASS, model, [Sample("x", feed)])
    assert operators(RemoveDeadNodes().run(after)[0]) == {"Identity": 1}


def test_dynamic_batch_is_kept() -> None:
    """Sizes of other axes than the split one may be dynamic."""
    source = "float[n,4] x"
    model = sequence_model("s = SplitToSequence<axis = 1>(x, p) y = SequenceAt(s, q)", "float[n,2] y", source, p=2, q=1)
    after, _ = applied(PASS, model)
    assert operators(RemoveDeadNodes().run(after)[0]) == {"Slice": 1}


def test_outer_sequence_is_read_in_a_branch() -> None:
    """A branch of an If reads a sequence built outside it."""
    text = """s = SequenceConstruct(x, z)
      y = If(c) <then_branch = t () => (float[a, b] u) { u = SequenceAt(s, p) },
                 else_branch = e () => (float[a, b] w) { w = ConcatFromSequence<axis = 1>(s) }>"""
    model = sequence_model(text, source="float[2,3] x, float[2,3] z, bool c", p=1)
    [plain] = random_samples(model, 1)
    samples = [Sample(str(c), {**plain.feed, "c": np.array(c)}) for c in (True, False)]
    after, report = applied(PASS, model, samples)
    assert len(report.changed) == 2
    assert operators(RemoveDeadNodes().run(after)[0]) == {"If": 1, "Identity": 1, "Concat": 1}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("o = Optional(x) h = OptionalHasElement(o) e = OptionalGetElement(o) y = Where(h, e, z)", "float[2,3] y"),
        ("h = OptionalHasElement(x) e = OptionalGetElement(x) y = Where(h, e, z)", "float[2,3] y"),
        ("h = OptionalHasElement() y = Where(h, x, z)", "float[2,3] y"),
        ("s = SequenceConstruct(x, z) o = Optional(s) e = OptionalGetElement(o) y = SequenceAt(e, p)", "float[2,3] y"),
    ],
)
def test_optionals_are_decided(text: str, result: str) -> None:
    """What an optional holds is known where it was made; tensors always hold something."""
    model = model_of(f"g (float[2,3] x, float[2,3] z) => ({result}) {{ {text} }}", opset=18, p=np.int64(1))
    after, _ = applied(PASS, model)
    clean, _ = RemoveDeadNodes().run(after)
    assert not {"Optional", "OptionalHasElement", "OptionalGetElement"} & set(operators(clean))


@pytest.mark.parametrize(
    ("text", "source", "why"),
    [
        ("y = SequenceAt(s, q)", "seq(float[2,3]) s, int64 p", "comes from outside"),
        ("s = SplitToSequence(x, p) y = SequenceAt(s, q)", "float[2,3] x, int64[2] p", "sizes of its parts"),
        ("s = SplitToSequence(x, p) y = SequenceAt(s, q)", "float[2,3] x, int64 p", "--freeze-input p="),
        ("s = SplitToSequence(x, q1) y = SequenceAt(s, q)", "float[n,3] x, int64 p", "axis 0 of 'x' is not static"),
        (
            "s = SequenceConstruct(x) t = SequenceErase(s, p) y = SequenceAt(t, q)",
            "float[2,3] x, int64 p",
            "SequenceErase",
        ),
        ("s = SequenceConstruct(x) y = SequenceAt(s, q2)", "float[2,3] x, int64 p", "has no element 2"),
        (
            "v = Relu(x) s = SequenceConstruct(x, z) y = SequenceAt(s, p)",
            "float[2,3] x, float[2,4] z, int64 p",
            "one known",
        ),
        ("s = SplitToSequence<axis = 1>(x, q2) y = SequenceAt(s, p)", "float[2,3] x, int64 p", "one known"),
        ("s = SequenceEmpty() y = ConcatFromSequence<axis = 0>(s)", "float[2,3] x, int64 p", "is empty"),
        (
            """s = If(p) <then_branch = t () => (seq(float[2,3]) u) { u = SequenceConstruct(x) },
                          else_branch = e () => (seq(float[2,3]) w) { w = SequenceConstruct(x, x) }>
               y = SequenceAt(s, q)""",
            "float[2,3] x, bool p",
            "what If puts into 's'",
        ),
    ],
)
def test_unknown_contents_are_declined(text: str, source: str, why: str) -> None:
    """What is only known at run time, or comes from the caller, stays, with the reason."""
    constants = {"q": 0, "q1": 1, "q2": 2}
    used = {name: value for name, value in constants.items() if f" {name})" in text}
    model = sequence_model(text, source=source, **used)
    after, report = PASS.run(model)
    assert after is model
    assert why in report.declined[0].why


@pytest.mark.rtx
@pytest.mark.parametrize(
    "text",
    [
        "s = SequenceConstruct(x, z) y = SequenceAt(s, p)",
        "s = SplitToSequence<axis = 1>(x) y = ConcatFromSequence<axis = -1>(s)",
    ],
)
def test_sequences_become_buildable(text: str) -> None:
    """TensorRT-RTX refuses every sequence, and takes what the pass and the clean-up leave."""
    model = sequence_model(text, **({"p": 1} if "p)" in text else {}))
    assert refused_by(model)
    assert not refused_by(RemoveDeadNodes().run(PASS.run(model)[0])[0])
