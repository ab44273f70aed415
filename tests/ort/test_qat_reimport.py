"""What `qat_insert.py` puts into a PyTorch model is what comes back out of its ONNX file, number for number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run
from graphs import model_of, node
from numpy.typing import NDArray
from onnx import numpy_helper
from ort_session import outputs_of, sqnr_db

from trt_opt.importing import imported
from trt_opt.values.samples import Sample

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

from torch import nn  # noqa: E402 - only where it is installed

from trt_opt.qat import qat_insert  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
"""PyTorch's exporter warns of its own parts."""

EXACT_SCALE = 2.0**-4
LEAST_DB = 60.0
"""Between two float implementations: sums in another order tip a few values to the neighbouring step."""


class Block(nn.Module):
    """Two convolutions with BatchNormalization, their input added in place, on either side."""

    def __init__(self, channels: int, *, into_input: bool) -> None:
        super().__init__()
        self.into_input = into_input
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.into_input:
            return torch.relu(x.add_(y))
        y += x
        return torch.relu(y)


class Network(nn.Module):
    """A residual block twice, two branches into a Concat that a convolution reads, pooling and Linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(Block(16, into_input=True), Block(16, into_input=False))
        self.pool = nn.MaxPool2d(2)
        self.left, self.right = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.joined = nn.Conv2d(32, 16, 3, padding=1)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.hidden, self.head = nn.Linear(16, 32), nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        x = self.pool(self.blocks(torch.relu(self.stem(x))))
        x = torch.cat((torch.relu(self.left(x)), 4 * torch.relu(self.right(x))), 1)
        x = torch.relu(self.joined(x))
        return self.head(torch.relu(self.hidden(torch.flatten(self.average(x), 1))))


def network(seed: int = 0) -> nn.Module:
    """The network with random weights and statistics."""
    torch.manual_seed(seed)
    made = Network().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.uniform_(module.running_var, 0.2, 0.6)
    return made


@dataclass(frozen=True)
class Training:
    """A model before its training.

    Attributes:
        model: The float model.
        example: What it is called with.
        float_file: Its ONNX file.
        folder: What `trt-opt qat` wrote.
        static_file: The model in static INT8.
    """

    model: nn.Module
    example: Any
    float_file: Path
    folder: Path
    static_file: Path

    @property
    def configuration(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "qat.json").read_text(encoding="utf-8"))
        return found

    def prepared(self, **options: Any) -> Any:
        return qat_insert.prepare(self.model, self.example, configuration=self.folder / "qat.json", **options)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Exported, calibrated, quantised, and a folder for its training."""
    folder = tmp_path_factory.mktemp("training")
    model, float_file, static_file, data = network(), folder / "f.onnx", folder / "static.onnx", folder / "data.npz"
    example = torch.randn(4, 3, 8, 8)
    torch.onnx.export(
        model, (example,), str(float_file), input_names=["image"], output_names=["scores"], dynamo=True,
        dynamic_shapes=({0: "batch"},), external_data=False, verbose=False,
    )  # fmt: skip
    np.savez(data, image=np.random.default_rng(1).standard_normal((32, 3, 8, 8)).astype(np.float32))
    common = ("--calib-data", str(data), "--calibrator", "minmax", "--target", "rtx:8.6", "-o")
    for verb, output, more in (("qat", folder / "qat", ()), ("quantize", static_file, ("--no-fp16",))):
        result = run(verb, str(float_file), *common, str(output), *more)
        assert result.exit_code == 0, result.output
    return Training(model, example, float_file, folder / "qat", static_file)


