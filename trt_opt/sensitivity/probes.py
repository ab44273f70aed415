"""Layers computed a second time with some operands quantised, beside the float model and from the same inputs.

One run of the model then gives the error of every probe at its own layer's output: nothing but sums leaves the graph,
so memory does not grow with the number of probes or samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.writer import GraphWriter
from trt_opt.sensitivity.output_errors import decibels
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Sample

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """One layer with other operands.

    Attributes:
        node: The layer.
        scales: Input position → scale of the INT8 Q/DQ pair put in front of it.
        constants: Input position → what takes the place of a constant.
        bias: Added to what the layer gives, over whose output it broadcasts; None adds nothing.
        through: Nodes behind the layer, each reading the one before; the error is measured behind the last.
    """

    node: str
    scales: Mapping[int, np.float32] = field(default_factory=dict)
    constants: Mapping[int, FloatArray] = field(default_factory=dict)
    bias: FloatArray | None = None
    through: tuple[str, ...] = ()


@dataclass(slots=True)
class ErrorSums:
    """What one probe adds up to over samples.

    Attributes:
        error: Sum of squared differences from the float layer's output.
        signal: Sum of squares of the float layer's output.
        channel_error: Sum of differences (quantised minus float) per channel; None where no channels were asked for.
        elements: Elements of the output per channel; 0 likewise.
    """

    error: float = 0.0
    signal: float = 0.0
    channel_error: NDArray[np.float64] | None = None
    elements: int = 0

    @property
    def relative(self) -> float:
        """Error over signal: 0 where both are zero, infinity where the error is not a number or the signal is zero."""
        if not np.isfinite(self.error):
            return float("inf")
        if self.signal == 0.0:
            return 0.0 if self.error == 0.0 else float("inf")
        return self.error / self.signal

    @property
    def sqnr_db(self) -> float | None:
        """10·log10(signal / error); None where there is no error or no signal, minus infinity where it is no number."""
        return decibels(self.relative) if self.signal else None


class Probes:
    """Probes of one float model, ready to run; a context manager like any runner.

    Args:
        index: The float model.
        probes: What is measured.
        channel_axes: Probe number → the axis of its output along which differences are summed apart.
    """

    def __init__(
        self, index: GraphIndex, probes: Sequence[Probe], *, channel_axes: Mapping[int, int] | None = None
    ) -> None:
        self.sums = tuple(ErrorSums() for _ in probes)
        self._axes = dict(channel_axes or {})
        model, self._names = _probed(index, probes, self._axes)
        self._runner = OnnxRuntimeRunner(model, optimised=False, name="layers apart")

    def __enter__(self) -> Probes:
        self._runner.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._runner.__exit__(None, None, None)

    def add(self, sample: Sample) -> None:
        """Runs one sample and adds what it gives."""
        found = self._runner.infer(sample.feed)
        for number, sums in enumerate(self.sums):
            names = self._names[number]
            sums.error += float(found[names["error"]])
            sums.signal += float(found[names["signal"]])
            if "channels" in names:
                channels = np.asarray(found[names["channels"]], np.float64).reshape(-1)
                sums.channel_error = channels if sums.channel_error is None else sums.channel_error + channels
                sums.elements += int(found[names["size"]]) // max(channels.size, 1)


def probe_errors(
    index: GraphIndex, probes: Sequence[Probe], samples: Iterable[Sample], progress: Progress, *, stage: str
) -> tuple[ErrorSums, ...]:
    """Every probe's error at its layer's output, pooled over the samples, from one run of the model for each sample.

    Args:
        index: The float model.
        probes: What is measured; none costs nothing.
        samples: Each is run once.
        progress: Told of every sample.
        stage: What it is called.
    """
    if not probes:
        return ()
    progress.start(stage, len(samples) if isinstance(samples, Sized) else None)
    with Probes(index, probes) as running:
        for sample in samples:
            running.add(sample)
            progress.advance()
    progress.finish()
    return running.sums


def _probed(
    index: GraphIndex, probes: Sequence[Probe], axes: Mapping[int, int]
) -> tuple[onnx.ModelProto, list[dict[str, str]]]:
    """The model with sums as its only outputs, and their names for every probe."""
    writer = GraphWriter(index.model)
    del writer.model.graph.output[:]
    signals: dict[str, str] = {}
    names: list[dict[str, str]] = []
    pairs: dict[tuple[str, float], str] = {}
    shared: dict[int, str] = {}
    for number, probe in enumerate(probes):
        last = (probe.node, *probe.through)[-1]
        output = _output(index.nodes[last])
        if last not in signals:
            signals[last] = writer.tensor(f"{output}_signal")
            writer.behind(last, writer.made("ReduceSumSquare", [output], signals[last], keepdims=0))
        again = writer.tensor(f"{output}_probe{number}")
        _add_pairs(writer, index, index.nodes[probe.node], probe, pairs)
        difference, error = writer.tensor(f"{again}_difference"), writer.tensor(f"{again}_error")
        writer.behind(
            last,
            *_copies(writer, index, probe, again, pairs, shared),
            writer.made("Sub", [again, output], difference),
            writer.made("ReduceSumSquare", [difference], error, keepdims=0),
        )
        own = {"signal": signals[last], "error": error}
        if number in axes:
            own |= _channel_sums(writer, last, difference, axes[number], index.shape(output))
        names.append(own)
    graph = writer.model.graph
    for name in dict.fromkeys(name for entry in names for name in entry.values()):
        kind = onnx.TensorProto.INT64 if name.endswith("_size") else onnx.TensorProto.FLOAT
        graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return writer.finished(), names


def _add_pairs(
    writer: GraphWriter, index: GraphIndex, node: onnx.NodeProto, probe: Probe, pairs: dict[tuple[str, float], str]
) -> None:
    """Adds the Q/DQ pairs that the probe needs and nobody has made yet, in front of their tensor's first reader."""
    for position, scale in probe.scales.items():
        key = (node.input[position], float(scale))
        if key in pairs:
            continue
        codes, pairs[key] = writer.tensor(f"{key[0]}_codes"), writer.tensor(f"{key[0]}_rounded")
        operands = [
            writer.constant("probe_scale", np.array(scale, np.float32)),
            writer.constant("probe_zero", np.int8(0)),
        ]
        writer.before(
            index.readers(key[0])[0][0].name,
            writer.made("QuantizeLinear", [key[0], *operands], codes),
            writer.made("DequantizeLinear", [codes, *operands], pairs[key]),
        )


