"""build_on_device.sh on a fake board: what it tells trtexec, what it accepts as an engine, what it keeps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_board import SCRIPTS, SHELLS, FakeBoard, made_board, record_of, shell_of, tree
from made_bundle import bundle_files, entry, hash_lines, write_archive, write_bundle

ANY = {"TENSORRT": ""}

WEAK = {"STRONGLY_TYPED": "no"} | ANY


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return shell_of(request.param)


@pytest.fixture
def board(tmp_path: Path) -> FakeBoard:
    """A board on which everything goes well."""
    return made_board(tmp_path)


def built(board: FakeBoard, shell: str, bundle: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return board.run(shell, "build_on_device.sh", "--engines", bundle.parent / "my engines", *options, bundle)


def kept(bundle: Path) -> list[str]:
    folder = bundle.parent / "my engines"
    return tree(folder) if folder.exists() else []


def test_good_bundle_is_built_and_recorded(board: FakeBoard, shell: str, tmp_path: Path) -> None:
    """The folder that is printed holds engine, record and hashes, and the record says how the board was."""
    done = built(board, shell, write_bundle(tmp_path / "my app.bundle"))
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    record = record_of(folder)
    assert record["VERDICT"] == "PASS"
    assert float(record["OUTPUT_0_SQNR_DB"]) == pytest.approx(38.77, abs=0.01)
    assert (record["TENSORRT"], record["L4T"], record["POWER_MODE"]) == ("10.3.0", "R36.4.3", "15W")
    assert {record[key] for key in ("BEFORE", "DURING", "AFTER")} == {"temperature_mc cpu-thermal 48500"}
    assert record["TEGRASTATS"].startswith("RAM 2400")
    assert (board.root / "tmp").stat().st_nlink == 2, "something was left in TMPDIR"


def test_commands_of_the_documentation_work_as_written(board: FakeBoard, shell: str, tmp_path: Path) -> None:
    """Without any option, and with paths and a TMPDIR that begin in the current folder."""
    write_bundle(tmp_path / "app.bundle")
    (tmp_path / "scratch").mkdir()
    board = replace(board, variables={"TMPDIR": "scratch"})
    planned = board.run(shell, "build_on_device.sh", "--dry-run", "app.bundle", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    done = board.run(shell, "build_on_device.sh", "app.bundle", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == tmp_path / "engines" / "made_by_hand"
    installed = board.run(shell, "install_engine.sh", done.stdout.strip(), "app", cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    assert (tmp_path / "app" / "current" / "model.engine").is_file()


@pytest.mark.parametrize(
    ("tensorrt", "conf", "told"),
    [
        ("8.5.3", WEAK, {"--int8", "--fp16", "--buildOnly"}),
        ("8.6.1", WEAK, {"--int8", "--fp16", "--skipInference", "--builderOptimizationLevel=3"}),
        (
            "8.6.1",
            WEAK | {"FP16": "no", "FLOAT32_LAYERS": "a/b,c.1"},
            {"--int8", "--skipInference", "--builderOptimizationLevel=3", "--precisionConstraints=obey"}
            | {"--layerPrecisions=a/b:fp32,c.1:fp32", "--layerOutputTypes=a/b:fp32,c.1:fp32"},
        ),
        ("8.6.1", WEAK | {"PRECISION": "fp16"}, {"--fp16", "--skipInference", "--builderOptimizationLevel=3"}),
        ("10.3.0", WEAK | {"PRECISION": "fp32"}, {"--skipInference", "--builderOptimizationLevel=3"}),
        ("10.16.1", ANY, {"--stronglyTyped", "--skipInference", "--builderOptimizationLevel=3"}),
        ("11.1.0", ANY, {"--skipInference", "--builderOptimizationLevel=3"}),
        (
            "10.3.0",
            WEAK | {"PRECISION": "int8-implicit", "OPTIMIZATION_LEVEL": "", "DLA": "1"},
            {"--int8", "--fp16", "--calib=result/calibration.cache", "--skipInference"}
            | {"--useDLACore=1", "--allowGPUFallback"},
        ),
        (
            "8.6.1",
            WEAK | {"VERSION_COMPATIBLE": "yes", "TACTIC_SOURCES": "CUDNN,JIT_CONVOLUTIONS"},
            {"--int8", "--fp16", "--skipInference", "--builderOptimizationLevel=3", "--versionCompatible"}
            | {"--tacticSources=-CUBLAS,-CUBLAS_LT,+CUDNN,-EDGE_MASK_CONVOLUTIONS,+JIT_CONVOLUTIONS"},
        ),
        (
            "11.1.0",
            ANY | {"HARDWARE_COMPATIBLE": "yes", "TACTIC_SOURCES": "EDGE_MASK_CONVOLUTIONS"},
            {"--skipInference", "--builderOptimizationLevel=3", "--hardwareCompatibilityLevel=ampere+"}
            | {"--tacticSources=+EDGE_MASK_CONVOLUTIONS,-JIT_CONVOLUTIONS"},
        ),
        (
            "10.3.0",
            {"INPUT_0_MIN": "1x3x4", "INPUT_0_OPT": "2x3x4", "INPUT_0_MAX": "8x3x4"},
            {"--stronglyTyped", "--skipInference", "--builderOptimizationLevel=3"}
            | {"--minShapes=in:put/0:1x3x4", "--optShapes=in:put/0:2x3x4", "--maxShapes=in:put/0:8x3x4"},
        ),
    ],
)
def test_trtexec_is_told_what_its_version_knows(
    tmp_path: Path, tensorrt: str, conf: dict[str, str], told: set[str]
) -> None:
    """Precision, level, shapes and DLA reach every version in that version's own options, which NVIDIA's list has."""
    board = made_board(tmp_path, tensorrt)
    done = built(board, "dash", write_bundle(tmp_path / "app.bundle", conf))
    assert done.returncode == 0, done.stderr
    build, *runs = board.calls()
    always = {"--onnx=bundle/model.onnx", "--saveEngine=result/model.engine", "--memPoolSize=workspace:1024"}
    assert set(build) == told | always
    assert len(runs) == 2
    assert ("--includeDataTransfers" in runs[0]) == tensorrt.startswith("11")
    assert ("--shapes=in:put/0:1x3x4" in runs[0]) == bool(conf.get("INPUT_0_MIN"))


@pytest.mark.parametrize("killed", [False, True])
def test_ladder_is_climbed_down(board: FakeBoard, shell: str, tmp_path: Path, killed: bool) -> None:
    """Out of memory three times: half, then a quarter of the workspace, then a lower level; all told and recorded."""
    board.set(out_of_memory=3, killed=killed)
    done = built(board, shell, write_bundle(tmp_path / "app.bundle"))
    assert done.returncode == 0, done.stderr
    rungs = [(call[2], call[4]) for call in board.calls()[:4]]
    assert rungs == [
        ("--memPoolSize=workspace:1024", "--builderOptimizationLevel=3"),
        ("--memPoolSize=workspace:512", "--builderOptimizationLevel=3"),
        ("--memPoolSize=workspace:256", "--builderOptimizationLevel=3"),
        ("--memPoolSize=workspace:256", "--builderOptimizationLevel=2"),
    ]
    record = record_of(Path(done.stdout.strip()))
    assert (record["ATTEMPT"], record["WORKSPACE_MIB"], record["LEVEL"]) == ("4", "256", "2")
    assert done.stderr.count("ran out of memory") == 3


def test_ladder_goes_on_though_the_clock_jumps(board: FakeBoard, tmp_path: Path) -> None:
    """A board that finds a time server while it builds has not run into its time limit."""
    board.set(out_of_memory=1)
    board.program(
        "date",
        """\
        now=$TRT_OPT_FAKE_BOARD/now
        [ "$*" = +%s ] || exec /bin/date "$@"
        cat "$now" 2>/dev/null || echo 90
        echo 1800000000 >"$now"
        """,
    )
    done = built(board, "dash", write_bundle(tmp_path / "app.bundle"))
    assert done.returncode == 0, done.stderr
    record = record_of(Path(done.stdout.strip()))
    assert record["ATTEMPT"] == "2"
    assert 0 <= int(record["BUILD_SECONDS"]) < 60


def test_ladder_ends(board: FakeBoard, tmp_path: Path) -> None:
    """Out of memory at every step is a failure that keeps no engine and says what helps."""
    board.set(out_of_memory=99)
    done = built(board, "dash", write_bundle(tmp_path / "app.bundle"))
    assert done.returncode == 4
    assert "swap" in done.stderr
    assert len(board.calls()) == 5
    assert kept(tmp_path / "app.bundle") == []


def test_other_failures_are_not_tried_again(board: FakeBoard, tmp_path: Path) -> None:
    """A network that TensorRT refuses is refused once, and only the log is kept, beside the engines."""
    board.set(build_fails=True)
    done = built(board, "dash", write_bundle(tmp_path / "app.bundle"))
    assert done.returncode == 4
    assert "network is wrong" in done.stderr
    assert len(board.calls()) == 1
    (log,) = kept(tmp_path / "app.bundle")
    assert log.endswith(".failed.log")
    assert "network is wrong" in (tmp_path / "my engines" / log).read_text()


@pytest.mark.parametrize(
    "wrong", [{"noise": 1.0}, {"outputs": "nan"}, {"outputs": "short"}, {"outputs": "none"}], ids=str
)
def test_wrong_outputs_are_a_no(board: FakeBoard, tmp_path: Path, wrong: dict[str, object]) -> None:
    """Outputs too far off, not finite, fewer than expected or missing end with 1, and no engine is kept."""
    board.set(**wrong)
    done = built(board, "dash", write_bundle(tmp_path / "app.bundle"))
    assert done.returncode == 1, done.stderr
    assert "OUTPUT_0_SQNR_DB=" in done.stderr
    assert kept(tmp_path / "app.bundle") == []


@pytest.mark.parametrize("awk", ["mawk", "gawk", "original-awk"])
def test_numbers_too_large_for_a_float_are_a_no(board: FakeBoard, tmp_path: Path, awk: str) -> None:
    """Squares that overflow make no verdict: NaN dB is at least anything to mawk, and `inf` is 0 to gawk."""
    if shutil.which(awk) is None:
        pytest.skip(f"{awk} is not here")
    board.program("awk", f'exec {awk} "$@"\n')
    files = bundle_files({"SAMPLES": "1"})
    for number in range(2):
        for kind, sign in (("output", ""), ("quantised", "-")):
            name = f"samples/000/{kind}-{number}.txt"
            files[name] = b"".join(f"{sign}1e200\n".encode() for _ in files[name].split())
    members = [entry("SHA256SUMS", hash_lines(files)), *(entry(*file) for file in files.items())]
    done = built(board, "dash", write_archive(tmp_path / "app.bundle", members))
    assert (done.returncode, "OUTPUT_0_SQNR_DB=nan" in done.stderr) == (1, True), done.stderr


def test_one_bad_output_of_two_is_a_no(board: FakeBoard, tmp_path: Path) -> None:
    """The worst output decides: a bound between the two outputs' figures (38.77 and 37.96 dB) fails."""
    assert built(board, "dash", write_bundle(tmp_path / "a.bundle", {"LEAST_SQNR_DB": "38.5"})).returncode == 1
    assert built(board, "dash", write_bundle(tmp_path / "b.bundle", {"LEAST_SQNR_DB": "37.9"})).returncode == 0


