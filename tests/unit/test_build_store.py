"""The engine store, in one process."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest
from store_entries import KEY, fill, rewrite_manifest

from trt_opt.build.manifest import MANIFEST
from trt_opt.build.staging import FOREIGN_STALE_AFTER_S, STALE_AFTER_S
from trt_opt.build.store import ENGINE, EngineStore, folder_name
from trt_opt.errors import RequestError, StageError, StorageError

OTHER_KEY = "0123456700000000"


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")


def build(store: EngineStore, model: str = "net", key: str = KEY, engine: bytes = b"engine") -> None:
    with store.stage(model, key) as folder:
        fill(folder, engine)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_build_becomes_an_entry(store: EngineStore) -> None:
    """After the block the four files lie under model and key, are found, listed and verified."""
    build(store)
    names = {"net", f"net/{KEY}"} | {f"net/{KEY}/{name}" for name in (ENGINE, MANIFEST, "model.onnx", "table.json")}
    assert files_below(store.root) == names
    (entry,) = store.entries()
    assert (entry.model, entry.key, store.verify(entry).problems) == ("net", KEY, ())
    found = store.find("net", KEY)
    assert found is not None
    assert found.reused
    assert Path(found.engine).read_bytes() == b"engine"
    assert store.find("net", OTHER_KEY) is None


def test_nothing_is_visible_before_the_end(store: EngineStore) -> None:
    """While a build runs there is no entry."""
    with store.stage("net", KEY) as folder:
        fill(folder)
        assert folder.is_relative_to(store.root)
        assert list(store.entries()) == []
        assert store.find("net", KEY) is None


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3), StageError("x")])
def test_a_failed_build_leaves_nothing(store: EngineStore, error: BaseException) -> None:
    """Not a file, not the model's folder, not the store where this build made it; the exception is the build's own."""
    with pytest.raises(type(error)) as caught, store.stage("net", KEY) as folder:
        fill(folder)
        raise error
    assert caught.value is error
    assert not store.root.exists()


def test_a_real_interrupt_leaves_nothing(store: EngineStore) -> None:
    """SIGINT in the middle of a build."""
    with pytest.raises(KeyboardInterrupt), store.stage("net", KEY) as folder:
        fill(folder)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    assert not store.root.exists()


def test_a_failed_build_leaves_what_was_there(store: EngineStore, tmp_path: Path) -> None:
    """An older entry, a folder the user made and other entries stay."""
    build(store)
    before = files_below(store.root)
    with pytest.raises(ValueError, match="x"), store.stage("other", OTHER_KEY):
        raise ValueError("x")
    with pytest.raises(ValueError, match="x"), store.stage("net", KEY) as folder:
        fill(folder, b"half")
        raise ValueError("x")
    assert files_below(store.root) == before
    assert store.find("net", KEY) is not None
    empty = EngineStore(tmp_path / "mine")
    empty.root.mkdir()
    with pytest.raises(ValueError, match="x"), empty.stage("net", KEY):
        raise ValueError("x")
    assert empty.root.is_dir()


def test_a_build_without_manifest_is_no_entry(store: EngineStore) -> None:
    """Nobody could ever check such an engine."""
    with pytest.raises(StageError, match="no readable manifest"), store.stage("net", KEY) as folder:
        (folder / ENGINE).write_bytes(b"engine")
    assert not store.root.exists()


def test_a_second_build_replaces_the_entry(store: EngineStore) -> None:
    """An entry that was there when the build began is replaced, sound (a rebuild) or broken (a repair)."""
    build(store)
    build(store, engine=b"rebuilt")
    entry = next(store.entries())
    assert (entry.path / ENGINE).read_bytes() == b"rebuilt"
    (entry.path / MANIFEST).unlink()
    build(store, engine=b"repaired")
    assert (entry.path / ENGINE).read_bytes() == b"repaired"
    assert files_below(store.root) == {"net", f"net/{KEY}"} | {
        f"net/{KEY}/{name}" for name in (ENGINE, MANIFEST, "model.onnx", "table.json")
    }


def test_the_first_of_two_builds_is_kept(store: EngineStore) -> None:
    """An entry that came during the build stays if it is sound, and is replaced if it is not."""
    with store.stage("net", KEY) as slow:
        fill(slow, b"slow")
        build(store, engine=b"fast")
    entry = next(store.entries())
    assert (entry.path / ENGINE).read_bytes() == b"fast"
    with store.stage("net", OTHER_KEY) as slow:
        fill(slow, b"slow")
        build(store, key=OTHER_KEY, engine=b"fast")
        (store.root / "net" / OTHER_KEY / ENGINE).write_bytes(b"cut")
    assert (store.root / "net" / OTHER_KEY / ENGINE).read_bytes() == b"slow"


def test_a_broken_entry_is_not_found(store: EngineStore) -> None:
    """A changed engine is not handed out again; the next build makes it anew."""
    build(store)
    (next(store.entries()).path / ENGINE).write_bytes(b"ENGINE")
    assert store.find("net", KEY) is None


def test_verify_names_every_problem(store: EngineStore) -> None:
    """Wrong size, wrong content and a missing file are three problems."""
    build(store)
    entry = next(store.entries())
    (entry.path / ENGINE).write_bytes(b"engine and more")
    (entry.path / "model.onnx").write_bytes(b"GRAPH")
    (entry.path / "table.json").unlink()
    problems = store.verify(entry).problems
    assert [problem.split(" ")[0] for problem in problems] == [ENGINE, "model.onnx", "table.json"]
    for problem, part in zip(problems, ("15 bytes, 6 are recorded", "SHA-256", "missing"), strict=True):
        assert part in problem
    (entry.path / MANIFEST).write_text("{}")
    assert len(store.verify(entry).problems) == 1
    assert not store.verify(entry).is_good


def test_a_manifest_cannot_point_elsewhere(store: EngineStore) -> None:
    """A file record with a path in it is a problem, even if that file exists and fits."""
    build(store)
    entry = next(store.entries())
    outside = store.root / "outside"
    outside.write_bytes(b"engine")
    found = store.outcome("net", KEY, reused=True).manifest
    record = type(found.engine)("../../outside", found.engine.bytes, found.engine.sha256)
    rewrite_manifest(entry.path, found, engine=record)
    assert "a file elsewhere" in store.verify(entry).problems[0]


def test_entries_are_found_by_model_and_key(store: EngineStore) -> None:
    """A model's name means all its engines, the start of a key one; nothing and None are told apart."""
    build(store, "a")
    build(store, "a", OTHER_KEY)
    build(store, "b", "f" * 16)
    assert [str(entry) for entry in store.matching("a")] == [f"a/{OTHER_KEY}", f"a/{KEY}"]
    assert [str(entry) for entry in store.matching("012345678")] == [f"a/{KEY}"]
    assert [str(entry) for entry in store.matching("b/ff")] == ["b/" + "f" * 16]
    assert len(store.matching(None)) == 3
    for nothing in ("", "c", "b/01", "e"):
        with pytest.raises(RequestError, match="no engine matches"):
            store.matching(nothing)


