"""What the engine inspector says: layers with the formats of their tensors."""

from __future__ import annotations

import json
from typing import Any

import tensorrt_bindings as vendor

from ._network import MAJOR
from ._strict import stand_in

FORMATS = {"INT8": "Row major Int8 format", "HALF": "Row major linear FP16 format", "FLOAT": "Row major linear FP32"}

HIDDEN = ("QuantizeLinear", "DequantizeLinear", "Constant")


def layers_of(network: Any, config: Any) -> list[dict[str, Any]]:
    """One layer per node that computes; quantise and dequantise nodes are fused into what they feed."""
    made_by = {name: node for node in network._s.model.graph.node for name in node.output}
    read_by: dict[str, list[str]] = {}
    for node in network._s.model.graph.node:
        for name in node.input:
            read_by.setdefault(name, []).append(node.op_type)
    int8_everywhere = MAJOR < 11 and _flag(config, "INT8") and "QuantizeLinear" not in _operators(network)
    fp16 = MAJOR < 11 and _flag(config, "FP16")
    found = []
    for layer in network._s.layers:
        if layer._s.operator in HIDDEN:
            continue
        pinned = layer._s.stored.get("precision")
        default = "HALF" if fp16 and pinned is None else "FLOAT"
        inputs = []
        for tensor in filter(None, layer._s.inputs):
            node = made_by.get(tensor.name)
            quantised = node is not None and node.op_type == "DequantizeLinear"
            if quantised or (int8_everywhere and layer._s.operator in ("Conv", "Gemm", "MatMul") and pinned is None):
                inputs.append(_tensor(tensor, "INT8"))
            else:
                inputs.append(_tensor(tensor, _kind(tensor, default)))
        outputs = []
        for tensor in filter(None, layer._s.outputs):
            readers = read_by.get(tensor.name, [])
            quantised = bool(readers) and set(readers) == {"QuantizeLinear"}
            outputs.append(_tensor(tensor, "INT8" if quantised else _kind(tensor, default)))
        found.append(
            {
                "Name": layer.name,
                "LayerType": layer._s.operator,
                "Inputs": inputs,
                "Outputs": outputs,
                "TacticName": f"stand_in_{layer._s.operator.lower()}",
                "Metadata": f"[ONNX Layer: {layer.name}]",
            }
        )
    return found


def _flag(config: Any, name: str) -> bool:
    flag = getattr(vendor.BuilderFlag, name, None)
    return flag is not None and config.get_flag(flag)


def _operators(network: Any) -> set[str]:
    return {node.op_type for node in network._s.model.graph.node}


def _kind(tensor: Any, default: str) -> str:
    return default if tensor._s.dtype.name == "FLOAT" else tensor._s.dtype.name


def _tensor(tensor: Any, kind: str) -> dict[str, Any]:
    return {
        "Name": tensor.name,
        "Location": "Device",
        "Dimensions": list(tensor._s.shape),
        "Format/Datatype": FORMATS.get(kind, f"Row major linear {kind}"),
    }


@stand_in
class EngineInspector:
    """Tells an engine's layers: names alone unless the build asked for details."""

    def get_engine_information(self, form: Any) -> str:
        record = self._s.engine._s.record
        layers = record["layers"] if record["detailed"] else [layer["Name"] for layer in record["layers"]]
        ends = [end["name"] for end in (*record["inputs"], *record["outputs"])]
        if form == vendor.LayerInformationFormat.JSON:
            return json.dumps({"Layers": layers, "Bindings": ends})
        return "Layers:\n" + "\n".join(str(layer) for layer in layers) + "\nBindings:\n" + "\n".join(ends)

    def get_layer_information(self, index: int, form: Any) -> str:
        layer = self._s.engine._s.record["layers"][index]
        return json.dumps(layer) if form == vendor.LayerInformationFormat.JSON else layer["Name"]
