"""Networks and the parser: an ONNX graph as TensorRT shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import tensorrt_bindings as vendor
from onnx import TensorProto

from ._strict import make, stand_in

MAJOR = int(vendor.__version__.split(".")[0])

REFUSED = frozenset(
    ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "StringNormalizer")
)
"""Some of the operators that no parser from 8.6 to 11.4 imports."""

SHAPE_INPUTS = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0, "Tile": 1, "Resize": 3, "Slice": 1, "Range": 1}
"""Which input of an operator decides a shape."""

LAYER_TYPES = {
    "Conv": "CONVOLUTION",
    "ConvTranspose": "DECONVOLUTION",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
    "Relu": "ACTIVATION",
    "Sigmoid": "ACTIVATION",
    "MaxPool": "POOLING",
    "AveragePool": "POOLING",
    "GlobalAveragePool": "REDUCE",
    "MatMul": "MATRIX_MULTIPLY",
    "Gemm": "MATRIX_MULTIPLY",
    "Add": "ELEMENTWISE",
    "Mul": "ELEMENTWISE",
    "Softmax": "SOFTMAX",
    "Constant": "CONSTANT",
    "Shape": "SHAPE",
    "Reshape": "SHUFFLE",
    "Transpose": "SHUFFLE",
    "Flatten": "SHUFFLE",
    "Concat": "CONCATENATION",
    "Cast": "CAST",
}

ELEMENT_TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.DOUBLE: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64" if hasattr(vendor.DataType, "INT64") else "INT32",
    TensorProto.BOOL: "BOOL",
    TensorProto.FLOAT8E4M3FN: "FP8",
    TensorProto.INT4: "INT4",
}


def has_flag(flags: int, kind: Any, name: str) -> bool:
    """Whether a bit field holds an enumeration's member, which this version may lack."""
    return hasattr(kind, name) and bool(flags >> int(getattr(kind, name)) & 1)


@stand_in
class ITensor:
    """One tensor of the graph."""

    @property
    def name(self) -> str:
        return self._s.name

    @name.setter
    def name(self, value: str) -> None:
        raise NotImplementedError("renaming tensors")

    @property
    def shape(self) -> Any:
        return vendor.Dims(self._s.shape)

    @property
    def dtype(self) -> Any:
        return self._s.dtype

    @property
    def is_shape_tensor(self) -> bool:
        return self._s.is_shape

    @property
    def is_execution_tensor(self) -> bool:
        return not self._s.is_shape

    @property
    def is_network_input(self) -> bool:
        return any(found is self for found in self._s.network._s.inputs)

    @property
    def is_network_output(self) -> bool:
        return any(found is self for found in self._s.network._s.outputs)

    @property
    def location(self) -> Any:
        return vendor.TensorLocation.HOST if self._s.is_shape else vendor.TensorLocation.DEVICE

    def set_dynamic_range(self, minimum: float, maximum: float) -> bool:
        self._s.stored["dynamic_range"] = (minimum, maximum)
        return True

    def reset_dynamic_range(self) -> None:
        self._s.stored.pop("dynamic_range", None)


@stand_in
class ILayer:
    """One node of the graph."""

    @property
    def name(self) -> str:
        return self._s.name

    @property
    def type(self) -> Any:
        return self._s.type

    @property
    def num_inputs(self) -> int:
        return len(self._s.inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._s.outputs)

    @property
    def precision_is_set(self) -> bool:
        return "precision" in self._s.stored

    @property
    def precision(self) -> Any:
        return self._s.stored.get("precision", vendor.DataType.FLOAT)

    def get_input(self, index: int) -> Any:
        return self._s.inputs[index] if 0 <= index < len(self._s.inputs) else None

    def get_output(self, index: int) -> Any:
        return self._s.outputs[index] if 0 <= index < len(self._s.outputs) else None

    def reset_precision(self) -> None:
        self._s.stored.pop("precision", None)

    def set_output_type(self, index: int, kind: Any) -> None:
        self._s.output_types[index] = kind

    def get_output_type(self, index: int) -> Any:
        return self._s.output_types.get(index, self._s.outputs[index].dtype)

    def output_type_is_set(self, index: int) -> bool:
        return index in self._s.output_types

    def reset_output_type(self, index: int) -> None:
        self._s.output_types.pop(index, None)


