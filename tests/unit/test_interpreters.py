"""Which Python runs the child process with TensorRT: the one asked for, or one that really has it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fake_pythons as pythons
import psutil
import pytest

from trt_opt.backends import interpreters
from trt_opt.backends.interpreters import TENSORRT_PYTHON_VARIABLE, candidates, choice, tensorrt_python
from trt_opt.backends.machine import has_tensorrt_and_gpu
from trt_opt.errors import MissingError
from trt_opt.values.machine import Interpreter

LACKING = "raise ImportError('not here')"


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose only Python is this one."""
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_EXE", "PYTHONPATH", TENSORRT_PYTHON_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRT_OPT_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(interpreters, "PATIENT_S", 20.0)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Candidates that hang are given up soon."""
    monkeypatch.setattr(interpreters, "PATIENT_S", 1.5)
    monkeypatch.setattr(interpreters, "QUICK_S", 5.0)
    monkeypatch.setattr(interpreters, "BEFORE_THE_END_S", 0.5)
    yield
    interpreters._answered.cache_clear()


def system_python(tmp_path: Path, name: str = "python3", *, version: str = "10.3.0", lacks: str | None = None) -> Path:
    """A Python of the system's that has TensorRT, and may lack what it needs beside that."""
    site = pythons.tensorrt(tmp_path / f"site of {name}".replace(" ", "-"), version)
    if lacks:
        pythons.package(site, lacks, LACKING)
    return pythons.python_with(tmp_path / "root" / "usr" / "bin" / name, site)


def path_python(tmp_path: Path, name: str = "python3") -> Path:
    """A Python on the PATH that has TensorRT."""
    return pythons.python_with(tmp_path / "path" / name, pythons.tensorrt(tmp_path / "path-site", "10.16.1"))


def by_path(found: tuple[Interpreter, ...]) -> dict[str, Interpreter]:
    """Candidates by their paths."""
    return {interpreter.path: interpreter for interpreter in found}


def test_the_one_asked_for_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option stands above the variable, and the variable above all that is found."""
    system, asked = system_python(tmp_path), path_python(tmp_path, "python3.9")
    assert tensorrt_python(str(asked)) == str(asked)
    monkeypatch.setenv(TENSORRT_PYTHON_VARIABLE, str(asked))
    assert tensorrt_python(None) == str(asked)
    assert tensorrt_python(str(system)) == str(system)


def test_this_one_is_preferred_where_it_has_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TensorRT beside this tool is used before the system's."""
    system_python(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(pythons.tensorrt(tmp_path / "own")))
    assert tensorrt_python(None) == sys.executable


def test_else_the_systems_and_then_the_paths(tmp_path: Path) -> None:
    """JetPack's TensorRT is found without being told; the PATH comes after it."""
    on_path = path_python(tmp_path)
    assert tensorrt_python(None) == str(on_path)
    system = system_python(tmp_path, "python3.8")
    assert tensorrt_python(None) == str(system)


def test_one_that_lacks_something_is_passed_over(tmp_path: Path) -> None:
    """A complete Python further down is better than an incomplete one."""
    system_python(tmp_path, lacks="polygraphy")
    on_path = path_python(tmp_path)
    assert tensorrt_python(None) == str(on_path)


def test_what_the_nearest_one_lacks_is_told_with_the_command(tmp_path: Path) -> None:
    """Where no Python is complete, the error names the one with TensorRT, what it lacks and what to type."""
    system = system_python(tmp_path, version="8.5.2", lacks="polygraphy")
    with pytest.raises(MissingError) as told:
        tensorrt_python(None)
    assert told.value.where == str(system)
    assert "has TensorRT 8.5.2, and lacks polygraphy" in told.value.what
    assert f"{system} -m pip install polygraphy 'numpy<1.24'" in str(told.value.hint)


