"""The bundle's file: written in one way, and nothing else is read."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle_models import described, files_of, own_files, recordings, with_entry, written
from graphs import residual_block
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trt_opt.bundling import reading
from trt_opt.bundling.archive import BLOCK_BYTES, header, write_archive
from trt_opt.bundling.conf import conf_text
from trt_opt.bundling.packing import packed, with_sums
from trt_opt.bundling.reading import bundle_from_file, is_bundle, opened_bundle
from trt_opt.bundling.recipe_text import text_from_recipe
from trt_opt.bundling.samples import recordings_from_folder, text_from_floats
from trt_opt.errors import RequestError, TrtOptError, UnsupportedModelError
from trt_opt.recipe import Recipe, recipe_from_file
from trt_opt.values.bundle import Bundle, BundledInput, BundledOutput
from trt_opt.values.codec import json_from_value
from trt_opt.values.engine import FileRecord

GOOD = files_of()


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where temporary folders are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def refusal(path: Path) -> RequestError:
    """The error that opening gives."""
    with pytest.raises(RequestError) as caught, opened_bundle(path):
        pass
    return caught.value


def test_what_was_written_is_read(tmp_path: Path, scratch: Path) -> None:
    """Description, files and samples come back as they went in, and the folder goes away."""
    with opened_bundle(written(tmp_path)) as opened:
        assert {name: (opened.folder / name).read_bytes() for name in GOOD} == GOOD
        assert opened.folder.stat().st_mode & 0o077 == 0
        assert opened.bundle == packed(described(), own_files())[0]
        for found, gone_in in zip(recordings_from_folder(opened.bundle, opened.folder), recordings(), strict=True):
            for part in ("feed", "expected", "simulated"):
                for name, array in getattr(gone_in, part).items():
                    back = getattr(found, part)[name]
                    assert (back.dtype, back.shape) == (array.dtype, array.shape)
                    np.testing.assert_array_equal(back, array)
    assert not list(scratch.iterdir())


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    """No date, owner or order of the machine is in the archive."""
    first = written(tmp_path).read_bytes()
    assert written(tmp_path, files_of()).read_bytes() == first
    assert not set(re.findall(rb"root|%s" % str(tmp_path).encode(), first))


def test_tar_and_sha256sum_read_it(tmp_path: Path) -> None:
    """Python's tarfile finds plain files of nobody, checksums first; `sha256sum -c` agrees."""
    path = written(tmp_path)
    with tarfile.open(path, "r:") as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == ["SHA256SUMS", *sorted(set(GOOD) - {"SHA256SUMS"})]
    assert {(member.isreg(), member.mtime, member.uid, member.gid, member.mode) for member in members} == {
        (True, 0, 0, 0, 0o644)
    }
    subprocess.run(["tar", "-xf", str(path)], cwd=tmp_path, check=True)
    subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize("part", range(4))
def test_a_flipped_byte_is_refused_wherever_it_is(part: int, tmp_path: Path, scratch: Path) -> None:
    """Headers, contents, the zeros between them and the end: no byte may differ."""
    good = written(tmp_path).read_bytes()
    content = good.index(GOOD["model.onnx"]) + BLOCK_BYTES, good.index(GOOD["model.onnx"]) + len(GOOD["model.onnx"])
    path = tmp_path / "spoilt.bundle"
    for offset in range(part * 7, len(good), 43):
        if content[0] < offset < content[1] and offset % 50:
            continue
        spoilt = bytearray(good)
        spoilt[offset] ^= (1, 0x80, 0xFF, 0x20)[part]
        path.write_bytes(spoilt)
        assert refusal(path).where, offset
    assert not list(scratch.iterdir())


