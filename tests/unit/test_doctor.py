"""What `trt-opt doctor` concludes from what it finds, and says."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import fake_pythons as pythons
import pytest
from command_line import run
from rich.console import Console

from trt_opt.backends import interpreters
from trt_opt.backends.known_bad import TABLE, findings, jetpack_of, numpy_requirement
from trt_opt.backends.machine import machine
from trt_opt.backends.remedies import rtx_steps, tensorrt_steps
from trt_opt.report.doctor import show_machine
from trt_opt.values.codec import json_from_value, value_from_json
from trt_opt.values.device import Gpu
from trt_opt.values.machine import Board, CudaDriver, Interpreter, Machine, Package, Step, version_numbers

NO_GPU = CudaDriver("no NVIDIA driver: there is no libcuda.so.1", None, ())
ORIN = Board("NVIDIA Jetson AGX Orin Developer Kit", "36.4.3", "6.2")


def gpu(capability: str, cuda: str = "13.0") -> CudaDriver:
    """A machine's driver with one GPU."""
    return CudaDriver(None, cuda, (Gpu("a GPU", capability, 8_000_000_000, "GPU-0", cuda),))


def interpreter(
    path: str = "/usr/bin/python3", origin: str = "system", *, python: str = "3.10.12", **versions: str
) -> Interpreter:
    """A Python whose packages all work; `tensorrt="10.3.0"`."""
    packages = tuple(Package(name, version, True, "") for name, version in versions.items())
    return Interpreter(path, (origin,), python=python, prefix="/usr", has_pip=True, packages=packages)


def complete(tensorrt: str, **versions: str) -> Interpreter:
    """One that can build."""
    return interpreter(**{"tensorrt": tensorrt, "numpy": "1.23.5", "polygraphy": "0.53.6", **versions})


def subjects(*found: Interpreter, board: Board | None = None, cuda: CudaDriver = NO_GPU) -> list[str]:
    """What is known to go wrong with them."""
    return [finding.subject for finding in findings(found, board, cuda)]


def commands(*found: Interpreter, board: Board | None = None, cuda: CudaDriver = NO_GPU) -> str:
    """Everything there is to type."""
    able = next((entry for entry in found if entry.can_build and entry.origins != ("pyenv",)), None)
    return "\n".join(command for step in tensorrt_steps(found, able, board, cuda) for command in step.commands)


@pytest.mark.parametrize(
    ("found", "board", "subject"),
    [
        (complete("10.2.0"), None, "TensorRT 10.2.0"),
        (complete("10.3.0"), ORIN, "INT8 on TensorRT 10.3 of JetPack 6"),
        (complete("10.3.0"), None, "TensorRT 10.3 and dynamic shapes"),
        (complete("11.4.0.106"), replace(ORIN, jetpack="7.2"), "TensorRT 11.0 to 11.4.0 on a Jetson"),
        (complete("11.0.0"), replace(ORIN, jetpack=None), "TensorRT 11.0 to 11.4.0 on a Jetson"),
        (complete("11.4.1"), ORIN, "TensorRT 11.4.1 or later on JetPack 6 or older"),
        (complete("8.5.2.2", numpy="1.24.4"), None, "TensorRT before 8.6 with NumPy 1.24 or later"),
        (complete("8.6.1", numpy="2.0.0"), None, "TensorRT up to 10.3 with NumPy 2"),
        (interpreter(pycuda="2024.1", numpy="2.1.0"), None, "pycuda before 2024.1.2 with NumPy 2"),
        (complete("8.6.1.post1", python="3.12.3"), None, "TensorRT 8.6 with Python 3.12 or later"),
    ],
)
def test_every_listed_combination_is_found(found: Interpreter, board: Board | None, subject: str) -> None:
    """Each row of the table is met by what it describes, and carries who says so."""
    (finding,) = (entry for entry in findings((found,), board, NO_GPU) if entry.subject == subject)
    assert finding.where == (found.path,)
    assert all((finding.consequence, finding.remedy, finding.source))


def test_no_row_of_the_table_is_left_untried() -> None:
    """The combinations above are all there are."""
    rows = json.loads((Path(__file__).parents[2] / "trt_opt" / "backends" / TABLE).read_text())["combinations"]
    marks = test_every_listed_combination_is_found.pytestmark  # type: ignore[attr-defined]
    assert {row["subject"] for row in rows} == {subject for _, _, subject in marks[0].args[1]}