def test_second_build_finds_the_first(board: FakeBoard, tmp_path: Path) -> None:
    """The same bundle is not built twice, unless forced, damaged, or built by another TensorRT."""
    bundle = write_bundle(tmp_path / "app.bundle", ANY)
    first = built(board, "dash", bundle)
    builds = board.root / "builds"
    assert built(board, "dash", bundle).stdout == first.stdout
    assert builds.read_text() == "1"
    assert built(board, "dash", bundle, "--force").stdout == first.stdout
    assert builds.read_text() == "2"
    (Path(first.stdout.strip()) / "model.engine").write_text("damaged")
    assert built(board, "dash", bundle).returncode == 0
    assert builds.read_text() == "3"
    board.set(tensorrt="10.16.1")
    assert built(board, "dash", bundle).returncode == 0
    assert builds.read_text() == "4"
    assert record_of(Path(first.stdout.strip()))["TENSORRT"] == "10.16.1"
    assert len([name for name in kept(bundle) if name.endswith("model.engine")]) == 1


IMPLICIT = WEAK | {"PRECISION": "int8-implicit"}


def test_cache_that_tensorrt_does_not_take_is_a_failure(board: FakeBoard, tmp_path: Path) -> None:
    """An engine that TensorRT calibrated by itself, trtexec having no data, is not kept however it answers."""
    board.set(cache_not_taken=True)
    done = built(board, "dash", write_bundle(tmp_path / "app.bundle", IMPLICIT))
    assert (done.returncode, "Starting Calibration" in done.stderr) == (4, True)
    assert kept(tmp_path / "app.bundle") == []


