"""What a search remembers of an interrupted run."""

from __future__ import annotations

from pathlib import Path

from trt_opt.accuracy_search.journal import Journal
from trt_opt.values.search import CurvePoint

POINT = CurvePoint("INT8 as placed", 0.5, 1, 30.0, 0.9, 1.25, 99.0, met=True)


def test_what_was_kept_is_recalled_by_the_next_run(tmp_path: Path) -> None:
    """The value comes back equal, and is counted."""
    path = tmp_path / "journal"
    Journal(path, "key").keep("a", POINT)
    again = Journal(path, "key")
    assert again.recall("a", CurvePoint) == POINT
    assert again.recalled == 1
    assert again.recall("b", CurvePoint) is None


def test_a_journal_for_something_else_is_begun_anew(tmp_path: Path) -> None:
    """Nothing of it is recalled, and nothing of it is left once a measurement was kept."""
    path = tmp_path / "journal"
    Journal(path, "one").keep("a", POINT)
    other = Journal(path, "two")
    assert other.recall("a", CurvePoint) is None
    other.keep("b", POINT)
    assert Journal(path, "two").recall("a", CurvePoint) is None
    assert Journal(path, "two").recall("b", CurvePoint) == POINT


def test_a_line_cut_off_by_a_crash_is_left_out_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    """The measurements before and behind it are recalled."""
    path = tmp_path / "journal"
    Journal(path, "key").keep("a", POINT)
    with path.open("a", encoding="utf-8") as file:
        file.write('\n{"name": "b", "val')
    Journal(path, "key").keep("c", POINT)
    again = Journal(path, "key")
    assert again.recall("a", CurvePoint) == again.recall("c", CurvePoint) == POINT
    assert again.recall("b", CurvePoint) is None


def test_what_cannot_be_read_is_measured_again(tmp_path: Path) -> None:
    """A file of other content, and an entry of another kind."""
    path = tmp_path / "journal"
    path.write_bytes(b"\xff\xfe\x00")
    assert Journal(path, "key").recall("a", CurvePoint) is None
    journal = Journal(path, "key")
    journal.keep("a", POINT)
    assert Journal(path, "key").recall("a", Path) is None  # type: ignore[type-var]


def test_a_finished_search_leaves_nothing(tmp_path: Path) -> None:
    """The file is gone, whether it was there or not."""
    path = tmp_path / "journal"
    journal = Journal(path, "key")
    journal.done()
    journal.keep("a", POINT)
    journal.done()
    assert not path.exists()


def test_without_a_file_it_remembers_for_itself() -> None:
    """Nothing is written, and what was kept is recalled in the same run."""
    journal = Journal(None, "key")
    journal.keep("a", POINT)
    assert journal.recall("a", CurvePoint) == POINT