@pytest.mark.parametrize("which", ["01234567", "a/0123", "f"])
def test_an_ambiguous_start_removes_nothing(store: EngineStore, which: str) -> None:
    """Two keys with this start, in one model or two, or a key and a model's name: the candidates are listed."""
    build(store, "a")
    build(store, "a", OTHER_KEY)
    build(store, "f", "e" * 16)
    build(store, "b", "f" * 16)
    with pytest.raises(RequestError, match=r"more than one engine: .*, "):
        store.remove(which)
    assert len(list(store.entries())) == 4


def test_removing_leaves_no_empty_folder(store: EngineStore) -> None:
    """An engine is removed alone, and with a model's last engine its folder goes."""
    build(store)
    build(store, key=OTHER_KEY)
    assert [entry.key for entry in store.remove(KEY)] == [KEY]
    assert [entry.key for entry in store.entries()] == [OTHER_KEY]
    store.remove("net")
    assert files_below(store.root) == set()
    with pytest.raises(RequestError, match="the engine store is empty"):
        store.remove("net")


def test_other_folders_are_no_entries(store: EngineStore, tmp_path: Path) -> None:
    """Neither notes, nor hidden folders, nor folders whose name is no key; nor is a store that does not exist."""
    assert list(store.entries()) == []
    build(store)
    (store.root / "README.md").write_text("notes")
    (store.root / "net" / "notes").mkdir()
    (store.root / ".git" / KEY).mkdir(parents=True)
    assert [str(entry) for entry in store.entries()] == [f"net/{KEY}"]