@pytest.fixture(scope="module")
def exported(training: Training) -> tuple[Any, onnx.ModelProto]:
    """The fake-quantised model after a few steps of training, and its ONNX file."""
    quantized = training.prepared()
    optimiser = torch.optim.AdamW(qat_insert.parameter_groups(quantized, 1e-3, 3e-2))
    quantized.train()
    for seed in range(3):
        torch.manual_seed(seed)
        loss = quantized(torch.randn(16, 3, 8, 8)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    quantized.eval()
    path = training.folder.parent / "qat.onnx"
    qat_insert.export(quantized, training.example, path)
    return quantized, onnx.load(path)


def images(seed: int = 7) -> NDArray[np.float32]:
    """Eight images."""
    return np.random.default_rng(seed).standard_normal((8, 3, 8, 8)).astype(np.float32)


def scores(model: Any, feed: NDArray[np.float32]) -> NDArray[np.float32]:
    """What PyTorch computes."""
    with torch.no_grad():
        found: NDArray[np.float32] = model(torch.from_numpy(feed)).numpy()
    return found


def quantized_inputs(model: onnx.ModelProto) -> list[tuple[str, int]]:
    """Operator and input position of everything that reads a DequantizeLinear, in graph order."""
    makers = {output: item.op_type for item in model.graph.node for output in item.output}
    return [
        (item.op_type, index)
        for item in model.graph.node
        for index, name in enumerate(item.input)
        if makers.get(name) == "DequantizeLinear" and item.op_type != "QuantizeLinear"
    ]


def activation_scales(model: onnx.ModelProto) -> list[float]:
    """The scales of all QuantizeLinear, in graph order."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        float(numpy_helper.to_array(stored[item.input[1]]))
        for item in model.graph.node
        if item.op_type == "QuantizeLinear"
    ]


def test_before_training_the_model_is_static_int8(training: Training) -> None:
    """The fake-quantised model begins with the numbers of what `trt-opt quantize` writes."""
    static = outputs_of(onnx.load(training.static_file), {"image": images()})["scores"]
    assert sqnr_db(static, scores(training.prepared(), images())) > LEAST_DB


def test_the_exported_file_has_the_numbers_of_pytorch(exported: tuple[Any, onnx.ModelProto]) -> None:
    """After training, ONNX Runtime computes from the file what PyTorch computes in evaluation mode."""
    quantized, model = exported
    found = outputs_of(model, {"image": images()})["scores"]
    assert sqnr_db(scores(quantized, images()), found) > LEAST_DB


def test_where_sums_are_exact_no_bit_differs(training: Training, tmp_path: Path) -> None:
    """With scales that are powers of two every sum is exact, and PyTorch and ONNX Runtime agree to the last bit."""
    plan = training.configuration
    plan["activation_scales"] = dict.fromkeys(plan["activation_scales"], EXACT_SCALE)
    (tmp_path / "qat.json").write_text(json.dumps(plan), encoding="utf-8")
    quantized = qat_insert.prepare(training.model, training.example, configuration=tmp_path / "qat.json")
    with torch.no_grad():
        for name, parameter in quantized.named_parameters():
            if name == "head.weight":
                parameter.copy_(torch.randint(-4, 5, parameter.shape) * 2.0**-3)
            elif name.endswith("original"):
                parameter.copy_(torch.randint(-127, 128, parameter.shape) * 2.0**-9)
                parameter.view(len(parameter), -1)[:, 0] = 127 * 2.0**-9
            elif name.endswith("bias"):
                parameter.copy_(torch.round(parameter * 2**8) / 2**8)
    qat_insert.export(quantized, training.example, tmp_path / "exact.onnx")
    found = outputs_of(onnx.load(tmp_path / "exact.onnx"), {"image": images()})["scores"]
    expected = scores(quantized, images())
    assert np.ptp(expected) > 0.1
    np.testing.assert_array_equal(found, expected)


def test_the_same_places_are_quantized_as_by_static_quantisation(
    training: Training, exported: tuple[Any, onnx.ModelProto]
) -> None:
    """The exported file has its pairs in front of the same node inputs as static INT8 of the float file."""
    expected = quantized_inputs(onnx.load(training.static_file))
    assert {("Add", 0), ("Add", 1)} <= set(expected)
    assert ("Concat", 1) in expected
    assert sorted(quantized_inputs(exported[1])) == sorted(expected)


def test_scales_move_and_are_written_as_they_are(training: Training, exported: tuple[Any, onnx.ModelProto]) -> None:
    """Training moved every scale; the file has what the modules have, to the last bit."""
    quantized, model = exported
    modules = [module for module in quantized.modules() if isinstance(module, qat_insert.FakeQuantize)]
    held = {float(module.scale()) for module in modules}
    assert set(activation_scales(model)) == held
    assert held.isdisjoint(np.float32(list(training.configuration["activation_scales"].values())).tolist())


def test_inputs_of_a_concat_keep_one_scale(exported: tuple[Any, onnx.ModelProto]) -> None:
    """Training cannot drive the scales of tensors apart that a Concat joins."""
    model = exported[1]
    makers = {output: item for item in model.graph.node for output in item.output}
    (concat,) = [item for item in model.graph.node if item.op_type == "Concat"]
    assert len({makers[name].input[1] for name in concat.input}) == 1


def test_weights_are_stored_as_int8(exported: tuple[Any, onnx.ModelProto]) -> None:
    """One INT8 initialiser for each quantised layer, symmetric; no quantised layer's weights are left in float."""
    stored = [numpy_helper.to_array(tensor) for tensor in exported[1].graph.initializer]
    weights = [array for array in stored if array.dtype == np.int8 and array.ndim > 1]
    assert len(weights) == 9
    assert min(int(array.min()) for array in weights) == -127
    assert [array.shape for array in stored if array.dtype == np.float32 and array.ndim > 1] == [(10, 32)]


def test_names_and_dynamic_axes_are_those_of_the_float_file(exported: tuple[Any, onnx.ModelProto]) -> None:
    """Whoever fed the float model feeds this one."""
    graph = exported[1].graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["image", "scores"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_import_keeps_what_was_trained(exported: tuple[Any, onnx.ModelProto]) -> None:
    """Scales, places and numbers come through the import of quantised models as they are."""
    model = exported[1]
    kept = imported(model, (Sample("images", {"image": images()}),), zero_points="fold").model
    assert activation_scales(kept) == activation_scales(model)
    assert quantized_inputs(kept) == quantized_inputs(model)
    before, after = (outputs_of(one, {"image": images(9)})["scores"] for one in (model, kept))
    np.testing.assert_array_equal(before, after)


def test_layers_without_names_are_found_by_their_order(training: Training, tmp_path: Path) -> None:
    """An exporter that renames weights, as one that folds BatchNormalization does, leaves order and shape."""
    plan = training.configuration
    for layer in plan["layers"]:
        layer["weight"] = "onnx::Conv_77"
    (tmp_path / "qat.json").write_text(json.dumps(plan), encoding="utf-8")
    found = qat_insert.prepare(training.model, training.example, configuration=tmp_path / "qat.json")
    np.testing.assert_array_equal(scores(found, images()), scores(training.prepared(), images()))


def test_swapped_operands_are_told_apart(training: Training, tmp_path: Path) -> None:
    """An exporter that swaps the operands of a sum does not move the quantiser to the other branch."""
    plan = training.configuration
    sums = {place["node"]: place for place in plan["places"] if place["kind"] == "Add"}
    for place in sums.values():
        place["operands"].reverse()
    for reader in (reader for quantizer in plan["activations"] for reader in quantizer["readers"]):
        if reader["node"] in sums:
            reader["index"] = 1 - reader["index"]
    (tmp_path / "qat.json").write_text(json.dumps(plan), encoding="utf-8")
    found = qat_insert.prepare(training.model, training.example, configuration=tmp_path / "qat.json")
    np.testing.assert_array_equal(scores(found, images()), scores(training.prepared(), images()))


def test_another_number_of_places_alike_is_refused(training: Training, tmp_path: Path) -> None:
    """Where the two tracings disagree on how many there are, order says nothing."""
    plan = training.configuration
    plan["places"][0]["alike"] += 1
    (tmp_path / "qat.json").write_text(json.dumps(plan), encoding="utf-8")
    with pytest.raises(qat_insert.PlacementError, match=r"the ONNX file has 2 .* this model 1"):
        qat_insert.prepare(training.model, training.example, configuration=tmp_path / "qat.json")


def test_what_the_older_exporter_writes_is_mapped_too(training: Training, tmp_path: Path) -> None:
    """Its weights have no names, its nodes have paths, its global pooling is INT8: also in the file that comes out."""
    float_file, output = tmp_path / "f.onnx", tmp_path / "qat"
    axes = {"image": {0: "batch"}}
    torch.onnx.export(
        training.model, (training.example,), str(float_file), input_names=["image"], dynamic_axes=axes, dynamo=False
    )
    data = training.folder.parent / "data.npz"
    options = ("--calib-data", str(data), "--calibrator", "minmax", "--target", "rtx:8.6", "-o", str(output))
    assert run("qat", str(float_file), *options).exit_code == 0
    prepared = qat_insert.prepare(training.model, training.example, configuration=output / "qat.json")
    qat_insert.export(prepared, training.example, tmp_path / "qat.onnx")
    found = onnx.load(tmp_path / "qat.onnx")
    assert ("GlobalAveragePool", 0) in quantized_inputs(found)
    expected = scores(prepared, images()[:4])
    (exported,) = outputs_of(found, {"image": images()[:4]}).values()
    assert sqnr_db(expected, exported) > LEAST_DB
    assert sqnr_db(scores(training.model, images()[:4]), expected) > 20


def test_the_callers_model_is_left_as_it_was(training: Training, exported: tuple[Any, onnx.ModelProto]) -> None:
    """Preparing, training and exporting work on a copy; exporting leaves that one fit for more training."""
    before = network().state_dict()
    assert all(torch.equal(value, before[name]) for name, value in training.model.state_dict().items())
    assert not [module for module in exported[0].modules() if getattr(module, "exporting", False)]


def test_a_place_that_is_not_there_is_named(training: Training) -> None:
    """A model without the residual Add is not the one exported, and the node is told."""

    class Straight(Block):
        def forward(self, x: Any) -> Any:
            return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))

    other = network()
    for block in other.blocks:
        block.__class__ = Straight
    with pytest.raises(qat_insert.PlacementError, match=r"no place was found for 'node_add.*--exclude node_add"):
        qat_insert.prepare(other, training.example, configuration=training.folder / "qat.json")


