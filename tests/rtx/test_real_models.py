"""Real models with real data become engines, or the node that stands in the way is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from collection import data_folder, model_file, needs_collection

from trt_opt.errors import UnsupportedModelError
from trt_opt.pipeline import build_engine
from trt_opt.recipe import Recipe
from trt_opt.values.engine import Manifest
from trt_opt.values.progress import Silent

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = [pytest.mark.rtx, pytest.mark.models, needs_collection]

BUILDABLE = (
    "squeezenet_fp32",
    "squeezenet_fp16",
    "mnist_cntk",
    "winml_cifar_cnn",
    "mlperf_ic01_fp32",
    "mlperf_kws_fp32",
    "magika_fast_v2_1",
    "ultraface_rfb_320",
    "ultraface_slim_320",
    "yunet_n_640",
    "yunet_n_dynamic",
    "superres_x3_core",
    "selfie_segmentation",
    "mp_palm_detection_lite",
    "mp_face_landmark",
    "mp_face_detection_short",
    "ppocr_dir_cls",
    "dtln_2",
    "basic_pitch_nmp",
    "credsweeper_lstm",
    "gesture_keypoint_mlp",
)

SAMPLES = 6

LEAST_INT8_SQNR_DB = {"selfie_segmentation": 8.0, "mp_palm_detection_lite": 10.0, "yunet_n_640": 14.0}
"""What these models reach without any layer left out; most others are far above the rest's 15 dB."""


def built(name: str, folder: Path, *, int8: bool, as_placed: bool = True) -> Manifest:
    """The manifest of an engine for SM 8.6, judged on the samples it was calibrated with."""
    data = str(data_folder(name, SAMPLES, folder / "data"))
    recipe = Recipe(
        model=str(model_file(name)),
        int8=int8,
        fp16=True,
        calib_data=data,
        eval_data=data,
        target="rtx:8.6",
        output=str(folder / "engines"),
        baselines=False,
        int8_all=int8 and as_placed,
    )
    return build_engine(recipe, Silent()).manifest


def sqnr_db(manifest: Manifest) -> float:
    """Of the engine's graph, at its worst output."""
    accuracy = manifest.variants[-1].accuracy
    assert accuracy is not None and accuracy.sqnr_db is not None
    return accuracy.sqnr_db


@pytest.mark.parametrize("name", ["selfie_segmentation"])
def test_int8_by_itself_rewrites_what_loses_much(name: str, tmp_path: Path) -> None:
    """At least 2 dB more than as placed, with every multiply-accumulate in INT8 still; the engine builds."""
    placed, found = (built(name, tmp_path, int8=True, as_placed=as_placed) for as_placed in (True, False))
    assert placed.search is None and found.search is not None
    assert sqnr_db(found) >= sqnr_db(placed) + 2
    assert found.search.int8_share == found.search.placed_share
    assert found.engine.bytes > 0


@pytest.mark.parametrize("name", BUILDABLE)
def test_int8_builds_and_stays_near_the_float_model(name: str, tmp_path: Path) -> None:
    """An INT8 + FP16 engine with INT8 layers in it, whose simulation follows the float model."""
    manifest = built(name, tmp_path, int8=True)
    assert manifest.engine.bytes > 0
    assert manifest.precision.count("int8") > 0
    accuracy = manifest.variants[-1].accuracy
    assert accuracy is not None
    assert accuracy.samples == len(list((tmp_path / "data").iterdir()))
    if accuracy.sqnr_db is not None:
        assert accuracy.sqnr_db > LEAST_INT8_SQNR_DB.get(name, 15.0)


@pytest.mark.parametrize("name", [*BUILDABLE, "silero_vad_ifless_op18"])
def test_fp16_builds_and_stays_near_the_float_model(name: str, tmp_path: Path) -> None:
    """An FP16 engine whose simulation follows the float model; the deepest sums of basic_pitch keep 29.6 dB."""
    accuracy = built(name, tmp_path, int8=False).variants[-1].accuracy
    assert accuracy is not None
    assert accuracy.sqnr_db is None or accuracy.sqnr_db > 25


@pytest.mark.parametrize(
    ("name", "int8", "reason"),
    [
        ("silero_vad_ifless_op18", True, "If"),
        ("dtln_1", True, "lstm_5"),
        ("dtln_1", False, "lstm_5"),
    ],
)
def test_what_cannot_be_built_names_the_node(name: str, int8: bool, reason: str, tmp_path: Path) -> None:
    """Layers inside an If have no INT8 form; TensorRT-RTX 1.7 fails on two LSTMs in a row."""
    with pytest.raises(UnsupportedModelError, match=reason):
        built(name, tmp_path, int8=int8)
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("superres_x3_prepost_custom_ops", "DecodeImage|com.microsoft.extensions"),
        ("selfie_segmentation_customop", "TFL_Convolution2DTransposeBias"),
    ],
)
@pytest.mark.parametrize("int8", [True, False])
def test_custom_operators_are_refused_by_name(name: str, operator: str, int8: bool, tmp_path: Path) -> None:
    """Models with operators nobody here knows end with exit code 3 and the operator's name."""
    recipe = Recipe(
        model=str(model_file(name)),
        int8=int8,
        fp16=True,
        calib_data="random:2" if int8 else None,
        target="rtx:8.6",
        opt_shapes="image:1000" if "superres" in name else None,
        output=str(tmp_path / "engines"),
    )
    with pytest.raises(UnsupportedModelError, match=operator) as caught:
        build_engine(recipe, Silent())
    assert caught.value.exit_code == 3
    assert not (tmp_path / "engines").exists()
