# ruff: noqa: T201 - a program speaks on standard output.
"""trtexec's command line without TensorRT: strict about its options, builds nothing, answers with the bundle's outputs.

Runs by itself, with nothing but the standard library. The board's settings.json (TRT_OPT_FAKE_BOARD) says how:
`tensorrt` (its version), `out_of_memory` (how many builds fail so), `killed` (by SIGKILL instead of a message), `noise`
(added to the outputs), `cache_not_taken`, `outputs` ("nan", "short", "none" or "good"), `seconds` (how long a build
takes), `build_fails`.
"""

import json
import math
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path

BOARD = Path(os.environ["TRT_OPT_FAKE_BOARD"])
SETTINGS = json.loads((BOARD / "settings.json").read_text())
VERSION = SETTINGS["tensorrt"]
MAJOR, MINOR, PATCH = (int(part) for part in VERSION.split("."))
NUMBER = MAJOR * (1000 if MAJOR < 10 else 10000) + MINOR * 100 + PATCH
SOURCES = {"EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"} | ({"CUBLAS", "CUBLAS_LT", "CUDNN"} if MAJOR < 11 else set())
FLAGS = {"int8", "fp16", "stronglyTyped", "skipInference", "buildOnly", "allowGPUFallback", "versionCompatible"}
FLAGS |= {"includeDataTransfers", "noSpinWait", "noCudaGraph", "help"}


def stop(what):
    print(f"[E] {what}")
    sys.exit(1)


def options():
    known = set(json.loads(Path(__file__).with_name("trtexec_options.json").read_text())[VERSION].split())
    given = {}
    for argument in sys.argv[1:]:
        name, _, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in known | {"help"}:
            stop(f"Unknown option: {argument}")
        if (name in FLAGS) == bool(value) or name in given:
            stop(f"wrong use of option: {argument}")
        given[name] = value
    return given


def pairs(text):
    return dict(part.rsplit(":", 1) for part in text.split(","))


def refuse_wrong_use(given):
    if not Path(given["onnx"]).is_file():
        stop("no such model")
    if "stronglyTyped" in given and {"int8", "fp16"} & set(given):
        stop("Invalid usage, fp16, int8 and stronglyTyped")
    if "calib" in given and not ("int8" in given and Path(given["calib"]).read_text().startswith("TRT-")):
        stop("no calibration cache, or no int8")
    if len({len(pairs(given[key])) for key in ("minShapes", "optShapes", "maxShapes") if key in given}) > 1:
        stop("shapes of different inputs")
    pool, size = given["memPoolSize"].split(":")
    if pool != "workspace" or not size.isdigit():
        stop("wrong memPoolSize")
    if given.get("hardwareCompatibilityLevel", "none") not in {"none", "ampere+"}:
        stop("Unknown hardwareCompatibilityLevel option")
    if "tacticSources" in given and {part.lstrip("+-") for part in given["tacticSources"].split(",")} != SOURCES:
        stop("not every tactic source is switched, or one is unknown")


def build(given):
    refuse_wrong_use(given)
    if SETTINGS.get("cache_not_taken") or (
        "calib" in given and not Path(given["calib"]).read_text().startswith(f"TRT-{NUMBER}-")
    ):
        print("[I] [TRT] Starting Calibration.")
    count = BOARD / "builds"
    builds = int(count.read_text()) + 1 if count.exists() else 1
    count.write_text(str(builds))
    print("[I] building", flush=True)
    time.sleep(SETTINGS.get("seconds", 0))
    if builds <= SETTINGS.get("out_of_memory", 0):
        if SETTINGS.get("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        stop("Error Code 10: Could not find any implementation for node conv.")
    if SETTINGS.get("build_fails"):
        stop("Error Code 4: Internal Error (network is wrong)")
    engine = {
        "tensorrt": VERSION,
        "options": sorted(given),
        "builds": builds,
        "host_code": "versionCompatible" in given,
    }
    Path(given["saveEngine"]).write_text(json.dumps(engine))


def run(given):
    engine = json.loads(Path(given["loadEngine"]).read_text())
    if engine["tensorrt"] != VERSION:
        stop("The engine plan file is not compatible with this version of TensorRT")
    if engine.get("host_code") and "versionCompatible" not in given:
        stop("The engine contains host code, which is not allowed")
    conf = dict(line.split("=", 1) for line in Path("build.conf").read_text().splitlines())
    files = pairs(given["loadInputs"])
    for number in range(int(conf["INPUTS"])):
        elements = math.prod(int(size) for size in conf[f"INPUT_{number}_SHAPE"].split("x"))
        data = Path(files[conf[f"INPUT_{number}_NAME"]]).read_bytes()
        struct.unpack(f"<{elements}f", data)
    folder = Path(files[conf["INPUT_0_NAME"]]).parent
    noise = random.Random(0)
    written = []
    for number in reversed(range(int(conf["OUTPUTS"]))):
        values = [float(line) for line in (folder / f"quantised-{number}.txt").read_text().split()]
        values = [value + SETTINGS.get("noise", 0) * noise.gauss(0, 1) for value in values]
        values = {"nan": [math.nan, *values[1:]], "short": values[:-1], "none": []}.get(SETTINGS.get("outputs"), values)
        name, shape = conf[f"OUTPUT_{number}_NAME"], conf[f"OUTPUT_{number}_SHAPE"]
        numbers = ", ".join(f"{value:g}" for value in values)
        written.append(f'{{ "name" : "{name}"\n  , "dimensions" : "{shape}"\n  , "values" : [ {numbers} ]\n  }}\n')
    Path(given["exportOutput"]).write_text("[\n  " + ", ".join(written) + "]\n")


def main():
    print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{NUMBER}] # {' '.join(sys.argv)}", flush=True)
    given = options()
    if "help" in given:
        return
    with (BOARD / "calls").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    if "loadEngine" in given:
        run(given)
    elif {"skipInference", "buildOnly"} & set(given):
        build(given)
    else:
        stop("would measure for seconds after building")


main()