def test_a_bundle_cut_short_is_refused_wherever_it_is(tmp_path: Path) -> None:
    """Half a download is no bundle, and neither is one with something behind it."""
    good = written(tmp_path).read_bytes()
    path = tmp_path / "spoilt.bundle"
    for length in [*range(0, len(good), 1024), len(good) - 1]:
        path.write_bytes(good[:length])
        refusal(path)
    for more in (b"x", bytes(512), bytes(10240), good):
        path.write_bytes(good + more)
        refusal(path)


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    """An archive's entry."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        (entry("/etc/cron.d/x", size=3), "would land elsewhere"),
        (entry("../x", size=3), "would land elsewhere"),
        (entry("samples/../../x", size=3), "would land elsewhere"),
        (entry("samples/000/input-9.bin", tarfile.SYMTYPE, "/etc/passwd"), "a symbolic link"),
        (entry("samples/000/input-9.bin", tarfile.LNKTYPE, "model.onnx"), "a hard link"),
        (entry("samples/000/input-9.bin", tarfile.CHRTYPE), "a device"),
        (entry("samples/000/input-9.bin", tarfile.BLKTYPE), "a device"),
        (entry("samples/000/input-9.bin", tarfile.FIFOTYPE), "a named pipe"),
        (entry("samples/", tarfile.DIRTYPE), "a folder"),
        (entry("samples/000/input-9.bin", tarfile.GNUTYPE_SPARSE), "a sparse file"),
        (entry("samples/000/input-9.bin", tarfile.AREGTYPE), "an old archive format"),
        (entry("run.sh", size=3), "no bundle has: 'run.sh'"),
        (entry("samples/0000/input-0.bin", size=3), "no bundle has"),
        (entry("samples/000/input-00.bin", size=3), "no bundle has"),
        (entry("samples/\u0660\u0660\u0660/input-0.bin", size=3), "."),
        (entry("samples\\..\\x", size=3), "no bundle has"),
        (entry("model.onnx", size=3), "."),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else "",
)
def test_entries_that_no_bundle_has_are_refused(odd: tarfile.TarInfo, told: str, tmp_path: Path, scratch: Path) -> None:
    """Whatever would land elsewhere, or be something else than a file, is refused before a byte is written."""
    path = tmp_path / "app.bundle"
    blocks = [header(name, len(kept)) + kept + bytes(-len(kept) % BLOCK_BYTES) for name, kept in GOOD.items()]
    blocks.append(odd.tobuf(tarfile.USTAR_FORMAT) + bytes(odd.size + -odd.size % BLOCK_BYTES))
    whole = b"".join(blocks) + bytes(2 * BLOCK_BYTES)
    path.write_bytes(whole + bytes(-len(whole) % 10240))
    before = sorted(tmp_path.rglob("*"))
    assert told in str(refusal(path)) or told == "."
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_extensions_of_the_format_are_refused(kind: int, tmp_path: Path, scratch: Path) -> None:
    """Long names and extended headers, by which an entry could be called otherwise than it seems."""
    info = entry("samples/000/" + 120 * "x", size=3)
    assert "bundle" in str(refusal(with_entry(tmp_path, info, b"abc", kind)))
    assert not list(scratch.iterdir())


def test_owners_and_dates_are_refused(tmp_path: Path) -> None:
    """An archive of other tools, though of the right files, is not read: there is one way to write a bundle."""
    path = tmp_path / "app.bundle"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, kept in GOOD.items():
            info = tarfile.TarInfo(name)
            info.size, info.uname = len(kept), "somebody"
            archive.addfile(info, io.BytesIO(kept))
    assert "header" in str(refusal(path))


def test_a_size_beyond_the_file_is_refused(tmp_path: Path, scratch: Path) -> None:
    """A header may promise eight gigabytes: nothing is set aside for them."""
    path = tmp_path / "app.bundle"
    path.write_bytes(header("SHA256SUMS", 8**11 - 1) + bytes(10240 - BLOCK_BYTES))
    assert "cut short in SHA256SUMS" in str(refusal(path))


def test_a_file_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    """The second would win when unpacked, and only one would be checked."""
    path = tmp_path / "app.bundle"
    blocks = []
    for name, kept in GOOD.items():
        blocks += (1 + (name == "recipe.toml")) * [header(name, len(kept)) + kept + bytes(-len(kept) % BLOCK_BYTES)]
    whole = b"".join(blocks) + bytes(2 * BLOCK_BYTES)
    path.write_bytes(whole + bytes(-len(whole) % 10240))
    assert "holds recipe.toml twice" in str(refusal(path))


def test_another_order_is_refused(tmp_path: Path) -> None:
    """Checksums come first, whatever else is there."""
    path = tmp_path / "app.bundle"
    write_archive(path, {name: GOOD[name] for name in sorted(GOOD, reverse=True)})
    assert "order" in str(refusal(path))


def described_with(**changes: object) -> dict[str, bytes]:
    """A bundle whose description says something else, all checksums right."""
    return files_of(replace(described(), **changes))


def external() -> bytes:
    """A graph whose weights lie in another file."""
    model = residual_block()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model.SerializeToString()


def other_sums(text: Callable[[str], str]) -> dict[str, bytes]:
    """A bundle with other checksums."""
    return {**GOOD, "SHA256SUMS": text(GOOD["SHA256SUMS"].decode()).encode()}


FORGED: dict[str, tuple[Callable[[], dict[str, bytes]], str]] = {
    "more samples than there are": (lambda: described_with(samples=3), "lacks samples/002"),
    "fewer samples than there are": (lambda: described_with(samples=1), "holds samples/001/input-0.bin"),
    "no samples": (lambda: described_with(samples=0), "no samples"),
    "a thousand samples": (lambda: described_with(samples=1000), "no samples"),
    "no outputs": (lambda: described_with(outputs=()), "no samples, or no outputs"),
    "an output of terabytes": (
        lambda: described_with(outputs=(BundledOutput("y", (2**20, 2**20), 40.0), BundledOutput("z", (), 40.0))),
        "follow from its shape",
    ),
    "a negative size": (
        lambda: described_with(outputs=(BundledOutput("y", (-1, -5), 40.0), BundledOutput("z", (), 40.0))),
        "negative",
    ),
    "an input of objects": (
        lambda: described_with(inputs=(BundledInput("x", "object", (1,)), BundledInput("n", "int64", (2,)))),
        "element type 'object'",
    ),
    "an input of another type": (
        lambda: described_with(inputs=(BundledInput("x", "float32", (1, 16, 8, 8)), BundledInput("n", "int8", (2,)))),
        "16 bytes, and 2 follow",
    ),
    "a calibration cache that is not spoken of": (
        lambda: files_of(changed={"calibration.cache": b"TRT-8601-EntropyCalibration2\n"}),
        "holds calibration.cache",
    ),
    "a calibration cache that is not there": (
        lambda: described_with(precision="int8-implicit"),
        "lacks calibration.cache",
    ),
    "a missing recipe": (lambda: files_of(changed={"recipe.toml": None}), "lacks recipe.toml"),
    "a newer format": (lambda: described_with(format=2), "format 2"),
    "a model that is none": (lambda: files_of(changed={"model.onnx": b"\xff" * 99}), "not an ONNX model"),
    "a model that reads other files": (lambda: files_of(changed={"model.onnx": external()}), "outside the bundle"),
    "no checksum for a file": (lambda: other_sums(lambda text: text.split("\n", 1)[1]), "other files than there are"),
    "a checksum too many": (
        lambda: other_sums(lambda text: text + f"{'0' * 64}  ../../etc/passwd\n"),
        "other files than there are: '../../etc/passwd'",
    ),
    "a wrong checksum": (
        lambda: other_sums(lambda text: ("1" if text[0] == "0" else "0") + text[1:]),
        "build.conf is not what SHA256SUMS says",
    ),
    "checksums in another spelling": (lambda: other_sums(str.upper), "SHA256SUMS"),
    "no checksums": (lambda: {name: kept for name, kept in GOOD.items() if name != "SHA256SUMS"}, "order"),
    "a build.conf that says something else": (
        lambda: with_sums(
            {
                **{name: kept for name, kept in GOOD.items() if name != "SHA256SUMS"},
                "build.conf": GOOD["build.conf"].replace(b"37.00", b"07.00"),
            }
        ),
        "build.conf is not the file that bundle.json speaks of",
    ),
    "a description that is no JSON": (
        lambda: with_sums({**_without_sums(), "bundle.json": b"{" * 100}),
        "not readable as JSON",
    ),
    "a description without end": (
        lambda: with_sums({**_without_sums(), "bundle.json": b"[" * 200_000 + b"]" * 200_000}),
        "bundle.json",
    ),
    "a description that is no text": (lambda: with_sums({**_without_sums(), "bundle.json": b"\xff"}), "is not text"),
    "no description": (
        lambda: with_sums({name: kept for name, kept in _without_sums().items() if name != "bundle.json"}),
        "no bundle.json",
    ),
}


def _without_sums() -> dict[str, bytes]:
    return {name: kept for name, kept in GOOD.items() if name != "SHA256SUMS"}


@pytest.mark.parametrize("what", FORGED)
def test_forgeries_are_refused(what: str, tmp_path: Path, scratch: Path) -> None:
    """What does not fit together is refused though every checksum may be right, and nothing is left behind."""
    make, told = FORGED[what]
    path = tmp_path / "app.bundle"
    write_archive(path, make())
    assert told in str(refusal(path))
    assert not list(scratch.iterdir())


def test_conf_and_description_must_agree(tmp_path: Path) -> None:
    """A description whose record and checksum of build.conf are right does not excuse what build.conf says."""
    conf = GOOD["build.conf"].replace(b"LEAST_SQNR_DB=37.00", b"LEAST_SQNR_DB=07.00")
    bundle = bundle_from_file(written(tmp_path))
    records = tuple(
        FileRecord("build.conf", len(conf), hashlib.sha256(conf).hexdigest()) if record.name == "build.conf" else record
        for record in bundle.files
    )
    description = json_from_value(replace(bundle, files=records)).encode()
    path = written(tmp_path, with_sums({**_without_sums(), "build.conf": conf, "bundle.json": description}))
    assert "do not say the same" in str(refusal(path))


def test_a_compressed_archive_is_no_bundle(tmp_path: Path) -> None:
    """Its true size would be unknown."""
    path = tmp_path / "app.bundle"
    path.write_bytes(gzip.compress(written(tmp_path).read_bytes()))
    assert is_bundle(path)
    refusal(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 10240, b"x" * 10240])
def test_what_is_no_archive_is_no_bundle(content: bytes, tmp_path: Path) -> None:
    """Empty, all zeros, anything."""
    path = tmp_path / "app.bundle"
    path.write_bytes(content)
    refusal(path)


def test_a_bundle_is_recognised_by_its_content(tmp_path: Path) -> None:
    """Under any name; a model is not one, and neither is a folder or a file that is not there."""
    path = written(tmp_path).rename(tmp_path / "renamed.onnx")
    assert is_bundle(path)
    model = tmp_path / "model.onnx"
    onnx.save(residual_block(), model)
    assert not any(is_bundle(other) for other in (model, tmp_path, tmp_path / "missing.bundle"))


NAMES = st.text(st.characters(codec="utf-8"), max_size=12)


@given(NAMES)
@example("a,b")
@example(" a")
@example("a ")
@example("a\nFORMAT=2")
def test_every_name_is_kept_or_refused(name: str) -> None:
    """A tensor's name stands in build.conf as it is, on a line of its own, or the bundle is not made."""
    bundle = replace(described(), inputs=(BundledInput(name, "float32", (1, 16, 8, 8)),))
    try:
        lines = conf_text(bundle, FileRecord("model.onnx", 1, "")).split("\n")
    except UnsupportedModelError as error:
        assert error.hint
        return
    assert [line for line in lines if line.startswith("INPUT_0_NAME=")] == [f"INPUT_0_NAME={name}"]
    assert name == name.strip()
    assert name and not set(name) & set("\n\r$`\"'\\;&|<>*?~#()[]{}!,=")