@stand_in
class INetworkDefinition:
    """A parsed graph."""

    @property
    def num_inputs(self) -> int:
        return len(self._s.inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._s.outputs)

    @property
    def num_layers(self) -> int:
        return len(self._s.layers)

    @property
    def has_implicit_batch_dimension(self) -> bool:
        return not self._s.explicit_batch

    @property
    def has_explicit_precision(self) -> bool:
        return False

    @property
    def flags(self) -> int:
        return self._s.flags

    @property
    def builder(self) -> Any:
        return self._s.builder

    def get_flag(self, flag: Any) -> bool:
        return bool(self._s.flags >> int(flag) & 1)

    def get_input(self, index: int) -> Any:
        return self._s.inputs[index] if 0 <= index < len(self._s.inputs) else None

    def get_output(self, index: int) -> Any:
        return self._s.outputs[index] if 0 <= index < len(self._s.outputs) else None

    def get_layer(self, index: int) -> Any:
        return self._s.layers[index] if 0 <= index < len(self._s.layers) else None

    def mark_output(self, tensor: Any) -> None:
        if not tensor.is_network_output:
            self._s.outputs.append(tensor)

    def unmark_output(self, tensor: Any) -> None:
        self._s.outputs[:] = [found for found in self._s.outputs if found is not tensor]

    def __len__(self) -> int:
        return len(self._s.layers)

    def __getitem__(self, index: int) -> Any:
        return self._s.layers[index]


def new_network(builder: Any, flags: int) -> INetworkDefinition:
    """An empty network; 11 knows strongly typed ones alone."""
    kind = vendor.NetworkDefinitionCreationFlag
    if MAJOR >= 11 and hasattr(kind, "STRONGLY_TYPED"):
        flags |= 1 << int(kind.STRONGLY_TYPED)
    return make(
        INetworkDefinition,
        builder=builder,
        flags=flags,
        explicit_batch=MAJOR >= 10 or has_flag(flags, kind, "EXPLICIT_BATCH"),
        strongly_typed=MAJOR >= 11 or has_flag(flags, kind, "STRONGLY_TYPED"),
        inputs=[],
        outputs=[],
        layers=[],
        model=None,
    )


@stand_in
class ParserError:
    """Why the parser refused."""

    def code(self) -> Any:
        return vendor.ErrorCode.UNSUPPORTED_NODE

    def desc(self) -> str:
        return self._s.description

    def file(self) -> str:
        return "ModelImporter.cpp"

    def line(self) -> int:
        return 1

    def func(self) -> str:
        return self._s.function

    def node(self) -> int:
        return self._s.node

    def node_name(self) -> str:
        return self._s.node_name

    def node_operator(self) -> str:
        return self._s.node_operator