def test_cache_of_another_algorithm_is_refused(board: FakeBoard, tmp_path: Path) -> None:
    """trtexec's calibrator is EntropyCalibration2: a MinMax cache would not be read, so nothing is built."""
    bundle = write_bundle(
        tmp_path / "a.bundle", IMPLICIT, calibration_cache=b"TRT-8600-MinMaxCalibration\nin: 3c010a14\n"
    )
    done = built(board, "dash", bundle)
    assert (done.returncode, "MinMaxCalibration" in done.stderr) == (3, True)
    assert not (board.root / "builds").exists()


@pytest.mark.parametrize(
    ("tensorrt", "bundled", "read"),
    [
        ("8.6.1", "TRT-8600-", "TRT-8601-EntropyCalibration2"),
        ("10.3.0", "TRT-8600-", "TRT-100300-EntropyCalibration2"),
        ("10.16.1", "TRT-101601-", "TRT-101601-EntropyCalibration2"),
    ],
)
def test_cache_names_the_version_that_is_here(tmp_path: Path, tensorrt: str, bundled: str, read: str) -> None:
    """TensorRT ignores a cache of another number than its own: it is given a copy with its own, which is recorded."""
    board = made_board(tmp_path, tensorrt)
    cache = f"{bundled}EntropyCalibration2\nin: 3c010a14\nTRT-1-x: 3c010a15\n".encode()
    done = built(board, "dash", write_bundle(tmp_path / "app.bundle", IMPLICIT, calibration_cache=cache))
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert (folder / "calibration.cache").read_text() == f"{read}\nin: 3c010a14\nTRT-1-x: 3c010a15\n"
    assert record_of(folder)["CALIBRATION_CACHE"] == read


