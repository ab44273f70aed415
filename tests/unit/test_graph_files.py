"""Reading and writing model files."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_models import conv_relu
from onnx import TensorProto

from trt_opt.errors import ModelFileError, StorageError
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.graph.load import load_model
from trt_opt.graph.save import save_model


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model whose weights lie beside it."""
    path = tmp_path / "model.onnx"
    save_model(conv_relu(), path, single_file_limit_bytes=1000)
    return path


def test_saved_model_is_loaded_unchanged(tmp_path: Path) -> None:
    """What is saved is what is read back, and no temporary file is left."""
    model = conv_relu()
    save_model(model, tmp_path / "model.onnx")
    assert load_model(tmp_path / "model.onnx") == model
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_large_model_gets_external_data(external: Path) -> None:
    """Above the limit the weights lie in `<name>.data`, page-aligned, and are read back the same."""
    stub = onnx.load(external, load_external_data=False)
    assert stub.graph.initializer[0].data_location == TensorProto.EXTERNAL
    assert (external.parent / "model.onnx.data").stat().st_size == 16 * 48 * 9 * 4
    assert fingerprint(load_model(external)) == fingerprint(conv_relu())
    assert onnx.load(external).graph.initializer[0].raw_data == conv_relu().graph.initializer[0].raw_data


def test_failed_write_leaves_the_old_file(external: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is a StorageError; the old model stays readable and nothing else is left."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(path.name for path in external.parent.iterdir())
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        save_model(conv_relu(), external, single_file_limit_bytes=1000)
    assert sorted(path.name for path in external.parent.iterdir()) == before
    assert fingerprint(load_model(external)) == fingerprint(conv_relu())


def test_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    """A folder that is not there is named, not created."""
    with pytest.raises(StorageError, match="nowhere"):
        save_model(conv_relu(), tmp_path / "nowhere" / "model.onnx")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"import torch\n", "not an ONNX model"),
        (b"PK\x03\x04" + bytes(40), "not an ONNX model"),
        (np.random.default_rng(0).bytes(4000), "not an ONNX model"),
        (b"\x08\x08", "lacks a graph"),
        (conv_relu().SerializeToString()[:-20], "cut short"),
        (conv_relu().SerializeToString()[:3000], "cut short"),
    ],
    ids=["empty", "lfs", "text", "zip", "random", "header-only", "tail-missing", "head-only"],
)
def test_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """What protobuf may well parse is still refused, naming the file."""
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=reason) as caught:
        load_model(path)
    assert caught.value.where == str(path)
    assert caught.value.hint


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """No prefix of a model file is taken for a model."""
    content = conv_relu().SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in (*range(0, 60), *range(60, len(content), 997), *range(len(content) - 60, len(content))):
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError):
            load_model(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    """No file, and a folder in its place, are different messages."""
    with pytest.raises(ModelFileError, match="no such file"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match="folder"):
        load_model(tmp_path)


def test_missing_external_data_is_named(external: Path) -> None:
    """The message says which file is missing and where to put it."""
    (external.parent / "model.onnx.data").unlink()
    with pytest.raises(ModelFileError, match=r"'model\.onnx\.data' is missing") as caught:
        load_model(external)
    assert str(external.parent) in str(caught.value.hint)


def test_truncated_external_data_is_refused(external: Path) -> None:
    """Weights are not filled up with what is not there."""
    data = external.parent / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="cut short"):
        load_model(external)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "sub/../../secret", "link", ""])
def test_external_data_outside_the_folder_is_not_read(external: Path, tmp_path: Path, location: str) -> None:
    """Neither .. nor an absolute path nor a symbolic link leads out of the model's folder."""
    inner = tmp_path / "inner"
    inner.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes((tmp_path / "model.onnx.data").read_bytes())
    (inner / "link").symlink_to(secret)
    model = onnx.load(external, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    (inner / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="outside the model's folder"):
        load_model(inner / "model.onnx")


@pytest.mark.parametrize(("key", "value"), [("offset", "-4"), ("length", "8"), ("length", "many")])
def test_wrong_extent_of_external_data_is_refused(external: Path, key: str, value: str) -> None:
    """Offset and length must fit the tensor's shape."""
    model = onnx.load(external, load_external_data=False)
    entry = next(entry for entry in model.graph.initializer[0].external_data if entry.key == key)
    entry.value = value
    external.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="external data"):
        load_model(external)


def test_weights_that_do_not_fit_their_shape_are_refused(tmp_path: Path) -> None:
    """A reader that trusted the shape would run past the end of the data."""
    model = conv_relu()
    model.graph.initializer[0].dims[0] = 17
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="tensor 'w'"):
        load_model(tmp_path / "model.onnx")


def test_interrupted_overwrite_leaves_no_old_model_with_new_weights(
    external: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the renames of weights and model there is no model under the name."""

    def interrupted(_path: Path, _data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trt_opt.graph.save.write_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_model(conv_relu(), external, single_file_limit_bytes=1000)
    assert [path.name for path in external.parent.iterdir()] == ["model.onnx.data"]
