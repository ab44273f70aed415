"""A float model in which any set of layers can be switched to INT8 from run to run, without loading it again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.writer import GraphWriter
from trt_opt.quantize.stage import FloatGraph
from trt_opt.sensitivity.layers import QuantizedLayer, added_bias, dequantized_weights

Array = NDArray[np.generic]


class Switchboard:
    """Runs a model with any of its layers in INT8 and the others in float32; a context manager like any runner.

    Every layer stands in both branches of an If whose condition is fed: only the branch taken costs time.

    Args:
        source: The float graph.
        layers: The layers with a switch.
        outputs: Tensors to return beside the graph's outputs.
    """

    def __init__(self, source: FloatGraph, layers: Sequence[QuantizedLayer], *, outputs: Sequence[str] = ()) -> None:
        model, self._switches = _switched(source, layers)
        self._runner = OnnxRuntimeRunner(model, optimised=False, outputs=outputs, name="switched")

    def __enter__(self) -> Switchboard:
        self._runner.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._runner.__exit__(None, None, None)

    def infer(self, feed: Mapping[str, Array], quantized: Collection[str]) -> dict[str, Array]:
        """The outputs by name with these layers in INT8.

        Args:
            feed: The model's inputs.
            quantized: Nodes; those without a switch are ignored.
        """
        switches = {name: np.array(node in quantized) for node, name in self._switches.items()}
        return self._runner.infer({**feed, **switches})


def _switched(source: FloatGraph, layers: Sequence[QuantizedLayer]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The model, and node → the graph input that switches it."""
    writer = GraphWriter(source.model)
    switches: dict[str, str] = {}
    for layer in layers:
        node = writer.nodes[layer.node]
        switch = writer.tensor(f"{layer.node}_in_int8")
        writer.model.graph.input.append(helper.make_tensor_value_info(switch, TensorProto.BOOL, []))
        switches[layer.node] = switch
        choice = helper.make_node("If", [switch], list(node.output), name=f"{layer.node}_switched")
        branches = {"then_branch": _quantized(writer, source, layer), "else_branch": [_copied(node)]}
        for name, nodes in branches.items():
            choice.attribute.append(helper.make_attribute(name, _branch(writer, nodes, node, source.index)))
        writer.behind(layer.node, choice)
        writer.remove(layer.node)
    return writer.finished(), switches


def _quantized(writer: GraphWriter, source: FloatGraph, layer: QuantizedLayer) -> list[onnx.NodeProto]:
    """The layer behind the Q/DQ pairs of its operands, and before what corrects it."""
    copy = _copied(writer.nodes[layer.node])
    nodes: list[onnx.NodeProto] = []
    for position, scale in layer.scales.items():
        codes, rounded = writer.tensor(f"{layer.node}_codes"), writer.tensor(f"{layer.node}_rounded")
        operands = [
            writer.constant("switch_scale", np.array(scale, np.float32)),
            writer.constant("switch_zero", np.int8(0)),
        ]
        nodes.append(writer.made("QuantizeLinear", [copy.input[position], *operands], codes))
        nodes.append(writer.made("DequantizeLinear", [codes, *operands], rounded))
        copy.input[position] = rounded
    for position, array in dequantized_weights(layer, source).items():
        copy.input[position] = writer.constant(f"{layer.node}_int8", array)
    nodes.append(copy)
    bias = added_bias(layer, source)
    if bias is not None:
        output, copy.output[0] = copy.output[0], writer.tensor(f"{layer.node}_uncorrected")
        nodes.append(writer.made("Add", [copy.output[0], writer.constant(f"{layer.node}_bias", bias)], output))
    return nodes


def _branch(
    writer: GraphWriter, nodes: list[onnx.NodeProto], node: onnx.NodeProto, index: GraphIndex
) -> onnx.GraphProto:
    """A graph of the nodes, its outputs named apart from those of the If."""
    outputs = []
    for position, name in enumerate(node.output):
        inner = writer.tensor(f"{name}_inside")
        nodes[-1].output[position] = inner
        outputs.append(helper.make_tensor_value_info(inner, index.element_type(name) or TensorProto.FLOAT, None))
    return helper.make_graph(nodes, f"{node.name}_branch", [], outputs)


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