@pytest.mark.parametrize(
    ("found", "board"),
    [
        (complete("10.16.1.11", numpy="2.4.6"), None),
        (complete("8.5.2.2"), replace(ORIN, jetpack="5.1.2")),
        (complete("8.6.2"), replace(ORIN, jetpack="6.0")),
        (complete("11.4.1"), replace(ORIN, jetpack="7.2")),
        (complete("11.4.0.106", numpy="2.4.6"), None),
        (interpreter(numpy="2.4.6"), None),
    ],
)
def test_sound_combinations_are_not_warned_of(found: Interpreter, board: Board | None) -> None:
    """What JetPack brings, and the newest of everything on a server, are not suspected of what others do."""
    sound = replace(found, libraries={"libcudnn": ("libcudnn.so.8",)})
    assert subjects(sound, board=board) == []


def test_a_gpu_outside_what_tensorrt_supports_is_found() -> None:
    """Volta ended with 10.4, Blackwell began with 10.8; Ampere is in both."""
    assert subjects(complete("10.5.0"), cuda=gpu("7.0")) == ["TensorRT 10.5.0 on a GPU (compute capability 7.0)"]
    assert subjects(complete("10.4.0"), cuda=gpu("7.0")) == []
    assert "TensorRT 10.3.0 on a GPU (compute capability 12.0)" in subjects(complete("10.3.0"), cuda=gpu("12.0"))
    assert subjects(complete("10.5.0"), cuda=gpu("8.6")) == []


def test_a_driver_too_old_for_tensorrts_cuda_is_found() -> None:
    """CUDA 13's package on a driver of CUDA 12 names the driver to install, and the other package."""
    found = replace(complete("11.4.1"), distributions=(("tensorrt-cu13", "11.4.1", "/site"),))
    (finding,) = findings((found,), None, gpu("8.6", "12.4"))
    assert finding.severity == "breaks"
    assert "580 or later, or tensorrt-cu12" in finding.remedy
    assert findings((found,), None, gpu("8.6", "13.0")) == ()
    assert findings((found,), None, NO_GPU) == ()


def test_two_tensorrts_in_one_python_are_found() -> None:
    """JetPack's and pip's, or one of each CUDA; the parts of one TensorRT and TensorRT-RTX are no second."""
    parts = (
        ("tensorrt", "10.16.1.11", "/a"),
        ("tensorrt-cu13-libs", "10.16.1.11", "/a"),
        ("tensorrt-rtx", "1.7", "/a"),
    )
    one = replace(complete("10.16.1.11"), distributions=parts)
    assert subjects(one) == []
    for other in (("tensorrt", "10.3.0", "/b"), ("tensorrt-cu12-bindings", "10.16.1.11", "/b")):
        (subject,) = subjects(replace(one, distributions=(*parts, other)))
        assert subject.startswith("two TensorRTs in one Python: ")


def test_tensorrt_8_without_cudnn_is_found() -> None:
    """The library it is linked against is looked for."""
    assert subjects(complete("8.6.1")) == ["TensorRT 8.6.1 without cuDNN"]
    assert subjects(replace(complete("8.6.1"), libraries={"libcudnn": ("libcudnn.so.8.9",)})) == []


def test_the_same_finding_of_several_pythons_is_one() -> None:
    """Three Pythons with one TensorRT are one warning that names them."""
    several = tuple(replace(complete("10.2.0"), path=f"/usr/bin/python3.{minor}") for minor in (8, 9, 10))
    (finding,) = findings(several, None, NO_GPU)
    assert finding.where == tuple(entry.path for entry in several)


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [("36.4.3", "6.2"), ("36.4.7", "6.1"), ("35.4.1", "5.1.2"), ("35.6.2", "5"), ("39.2.0", "7.2"), ("99.1", None)],
)
def test_jetpack_follows_from_jetson_linux(l4t: str, jetpack: str | None) -> None:
    """As precisely as it is known, and not at all where it is not."""
    assert jetpack_of(l4t) == jetpack
    assert jetpack_of(None) is None


@pytest.mark.parametrize(
    ("tensorrt", "requirement"),
    [("8.5.2.2", "numpy<1.24"), ("8.6.2", "numpy<2"), ("10.3.0", "numpy<2"), ("10.13.0", "numpy"), (None, "numpy")],
)
def test_numpy_is_pinned_to_what_tensorrt_takes(tensorrt: str | None, requirement: str) -> None:
    """The pin comes from the table of known-bad combinations."""
    assert numpy_requirement(tensorrt) == requirement


