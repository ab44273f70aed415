"""Walks a graph once, from its outputs to its inputs, and decides where Q/DQ pairs go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx

from trt_opt.errors import RequestError
from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.rules import AVERAGING_OPS, COMPUTE_OPS, Verdict, moves_data_only, verdict_on
from trt_opt.values.placement import ActivationQuantizer, FormatName, Placement, Reader, WeightQuantizer
from trt_opt.values.precision import LayerDecision, Precision

ACTIVATION_OPS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Elu", "Selu", "Softplus"}
)
"""What TensorRT fuses behind a convolution or a sum; looked through, never quantised themselves."""


EXCLUDED, BY_REQUEST = "excluded", "excluded by request"

ACCURACY = "accuracy"
"""The rule that left a layer in float because a measurement said so."""

NOTHING_SPARED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Scheme:
    """What a placement aims at.

    Attributes:
        number_format: What activations and weights are quantised to.
        per_channel: Whether weights have one scale per output channel.
        spreads: Whether sums, concatenations, pools and data movement between quantised layers are quantised too.
    """

    number_format: FormatName = "int8"
    per_channel: bool = True
    spreads: bool = True


INT8_SCHEME = Scheme()
"""Everything the policy gives to INT8."""


def placement_of(
    index: GraphIndex,
    *,
    exclude: Iterable[str] = (),
    spared: Mapping[str, str] = NOTHING_SPARED,
    activation_products: bool = False,
    scheme: Scheme = INT8_SCHEME,
) -> Placement:
    """Decides for every node of the top-level graph.

    Args:
        index: The float model, batch normalisations folded, shapes inferred, node names unique.
        exclude: Nodes to leave in float whatever the rules say.
        spared: Nodes to leave in float too, and why.
        activation_products: Quantise MatMuls of two activations too, as in attention.
        scheme: What quantised means.

    Raises:
        RequestError: An excluded or spared node does not exist.
    """
    kept = {**dict.fromkeys(spared, ACCURACY), **dict.fromkeys(exclude, EXCLUDED)}
    known_nodes(index, kept)
    verdicts = {name: Verdict(False, rule, spared.get(name, BY_REQUEST)) for name, rule in kept.items()}
    return _Placer(index, verdicts, scheme, activation_products).place()


def known_nodes(index: GraphIndex, names: Iterable[str]) -> frozenset[str]:
    """The names, if every one is a node's.

    Raises:
        RequestError: One is not.
    """
    asked = frozenset(names)
    unknown = sorted(asked - set(index.nodes))
    if unknown:
        raise RequestError(f"no node is called {unknown[0]!r}", hint="`trt-opt inspect` lists the nodes")
    return asked


class _Placer:
    """The state of one walk: which tensors are quantised so far, for whom, and with whose range."""

    def __init__(
        self, index: GraphIndex, kept: Mapping[str, Verdict], scheme: Scheme, activation_products: bool
    ) -> None:
        self._index = index
        self._kept = kept
        self._scheme = scheme
        self._activation_products = activation_products
        self._readers: dict[tuple[str, str], list[Reader]] = {}
        self._by_tensor: dict[str, list[str]] = {}
        self._decisions: dict[str, Verdict] = {}

    def place(self) -> Placement:
        nodes = list(self._index.model.graph.node)
        for node in nodes:
            self._decide(node)
        for node in reversed(nodes if self._scheme.spreads else ()):
            self._spread(node)
        order = {name: position for position, name in enumerate(self._tensor_order())}
        keys = sorted(self._readers, key=lambda key: (order.get(key[0], -1), order.get(key[1], -1)))
        return Placement(
            activations=tuple(ActivationQuantizer(*key, tuple(self._readers[key])) for key in keys),
            weights=tuple(
                self._weights(node, verdict.weight_axis)
                for node, verdict in ((node, self._decisions[node.name]) for node in nodes)
                if verdict.quantized and verdict.weight_axis is not None
            ),
            layers=tuple(self._layer(node) for node in nodes),
            activation_format=self._scheme.number_format,
        )

    def _weights(self, node: onnx.NodeProto, axis: int) -> WeightQuantizer:
        scaled = axis if self._scheme.per_channel else None
        return WeightQuantizer(Reader(node.name, 1), node.input[1], scaled, self._scheme.number_format)

    def _decide(self, node: onnx.NodeProto) -> None:
        verdict = verdict_on(node, self._index, activation_products=self._activation_products)
        kept = self._kept.get(node.name)
        if kept is not None and (verdict.quantized or kept.rule == ACCURACY):
            verdict = kept
        self._decisions[node.name] = verdict
        if verdict.quantized:
            operands = (0, 1) if verdict.weight_axis is None else (0,)
            for operand in operands:
                self._quantize(node.input[operand], node.input[operand], Reader(node.name, operand))

    def _spread(self, node: onnx.NodeProto) -> None:
        """Lets the quantised readers of a node's output pull its inputs into INT8 too, where that helps."""
        if node.domain not in ("", "ai.onnx") or node.name in self._kept:
            return
        if node.op_type in ("Add", "Sum") and len(node.input) == 2:
            self._spread_to_skip_branch(node)
            return
        if not node.output or not self._all_readers_quantized(node.output[0]):
            return
        ranges = self._by_tensor[node.output[0]]
        if node.op_type == "Concat":
            self._spread_over_concat(node, ranges[0])
        elif node.op_type in AVERAGING_OPS:
            self._spread_to_averaging(node)
        elif len(ranges) == 1 and moves_data_only(node, self._index) and not self._index.is_constant(node.input[0]):
            self._quantize(node.input[0], ranges[0], Reader(node.name, 0))
            self._decisions[node.name] = Verdict(
                True, "moves-data", f"{node.op_type} only moves elements and its readers are INT8"
            )

    def _spread_to_skip_branch(self, node: onnx.NodeProto) -> None:
        """TensorRT fuses convolution + Add into one INT8 kernel if the other operand is INT8 as well."""
        if not self._feeds_int8(node):
            return
        shapes = [self._index.shape(name) for name in node.input]
        same_shape = shapes[0] is not None and shapes[0] == shapes[1]
        if any(self._index.is_constant(name) for name in node.input) or not same_shape:
            return
        fusing = [position for position, name in enumerate(node.input) if self._is_own_int8_product(name, node)]
        if not fusing:
            return
        skip = 1 - fusing[-1]
        self._quantize(node.input[skip], node.input[skip], Reader(node.name, skip))
        partner = self._index.producer(node.input[1 - skip])
        name = partner.name if partner is not None else "?"
        self._decisions[node.name] = Verdict(
            True, "residual-add", f"fuses with {name!r}; the skip branch {node.input[skip]!r} is quantised"
        )

    def _spread_over_concat(self, node: onnx.NodeProto, range_of: str) -> None:
        if any(self._index.is_constant(name) for name in node.input):
            return
        for position, name in enumerate(node.input):
            self._quantize(name, range_of, Reader(node.name, position))
        self._decisions[node.name] = Verdict(True, "concat", "its readers are INT8; all inputs share one scale")

    def _spread_to_averaging(self, node: onnx.NodeProto) -> None:
        if self._comes_from_int8(node.input[0]):
            self._quantize(node.input[0], node.input[0], Reader(node.name, 0))
            self._decisions[node.name] = Verdict(True, "average-pooling", "INT8 on both sides")

    def _quantize(self, tensor: str, range_of: str, reader: Reader) -> None:
        key = (tensor, range_of)
        if key not in self._readers:
            self._readers[key] = []
            self._by_tensor.setdefault(tensor, []).append(range_of)
        self._readers[key].append(reader)

    def _all_readers_quantized(self, tensor: str) -> bool:
        readers = self._index.readers(tensor)
        if not readers or self._index.is_read_elsewhere(tensor):
            return False
        quantized = {
            (reader.node, reader.index)
            for range_of in self._by_tensor.get(tensor, ())
            for reader in self._readers[tensor, range_of]
        }
        return all((node.name, position) in quantized for node, position in readers)

    def _feeds_int8(self, node: onnx.NodeProto) -> bool:
        """Whether the node's output, behind at most a few activations, is quantised for somebody."""
        tensor = node.output[0]
        for _ in range(3):
            if tensor in self._by_tensor:
                return True
            activations = {
                reader.output[0] for reader, _ in self._index.readers(tensor) if reader.op_type in ACTIVATION_OPS
            }
            if len(activations) != 1:
                return False
            tensor = activations.pop()
        return False

    def _is_own_int8_product(self, tensor: str, add: onnx.NodeProto) -> bool:
        """Whether an INT8 layer writes the tensor and this sum alone reads it."""
        producer = self._index.producer(tensor)
        if producer is None or self._index.is_read_elsewhere(tensor):
            return False
        alone = all(reader.name == add.name for reader, _ in self._index.readers(tensor))
        return alone and self._is_int8_product(producer)

    def _is_int8_product(self, node: onnx.NodeProto) -> bool:
        return node.op_type in COMPUTE_OPS and self._decisions[node.name].quantized

    def _comes_from_int8(self, tensor: str) -> bool:
        """Whether an INT8 layer writes the tensor, behind activations, sums and data movement."""
        for _ in range(4):
            producer = self._index.producer(tensor)
            if producer is None:
                return False
            if self._decisions[producer.name].quantized:
                return True
            if producer.op_type not in ACTIVATION_OPS and producer.op_type not in ("Add", "Sum"):
                return False
            tensor = producer.input[0]
        return False

    def _layer(self, node: onnx.NodeProto) -> LayerDecision:
        verdict = self._decisions[node.name]
        precision: Precision = "fp32"
        if verdict.quantized:
            precision = "fp8" if self._scheme.number_format == "fp8" else "int8"
        return LayerDecision(node.name, node.op_type, precision, verdict.rule, verdict.reason)

    def _tensor_order(self) -> list[str]:
        graph = self._index.model.graph
        return [value.name for value in graph.input] + [name for node in graph.node for name in node.output]