def _copies(
    writer: GraphWriter,
    index: GraphIndex,
    probe: Probe,
    again: str,
    pairs: Mapping[tuple[str, float], str],
    shared: dict[int, str],
) -> list[onnx.NodeProto]:
    """The layer with its other operands, and what the error passes through; the last of them writes `again`.

    Args:
        writer: The model.
        index: The model as it was.
        probe: What is measured.
        again: The tensor to write.
        pairs: Tensor and scale → the rounded tensor.
        shared: The `id` of an array → its initialiser: weights that several probes have are stored once.
    """
    operands = {
        position: pairs[index.nodes[probe.node].input[position], float(scale)]
        for position, scale in probe.scales.items()
    }
    for position, array in probe.constants.items():
        if id(array) not in shared:
            shared[id(array)] = writer.constant(f"{again}_operand{position}", np.asarray(array, np.float32))
        operands[position] = shared[id(array)]
    chain = [index.nodes[name] for name in (probe.node, *probe.through)]
    targets = [*(writer.tensor(f"{again}_inside") for _ in probe.through), again]
    copies = [_copy(writer, chain[0], operands, targets[0])]
    if probe.bias is not None:
        copies += [_with_bias(writer, copies[0], probe.bias)]
    for number, node in enumerate(chain[1:], 1):
        behind = _output(chain[number - 1])
        read = {position: targets[number - 1] for position, name in enumerate(node.input) if name == behind}
        copies.append(_copy(writer, node, read, targets[number]))
    return copies


def _with_bias(writer: GraphWriter, copy: onnx.NodeProto, bias: FloatArray) -> onnx.NodeProto:
    """The sum that writes what the copy wrote before."""
    target = copy.output[0]
    copy.output[0] = writer.tensor(f"{target}_uncorrected")
    return writer.made("Add", [copy.output[0], writer.constant(f"{target}_bias", bias)], target)


def _copy(writer: GraphWriter, node: onnx.NodeProto, operands: Mapping[int, str], target: str) -> onnx.NodeProto:
    """The node with other inputs at some positions, and another first output."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = writer.made("Identity", [target], target).name
    for position, name in operands.items():
        copy.input[position] = name
    del copy.output[:]
    copy.output.extend(target if name == _output(node) else "" for name in node.output)
    return copy


def _output(node: onnx.NodeProto) -> str:
    """The node's first output."""
    return str(next(name for name in node.output if name))


def _channel_sums(
    writer: GraphWriter, node: str, difference: str, axis: int, shape: tuple[int | None, ...] | None
) -> dict[str, str]:
    rank = len(shape or ())
    others = np.array([dim for dim in range(rank) if dim != axis % rank], np.int64)
    sums, size = writer.tensor(f"{difference}_channels"), writer.tensor(f"{difference}_size")
    writer.behind(
        node,
        writer.made("ReduceSum", [difference, writer.constant("probe_axes", others)], sums, keepdims=0),
        writer.made("Size", [difference], size),
    )
    return {"channels": sums, "size": size}
