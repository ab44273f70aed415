"""The models of ONNX's own backend test suite, with the outputs they must give."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, numpy_helper

FOLDERS = ("pytorch-converted", "pytorch-operator", "simple")
SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One model of the suite.

    Attributes:
        key: "node/test_abs".
        model: The model.
        feed: Input → value of its first data set.
        expected: The outputs of that data set, in order; empty where the suite has none.
    """

    key: str
    model: ModelProto
    feed: Mapping[str, Any]
    expected: tuple[Any, ...]


def all_cases() -> Iterator[Case]:
    """Every model of the suite of the installed onnx package, node models first; their data come from a fixed seed."""
    from onnx.backend.test.case.model import collect_testcases as model_cases
    from onnx.backend.test.loader import load_node_model_tests

    random.seed(SEED)
    np.random.seed(SEED)  # The suite draws from NumPy's global generator.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = [*(case for case in model_cases() if case.model is not None), *load_node_model_tests()]
    seen = set()
    for case in made:
        seen.add(f"{case.kind}/{case.name}")
        yield _made_case(case)
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for kind in FOLDERS:
        for folder in sorted((data / kind).iterdir()):
            if (folder / "model.onnx").is_file() and f"{kind}/{folder.name}" not in seen:
                yield _stored_case(f"{kind}/{folder.name}", folder)
    for file in sorted((data / "light").glob("*.onnx")):
        yield _light_case(file)


def _made_case(case: Any) -> Case:
    inputs, outputs = case.data_sets[0] if case.data_sets else ((), ())
    graph = case.model.graph
    feed = {info.name: _value(value) for info, value in zip(graph.input, inputs, strict=False)}
    return Case(f"{case.kind}/{case.name}", case.model, feed, tuple(_value(value) for value in outputs))


def _stored_case(key: str, folder: Path) -> Case:
    model = onnx.load(folder / "model.onnx")
    data = folder / "test_data_set_0"
    names = {value.name for value in model.graph.input}
    feed = {}
    for position, value in enumerate(model.graph.input):
        file = data / f"input_{position}.pb"
        if file.exists():
            name, array = _stored(file, value)
            feed[name if name in names else value.name] = array
    outputs = [(data / f"output_{position}.pb", value) for position, value in enumerate(model.graph.output)]
    return Case(key, model, feed, tuple(_stored(file, value)[1] for file, value in outputs if file.exists()))


def _light_case(file: Path) -> Case:
    """A model without stored inputs: onnx's runner feeds these a ramp from 0 to 1."""
    model = onnx.load(file)
    constants = {tensor.name for tensor in model.graph.initializer}
    feed = {}
    for value in model.graph.input:
        if value.name not in constants:
            shape = [size.dim_value for size in value.type.tensor_type.shape.dim]
            count = int(np.prod(shape))
            feed[value.name] = (np.arange(count).reshape(shape) / count).astype(np.float32)
    stored = [file.with_name(f"{file.stem}_output_{position}.pb") for position in range(len(model.graph.output))]
    pairs = zip(stored, model.graph.output, strict=True)
    return Case(f"light/{file.stem}", model, feed, tuple(_stored(path, value)[1] for path, value in pairs))


def _stored(file: Path, value: ValueInfoProto) -> tuple[str, Any]:
    raw = file.read_bytes()
    match value.type.WhichOneof("value"):
        case "sequence_type":
            sequence = onnx.SequenceProto.FromString(raw)
            return sequence.name, numpy_helper.to_list(sequence)
        case "optional_type":
            optional = onnx.OptionalProto.FromString(raw)
            return optional.name, numpy_helper.to_optional(optional)
        case _:
            tensor = TensorProto.FromString(raw)
            return tensor.name, numpy_helper.to_array(tensor)


def _value(value: Any) -> Any:
    match value:
        case TensorProto():
            return numpy_helper.to_array(value)
        case onnx.SequenceProto():
            return numpy_helper.to_list(value)
        case onnx.OptionalProto():
            return numpy_helper.to_optional(value)
        case list() | dict() | None:
            return value
        case _:
            return np.asarray(value)