@pytest.mark.parametrize("name", ["input.1", "serving_default_x:0", "/model/head/Add_2", "a b", "x+y@z"])
def test_names_that_exporters_write_are_kept(name: str) -> None:
    """PyTorch's, TensorFlow's and others'."""
    bundle = replace(described(), outputs=(BundledOutput(name, (1,), None),))
    assert f"OUTPUT_0_NAME={name}\n" in conf_text(bundle, FileRecord("model.onnx", 1, ""))


@given(hnp.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32)))
def test_texts_hold_every_float(floats: np.ndarray) -> None:
    """Nine digits tell every float32 from its neighbours, infinities and NaN included."""
    back = np.array([float(line) for line in text_from_floats(floats).decode("ascii").splitlines()], np.float32)
    np.testing.assert_array_equal(back, floats)


@settings(max_examples=60)
@example(model='a\x7f\\"\n\t', names=[], seed=0)
@given(model=st.text(min_size=1), names=st.lists(st.text(), max_size=3), seed=st.integers(0, 2**31))
def test_the_recipe_is_read_back(model: str, names: list[str], seed: int) -> None:
    """TOML with any characters in it, as `--recipe` reads it."""
    recipe = Recipe(model, int8=True, exclude=tuple(names), seed=seed, max_drop=0.5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.toml"
        path.write_bytes(text_from_recipe(recipe).encode())
        back = recipe_from_file(path)
    if not Path(model).is_absolute() and ":" not in model:
        assert back["model"] == str(path.parent / model.encode("utf-8", "replace").decode())
    assert back["exclude" if names else "int8"] == (tuple(names) or True)
    assert (back["seed"] if seed else 0, back["max_drop"]) == (seed, 0.5)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """A file too large for the format is refused, and neither it nor a temporary file is there."""
    with pytest.raises(TrtOptError):
        write_archive(tmp_path / "missing" / "app.bundle", GOOD)
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is unpacked is hashed once more: the check and the use are two readings."""
    path = written(tmp_path)
    checked = reading._checked

    def then_changed(*arguments: object) -> object:
        found = checked(*arguments)
        content = path.read_bytes()
        path.write_bytes(content.replace(b"int8 = true", b"int8 = tru3"))
        return found

    monkeypatch.setattr(reading, "_checked", then_changed)
    assert "changed while it was read" in str(refusal(path))
    assert not list(scratch.iterdir())


def test_all_of_a_description_comes_back(tmp_path: Path) -> None:
    """Options, profile and pinned layers included."""
    found = bundle_from_file(written(tmp_path))
    assert isinstance(found, Bundle)
    assert found.options == described().options
    assert "FLOAT32_LAYERS=/head/Softmax,conv 1\n" in GOOD["build.conf"].decode()


@pytest.mark.parametrize("name", ["cudnn", "CUDNN,CUBLAS", "CUDNN\nSAMPLES=1", "+CUDNN", ""])
def test_a_tactic_source_that_a_shell_could_misread_is_refused(name: str) -> None:
    """What TensorRT has no source of is told when bundling, and writes no line of its own."""
    bundle = replace(described(), options=replace(described().options, tactic_sources=(name,)))
    with pytest.raises(UnsupportedModelError, match="tactic source"):
        conf_text(bundle, FileRecord("model.onnx", 1, ""))


def test_what_the_builder_is_told_stands_in_the_conf() -> None:
    """Compatibility and tactic sources reach a shell too."""
    told = replace(described().options, version_compatible=True, tactic_sources=("CUDNN", "JIT_CONVOLUTIONS"))
    lines = conf_text(replace(described(), options=told), FileRecord("model.onnx", 1, "")).splitlines()
    wanted = {"VERSION_COMPATIBLE=yes", "HARDWARE_COMPATIBLE=no", "TACTIC_SOURCES=CUDNN,JIT_CONVOLUTIONS"}
    assert wanted <= set(lines)