def test_workspace_follows_what_is_free(board: FakeBoard, tmp_path: Path) -> None:
    """A bundle that asks for more workspace than the board has free is built with what is free."""
    board.memory(800)
    done = built(board, "dash", write_bundle(tmp_path / "app.bundle"))
    assert done.returncode == 0, done.stderr
    assert "--memPoolSize=workspace:288" in board.calls()[0]
    assert "288 MiB instead of 1024" in done.stderr


def test_dry_run_keeps_nothing(board: FakeBoard, shell: str, tmp_path: Path) -> None:
    """--dry-run says the command and leaves no folder anywhere."""
    done = built(board, shell, write_bundle(tmp_path / "app.bundle"), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "--stronglyTyped" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "my engines").exists()
    assert not list((board.root / "tmp").iterdir())


def test_bundle_called_like_an_option(board: FakeBoard, shell: str, tmp_path: Path) -> None:
    """-app.bundle is taken for an option, and told so, unless it stands behind --."""
    write_bundle(tmp_path / "-app.bundle")
    refused = board.run(shell, "build_on_device.sh", "-app.bundle", cwd=tmp_path)
    assert refused.returncode == 2
    assert "-- -app.bundle" in refused.stderr
    assert board.run(shell, "build_on_device.sh", "--engines", "-e", "--", "-app.bundle", cwd=tmp_path).returncode == 0
    assert (tmp_path / "-e").is_dir()