def test_without_any_tensorrt_the_doctor_is_named() -> None:
    """A bare machine's error says where to find out what to install, and what works without."""
    with pytest.raises(MissingError, match="no Python here has TensorRT") as told:
        tensorrt_python(None)
    assert "trt-opt doctor" in str(told.value.hint)
    assert "--target rtx" in str(told.value.hint)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (pythons.PRINTS_SOMETHING_ELSE, "answers something else than a Python would, and says: hello world"),
        (pythons.CRASHES, r"crashed \(SIGSEGV\)"),
        ("exit 7", "ends with exit code 7"),
        (f'PYTHONPATH=/nowhere exec {sys.executable} "$@"', "it has no TensorRT"),
    ],
)
def test_no_python_is_told_as_such(body: str, told: str, tmp_path: Path) -> None:
    """What was asked for and cannot be used is an error of its own, never a silent other choice."""
    system_python(tmp_path)
    asked = pythons.script(tmp_path / "asked", body)
    with pytest.raises(MissingError, match=told) as error:
        tensorrt_python(str(asked))
    assert error.value.where == f"--tensorrt-python {asked}"


@pytest.mark.parametrize(
    ("body", "told"),
    [(pythons.HANGS, "gave no answer in 2 s"), (pythons.PRINTS_WITHOUT_END, "prints without end")],
)
def test_a_python_that_does_not_end_is_told(body: str, told: str, tmp_path: Path, quickly: None) -> None:
    """A limit ends what hangs, and what prints for ever."""
    with pytest.raises(MissingError, match=told):
        tensorrt_python(str(pythons.script(tmp_path / "asked", body)))


def test_what_prints_without_end_is_not_waited_for(tmp_path: Path) -> None:
    """Nor what prints more than an answer and would end by itself: nobody reads on."""
    asked = pythons.script(tmp_path / "asked", "/usr/bin/yes | /usr/bin/head -c 5000000")
    started = time.monotonic()
    with pytest.raises(MissingError, match="prints without end"):
        tensorrt_python(str(asked))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("asked", ["~nobody-of-that-name/python", "/" + "long" * 100, "/" + "deep/" * 2000])
def test_a_path_that_cannot_be_is_no_crash(asked: str) -> None:
    """The home of an unknown user, names and paths that are too long."""
    with pytest.raises(MissingError, match="there is no such file"):
        tensorrt_python(asked)


