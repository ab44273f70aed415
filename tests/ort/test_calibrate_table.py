"""A calibration table kept for later: written, read back, and refused for anything but what it was made for."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, weights
from PIL import Image

from calibrators import calibrator_from_text
from trt_opt.calibrate.ranges import calibration_table
from trt_opt.calibrate.table import check_table, table_from_file
from trt_opt.datasets import open_dataset
from trt_opt.datasets.preprocess import preprocess_from_text
from trt_opt.errors import DataError, RecipeError, StaleError
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.graph.query import graph_inputs
from trt_opt.report.calibrate import chosen_text
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.codec import json_from_value
from trt_opt.values.placement import Taps
from trt_opt.values.progress import Silent
from trt_opt.values.samples import Dataset

PREPROCESS = "resize=8,crop=8,scale=1/255"


def one_conv(seed: int = 0) -> onnx.ModelProto:
    """A convolution over 8x8 images."""
    constants = {"w": weights(16, 3, 3, 3, seed=seed)}
    return model_of([conv("conv", "x", "y", "w")], {"x": [1, 3, 8, 8]}, {"y": [1, 16, 8, 8]}, constants)


@dataclass(frozen=True)
class Made:
    """A table, its file, and what it was made of."""

    table: CalibrationTable
    file: Path
    photos: Path

    def data(self, preprocess: str = PREPROCESS) -> Dataset:
        return open_dataset(str(self.photos), graph_inputs(one_conv()), preprocess=preprocess_from_text(preprocess))

    def check(self, model: onnx.ModelProto, calibrator: str, data: Dataset | None) -> None:
        check_table(
            table_from_file(self.file),
            model_sha256=fingerprint(model),
            calibrator=str(calibrator_from_text(calibrator)),
            dataset=data,
            where=str(self.file),
        )


@pytest.fixture
def made(tmp_path: Path) -> Made:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 10, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    model = one_conv()
    data = open_dataset(str(photos), graph_inputs(model), preprocess=preprocess_from_text(PREPROCESS))
    table = calibration_table(model, Taps(("x",), ("y",)), data, calibrator_from_text("entropy"), Silent())
    file = tmp_path / "table.json"
    file.write_text(json_from_value(table), encoding="utf-8")
    return Made(table, file, photos)


def test_round_trip_through_json(made: Made) -> None:
    """A table read back from its file is equal to the one written, to the last bit of every range."""
    assert table_from_file(made.file) == made.table
    assert made.table.ranges["x"].amax is not None
    assert made.table.ranges["y"].amax is None


def test_accepted_for_what_it_was_made_for(made: Made) -> None:
    """Equal model, data, preprocessing and calibrator are accepted, and so is a table alone without data."""
    made.check(one_conv(), "entropy", made.data())
    made.check(one_conv(), "entropy", None)


def test_node_names_do_not_matter(made: Made) -> None:
    """A model that differs only in what computes nothing, such as node names, keeps its table."""
    renamed = one_conv()
    renamed.graph.node[0].name = "another"
    made.check(renamed, "entropy", made.data())


def test_another_model_is_refused(made: Made) -> None:
    """One other weight makes another model."""
    with pytest.raises(StaleError, match=r"made for another model \w{12} \(here \w{12}\)\n") as caught:
        made.check(one_conv(seed=1), "entropy", made.data())
    assert "--reuse-table" in str(caught.value)


@pytest.mark.parametrize("calibrator", ["minmax", "entropy(bins=1024)", "entropy(levels=64)"])
def test_another_calibrator_is_refused(made: Made, calibrator: str) -> None:
    """Another algorithm, or the same with other parameters, is refused."""
    with pytest.raises(StaleError, match=r"another calibrator entropy\(bins=2048, levels=128\)"):
        made.check(one_conv(), calibrator, made.data())


def test_another_preprocessing_is_refused(made: Made) -> None:
    """The same photos prepared otherwise are other data."""
    with pytest.raises(StaleError, match="another data"):
        made.check(one_conv(), "entropy", made.data("resize=8,crop=8,scale=1/128"))


@pytest.mark.parametrize("change", ["pixel", "photo"])
def test_other_data_are_refused(made: Made, change: str) -> None:
    """One other pixel, or one more photo, in the same folder is refused."""
    pixels = np.array(Image.open(made.photos / "1.png"))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(made.photos / ("1.png" if change == "pixel" else "3.png"))
    with pytest.raises(StaleError, match="another data"):
        made.check(one_conv(), "entropy", made.data())


def test_every_difference_is_named(made: Made) -> None:
    """Where several things differ, the message names all of them."""
    with pytest.raises(StaleError, match=r"another model .*, another calibrator .*, another data"):
        made.check(one_conv(seed=1), "minmax", made.data("resize=8,crop=8,scale=1/128"))


def test_unreadable_file_is_refused(tmp_path: Path, made: Made) -> None:
    """A file that is missing, no text, no JSON, cut short or of another kind is an error that names it."""
    with pytest.raises(DataError, match=r"missing\.json: the calibration table cannot be read"):
        table_from_file(tmp_path / "missing.json")
    made.file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"table\.json"):
        table_from_file(made.file)
    text = json_from_value(made.table)
    for broken in (text[: len(text) // 2], json_from_value(made.table.data), "[]"):
        made.file.write_text(broken, encoding="utf-8")
        with pytest.raises(RecipeError, match=r"table\.json"):
            table_from_file(made.file)


def test_source_text_does_not_matter(made: Made) -> None:
    """Data moved to another folder are the same data: content decides, not the path."""
    elsewhere = made.photos.with_name("moved")
    made.photos.rename(elsewhere)
    replace(made, photos=elsewhere).check(one_conv(), "entropy", replace(made, photos=elsewhere).data())


def test_table_of_before_thresholds_were_chosen_apart_is_read(made: Made) -> None:
    """A file without the field `chosen` gives the table it always gave."""
    plain = json.loads(made.file.read_text(encoding="utf-8"))
    assert plain.pop("chosen") == {}
    made.file.write_text(json.dumps(plain), encoding="utf-8")
    assert table_from_file(made.file) == made.table


def test_chosen_thresholds_are_kept_compared_and_counted(made: Made) -> None:
    """What each tensor got is in the file, a table of "auto" serves "auto" alone, and the report counts candidates."""
    chosen = replace(made.table, calibrator="auto", chosen={"x": "mse", "a": "mse", "b": "0.5 x minmax"})
    made.file.write_text(json_from_value(chosen), encoding="utf-8")
    assert table_from_file(made.file) == chosen
    made.check(one_conv(), "auto", made.data())
    with pytest.raises(StaleError, match=r"another calibrator auto \(here entropy"):
        made.check(one_conv(), "entropy", made.data())
    assert chosen_text(chosen.chosen) == "thresholds chosen for 3 tensors: mse 2, 0.5 x minmax 1"
