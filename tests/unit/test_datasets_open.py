"""Which reader a source gets, and what is said when it is none."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trt_opt.datasets
from trt_opt.datasets import open_dataset
from trt_opt.errors import DataError
from trt_opt.values.tensors import TensorSpec

PLAIN = TensorSpec("x", "float32", ("N", 4))


def refused(source: str, *inputs: TensorSpec) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(source, inputs or (PLAIN,))
    return str(caught.value)


def test_a_missing_path_says_the_closest_and_what_exists(tmp_path: Path) -> None:
    """A typo is found, and the kinds of source are listed."""
    np.savez(tmp_path / "calibration.npz", x=np.zeros((1, 4), np.float32))
    message = refused(str(tmp_path / "calibraton.npz"))
    assert "no such file or folder" in message
    assert "did you mean 'calibration.npz'?" in message
    assert "random:16" in message


@pytest.mark.parametrize("source", ["", "no/such/folder/x.npz", "x" * 5000, "a\0b", "feeds.py:", "a b:c", "1a:b"])
def test_text_that_names_nothing_is_refused(source: str) -> None:
    """Never another exception."""
    assert "no such file or folder" in refused(source)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    """Also one with hidden files or sub-folders only."""
    assert "the folder is empty" in refused(str(tmp_path))
    (tmp_path / ".DS_Store").write_text("")
    assert "the folder is empty" in refused(str(tmp_path))
    (tmp_path / "cats").mkdir()
    assert "only sub-folders" in refused(str(tmp_path))


def test_a_folder_of_other_files_says_what_it_holds(tmp_path: Path) -> None:
    """The suffixes."""
    (tmp_path / "a.txt").write_text("")
    np.save(tmp_path / "b.npy", np.zeros(3))
    assert "neither .npz files nor images, only .npy, .txt" in refused(str(tmp_path))


def test_a_folder_mixing_arrays_and_images_is_refused(tmp_path: Path) -> None:
    """Neither is dropped silently."""
    np.savez(tmp_path / "a.npz", x=np.zeros((1, 4), np.float32))
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    assert "mixes .npz files (1) and images (1)" in refused(str(tmp_path))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """With the list of sources."""
    (tmp_path / "a.csv").write_text("1,2")
    message = refused(str(tmp_path / "a.csv"))
    assert "a .csv file is not a data source" in message
    assert "data.npz" in message


def test_a_model_without_inputs_is_refused() -> None:
    """There is nothing to feed."""
    with pytest.raises(DataError, match="no inputs"):
        open_dataset("random:1", ())


def test_an_existing_path_wins_over_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder whose name looks like a reference is a folder."""
    monkeypatch.chdir(tmp_path)
    Path("photos:small").mkdir()
    assert "the folder is empty" in refused("photos:small")


def test_readers_import_nothing_above_them() -> None:
    """Only values, errors, files and this package itself."""
    allowed = ("trt_opt.datasets", "trt_opt.values", "trt_opt.errors", "trt_opt.files")
    for path in Path(trt_opt.datasets.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("trt_opt", "calibrators")):
                assert (node.module or "").startswith(allowed), f"{path.name} imports {node.module}"