def test_a_user_without_a_home_has_no_pyenv(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a bare number."""

    def unknown(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("PYENV_ROOT", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    monkeypatch.setattr(Path, "home", lambda: unknown(Path()))
    assert [place for place in interpreters.places() if place[0] == "pyenv"] == []


def test_files_that_are_no_programs_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, one without permission and one that is no program, the variable being named as who asked."""
    text = tmp_path / "text"
    text.write_text("no program")
    for mode, told in ((0o644, "Permission denied"), (0o755, "Exec format error")):
        text.chmod(mode)
        with pytest.raises(MissingError, match=told):
            tensorrt_python(str(text))
        interpreters._answered.cache_clear()
    monkeypatch.setenv(TENSORRT_PYTHON_VARIABLE, "/no/such/python3")
    with pytest.raises(MissingError, match="there is no such file") as error:
        tensorrt_python(None)
    assert error.value.where == f"{TENSORRT_PYTHON_VARIABLE} /no/such/python3"


def test_an_import_that_fails_is_told_as_the_library_says_it(tmp_path: Path) -> None:
    """TensorRT without its libraries is not TensorRT, and the loader's words are in the error."""
    site = pythons.package(tmp_path / "site", "tensorrt", "raise ImportError('libnvinfer.so.8: cannot open')")
    asked = pythons.python_with(tmp_path / "asked", site)
    with pytest.raises(MissingError, match=r"cannot be imported \(ImportError: libnvinfer.so.8: cannot open\)"):
        tensorrt_python(str(asked))


def test_a_python_older_than_the_worker_is_refused(tmp_path: Path) -> None:
    """JetPack 4's Python is told as too old, with the way that needs no Python."""
    old = pythons.python_of_version("3.7") or pythons.python_of_version("3.6")
    if old is None:
        pytest.skip("there is no Python before 3.8 here")
    asked = pythons.python_with(tmp_path / "asked", pythons.tensorrt(tmp_path / "site", "8.2.1"), old)
    with pytest.raises(MissingError, match=r"3\.8 or later is needed") as error:
        tensorrt_python(str(asked))
    assert "trtexec" in str(error.value.hint)


def test_names_and_folders_are_understood(tmp_path: Path) -> None:
    """A name on the PATH and the folder of a virtual environment mean the Python there."""
    on_path = path_python(tmp_path, "python3.9")
    assert tensorrt_python("python3.9") == str(on_path)
    inside = pythons.python_with(tmp_path / "env" / "bin" / "python3", pythons.tensorrt(tmp_path / "env-site"))
    assert tensorrt_python(str(tmp_path / "env")) == str(inside)


def test_every_python_is_listed_once(tmp_path: Path) -> None:
    """A link is the same Python found twice; an environment of it is another."""
    folder = tmp_path / "path"
    folder.mkdir()
    base = Path(sys.executable).resolve()
    (folder / "python3").symlink_to(base)
    (folder / f"python3.{sys.version_info.minor}").symlink_to(folder / "python3")
    subprocess.run([base, "-m", "venv", "--without-pip", tmp_path / "pyenv" / "versions" / "new"], check=True)
    found = by_path(candidates())
    assert sorted(Path(entry.prefix) for entry in found.values()) == sorted(
        {Path(sys.prefix), Path(sys.base_prefix), tmp_path / "pyenv" / "versions" / "new"}
    )
    assert sum("PATH" in entry.origins for entry in found.values()) == 1
    new = found[str(tmp_path / "pyenv" / "versions" / "new" / "bin" / "python3")]
    assert (new.is_virtual, new.origins) == (True, ("pyenv",))


def test_what_nobody_named_is_shown_and_not_used(tmp_path: Path) -> None:
    """pyenv's TensorRT is a candidate that has to be asked for."""
    python = pythons.python_with(
        tmp_path / "pyenv" / "versions" / "3.9.1" / "bin" / "python3", pythons.tensorrt(tmp_path / "pyenv-site")
    )
    chosen, reason = choice(candidates())
    assert chosen is None
    assert f"only {python} has TensorRT" in reason
    with pytest.raises(MissingError):
        tensorrt_python(None)


def test_candidates_that_misbehave_cost_one_limit_and_leave_nothing(tmp_path: Path, quickly: None) -> None:
    """However many hang, the rest is told in time, and none of their processes is left."""
    seconds = f"600.{time.time_ns()}"
    hangs = f"/bin/sleep {seconds}"
    for minor, body in enumerate((hangs, hangs, pythons.PRINTS_WITHOUT_END, pythons.CRASHES), 20):
        pythons.script(tmp_path / "path" / f"python3.{minor}", body)
    good = path_python(tmp_path)
    started = time.monotonic()
    found = by_path(candidates())
    assert time.monotonic() - started < 10
    assert choice(found.values())[0] is found[str(good)]
    assert "crashed" in str(found[str(tmp_path / "path" / "python3.23")].problem)
    assert [entry.problem for entry in found.values()].count("it gave no answer in 5 s") == 2
    assert found[str(tmp_path / "path" / "python3.22")].problem == "it prints without end"
    assert not [process for process in psutil.process_iter(["cmdline"]) if seconds in (process.info["cmdline"] or ())]


def test_the_default_target_follows_what_can_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU, TensorRT is the default as soon as any Python that is looked at has it, or one is named."""
    system = system_python(tmp_path)
    assert not has_tensorrt_and_gpu()
    (tmp_path / "root" / "dev").mkdir()
    (tmp_path / "root" / "dev" / "nvidia0").touch()
    assert has_tensorrt_and_gpu()
    system.unlink()
    assert not has_tensorrt_and_gpu()
    assert has_tensorrt_and_gpu("/no/such/python")
    monkeypatch.setenv(TENSORRT_PYTHON_VARIABLE, "/no/such/python")
    assert has_tensorrt_and_gpu()
