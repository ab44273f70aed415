"""The history: nothing recorded is lost, and nothing damaged is believed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_opt.errors import RecipeError, RequestError, StageError, StorageError
from trt_opt.regress import backup, database
from trt_opt.regress.exchange import lines_of, runs_of
from trt_opt.regress.history import History
from trt_opt.regress.locks import lock
from trt_opt.values.history import Observation, Run, SeriesKey

KEY = SeriesKey("digits", "FP32", "onnxruntime", "a CPU", "onnxruntime 1.32.0", "batch=1")
HOME = {"host": "here"}

WRITER = """
import sys
from pathlib import Path
from trt_opt.regress.history import History
from trt_opt.values.history import Observation, SeriesKey
for number in range(int(sys.argv[2])):
    with History(Path(sys.argv[1])) as history:
        run = history.add([Observation(SeriesKey("m"), "latency_ms", 1.0)], environment={}, label=sys.argv[3])
        print(run.id, flush=True)
"""

KILLED = """
import os, signal, sys
from pathlib import Path
from trt_opt.regress import backup, history
from trt_opt.values.history import Observation, SeriesKey

def die(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def after(function):
    def run(*args, **kwargs):
        function(*args, **kwargs)
        die()
    return run

point = sys.argv[2]
if point == "before the transaction":
    history.insert = die
elif point == "inside the transaction":
    history.insert = after(history.insert)
elif point == "before the backup":
    history.write_backup = die
elif point == "inside the backup":
    backup.sync = die
elif point == "behind the backup":
    history.write_backup = after(history.write_backup)
with history.History(Path(sys.argv[1])) as opened:
    opened.add([Observation(SeriesKey("m"), "latency_ms", 2.0)], environment={}, label="killed")
"""


def figure(value: float = 1.0, key: SeriesKey = KEY, metric: str = "latency_ms") -> Observation:
    return Observation(key, metric, value, (value, value))


def filled(path: Path, runs: int = 3) -> list[Run]:
    """A history with so many runs, each recorded by itself."""
    made = []
    for number in range(runs):
        with History(path) as history:
            made.append(history.add([figure(1.0 + number)], environment=HOME, label=f"night {number}"))
    return made


def runs_in(path: Path) -> tuple[Run, ...]:
    with History(path, writable=False) as history:
        return history.runs()


def subprocess_of(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_run_is_read_back_as_it_was(tmp_path: Path) -> None:
    """Keys, values, rounds, problems, label and environment survive; the newest comes last."""
    one = Observation(KEY, "latency_ms", 0.1, (0.1, 1e-300, 3), ("the GPU was hot",))
    two = Observation(KEY, "sqnr_db", float("nan"), (), ("it is no number",))
    with History(tmp_path / "H.db") as history:
        run = history.add([one, two], environment=HOME, label="a\n'label\"")
        newer = history.add([one], environment={})
    with History(tmp_path / "H.db", writable=False) as history:
        assert [found.id for found in history.runs()] == [run.id, newer.id]
        back = history.run(run.id)
        assert back.observations[0] == Observation(KEY, "latency_ms", 0.1, (0.1, 1e-300, 3.0), ("the GPU was hot",))
        assert back.observations[1].value != back.observations[1].value
        assert (back.label, back.environment, back.recorded_at) == ("a\n'label\"", HOME, run.recorded_at)
        assert [entry.run for entry in history.series(KEY, "latency_ms")] == [run.id, newer.id]
        assert history.names() == ((KEY, "latency_ms"), (KEY, "sqnr_db"))


@settings(max_examples=25, deadline=None)
@given(name=st.text(min_size=1, max_size=40), label=st.text(max_size=20))
def test_any_text_is_a_name(tmp_path_factory: pytest.TempPathFactory, name: str, label: str) -> None:
    """A model's name may hold whatever text can hold; what it cannot is refused and leaves nothing."""
    path = tmp_path_factory.mktemp("names") / "H.db"
    with History(path) as history:
        try:
            history.add([figure(key=SeriesKey(name))], environment=HOME, label=label)
        except RequestError:
            assert not name.strip()
            assert history.runs() == ()
            return
        assert [entry.observation.key.model for entry in history.series(SeriesKey(name), "latency_ms")] == [name]
        text = "".join(lines_of(history.stored()))
    with History(path.with_name("other.db")) as other:
        other.take(runs_of(text, where="here"))
        assert other.run().observations[0].key.model == name


@pytest.mark.parametrize("name", ["x" * 10_000, "a\nb", "'; DROP TABLE runs; --", "\x00\x1b[31m", "模型 🤖"])
def test_awkward_names(tmp_path: Path, name: str) -> None:
    """Long names, line ends, quotes and control characters are names like others."""
    with History(tmp_path / "H.db") as history:
        history.add([figure(key=SeriesKey(name))], environment=HOME, label=name)
    assert runs_in(tmp_path / "H.db")[0].observations[0].key.model == name


def test_a_lone_surrogate_is_refused(tmp_path: Path) -> None:
    """A name that is no text is refused with a clear error, and nothing is recorded."""
    with History(tmp_path / "H.db") as history:
        with pytest.raises(RequestError, match="surrogates"):
            history.add([figure(key=SeriesKey("a\ud800"))], environment=HOME)
        assert history.runs() == ()


def test_awkward_file_names(tmp_path: Path) -> None:
    """Characters that mean something in a URI mean nothing in a history's name."""
    path = tmp_path / "a b?mode=ro&x=%41#'\".db"
    filled(path, 2)
    assert len(runs_in(path)) == 2
    assert backup.backup_path(path).is_file()


def test_a_clock_that_is_set_back_does_not_reorder(tmp_path: Path) -> None:
    """The run recorded last is the newest, whatever the clock says."""
    with History(tmp_path / "H.db") as history:
        history.record(Run("20990101T000000Z-000000", "2099-01-01T00:00:00Z", "", {}, (figure(),)))
        run = history.add([figure()], environment={})
        assert history.run().id == run.id


def test_the_same_figures_twice_in_a_run_are_refused(tmp_path: Path) -> None:
    """A series has one figure per run."""
    with History(tmp_path / "H.db") as history, pytest.raises(RequestError, match="two figures"):
        history.add([figure(1.0), figure(2.0)], environment={})


def test_the_same_source_is_recorded_once(tmp_path: Path) -> None:
    """A result file that was recorded before is refused, unless it is forced."""
    with History(tmp_path / "H.db") as history:
        first = history.add([figure()], environment={}, sources=["abc"])
        with pytest.raises(RequestError, match=first.id):
            history.add([figure()], environment={}, sources=["abc", "def"])
        history.add([figure()], environment={}, sources=["abc"], force=True)
        assert len(history.runs()) == 2


def test_recording_a_run_again(tmp_path: Path) -> None:
    """The same run is known; another one with its id is refused."""
    run = Run("20261125T000000Z-000000", "2026-11-25T00:00:00Z", "", {}, (figure(),))
    with History(tmp_path / "H.db") as history:
        assert history.record(run)
        assert not history.record(run)
        with pytest.raises(RequestError, match="other content"):
            history.record(Run(run.id, run.recorded_at, "", {}, (figure(2.0),)))
        assert len(history.runs()) == 1


def test_two_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    """Three writers, one of which makes the file, record 15 runs each; all are in the history and in its backup."""
    path = tmp_path / "H.db"
    writers = [subprocess_of(WRITER, str(path), "15", name) for name in "abc"]
    told = [writer.communicate(timeout=300) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], told
    written = sorted(line for out, _ in told for line in out.split())
    assert len(written) == 45
    assert sorted(run.id for run in runs_in(path)) == written
    assert len(runs_in(backup.backup_path(path))) == 45


POINTS = (
    "before the transaction",
    "inside the transaction",
    "before the backup",
    "inside the backup",
    "behind the backup",
)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_recorder_leaves_a_sound_history(tmp_path: Path, point: str) -> None:
    """Wherever it dies, the run is there whole or not at all, and the next recorder goes on and clears up."""
    path = tmp_path / "H.db"
    before = filled(path, 2)
    killed = subprocess_of(KILLED, str(path), point)
    assert killed.communicate(timeout=120)[0] == ""
    assert killed.returncode == -signal.SIGKILL
    expected = 2 if "transaction" in point else 3
    with History(path) as history:
        assert history.notes == ()
        assert [run.id for run in history.runs()][:2] == [run.id for run in before]
        assert len(history.runs()) == expected
        history.add([figure()], environment=HOME)
    assert len(runs_in(backup.backup_path(path))) == expected + 1
    assert not list(tmp_path.glob(".*.copy*"))


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_at_any_time(tmp_path: Path) -> None:
    """Recorders killed at ten moments leave every run that they told of."""
    path = tmp_path / "H.db"
    told: list[str] = []
    for attempt in range(10):
        writer = subprocess_of(WRITER, str(path), "1000", f"{attempt}")
        assert writer.stdout is not None
        told.append(writer.stdout.readline().strip())
        time.sleep(0.013 * attempt)
        writer.kill()
        told += writer.communicate()[0].split()
    with History(path) as history:
        assert history.notes == ()
        assert {run.id for run in history.runs()} >= set(filter(None, told))


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_history_is_recovered(tmp_path: Path, keep: float) -> None:
    """A truncated file is set aside and the backup takes its place, and both are said."""
    path = tmp_path / "H.db"
    made = filled(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with History(path) as history:
        assert [run.id for run in history.runs()] == [run.id for run in made]
        assert len(history.notes) == 1
        assert "recovered" in history.notes[0]
        assert made[-1].recorded_at in history.notes[0]
    (aside,) = tmp_path.glob("H.db.corrupt-*")
    assert aside.stat().st_size == int(keep * len(whole))
    with History(path) as history:
        assert history.notes == ()


def test_reading_recovers_too(tmp_path: Path) -> None:
    """Who only reads a damaged history gets the recovered one."""
    path = tmp_path / "H.db"
    filled(path, 3)
    path.write_bytes(path.read_bytes()[:5000])
    with History(path, writable=False) as history:
        assert len(history.runs()) == 3
        assert history.notes


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_flipped_bytes_change_no_figure(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever bytes change on the disk, the figures read are those written, from the file or from its backup."""
    path = tmp_path_factory.mktemp("flipped") / "H.db"
    made = filled(path, 3)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        with History(path, writable=False) as history:
            assert history.runs() == tuple(made)
            assert [entry.observation for entry in history.series(KEY, "latency_ms")] == [
                run.observations[0] for run in made
            ]
    except RequestError as error:
        assert "newer trt-opt" in str(error)  # The version's own bytes; nothing is touched then.


def test_what_the_backup_lacks_is_salvaged(tmp_path: Path) -> None:
    """Runs recorded after the backup are taken out of the damaged file where they are whole; the others are named."""
    path = tmp_path / "H.db"
    filled(path, 2)
    older = backup.backup_path(path).read_bytes()
    filled(path, 2)
    made = runs_in(path)
    backup.backup_path(path).write_bytes(older)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE observations SET value = 77 WHERE run = ?", (made[3].id,))
    connection.close()
    with History(path) as history:
        assert [run.id for run in history.runs()] == [run.id for run in made[:3]]
        assert "2 runs from its backup and 1 out of the damaged file" in history.notes[0]
        assert f"lost: {made[3].id}" in history.notes[0]


def test_both_damaged(tmp_path: Path) -> None:
    """A clear error, and both files stay as they are."""
    path = tmp_path / "H.db"
    filled(path, 3)
    spoilt = path.read_bytes()[:5000]
    path.write_bytes(spoilt)
    backup.backup_path(path).write_bytes(spoilt)
    with pytest.raises(StageError, match="and so is its backup") as caught, History(path):
        pass
    assert caught.value.exit_code == 4
    assert path.read_bytes() == backup.backup_path(path).read_bytes() == spoilt


def test_two_who_find_it_damaged_recover_it_once(tmp_path: Path) -> None:
    """Of several openers one recovers; what the others record meanwhile is kept."""
    path = tmp_path / "H.db"
    filled(path, 3)
    path.write_bytes(path.read_bytes()[:5000])
    writers = [subprocess_of(WRITER, str(path), "3", name) for name in "abc"]
    told = [writer.communicate(timeout=300) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], told
    assert len(runs_in(path)) == 12
    assert len(list(tmp_path.glob("H.db.corrupt-*"))) == 1


@pytest.mark.parametrize("content", [b"# my notes\n", b"SQLite format 2\0" + b"x" * 5000, bytes(5000)])
def test_another_file_is_never_overwritten(tmp_path: Path, content: bytes) -> None:
    """A file that is no history is refused and stays."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(RequestError, match="not a history"), History(path):
        pass
    assert path.read_bytes() == content
    assert not backup.backup_path(path).exists()


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """An SQLite file with other tables stays as it is."""
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.commit()
    connection.close()
    content = path.read_bytes()
    with pytest.raises(RequestError, match="another program"), History(path):
        pass
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_history(tmp_path: Path) -> None:
    """As `mktemp` makes one."""
    path = tmp_path / "H.db"
    path.touch()
    filled(path, 1)
    assert len(runs_in(path)) == 1


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    """A history of a newer trt-opt is neither read nor written."""
    path = tmp_path / "H.db"
    filled(path, 1)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {database.VERSION + 1}")
    connection.close()
    for writable in (True, False):
        with pytest.raises(RequestError, match="newer trt-opt") as caught, History(path, writable=writable):
            pass
        assert caught.value.exit_code == 2


def test_an_older_version_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables of an older version are brought to this one with everything in them."""
    path = tmp_path / "H.db"
    made = filled(path, 2)
    more = (*database.MIGRATIONS, "ALTER TABLE runs ADD COLUMN place TEXT")
    monkeypatch.setattr(database, "MIGRATIONS", more)
    monkeypatch.setattr(database, "VERSION", len(more))
    assert runs_in(path) == tuple(made)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(more),)
    assert connection.execute("SELECT place FROM runs").fetchall() == [(None,), (None,)]
    connection.close()


@pytest.mark.parametrize("writable", [True, False])
def test_a_folder_is_refused(tmp_path: Path, writable: bool) -> None:
    """A folder is no history, and a missing folder is named."""
    with pytest.raises(RequestError, match="folder"), History(tmp_path, writable=writable):
        pass
    with pytest.raises(RequestError), History(tmp_path / "missing" / "H.db", writable=writable):
        pass
    with pytest.raises(RequestError, match="no file can be called so"), History(tmp_path / ("x" * 300)):
        pass


def test_reading_makes_no_file(tmp_path: Path) -> None:
    """Who only reads is told that there is nothing."""
    with pytest.raises(RequestError, match="no history"), History(tmp_path / "H.db", writable=False):
        pass
    assert not (tmp_path / "H.db").exists()


def test_locked_too_long(tmp_path: Path) -> None:
    """Another program's transaction is waited for, and then told of."""
    path = tmp_path / "H.db"
    filled(path, 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with History(path, timeout_s=0.2) as history:
        with pytest.raises(StorageError, match="locked") as caught:
            history.add([figure()], environment={})
        other.execute("ROLLBACK")
        history.add([figure()], environment={})
        assert len(history.runs()) == 2
    other.close()
    assert caught.value.exit_code == 4


@pytest.mark.skipif(os.name != "posix", reason="needs flock")
def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    """One who has the file alone keeps others out; they wait, and give up in time."""
    path = tmp_path / "H.db"
    filled(path, 1)
    late = History(path, timeout_s=0.1)
    with lock(path, alone=True, timeout_s=1), pytest.raises(StorageError, match="locked"), late:
        pass
    held = threading.Event()

    def hold() -> None:
        with lock(path, alone=True, timeout_s=1):
            held.set()
            time.sleep(0.2)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert len(runs_in(path)) == 1
    thread.join()


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from pathlib import Path
from trt_opt.errors import StorageError
from trt_opt.regress.history import History
from trt_opt.values.history import Observation, SeriesKey
try:
    with History(Path(sys.argv[1])) as history:
        figures = [Observation(SeriesKey(f"m{n}", flags="x" * 300), "latency_ms", 1.0) for n in range(500)]
        history.add(figures, environment={})
except StorageError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on file sizes")
def test_no_space_left(tmp_path: Path) -> None:
    """What cannot be written is an error, and what was there before stays whole."""
    path = tmp_path / "H.db"
    made = filled(path, 2)
    limited = subprocess_of(LIMITED, str(path), str(path.stat().st_size + 30_000))
    out, err = limited.communicate(timeout=120)
    assert limited.returncode == 4, out + err
    assert "history" in out or "disk" in out
    assert runs_in(path) == tuple(made)


def test_a_failing_backup_is_said_and_the_run_kept(tmp_path: Path) -> None:
    """The run is recorded, and the user knows that there is no backup of it."""
    path = tmp_path / "H.db"
    filled(path, 1)
    backup.backup_path(path).unlink()
    backup.backup_path(path).mkdir()
    with History(path) as history:
        history.add([figure()], environment={})
        assert "the backup could not be written" in history.notes[0]
    assert len(runs_in(path)) == 2


def test_accepted_changes(tmp_path: Path) -> None:
    """An acceptance needs a run, a figure of it and a reason, and travels with the run."""
    path = tmp_path / "H.db"
    (run,) = filled(path, 1)
    with History(path) as history:
        with pytest.raises(RequestError, match="reason"):
            history.accept(run.id, " ")
        with pytest.raises(RequestError, match="no such figure"):
            history.accept(run.id, "why", model="other")
        with pytest.raises(RequestError, match="no run"):
            history.accept("2099", "why")
        accepted = history.accept(run.id, "a new kernel", metric="latency_ms")
        assert history.acceptances() == (accepted,)
        assert accepted.covers(KEY, "latency_ms")
        assert not accepted.covers(KEY, "top1")
        text = "".join(lines_of(history.stored()))
    with History(tmp_path / "other.db") as other:
        other.take(runs_of(text, where="here"))
        assert other.acceptances() == (accepted,)


def test_export_and_import(tmp_path: Path) -> None:
    """A history that is exported and imported is the same; once more changes nothing; a conflict takes nothing."""
    path = tmp_path / "H.db"
    made = filled(path, 3)
    with History(path) as history:
        text = "".join(lines_of(history.stored()))
    assert len(text.split("\n")) == 4
    with History(tmp_path / "other.db") as other:
        assert other.take(runs_of(text, where="here")).added == tuple(run.id for run in made)
        assert other.runs() == tuple(made)
        again = other.take(runs_of(text, where="here"))
        assert (again.added, again.known) == ((), tuple(run.id for run in made))
        changed = text.replace('"value":3.0', '"value":9.0')
        assert changed != text
        fresh = text.splitlines()[0].replace(made[0].id, "20200101T000000Z-000000")
        with pytest.raises(RequestError, match="other content"):
            other.take(runs_of(fresh + "\n" + changed, where="here"))
        assert other.runs() == tuple(made)


@pytest.mark.parametrize("line", ["{", "[]", '{"schema_version": 1, "kind": "Run"}', "[" * 100_000, "null"])
def test_a_line_that_is_no_run_is_refused(line: str) -> None:
    """The line is named."""
    with pytest.raises(RecipeError, match="line 2"):
        runs_of(f"\n{line}\n", where="here")
