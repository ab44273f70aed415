"""Manifests and keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from store_entries import fill

from trt_opt.build.manifest import MANIFEST, build_key, check_engine, read_manifest
from trt_opt.build.store import ENGINE
from trt_opt.errors import RecipeError, StaleError
from trt_opt.values.shapes import ShapeRange


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every field survives the file."""
    assert fill(tmp_path) == read_manifest(tmp_path / MANIFEST)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"\xff\xfe\x00binary",
        b"[]",
        b'{"schema_version": 1, "kind": "CalibrationTable"}',
        b'{"schema_version": 1, "kind": "Manifest"}',
        b"[" * 200_000,
    ],
    ids=["empty", "text", "binary", "list", "table", "no fields", "nested"],
)
def test_foreign_files_are_no_manifests(tmp_path: Path, content: bytes) -> None:
    """Anything else is refused with the file's name."""
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(RecipeError, match=r"manifest\.json"):
        read_manifest(tmp_path / MANIFEST)


def test_missing_manifests_and_folders_are_told(tmp_path: Path) -> None:
    """No file, and a folder instead of a file."""
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(RecipeError, match="cannot be read"):
            read_manifest(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema version 2 was found, 1 is understood"),
        ({"future_field": 1}, "unknown: future_field"),
        ({"options": {"target": "rtx", "profile": {"x": {"min": [2], "opt": [1], "max": [3]}}}}, "impossible value"),
        ({"inputs": 5}, "a list was expected"),
    ],
)
def test_manifests_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """A newer schema, unknown fields, and values that cannot be."""
    fill(tmp_path)
    plain = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(plain | change))
    with pytest.raises(RecipeError, match=message):
        read_manifest(tmp_path / MANIFEST)


def test_a_key_depends_on_everything_but_the_order() -> None:
    """Any change of a value changes the key, the order of names does not; the key is the same on every machine."""
    parts = {"model": "ab", "recipe": {"int8": True, "exclude": ("a", "b")}, "profile": ShapeRange.fixed((1, 3))}
    key = build_key(parts)
    assert key == build_key(dict(reversed(parts.items())))
    assert build_key({"a": 1}) == "015abd7f5cc57a2d"
    others = [
        {**parts, "model": "ac"},
        {**parts, "recipe": {"int8": False, "exclude": ("a", "b")}},
        {**parts, "recipe": {"int8": True, "exclude": ("b", "a")}},
        {**parts, "profile": ShapeRange.fixed((1, 4))},
        {**parts, "more": None},
    ]
    assert len({key, *map(build_key, others)}) == 1 + len(others)


def test_what_json_does_not_know_makes_no_key() -> None:
    """An object whose text could change from run to run is a mistake of the caller."""
    with pytest.raises(TypeError):
        build_key({"model": object()})


def test_the_right_engine_passes(tmp_path: Path) -> None:
    """Same files, library, version and compute capability: nothing is said."""
    manifest = fill(tmp_path)
    for capability in ((8, 6), (8, 9), None):
        check_engine(manifest, tmp_path / ENGINE, library="tensorrt_rtx", version="1.7.1.116", capability=capability)


def test_every_mismatch_is_named(tmp_path: Path) -> None:
    """Another content, another version and another GPU are told at once."""
    manifest = fill(tmp_path)
    (tmp_path / ENGINE).write_bytes(b"ENGINE")
    with pytest.raises(StaleError) as caught:
        check_engine(manifest, tmp_path / ENGINE, library="tensorrt_rtx", version="1.8", capability=(12, 0))
    for part in ("other content", "version 1.7.1.116", "here is 1.8", "8.6, 8.9", "the GPU here has 12.0"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"library": "tensorrt"}, "built with tensorrt_rtx 1.7.1.116, here is tensorrt 1.7.1.116"),
        ({"version": "1.7.1"}, "version 1.7.1.116 of tensorrt_rtx, here is 1.7.1"),
        ({"capability": (8, 0)}, "compute capability 8.6, 8.9"),
    ],
)
def test_each_mismatch_is_enough(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """One difference alone refuses the engine."""
    here = {"library": "tensorrt_rtx", "version": "1.7.1.116", "capability": (8, 6), **change}
    with pytest.raises(StaleError, match=message):
        check_engine(fill(tmp_path), tmp_path / ENGINE, **here)  # type: ignore[arg-type]


def test_a_missing_or_cut_engine_is_refused(tmp_path: Path) -> None:
    """Before anything is hashed."""
    manifest = fill(tmp_path)
    here = {"library": "tensorrt_rtx", "version": "1.7.1.116", "capability": None}
    (tmp_path / ENGINE).write_bytes(b"eng")
    with pytest.raises(StaleError, match="has 3 bytes, 6 are recorded"):
        check_engine(manifest, tmp_path / ENGINE, **here)  # type: ignore[arg-type]
    (tmp_path / ENGINE).unlink()
    with pytest.raises(StaleError, match="is missing"):
        check_engine(manifest, tmp_path / ENGINE, **here)  # type: ignore[arg-type]


def test_an_unknown_capability_is_no_yes(tmp_path: Path) -> None:
    """An engine whose manifest does not say what GPU it is for is not taken for one."""
    manifest = fill(tmp_path, target="tensorrt")
    with pytest.raises(StaleError, match="does not say which compute capability"):
        check_engine(manifest, tmp_path / ENGINE, library="tensorrt_rtx", version="1.7.1.116", capability=(8, 6))