@stand_in
class OnnxParser:
    """Reads ONNX with the `onnx` package and refuses what TensorRT's parser refuses."""

    def _construct(self, network: Any, logger: Any) -> None:
        vars(self._s).update(network=network, logger=logger, errors=[], flags=0)

    @property
    def num_errors(self) -> int:
        return len(self._s.errors)

    @property
    def flags(self) -> int:
        return self._s.flags

    @flags.setter
    def flags(self, value: int) -> None:
        self._s.flags = value

    def set_flag(self, flag: Any) -> None:
        self._s.flags |= 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        self._s.flags &= ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        return bool(self._s.flags >> int(flag) & 1)

    def get_error(self, index: int) -> ParserError:
        return self._s.errors[index]

    def clear_errors(self) -> None:
        self._s.errors.clear()

    def supports_operator(self, name: str) -> bool:
        return name not in REFUSED and onnx.defs.has(name)

    def parse(self, model: Any, path: str | None = None) -> bool:
        try:
            loaded = onnx.load_from_string(bytes(model))
            if path:
                onnx.load_external_data_for_model(loaded, str(Path(path).parent))
        except Exception as error:  # noqa: BLE001  whatever protobuf raises is "no model" to a parser
            return self._refuse(None, f"Failed to parse ONNX model: {error}")
        return self._take(loaded)

    def parse_from_file(self, model: str) -> bool:
        try:
            loaded = onnx.load(model)
        except Exception as error:  # noqa: BLE001  as above
            return self._refuse(None, f"Could not open or parse file {model}: {error}")
        return self._take(loaded)

    def _take(self, model: onnx.ModelProto) -> bool:
        network = self._s.network
        if not network._s.explicit_batch:
            return self._refuse(
                None,
                "This version of the ONNX parser only supports TensorRT INetworkDefinitions with an explicit batch "
                "dimension. Please ensure the network was created using the EXPLICIT_BATCH flag.",
            )
        for index, node in enumerate(model.graph.node):
            if node.op_type in REFUSED or (node.domain not in ("", "ai.onnx") and not model.functions):
                self._refuse((index, node), f"No importer registered for op: {node.op_type}.")
        if not self._s.errors:
            _fill(network, model)
        return not self._s.errors

    def _refuse(self, place: tuple[int, onnx.NodeProto] | None, description: str) -> bool:
        index, node = place or (-1, onnx.NodeProto())
        error = make(
            ParserError,
            description=description,
            function="parseNode" if place else "parse",
            node=index,
            node_name=node.name,
            node_operator=node.op_type,
        )
        self._s.errors.append(error)
        for line in _told(index, node, description) if place else (description,):
            self._s.logger.log(vendor.ILogger.Severity.ERROR, line)
        return False


def _told(index: int, node: onnx.NodeProto, description: str) -> tuple[str, ...]:
    """What the parser logs of a node: before 10 only this names it."""
    return (
        f'While parsing node number {index} [{node.op_type} -> "{node.output[0]}"]:',
        "--- Begin node ---",
        str(node),
        "--- End node ---",
        f"ERROR: ModelImporter.cpp:1 In function parseNode:\n[8] {description}",
    )


def _fill(network: INetworkDefinition, model: onnx.ModelProto) -> None:
    inferred = onnx.shape_inference.infer_shapes(model)
    initializers = {tensor.name: tensor for tensor in inferred.graph.initializer}
    known = {info.name: info for info in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)}
    deciding = set(_deciding(model.graph))
    tensors: dict[str, ITensor] = {}

    def tensor(name: str) -> Any:
        if not name:
            return None
        if name not in tensors:
            kind, shape = _described(known.get(name), initializers.get(name))
            is_shape = name in deciding
            tensors[name] = make(ITensor, name=name, shape=shape, dtype=kind, is_shape=is_shape, network=network)
        return tensors[name]

    state = network._s
    state.model = model
    state.inputs = [tensor(info.name) for info in model.graph.input if info.name not in initializers]
    state.outputs = [tensor(info.name) for info in model.graph.output]
    for index, node in enumerate(model.graph.node):
        kind = getattr(vendor.LayerType, LAYER_TYPES.get(node.op_type, "IDENTITY"), vendor.LayerType.IDENTITY)
        layer = make(
            ILayer,
            name=node.name or f"(Unnamed Layer* {index}) [{node.op_type}]",
            type=kind,
            operator=node.op_type,
            inputs=[tensor(name) for name in node.input if name not in initializers],
            outputs=[tensor(name) for name in node.output],
            output_types={},
        )
        state.layers.append(layer)


def _deciding(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of tensors that decide a shape."""
    for node in graph.node:
        index = SHAPE_INPUTS.get(node.op_type)
        if index is not None and index < len(node.input):
            yield node.input[index]


def _described(info: onnx.ValueInfoProto | None, weight: onnx.TensorProto | None) -> tuple[Any, tuple[int, ...]]:
    if weight is not None:
        return data_type(weight.data_type), tuple(weight.dims)
    if info is None:
        return vendor.DataType.FLOAT, ()
    kind = info.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim)
    return data_type(kind.elem_type), shape


def data_type(element_type: int) -> Any:
    """ONNX's element type as the vendor's; FLOAT where this version has none."""
    return getattr(vendor.DataType, ELEMENT_TYPES.get(element_type, "FLOAT"), vendor.DataType.FLOAT)
