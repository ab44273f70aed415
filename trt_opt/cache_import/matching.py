"""A calibration cache's entries beside a model's tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

import onnx

from calibrators import CalibrationCache
from trt_opt.cache_import.reading import SMALLEST_SCALE
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.macs import macs_by_node, with_input_shapes
from trt_opt.graph.names import tensor_names
from trt_opt.graph.tensors import graphs_of
from trt_opt.quantize.range_neighbours import Neighbour, neighbour_of
from trt_opt.quantize.stage import FloatGraph
from trt_opt.values.cache_import import CacheCoverage

LARGEST_CODE = 127
"""A cache holds amax/127."""

UNNAMED = re.compile(r"\(Unnamed Layer\* \d+\) \[|ONNXTRT_")
"""What TensorRT and its ONNX parser call tensors that they made themselves."""


class Match:
    """The cache's entries beside the model's tensors.

    TensorRT takes its tensors' names from the ONNX file, and makes up one after a layer's where the file has none. The
    rewrites keep the values of what they keep the name of, so that a name means the same before and after them.

    Args:
        cache: The cache.
        given: The model as it came.
        graph: The model made ready, every layer placed that the policy allows.
    """

    def __init__(self, cache: CalibrationCache, given: onnx.ModelProto, graph: FloatGraph) -> None:
        self._cache = cache
        self._full = graph
        self._graphs = (graph.index, GraphIndex(given))
        self._tensors = tensor_names(given.graph) | tensor_names(graph.model.graph)
        self._nodes = {node.name for part in graphs_of(given.graph) for node in part.node}
        # Names in ONNX may begin or end with spaces, which lines of a cache lose.
        stripped = {name.strip(): name for name in self._tensors}
        self._tensor_of = {entry: stripped.get(entry, entry) for entry in (*cache.scales, *cache.not_finite)}
        self._thresholds = {
            self._tensor_of[entry]: scale * LARGEST_CODE
            for entry, scale in cache.scales.items()
            if scale >= SMALLEST_SCALE
        }
        self._found: dict[str, Neighbour | None] = {}

    @property
    def has_ranges(self) -> bool:
        """Whether any entry is a range."""
        return bool(self._thresholds)

    @property
    def needed(self) -> tuple[str, ...]:
        """The tensors whose ranges are wanted where every layer is placed."""
        return self._full.placement.ranges_needed

    @property
    def covered(self) -> dict[str, Neighbour]:
        """Tensor needed → its range, for those that the cache has one for."""
        found = {name: self.found(name) for name in self.needed}
        return {name: neighbour for name, neighbour in found.items() if neighbour is not None}

    @property
    def gaps(self) -> tuple[str, ...]:
        """The tensors needed for which the cache has nothing."""
        return tuple(name for name in self.needed if self.found(name) is None)

    @property
    def named(self) -> tuple[str, ...]:
        """The entries that are called like a tensor of an ONNX file."""
        return tuple(entry for entry in self._tensor_of if self.is_known(entry) or not self._is_unnamed(entry))

    def found(self, tensor: str) -> Neighbour | None:
        """The range that the cache has for a tensor, through neighbours too."""
        if tensor not in self._found:
            self._found[tensor] = neighbour_of(tensor, self._thresholds, self._graphs)
        return self._found[tensor]

    def is_known(self, entry: str) -> bool:
        """Whether the model has a tensor of this name."""
        return self._tensor_of[entry] in self._tensors

    def reason(self, tensor: str) -> str:
        """Why a tensor has no range."""
        told = {self._tensor_of[entry]: scale for entry, scale in self._cache.scales.items()}
        told |= {self._tensor_of[entry]: float("inf") for entry in self._cache.not_finite}
        if tensor not in told:
            return f"the calibration cache has no range for {tensor!r}"
        scale = "a scale that is not finite" if told[tensor] == float("inf") else f"the scale {told[tensor]:g}"
        return f"the calibration cache gives {tensor!r} {scale}, which is no range"

    def coverage(
        self, file: str, sha256: str, placed: FloatGraph, missing: Mapping[str, tuple[str, ...]]
    ) -> CacheCoverage:
        """What the cache covered; says nothing of data.

        Args:
            file: The cache.
            sha256: Its hash.
            placed: The graph with the layers in float that read what is missing.
            missing: Tensor without a range → these layers.
        """
        covered = self.covered
        through = {name: found.tensors for name, found in covered.items() if found.tensors != (name,)}
        used = {name for found in covered.values() for name in found.tensors}
        idle = [entry for entry, tensor in self._tensor_of.items() if tensor not in used]
        kinds: dict[str, list[str]] = {}
        for entry in idle:
            kinds.setdefault(self._kind(entry), []).append(entry)
        possible = self._full.quantized_nodes
        layers = placed.quantized_nodes - {layer for held_back in missing.values() for layer in held_back}
        return CacheCoverage(
            file=file,
            sha256=sha256,
            version=self._cache.version,
            algorithm=self._cache.algorithm,
            entries=len(self._tensor_of),
            exact=tuple(name for name in covered if name not in through),
            through=through,
            from_data=(),
            missing=missing,
            not_needed=tuple(kinds.get("known", ())),
            unknown=tuple(kinds.get("unknown", ())),
            unnamed=tuple(kinds.get("unnamed", ())),
            without_range=tuple(kinds.get("no range", ())),
            layers=len(layers),
            layers_possible=len(possible),
            macs=self._share(layers),
            macs_possible=self._share(possible),
        )

    def _kind(self, entry: str) -> str:
        """What an entry is that served nothing."""
        if self._tensor_of[entry] not in self._thresholds:
            return "no range"
        if self.is_known(entry):
            return "known"
        return "unnamed" if self._is_unnamed(entry) else "unknown"

    def _is_unnamed(self, entry: str) -> bool:
        """Whether an entry is called after a layer, or after nothing: a tensor that only TensorRT has."""
        layer = re.sub(r"_output(_\d+)?$", "", entry)
        return UNNAMED.match(entry) is not None or (layer != entry and layer in self._nodes)

    def _share(self, nodes: frozenset[str]) -> float | None:
        """The share of these nodes in all multiply-accumulates, 0 … 1; None where a layer's are unknown."""
        total = sum(macs or 0 for macs in self._macs.values())
        if not total or None in self._macs.values():
            return None
        return sum(self._macs.get(name) or 0 for name in nodes) / total

    @cached_property
    def _macs(self) -> dict[str, int | None]:
        return macs_by_node(GraphIndex(with_input_shapes(self._full.model, {})))