@pytest.mark.parametrize("key", ["", "../../etc", "short", "0123456789ABCDEF", "g" * 16])
def test_a_key_is_hexadecimal(store: EngineStore, key: str) -> None:
    """A key cannot leave the model's folder."""
    with pytest.raises(RequestError, match="is no key"), store.stage("net", key):
        pass


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50-v1.5", "resnet50-v1.5"),
        ("../../etc/passwd", "etc-passwd"),
        ("a/b\\c:d", "a-b-c-d"),
        ("..", "model"),
        (".hidden", "hidden"),
        ("", "model"),
        ("modèle é", "modele-e"),
        ("模型", "model"),
        ("nul", "model-nul"),
        ("CON.v1", "model-CON.v1"),
        ("x" * 500, "x" * 64),
        ("ab" + "." * 100, "ab"),
        ("tab\tnew\nline\0", "tab-new-line"),
    ],
)
def test_model_names_are_made_fit(name: str, expected: str) -> None:
    """Separators, dots, other alphabets, reserved names and lengths; a fit name stays as it is."""
    assert folder_name(name) == expected
    assert folder_name(expected) == expected


def test_leftovers_of_dead_builds_go_with_the_next_build(store: EngineStore) -> None:
    """Of a dead process after a minute, of another machine after a week, of a living process never before."""
    build(store)
    own = f".staging-{_host_of(store)}-"
    ages = {
        own + "999999999-00000001": STALE_AFTER_S + 10,
        own + "999999999-00000002": 0,
        own + f"{os.getpid()}-00000003": STALE_AFTER_S + 10,
        ".staging-elsewhere-999999999-00000004": STALE_AFTER_S + 10,
        ".staging-elsewhere-999999999-00000005": FOREIGN_STALE_AFTER_S + 10,
    }
    for name, age in ages.items():
        (store.root / name).mkdir()
        (store.root / name / ENGINE).write_bytes(b"half")
        os.utime(store.root / name, (time.time() - age,) * 2)
    build(store, key=OTHER_KEY)
    left = {path.name[-1] for path in store.root.iterdir() if path.name.startswith(".staging")}
    assert left == {"2", "3", "4"}


def _host_of(store: EngineStore) -> str:
    with store.stage("probe", KEY) as folder:
        fill(folder)
        host = folder.name.removeprefix(".staging-").rsplit("-", 2)[0]
    store.remove("probe")
    return host


def test_an_input_that_cannot_be_read_is_not_the_stores_fault(store: EngineStore, tmp_path: Path) -> None:
    """Only errors about the store, and those that only writing gives, become StorageError."""
    with pytest.raises(FileNotFoundError), store.stage("net", KEY):
        (tmp_path / "missing.onnx").read_bytes()
    with pytest.raises(StorageError), store.stage("net", KEY) as folder:
        (folder / "missing" / "file").write_bytes(b"x")
    with pytest.raises(StorageError, match="quota"), store.stage("net", KEY):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    assert not store.root.exists()


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    """The store's folder, its parent, or a model's folder is a file."""
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "engines"):
        with pytest.raises(StorageError, match="file"):
            build(EngineStore(root))
    store = EngineStore(tmp_path / "engines")
    store.root.mkdir()
    (store.root / "net").write_text("x")
    with pytest.raises(StorageError):
        build(store)
    assert files_below(store.root) == {"net"}
