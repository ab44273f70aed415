"""The data pass: what it counts, and what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, weights
from numpy.typing import ArrayLike, NDArray

from calibrators import CALIBRATORS, MinMax
from calibrators.calibrator import ExtremesObserver
from trt_opt.calibrate.ranges import calibration_table
from trt_opt.calibrate.reduction import Reduction
from trt_opt.datasets import open_dataset
from trt_opt.errors import DataError, UnsupportedModelError
from trt_opt.graph.query import graph_inputs
from trt_opt.quantize.stage import PrecisionRequest, float_graph, quantized_graph
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.codec import json_from_value, value_from_json
from trt_opt.values.placement import Taps
from trt_opt.values.progress import Silent
from trt_opt.values.samples import DataProvenance, Dataset, Sample

Feeds = Sequence[Mapping[str, NDArray[np.generic]]]


class Listed:
    """Samples in a list, for what no file can hold: none at all, or fewer than it says."""

    source, is_random, has_labels = "listed", False, False

    def __init__(self, feeds: Feeds, claimed: int | None = None) -> None:
        self._feeds = feeds
        self._claimed = len(feeds) if claimed is None else claimed

    def __len__(self) -> int:
        return self._claimed

    def __iter__(self) -> Iterator[Sample]:
        for number, feed in enumerate(self._feeds):
            yield Sample(f"listed[{number}]", feed)

    def provenance(self) -> DataProvenance:
        return DataProvenance(self.source, "0" * 64, self._claimed)


class Steps(Silent):
    """Notes what a stage tells of itself."""

    def __init__(self) -> None:
        self.total: int | None = -1
        self.done = 0

    def start(self, stage: str, total: int | None, unit: str = "samples") -> None:
        self.total = total

    def advance(self, amount: int = 1) -> None:
        self.done += amount


def scaled_relu() -> onnx.ModelProto:
    """r = Relu(3·x), of dynamic batch: element by element, so no kernel's order of summation enters."""
    nodes = [node("Mul", "mul", ["x", "three"], "m"), node("Relu", "relu", ["m"], "r")]
    return model_of(nodes, {"x": ["batch", 5]}, {"r": ["batch", 5]}, {"three": np.float32(3)})


def square_root() -> onnx.ModelProto:
    """y = √x + 1, which is NaN below zero."""
    nodes = [node("Sqrt", "sqrt", ["x"], "root"), node("Add", "add", ["root", "one"], "y")]
    return model_of(nodes, {"x": ["batch", 5]}, {"y": ["batch", 5]}, {"one": np.float32(1)})


def rows_of(count: int, seed: int = 0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal((count, 5)) * 2).astype(np.float32)


def stored(folder: Path, rows: NDArray[np.float32], model: onnx.ModelProto, name: str = "data") -> Dataset:
    """An .npz file with one sample per row."""
    path = folder / f"{name}.npz"
    np.savez(path, x=rows)
    return open_dataset(str(path), graph_inputs(model))


def table_of(
    model: onnx.ModelProto, taps: Taps, dataset: Dataset, calibrator: str = "entropy", progress: Silent | None = None
) -> CalibrationTable:
    return calibration_table(model, taps, dataset, CALIBRATORS[calibrator](), progress or Silent())


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_every_sample_is_counted(tmp_path: Path, calibrator: str) -> None:
    """The first sample, the last one and all between them enter every range, and are told to the progress."""
    rows = rows_of(9)
    rows[0, 0], rows[-1, -1] = -50, 40
    steps = Steps()
    model = scaled_relu()
    table = table_of(model, Taps(("x", "r"), ("m",)), stored(tmp_path, rows, model), calibrator, steps)
    assert {name: found.count for name, found in table.ranges.items()} == {"x": 45, "r": 45, "m": 45}
    assert (table.ranges["x"].low, table.ranges["x"].high) == (-50, 40)
    assert (table.ranges["r"].low, table.ranges["r"].high) == (0, 120)
    assert (table.ranges["m"].low, table.ranges["m"].high, table.ranges["m"].amax) == (-150, 120, None)
    assert (steps.total, steps.done, table.data.samples) == (9, 9, 9)


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_order_of_the_samples_does_not_matter(tmp_path: Path, calibrator: str) -> None:
    """Samples in another order give the same ranges to the last bit."""
    model, taps, rows = scaled_relu(), Taps(("x", "r"), ("m",)), rows_of(60) * np.geomspace(0.01, 30, 60)[:, None]
    rows = rows.astype(np.float32)
    shuffled = np.random.default_rng(1).permutation(rows)
    first = table_of(model, taps, stored(tmp_path, rows, model, "first"), calibrator)
    second = table_of(model, taps, stored(tmp_path, shuffled, model, "second"), calibrator)
    assert first.ranges == second.ranges
    assert first.data.sha256 != second.data.sha256


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_batching_of_the_samples_does_not_matter(tmp_path: Path, calibrator: str) -> None:
    """The same rows as 60 samples or as 7 batches of unequal size give the same ranges to the last bit."""
    model, taps, rows = scaled_relu(), Taps(("x", "r"), ("m",)), rows_of(60)
    batches = tmp_path / "batches"
    batches.mkdir()
    for number, batch in enumerate(np.array_split(rows, 7)):
        np.savez(batches / f"{number}.npz", x=batch)
    single = table_of(model, taps, stored(tmp_path, rows, model), calibrator)
    batched = table_of(model, taps, open_dataset(str(batches), graph_inputs(model)), calibrator)
    assert single.ranges == batched.ranges
    assert batched.data.samples == 7


