"""Reads what TensorRT's engine inspector says of an engine: JSON whose words differ between versions.

Written from NVIDIA's developer guide ("Engine Inspector") and the output of TREx and Polygraphy for TensorRT 8.5 to 10:
a layer names its tensors with "Format/Datatype" in prose, and since 8.6 the graph's nodes in "Metadata".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from trt_opt.errors import StageError
from trt_opt.values.engine_layers import EngineLayer

_TYPES = (
    ("int4", r"\bint4\b"),
    ("int8", r"\bint8\b"),
    ("fp8", r"\bfp8|\bfloat8|\be4m3"),
    ("bf16", r"\bbf16\b|\bbfloat16\b"),
    ("fp16", r"\bfp16\b|\bhalf\b|\bfloat16\b"),
    ("fp32", r"\bfp32\b|\bfloat\b|\bfloat32\b"),
)
"""Precision → how a data type is written, the narrowest first: a layer computes in the narrowest type it reads."""

_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")

_PARTS = re.compile(r"\s*\+\s*|\.\.\.|[(){}\[\],]|\|\|")
"""What stands between the graph's nodes in a layer's name: "conv1 + relu1", "PWN(mul, add)", "{ForeignNode[a...b]}"."""


def layers_from_text(text: str) -> tuple[EngineLayer, ...]:
    """The layers of an engine, in its order.

    Args:
        text: What `get_engine_information` gives as JSON, for an engine built with detailed profiling verbosity.

    Raises:
        StageError: It is not that.
    """
    try:
        found = json.loads(text)
        layers = tuple(found["Layers"])
    except (ValueError, KeyError, TypeError) as error:
        raise StageError(f"the engine inspector's answer cannot be read: {error!r}") from error
    return tuple(_layer(entry) for entry in layers)


def _layer(entry: Mapping[str, Any] | str) -> EngineLayer:
    if isinstance(entry, str):  # built without details
        return EngineLayer(entry, "", "", _nodes(entry, ""))
    name = str(entry.get("Name", ""))
    return EngineLayer(
        name=name,
        kind=str(entry.get("LayerType", "")),
        precision=_precision(entry),
        nodes=_nodes(name, str(entry.get("Metadata", ""))),
        tactic=str(entry.get("TacticName", "")),
    )


def _nodes(name: str, metadata: str) -> tuple[str, ...]:
    """The graph's nodes in a layer; by its name where it carries no metadata, which then may hold other words too."""
    named = _NODE.findall(metadata) or [part.strip() for part in _PARTS.split(name)]
    return tuple(dict.fromkeys(part for part in named if part))


def _precision(entry: Mapping[str, Any]) -> str:
    read = [*_types(entry.get("Inputs")), *_weight_type(entry.get("Weights"))]
    written = read or list(_types(entry.get("Outputs")))  # constants read nothing
    return next((name for name, _ in _TYPES if name in written), "other")


def _types(tensors: object) -> Iterator[str]:
    for tensor in tensors if isinstance(tensors, list) else ():
        words = " ".join(str(tensor.get(key, "")) for key in ("Format/Datatype", "Datatype", "DataType"))
        yield from _named(words)


def _weight_type(weights: object) -> Iterator[str]:
    if isinstance(weights, Mapping) and weights.get("Count"):
        yield from _named(str(weights.get("Type", "")))


def _named(words: str) -> Iterator[str]:
    for name, pattern in _TYPES:
        if re.search(pattern, words, re.IGNORECASE):
            yield name
            return