def test_a_jetson_is_told_jetpacks_commands() -> None:
    """Python bindings from apt, the rest from pip with NumPy's pin; everything where the library is missing too."""
    board = replace(ORIN, l4t="35.4.1", jetpack="5.1.2")
    bare = interpreter(python="3.8.10")
    with_library = replace(bare, libraries={"libnvinfer": ("libnvinfer.so.8.5.2",)})
    text = commands(with_library, board=board, cuda=gpu("8.7", "11.4"))
    assert "sudo apt-get install python3-libnvinfer" in text
    assert "/usr/bin/python3 -m pip install polygraphy 'numpy<1.24'" in text
    assert "sudo apt-get install nvidia-jetpack" in commands(bare, board=board, cuda=gpu("8.7", "11.4"))
    lacking = interpreter(tensorrt="10.3.0", numpy="1.26.4")
    assert commands(lacking, board=ORIN, cuda=gpu("8.7", "12.6")) == (
        "/usr/bin/python3 -m pip install polygraphy 'numpy<2'"
    )
    assert commands(complete("10.3.0"), board=ORIN, cuda=gpu("8.7", "12.6")) == ""


def test_a_jetson_with_an_old_python_is_shown_the_way_without_python() -> None:
    """JetPack 4's Python 3.6 cannot run the child process: trtexec can build."""
    board = Board("NVIDIA Jetson Nano Developer Kit", "32.7.1", "4.6.1")
    steps = tensorrt_steps((interpreter(python="3.6.9", tensorrt="8.2.1"),), None, board, gpu("5.3", "10.2"))
    assert "older than 3.8" in steps[-1].purpose
    assert "trtexec" in steps[-1].purpose
    assert steps[-1].commands == ("sh build_on_device.sh app.bundle",)


def test_where_the_system_forbids_pip_an_environment_is_made() -> None:
    """PEP 668: JetPack 7's Python takes packages in an environment that sees the system's."""
    managed = replace(interpreter(python="3.12.3", tensorrt="10.13.0"), is_managed=True)
    text = commands(managed, board=replace(ORIN, jetpack="7.0"), cuda=gpu("11.0", "13.0"))
    assert text.splitlines()[0] == "/usr/bin/python3 -m venv --system-site-packages ~/tensorrt-python"
    assert "TRT_OPT_TENSORRT_PYTHON" in text
    inside = replace(managed, is_virtual=True)
    assert "venv" not in commands(inside, board=replace(ORIN, jetpack="7.0"), cuda=gpu("11.0", "13.0"))


@pytest.mark.parametrize(
    ("capability", "cuda", "requirement"),
    [
        ("8.6", "13.0", "tensorrt"),
        ("8.6", "12.4", "tensorrt-cu12"),
        ("7.0", "12.4", "'tensorrt-cu12<10.5'"),
        ("6.1", "12.4", "'tensorrt==8.6.*'"),
    ],
)
def test_a_graphics_card_is_told_the_tensorrt_it_takes(capability: str, cuda: str, requirement: str) -> None:
    """The package for the driver's CUDA, and not newer than the GPU."""
    this = interpreter("/env/bin/python", "this one", numpy="2.4.6", polygraphy="0.53.6")
    assert commands(this, cuda=gpu(capability, cuda)) == f"/env/bin/python -m pip install {requirement}"


def test_a_tensorrt_elsewhere_is_pointed_at() -> None:
    """pyenv's TensorRT needs no installing, only naming."""
    this = interpreter("/env/bin/python", "this one")
    other = replace(complete("10.16.1"), path="/pyenv/bin/python3", origins=("pyenv",))
    assert "--tensorrt-python /pyenv/bin/python3" in commands(this, other, cuda=gpu("8.6"))


def test_a_named_python_whose_tensorrt_is_broken_is_told_how_to_mend_it() -> None:
    """The very package that pip installed there, with or without a GPU; one that nobody named is left alone."""
    broken = Package("tensorrt", None, works=False, detail="OSError: libnvinfer.so.10")
    named = replace(
        interpreter(),
        path="/env/bin/python",
        origins=("--tensorrt-python",),
        packages=(broken,),
        distributions=(("tensorrt-cu12", "10.3.0", "/env"),),
    )
    here = interpreter("/here/bin/python", "this one")
    for cuda in (NO_GPU, gpu("8.6")):
        steps = tensorrt_steps((named, here), None, None, cuda)
        assert steps[-1].commands == ("/env/bin/python -m pip install --force-reinstall tensorrt-cu12==10.3.0",)
        assert "OSError: libnvinfer.so.10" in steps[-1].purpose
    assert "/env" not in str(tensorrt_steps((replace(named, origins=("conda",)), here), None, None, gpu("8.6")))