def test_number_of_threads_does_not_matter() -> None:
    """One thread, two, and more threads than tensors find the same ranges."""
    taps = Taps(("a", "b"), ("c",))
    tensors = [{name: rows_of(20, seed) * (number + 1) for number, name in enumerate("abc")} for seed in range(6)]
    found = []
    for threads in (1, 2, 5):
        reduction = Reduction(taps, CALIBRATORS["entropy"](), threads=threads)
        with reduction.running() as reduce:
            for number, entry in enumerate(tensors):
                reduce(f"sample {number}", entry)
        found.append(reduction.ranges())
    assert found[0] == found[1] == found[2]
    assert found[0]["a"].count == 600


@pytest.mark.parametrize("where", [0, 3, 5])
def test_nan_names_sample_and_tensor(tmp_path: Path, where: int) -> None:
    """An activation that becomes NaN is an error that names the sample and the tensor, the last sample's too."""
    model, rows = square_root(), np.abs(rows_of(6))
    rows[where, 2] = -1
    with pytest.raises(DataError) as caught:
        table_of(model, Taps(("x", "root")), stored(tmp_path, rows, model))
    assert caught.value.where is not None
    assert caught.value.where.endswith(f"data.npz[{where}]")
    assert "'root'" in caught.value.what


def test_first_of_several_bad_samples_is_named(tmp_path: Path) -> None:
    """Of two samples that make NaN, the earlier one is blamed."""
    model, rows = square_root(), np.abs(rows_of(6))
    rows[[2, 4]] = -1
    with pytest.raises(DataError, match=r"data\.npz\[2\]"):
        table_of(model, Taps(("x", "root")), stored(tmp_path, rows, model))


def test_data_source_that_raises_is_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user's function raises ends the calibration and names the sample, however many came before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "breaking_feeds.py").write_text(
        "import numpy as np\n"
        "def feeds():\n"
        "    for number in range(9):\n"
        "        if number == 4: raise OSError('the disk is gone')\n"
        "        yield {'x': np.ones((1, 5), np.float32)}\n",
        encoding="utf-8",
    )
    model = scaled_relu()
    with pytest.raises(DataError, match=r"breaking_feeds:feeds\[4\].*OSError: the disk is gone"):
        table_of(model, Taps(("r",)), open_dataset("breaking_feeds:feeds", graph_inputs(model)))


def test_function_is_walked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function's samples are made once: neither the bar's length nor the hash costs a second walk."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "counted_feeds.py").write_text(
        "import numpy as np\n"
        "made = []\n"
        "def feeds():\n"
        "    for number in range(9):\n"
        "        made.append(number)\n"
        "        yield {'x': np.full((1, 5), number, np.float32)}\n",
        encoding="utf-8",
    )
    model, steps = scaled_relu(), Steps()
    dataset = open_dataset("counted_feeds:feeds", graph_inputs(model))
    table = table_of(model, Taps(("r",)), dataset, progress=steps)
    assert sys.modules["counted_feeds"].made == list(range(9))
    assert (steps.total, steps.done, table.data.samples) == (None, 9, 9)


class _Exhausted(MinMax):
    """A calibrator whose observer runs out of memory on its second array."""

    def observer(self) -> ExtremesObserver:
        class Observer(ExtremesObserver):
            arrays = 0

            def observe(self, array: ArrayLike) -> None:
                self.arrays += 1
                if self.arrays == 2:
                    raise MemoryError("no memory for the histogram")

        return Observer()


def test_reduction_that_breaks_ends_the_pass(tmp_path: Path) -> None:
    """An error nobody foresaw in the reduction's thread is raised by the pass, which would else wait for ever."""
    model = scaled_relu()
    with pytest.raises(MemoryError, match="no memory for the histogram"):
        calibration_table(model, Taps(("r",)), stored(tmp_path, rows_of(50), model), _Exhausted(), Silent())


def test_sample_that_the_model_cannot_run_is_named(tmp_path: Path) -> None:
    """Where ONNX Runtime fails on one sample's shape, the error names the sample."""
    model = model_of(
        [node("Reshape", "pairs", ["x", "shape"], "y")], {"x": ["n"]}, {"y": ["m", 2]}, {"shape": np.array([-1, 2])}
    )
    for number, size in enumerate((4, 6, 5, 8)):
        np.savez(tmp_path / f"{number}.npz", x=np.ones(size, np.float32))
    with pytest.raises(UnsupportedModelError, match=r"2\.npz.*\n?.*cannot run"):
        table_of(model, Taps(("y",)), open_dataset(str(tmp_path), graph_inputs(model)))