def test_a_layer_that_is_not_there_is_named(training: Training) -> None:
    """A layer of another shape is told by node, weights and shape."""
    other = network()
    other.hidden, other.head = nn.Linear(16, 48), nn.Linear(48, 10)
    with pytest.raises(
        qat_insert.PlacementError, match=r"no module was found for .*'hidden.weight' of shape \[32, 16\]"
    ):
        qat_insert.prepare(other.eval(), training.example, configuration=training.folder / "qat.json")


def test_other_weights_are_refused_unless_asked_for(training: Training) -> None:
    """Initial scales belong to the weights that were exported."""
    options = {"configuration": training.folder / "qat.json"}
    with pytest.raises(qat_insert.PlacementError, match="the weights of 'stem' are not those"):
        qat_insert.prepare(network(seed=1), training.example, **options)
    assert qat_insert.prepare(network(seed=1), training.example, check_weights=False, **options)


def test_a_model_that_branches_on_values_is_refused(training: Training) -> None:
    """What torch.fx cannot trace is told as such."""

    class Branching(Network):
        def forward(self, x: Any) -> Any:
            return super().forward(x if x.sum() > 0 else -x)

    with pytest.raises(qat_insert.PlacementError, match=r"torch\.fx cannot trace"):
        qat_insert.prepare(Branching().eval(), training.example, configuration=training.folder / "qat.json")