def test_time_limit_ends_a_build(board: FakeBoard, tmp_path: Path) -> None:
    """A builder that takes too long is ended, and that is not taken for want of memory."""
    board.set(seconds=60)
    done = built(board, "dash", write_bundle(tmp_path / "app.bundle"), "--timeout-s", "1")
    assert done.returncode == 4
    assert "within 1 s" in done.stderr
    assert len(board.calls()) == 1


def started(board: FakeBoard, shell: str, bundle: Path) -> subprocess.Popen[str]:
    """A build that has come as far as trtexec, which then takes a minute."""
    board.set(seconds=60)
    process = subprocess.Popen(
        [*SHELLS[shell], str(SCRIPTS / "build_on_device.sh"), "--engines", str(bundle.parent / "my engines"), bundle],
        env=board.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 30
    while not (board.root / "builds").exists():
        assert time.monotonic() < until, "never came to building"
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_build_leaves_nothing(
    board: FakeBoard, shell: str, tmp_path: Path, sign: signal.Signals, code: int
) -> None:
    """Ctrl-C and SIGTERM end script and builder at once and leave no folder, nor a process that writes to one."""
    process = started(board, shell, write_bundle(tmp_path / "app.bundle"))
    since = time.monotonic()
    if sign == signal.SIGINT:
        os.killpg(process.pid, sign)
    else:
        process.send_signal(sign)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert time.monotonic() - since < 10
    assert kept(tmp_path / "app.bundle") == []


def test_second_run_at_the_same_time_is_refused(board: FakeBoard, shell: str, tmp_path: Path) -> None:
    """While one build runs another in the same folder ends at once and disturbs nothing."""
    bundle = write_bundle(tmp_path / "app.bundle")
    process = started(board, shell, bundle)
    second = built(board, shell, bundle)
    assert second.returncode == 4
    assert "another run" in second.stderr
    assert [name for name in kept(bundle) if name.endswith("build.log")], "the first run's folder is gone"
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=20)


def test_record_is_one_key_a_line(board: FakeBoard, tmp_path: Path) -> None:
    """The record holds one KEY=value a line whatever the board's files say."""
    board.file("sys/class/thermal/thermal_zone0/type", "cpu\x07=thermal\r\n")
    folder = Path(built(board, "dash", write_bundle(tmp_path / "app.bundle")).stdout.strip())
    lines = (folder / "record.conf").read_text().splitlines()
    assert all(line.partition("=")[0].replace("_", "").isalnum() and line.isprintable() for line in lines)
    assert json.loads((folder / "model.engine").read_text())["tensorrt"] == "10.3.0"


def with_trt_opt(board: FakeBoard, ends_with: str) -> None:
    """Puts a trt-opt on PATH that writes down its options, and a Python that has TensorRT."""
    board.program("python3.10", "echo TensorRT 10.3.0.30\n")
    board.program(
        "trt-opt",
        f"""\
        echo "$@" >"$TRT_OPT_FAKE_BOARD/told"
        while [ "$1" != --output ]; do shift; done
        mkdir -p "$2/some/key"
        echo '{{"tensorrt": "10.3.0"}}' >"$2/some/key/model.engine"
        {ends_with}
        """,
    )