def test_no_sample_is_an_error() -> None:
    """A source without samples gives no table."""
    with pytest.raises(DataError, match="no sample to calibrate with"):
        table_of(scaled_relu(), Taps(("r",)), Listed([]))


def test_fewer_samples_than_promised_are_an_error() -> None:
    """A table is not given out under the hash of samples it has not seen."""
    with pytest.raises(DataError, match="3 of 4 samples were seen"):
        table_of(scaled_relu(), Taps(("r",)), Listed([{"x": rows_of(1)}] * 3, claimed=4))


def test_graph_input_can_be_tapped(tmp_path: Path) -> None:
    """A graph input is reduced as fed, calibrated or watched."""
    model, rows = scaled_relu(), rows_of(4)
    for taps in (Taps(("x",)), Taps((), ("x",))):
        found = table_of(model, taps, stored(tmp_path, rows, model), "minmax").ranges["x"]
        assert (found.low, found.high, found.count) == (rows.min(), rows.max(), 20)


def test_tensors_without_elements_add_nothing(tmp_path: Path) -> None:
    """Samples whose tensors hold no element change no range; one of its own for all of them is an error."""
    model, rows = scaled_relu(), rows_of(3)
    empty = np.zeros((0, 5), np.float32)
    taps = Taps(("x", "r"), ("m",))
    mixed = table_of(model, taps, Listed([{"x": empty}, {"x": rows}, {"x": empty}]))
    plain = table_of(model, taps, Listed([{"x": rows}]))
    assert mixed.ranges == plain.ranges
    assert "m" not in table_of(model, Taps((), ("m",)), Listed([{"x": empty}])).ranges
    with pytest.raises(DataError, match="'r' cannot be calibrated: no data"):
        table_of(model, Taps(("r",)), Listed([{"x": empty}]))


def test_dynamic_shapes_are_remembered(tmp_path: Path) -> None:
    """Samples of unequal shape are all counted, and the table tells the smallest, usual and largest shape."""
    constants = {"w": weights(16, 3, 3, 3)}
    model = model_of([conv("conv", "x", "y", "w")], {"x": [1, 3, "h", "w_"]}, {"y": [1, 16, "h", "w_"]}, constants)
    sizes = [(8, 8), (4, 12), (8, 8), (16, 6)]
    for number, size in enumerate(sizes):
        np.savez(tmp_path / f"{number}.npz", x=weights(1, 3, *size, seed=number))
    table = table_of(model, Taps(("y",), ("x",)), open_dataset(str(tmp_path), graph_inputs(model)))
    assert table.ranges["y"].count == 16 * sum(height * width for height, width in sizes)
    found = table.shapes["x"]
    assert (found.min, found.opt, found.max) == ((1, 3, 4, 6), (1, 3, 8, 8), (1, 3, 16, 12))


@pytest.mark.parametrize(("operator", "value"), [("Exp", 100.0), ("Sqrt", -1.0)])
def test_watched_tensor_that_is_not_finite_stays_fp32(tmp_path: Path, operator: str, value: float) -> None:
    """Infinity or NaN in a tensor that is only watched is no error: it keeps the tensor's nodes out of FP16."""
    nodes = [node(operator, "source", ["x"], "wild"), node("Mul", "reader", ["wild", "half"], "y")]
    model = model_of(nodes, {"x": ["batch", 5]}, {"y": ["batch", 5]}, {"half": np.float32(0.5)})
    graph = float_graph(model, PrecisionRequest(fp16=True))
    assert "wild" in graph.taps.watched
    tame = np.full((3, 5), 0.5, np.float32)
    fine = table_of(graph.model, graph.taps, stored(tmp_path, tame, model))
    assert not quantized_graph(graph, fine.ranges).plan.kept_fp32
    wild = tame.copy()
    wild[1, 1] = value
    table = table_of(graph.model, graph.taps, stored(tmp_path, wild, model, "wild"))
    assert {"source", "reader"} <= set(quantized_graph(graph, table.ranges).plan.kept_fp32)


def test_infinities_fit_into_a_table_file() -> None:
    """Infinities of a watched tensor are kept as the largest float32, which JSON can hold and FP16 cannot."""
    feeds = [{"x": np.float32([[sign * np.inf, 1, 2, 3, 4]])} for sign in (1, -1)]
    largest = float(np.finfo(np.float32).max)
    table = table_of(scaled_relu(), Taps((), ("x",)), Listed(feeds))
    assert (table.ranges["x"].low, table.ranges["x"].high) == (-largest, largest)
    assert value_from_json(CalibrationTable, json_from_value(table), where="here") == table