def test_fixed_scales_do_not_move(training: Training) -> None:
    """With learn_scales=False only weights and biases are trained."""
    quantized = training.prepared(learn_scales=False)
    drifts = [parameter for name, parameter in quantized.named_parameters() if name.endswith("drift")]
    assert drifts
    assert not any(parameter.requires_grad for parameter in drifts)


def test_gradients_are_those_of_lsq() -> None:
    """Inside the grid x passes and the scale gets round(x/s) - x/s, outside nothing passes and it gets the limit."""
    grid = qat_insert.FakeQuantize(0.5, learn=True)
    x = torch.tensor([0.6, -1.3, 100.0, -100.0], requires_grad=True)
    grid(x).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]
    by_scale = (1 - 1.2) + (-3 + 2.6) + 127 - 128
    by_drift = by_scale / (4 * 127) ** 0.5 * 0.5 * float(np.log(2))
    assert float(grid.drift.grad) == pytest.approx(by_drift, rel=1e-5)


def test_half_way_between_two_steps_onnx_and_pytorch_round_alike() -> None:
    """A fake-quantiser divides by the scale as QuantizeLinear does; a product with its inverse differs at ties."""
    scale = np.float32(0.37)
    x = ((np.arange(-140, 140, dtype=np.float32) + np.float32(0.5)) * scale).astype(np.float32)
    assert np.any(np.rint(x / scale) != np.rint(x * (1 / scale)))
    ends = {"scale": scale, "zero": np.array(0, np.int8)}
    nodes = [
        node("QuantizeLinear", "q", ["x", "scale", "zero"], "stored"),
        node("DequantizeLinear", "dq", ["stored", "scale", "zero"], "y"),
    ]
    expected = outputs_of(model_of(nodes, {"x": [280]}, {"y": [280]}, ends), {"x": x})["y"]
    np.testing.assert_array_equal(scores(qat_insert.FakeQuantize(float(scale), learn=True), x), expected)