def test_a_machine_without_a_gpu_is_shown_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to install where there is no card; where there is one without a driver, there is."""
    monkeypatch.setenv("TRT_OPT_ROOT", str(tmp_path))
    this = interpreter("/env/bin/python", "this one", tensorrt_rtx="1.7")
    assert commands(this) == "trt-opt bundle MODEL -o app.bundle\ntrt-opt build app.bundle"
    card = tmp_path / "sys" / "bus" / "pci" / "devices" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x10de\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text('NAME="Ubuntu"\nID=ubuntu\n')
    assert commands(this).splitlines()[0] == "sudo ubuntu-drivers install"


def test_tensorrt_rtx_is_offered_where_it_is_missing() -> None:
    """The one thing that needs no GPU is one command away."""
    this = interpreter("/env/bin/python", "this one")
    assert rtx_steps(this)[0].commands == ("/env/bin/python -m pip install 'trt-opt[rtx]'",)
    assert rtx_steps(interpreter(tensorrt_rtx="1.7")) == ()


def test_versions_are_compared_as_numbers() -> None:
    """Suffixes end a version; ten is more than nine."""
    assert version_numbers("8.6.1.post1") == (8, 6, 1)
    assert version_numbers("3.13.0rc1") == (3, 13, 0)
    assert version_numbers("10.3.0") > version_numbers("9.3")


def told(found: Machine, width: int) -> str:
    """What people read."""
    stream = io.StringIO()
    show_machine(found, Console(file=stream, width=width, highlight=False))
    return stream.getvalue()


@pytest.fixture(scope="module")
def here() -> Machine:
    """This machine, whatever it is."""
    return machine()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_text_fits_the_screen_and_leaves_commands_whole(here: Machine, width: int) -> None:
    """Lines are folded to the width, but what is to be copied stands in one line."""
    command = "python3 -m pip install " + "package " * 20
    text = told(replace(here, steps=(Step("install everything " * 10, (command.strip(),)),)), width)
    lines = [line.rstrip() for line in text.splitlines()]
    assert f"     {command.strip()}" in lines
    assert max(len(line) for line in lines if not line.startswith("     python3")) <= width


def test_everything_found_is_in_the_json(here: Machine) -> None:
    """The JSON reads back as the same value."""
    assert value_from_json(Machine, json_from_value(here), where="doctor") == here


def test_a_machine_with_all_says_so(here: Machine) -> None:
    """With a GPU and a complete Python the text names both and asks for nothing."""
    able = complete("10.16.1.11")
    found = replace(here, interpreters=(able,), cuda=gpu("8.6"), tensorrt_python=able.path, steps=(), findings=())
    text = told(found, 120)
    assert "used  /usr/bin/python3 Python 3.10.12 (system)" in text
    assert "What to do" not in text
    assert "a GPU (compute capability 8.6), 8 GB" in text


def test_the_verb_survives_pythons_that_misbehave(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 0 within a quarter of a minute, with the reason of each, and the one that was asked for first."""
    del folder
    pythons.script(tmp_path / "bin" / "python3.20", pythons.HANGS)
    pythons.script(tmp_path / "bin" / "python3.21", pythons.CRASHES)
    asked = pythons.python_with(tmp_path / "asked", pythons.tensorrt(tmp_path / "site", "10.2.0"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setattr(interpreters, "QUICK_S", 7.0)
    started = time.monotonic()
    done = run("doctor", "--tensorrt-python", str(asked), "--json")
    assert time.monotonic() - started < 15
    assert done.exit_code == 0
    found = value_from_json(Machine, done.stdout, where="doctor")
    problems = [str(entry.problem) for entry in found.interpreters if entry.problem]
    assert any("gave no answer" in problem for problem in problems)
    assert any("crashed (SIGSEGV)" in problem for problem in problems)
    assert found.interpreters[0].path == found.tensorrt_python == str(asked)
    assert "TensorRT 10.2.0" in [finding.subject for finding in found.findings]
