"""Which tensor of one graph is which tensor of another: by name, and by what computes it where names differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from trt_opt.compare.matching import matching_of
from trt_opt.compare.skeleton import COMMUTATIVE, Skeleton
from trt_opt.values.model_comparison import MatchedBy

ROUNDS = 20
"""How often both graphs are walked at the most; every walk goes on from what the last one found."""

ALIKE, ALIKE_QUANTIZED, ALIKE_BIASES = 0.02, 0.15, 0.5
"""Relative error up to which a node's constants are the same: rounded to FP16, stored in as few as 4 bits, and biases
in steps of a weight's times an activation's, which are coarse."""

CUT_OFF = frozenset({"Relu", "Clip"})
"""What a grid that begins at zero does by itself, so that quantisers leave it out."""


HALF_SUFFIX = "_fp16"
"""What the cast to FP16 adds to the names of the tensors that it casts."""


@dataclass(frozen=True, slots=True)
class TensorPair:
    """A tensor that both graphs compute.

    Attributes:
        reference: Its name in the reference; a graph input where the candidate converts what it is fed.
        candidate: Its name in the candidate.
        by: How it was matched.
    """

    reference: str
    candidate: str
    by: MatchedBy


@dataclass(frozen=True, slots=True)
class Pairing:
    """What is the same in two graphs.

    Attributes:
        pairs: In the candidate's order of execution.
        reference_only: Float tensors without a partner.
        candidate_only: Likewise.
    """

    pairs: tuple[TensorPair, ...]
    reference_only: tuple[str, ...]
    candidate_only: tuple[str, ...]


def paired_tensors(reference: Skeleton, candidate: Skeleton) -> Pairing:
    """Finds the tensors that two graphs share.

    Names come first: whoever rewrites a graph keeps the names of the values that stay. Where a name is not found,
    structure helps, from both ends: the same operator on the same tensors, with constants of nearly the same numbers,
    gives the same tensor. Conversions are looked through on both sides, so that a tensor behind a Q/DQ pair or a cast
    to FP16 is the tensor before it.

    Args:
        reference: Of a graph with shapes inferred.
        candidate: Likewise.
    """
    return _Matcher(reference, candidate).pairing()


class _Matcher:
    """Candidate's root → the reference's, grown until nothing more is found."""

    def __init__(self, reference: Skeleton, candidate: Skeleton) -> None:
        self._reference = reference
        self._candidate = candidate
        self._partner: dict[str, str] = {}
        self._taken: set[str] = set()
        self._by: dict[str, MatchedBy] = {}
        self._cut_off: dict[str, str] = {}

    def pairing(self) -> Pairing:
        self._match_ends()
        # Converters give a name to what comes before an activation in one graph and behind it in the other: a name
        # between two operators is taken only where structure does not know better.
        for any_operator in (False, True):
            self._match_names(any_operator=any_operator)
            self._walk()
        pairs = tuple(self._pairs())
        return Pairing(
            pairs,
            tuple(name for name in _results(self._reference) if name not in self._taken),
            tuple(name for name in _results(self._candidate) if name not in self._partner),
        )

    def _walk(self) -> None:
        for _ in range(ROUNDS):
            before = len(self._partner)
            self._walk_forward()
            self._walk_backward()
            if len(self._partner) == before:
                break

    def _add(self, candidate: str, reference: str, by: MatchedBy) -> None:
        if candidate not in self._partner and reference not in self._taken:
            self._partner[candidate] = reference
            self._taken.add(reference)
            self._by[candidate] = by

    def _match_ends(self) -> None:
        sides = (self._reference.index, self._candidate.index)
        inputs = [[value.name for value in side.model.graph.input if value.name in side.inputs] for side in sides]
        for one, other in matching_of(*inputs).pairs.items():
            self._add(other, one, "name" if one == other else "structure")
        outputs = [[value.name for value in side.model.graph.output] for side in sides]
        matching = matching_of(*outputs)
        for one, other in matching.pairs.items():
            by: MatchedBy = "structure" if matching.by_position else "name"
            self._add(self._candidate.root(other), self._reference.root(one), by)

    def _match_names(self, *, any_operator: bool) -> None:
        """A name that is a number means nothing between two operators: exporters count, another time differently."""
        for node in self._candidate.index.model.graph.node:
            for name in filter(None, node.output):
                twin = self._namesake(name)
                if twin is None or self._candidate.is_fixed(name) or self._reference.is_fixed(twin):
                    continue
                mine, theirs = self._candidate.root(name), self._reference.root(twin)
                if self._same_operator(mine, theirs) or (any_operator and not name.isdigit()):
                    self._add(mine, theirs, "name")

    def _namesake(self, name: str) -> str | None:
        """What the reference calls a tensor of this name, one of the two being in FP16 maybe."""
        forms = (name, name.removesuffix(HALF_SUFFIX), name + HALF_SUFFIX)
        return next((form for form in forms if self._reference.index.producer(form) is not None), None)

    def _same_operator(self, candidate: str, reference: str) -> bool:
        makers = self._candidate.maker(candidate), self._reference.maker(reference)
        return makers[0] is not None and makers[1] is not None and makers[0].op_type == makers[1].op_type

    def _walk_forward(self) -> None:
        """From what is read to what comes out."""
        for node in self._candidate.computing:
            if node.output[0] in self._partner:
                continue
            read = self._candidate.dynamic(node)
            if not read or any(root not in self._partner for root in read.values()):
                continue
            for root in read.values():
                self._look_for_cut_off(root)
            first = self._read_there(next(iter(read.values())))
            alike = [one for one in self._reference.readers.get(first or "", ()) if self._reads_the_same(node, one)]
            found = self._the_one(node, alike)
            if found is not None:
                self._add_outputs(node, found, "structure")

    def _look_for_cut_off(self, root: str) -> None:
        """Passes over a Relu that only the reference has, where the candidate quantises what comes before it."""
        readers = self._reference.readers.get(self._partner[root], ())
        if root in self._cut_off or len(readers) != 1 or readers[0].op_type not in CUT_OFF:
            return
        here = self._candidate.readers.get(root, ())
        behind = readers[0].output[0]
        if behind not in self._taken and not any(one.op_type in CUT_OFF for one in here):
            self._cut_off[root] = behind
            self._taken.add(behind)

    def _read_there(self, root: str) -> str | None:
        """What the reference reads where the candidate reads this root."""
        return self._cut_off.get(root) or self._partner.get(root)

    def _reads_the_same(self, mine: onnx.NodeProto, theirs: onnx.NodeProto) -> bool:
        if not self._are_alike(mine, theirs) or theirs.output[0] in self._taken:
            return False
        here = {place: self._read_there(root) for place, root in self._candidate.dynamic(mine).items()}
        there = self._reference.dynamic(theirs)
        if mine.op_type in COMMUTATIVE:
            return sorted(map(str, here.values())) == sorted(there.values())
        return here == there

    def _are_alike(self, mine: onnx.NodeProto, theirs: onnx.NodeProto) -> bool:
        if (mine.op_type, mine.domain or "ai.onnx") != (theirs.op_type, theirs.domain or "ai.onnx"):
            return False
        return len(mine.output) == len(theirs.output) and len(mine.input) == len(theirs.input)

    def _the_one(self, node: onnx.NodeProto, alike: list[onnx.NodeProto]) -> onnx.NodeProto | None:
        """The node among those alike that has this one's constants, and attributes where several have."""
        found = [one for one in alike if self._has_same_constants(node, one)]
        if len(found) > 1:
            found = [one for one in found if _attributes(one) == _attributes(node)]
        return found[0] if len(found) == 1 else None

    def _has_same_constants(self, mine: onnx.NodeProto, theirs: onnx.NodeProto) -> bool:
        here, there = self._candidate.fixed(mine), self._reference.fixed(theirs)
        if mine.op_type in COMMUTATIVE:
            pairs = list(zip(here.values(), there.values(), strict=False))
        elif here.keys() != there.keys():
            return False
        else:
            pairs = [(here[place], there[place]) for place in here]
        quantized = any(self._candidate.is_quantized(one) or self._reference.is_quantized(two) for one, two in pairs)
        same = (self._is_same_constant(one, two, quantized=quantized) for one, two in pairs)
        return len(here) == len(there) and all(same)

    def _is_same_constant(self, mine: str, theirs: str, *, quantized: bool) -> bool:
        here, there = self._candidate.value(mine), self._reference.value(theirs)
        if here is None or there is None:
            return True  # computed from others, or stored in blocks
        if here.shape != there.shape:
            return False
        limit = (ALIKE_BIASES if here.ndim < 2 else ALIKE_QUANTIZED) if quantized else ALIKE
        with np.errstate(all="ignore"):
            error, size = float(np.square(here - there).sum()), float(np.square(there).sum())
        return not error > limit * limit * size  # infinities among them are no reason

    def _walk_backward(self) -> None:
        """From what comes out to what is read."""
        for node in reversed(self._candidate.computing):
            theirs = self._reference.maker(self._partner.get(node.output[0], ""))
            if theirs is None or not self._are_alike(node, theirs):
                continue
            here, there = self._candidate.dynamic(node), self._reference.dynamic(theirs)
            open_here = {place: root for place, root in here.items() if root not in self._partner}
            open_there = {place: root for place, root in there.items() if root not in self._taken}
            if not open_here or not self._has_same_constants(node, theirs):
                continue
            if node.op_type in COMMUTATIVE:
                if len(open_here) == len(open_there) == 1:
                    (mine,), (partner,) = open_here.values(), open_there.values()
                    self._add(mine, partner, "structure")
            elif open_here.keys() == open_there.keys():
                for place, root in open_here.items():
                    self._add(root, open_there[place], "structure")

    def _add_outputs(self, mine: onnx.NodeProto, theirs: onnx.NodeProto, by: MatchedBy) -> None:
        for one, other in zip(mine.output, theirs.output, strict=True):
            if one and other:
                self._add(one, other, by)

    def _pairs(self) -> Iterator[TensorPair]:
        """Every form of every tensor that has a partner, where it may differ from the form before."""
        there = self._reference
        for node in self._candidate.index.model.graph.node:
            for name in filter(None, node.output):
                root = self._candidate.root(name)
                partner = self._partner.get(root)
                if partner is None or not (name == root or self._candidate.is_converted(name)):
                    continue
                if name != root:
                    self._look_for_cut_off(root)
                    partner = self._cut_off.get(root, partner)
                if there.index.producer(name) is not None and there.root(name) == partner:
                    partner = name  # the reference has the same conversion
                partner = there.float_form(partner)
                if partner is not None and self._candidate.may_be_float(name):
                    yield TensorPair(partner, name, self._by[root])


def _results(side: Skeleton) -> Iterator[str]:
    """The float tensors that a graph computes, conversions left out."""
    for node in side.computing:
        yield from (name for name in node.output if name and side.may_be_float(name))


def _attributes(node: onnx.NodeProto) -> dict[str, bytes]:
    return {entry.name: entry.SerializeToString(deterministic=True) for entry in node.attribute}