def test_trt_opt_builds_where_it_is(board: FakeBoard, shell: str, tmp_path: Path) -> None:
    """With trt-opt and a Python that has TensorRT, these build; trtexec judges the engine all the same."""
    with_trt_opt(board, "exit 0")
    bundle = write_bundle(tmp_path / "app.bundle")
    done = built(board, shell, bundle, "--tensorrt-python", "python3.10")
    assert done.returncode == 0, done.stderr
    told = (board.root / "told").read_text()
    assert told.startswith(f"build {bundle} --output ")
    assert f"--tensorrt-python {board.programs / 'python3.10'}" in told
    assert all(call[0].startswith("--loadEngine") for call in board.calls())
    record = record_of(Path(done.stdout.strip()))
    assert record["BUILT_WITH"].startswith("trt-opt ")
    assert (record["VERDICT"], record["VERIFIED_BY"]) == ("PASS", "trtexec")


def test_engine_is_recorded_with_the_version_that_built_it(board: FakeBoard, tmp_path: Path) -> None:
    """A Python with another TensorRT than the board's counts by its own, and the board's trtexec is left alone."""
    with_trt_opt(board, "exit 0")
    board.program("python3.10", "echo TensorRT 10.3.1.2\n")
    bundle = write_bundle(tmp_path / "app.bundle")
    done = built(board, "dash", bundle, "--tensorrt-python", "python3.10")
    assert done.returncode == 0, done.stderr
    record = record_of(Path(done.stdout.strip()))
    assert (record["TENSORRT"], record["VERIFIED_BY"]) == ("10.3.1", "trt-opt")
    board.program("python3.10", "echo TensorRT 10.4.0\n")
    refused = built(board, "dash", bundle, "--tensorrt-python", "python3.10")
    assert (refused.returncode, "10.4.0" in refused.stderr) == (5, True)


def test_trt_opt_alone_judges_the_engine(board: FakeBoard, shell: str, tmp_path: Path) -> None:
    """Without trtexec the verdict is trt-opt's: 0 keeps the engine, 1 does not."""
    (board.programs / "trtexec").unlink()
    for ends_with, code in (("exit 1", 1), ("exit 4", 4), ("exit 0", 0)):
        with_trt_opt(board, ends_with)
        done = built(board, shell, write_bundle(tmp_path / "app.bundle"), "--tensorrt-python", "python3.10")
        assert done.returncode == code, done.stderr
    assert record_of(Path(done.stdout.strip()))["VERIFIED_BY"] == "trt-opt"


def test_ladder_is_climbed_down_through_trt_opt(board: FakeBoard, tmp_path: Path) -> None:
    """Out of memory, trt-opt is told the same steps as trtexec; the words are those of its worker's death."""
    with_trt_opt(board, "exit 0")
    program = (board.programs / "trt-opt").read_text().removeprefix("#!/bin/sh\n")
    board.program(
        "trt-opt",
        """\
        echo "$@" >>"$TRT_OPT_FAKE_BOARD/attempts"
        if [ "$(wc -l <"$TRT_OPT_FAKE_BOARD/attempts")" -lt 4 ]; then
            echo "error: the worker was killed during build, most likely because memory ran out" >&2
            exit 4
        fi
        """,
    )
    with (board.programs / "trt-opt").open("a") as file:
        file.write(program)
    done = built(board, "dash", write_bundle(tmp_path / "app.bundle"), "--tensorrt-python", "python3.10")
    assert done.returncode == 0, done.stderr
    attempts = [line.split() for line in (board.root / "attempts").read_text().splitlines()]
    told = [
        (line[line.index("--workspace-mib") + 1], line[line.index("--optimization-level") + 1]) for line in attempts
    ]
    assert told == [("1024", "3"), ("512", "3"), ("256", "3"), ("256", "2")]
    record = record_of(Path(done.stdout.strip()))
    assert (record["ATTEMPT"], record["WORKSPACE_MIB"], record["LEVEL"]) == ("4", "256", "2")
    assert record["BUILT_WITH"].startswith("trt-opt ")
