"""Prints one JSON object about the Python that runs this file and the machine around it.

Runs under any Python from 3.6, by itself: nothing but the standard library, nothing of this project. A package is
imported in a process of its own, and so is CUDA's driver asked: either may crash or hang, and this must not. TensorRT
is imported and looked at; none of its objects is made, because its runtime ends the process where there is no driver.

    python3 probe.py [--part packages|machine] [--only NAME]... [--limit SECONDS]
"""

import argparse
import ctypes
import glob
import importlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time

PROTOCOL = 1

MODULES = {
    "tensorrt": ("tensorrt", "Builder"),
    "tensorrt_lean": ("tensorrt_lean", "Runtime"),
    "tensorrt_rtx": ("tensorrt_rtx", "Builder"),
    "tensorrt_bindings": ("tensorrt_bindings", "Builder"),
    "numpy": ("numpy", "ndarray"),
    "polygraphy": ("polygraphy", "config"),
    "pycuda": ("pycuda.driver", "Context"),
    "onnx": ("onnx", "ModelProto"),
    "cuda-python": ("cuda.bindings.driver", "cuInit"),
}
"""Package → the module to import, and a name it has if it is what it says."""

OLDER_CUDA_PYTHON = "cuda.cuda"
"""The same module before cuda-python 12.8."""

DISTRIBUTIONS = re.compile(r"(tensorrt.*|numpy|polygraphy|pycuda|onnx|cuda[-_.](python|bindings))$", re.IGNORECASE)

LIBRARIES = ("libnvinfer", "libcudart", "libcublas", "libcudnn")

LIBRARY_FOLDERS = (
    "usr/local/cuda*/lib64",
    "usr/local/cuda*/targets/*/lib",
    "usr/lib/*-linux-gnu",
    "usr/lib/*-linux-gnu/nvidia",
    "usr/lib/*-linux-gnu/tegra",
    "usr/lib64",
    "usr/lib",
)

CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""


def main():
    """Prints what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", choices=sorted(MODULES))
    parser.add_argument("--part", choices=("packages", "machine"))
    parser.add_argument("--limit", type=float, default=8.0)
    parser.add_argument("--import", dest="module", help=argparse.SUPPRESS)
    parser.add_argument("--cuda", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    # This file's folder holds the modules of the worker, which are none of the packages looked for.
    own = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != own]
    if options.module:
        answer_as_child(lambda: imported(options.module))
    elif options.cuda:
        answer_as_child(cuda)
    else:
        found = everything(options)
        sys.stdout.write("\n" + json.dumps(found) + "\n")


def everything(options):
    """The whole answer."""
    root = os.environ.get("TRT_OPT_ROOT") or "/"
    questions = {}
    if options.part != "machine":
        questions.update((name, ["--import", name]) for name in names_to_import(options))
    if options.part != "packages":
        questions["cuda driver"] = ["--cuda"]
    answers = ask(questions, options.limit)
    found = {"probe": PROTOCOL}
    found.update(interpreter())
    found["distributions"] = distributions()
    found["libraries"] = libraries(root)
    if options.part != "packages":
        found["machine"] = {"board": board(root), "cuda": answers.pop("cuda driver"), "trtexec": trtexec(root)}
    found["packages"] = answers
    return found


def names_to_import(options):
    """The packages that are there and matter."""
    names = [name for name in MODULES if not options.only or name in options.only]
    present = [name for name in names if is_present(MODULES[name][0])]
    if options.part == "packages" and not any(name.startswith("tensorrt") for name in present):
        return []  # of no interest without TensorRT, and imports cost time
    return present


def interpreter():
    """What this Python is."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "prefix": sys.prefix,
        "virtual": sys.prefix != getattr(sys, "base_prefix", sys.prefix),
        "architecture": platform.machine(),
        "pip": importlib.util.find_spec("pip") is not None,
        # Where this file lies, pip refuses to install outside virtual environments (PEP 668).
        "managed": os.path.exists(os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")),
    }


def is_present(module):
    """Whether something of that name can be found; imports nothing."""
    try:
        return importlib.util.find_spec(module.split(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def distributions():
    """What is installed under the names that matter: [name, version, folder], each folder of sys.path by itself."""
    found = []
    for folder in dict.fromkeys(sys.path):
        for entry in sorted(glob.glob(os.path.join(glob.escape(folder or "."), "*-info"))):
            name, _, rest = os.path.basename(entry).rpartition(".")[0].partition("-")
            if DISTRIBUTIONS.match(name):
                # What Debian installs may end in the Python version: tensorrt-8.5.2.2-py3.8.egg-info.
                found.append([name.replace("_", "-").lower(), rest.split("-py")[0], folder])
    return found


def ask(questions, limit):
    """Runs this file once per question, all at once: question → its answer, or what became of the process."""
    deadline = time.time() + limit
    command = [sys.executable, os.path.abspath(__file__)]
    processes = {}
    for name, arguments in questions.items():
        # What a library prints is not wanted; the answer comes last.
        processes[name] = subprocess.Popen(
            command + arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    return {name: answer(process, deadline, limit) for name, process in processes.items()}


def answer(process, deadline, limit):
    """What a process answered; where it did not, why."""
    try:
        text, _ = process.communicate(timeout=max(0.1, deadline - time.time()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        process.stdout.close()
        return {"works": False, "error": "took longer than {:g} s".format(limit)}
    if process.returncode < 0:
        return {"works": False, "error": "crashed ({})".format(signal_name(-process.returncode))}
    try:
        return json.loads(text.decode("utf-8", "replace").splitlines()[-1])
    except (ValueError, IndexError):
        return {"works": False, "error": "ended with exit code {}".format(process.returncode)}


def signal_name(number):
    """SIGSEGV rather than 11."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal {}".format(number)


def answer_as_child(question):
    """Answers on what was stdout; whatever else is printed goes elsewhere."""
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        found = question()
    except BaseException as error:  # noqa: BLE001  an import may raise anything, SystemExit too
        lines = str(error).strip().splitlines()
        found = {"works": False, "error": "{}: {}".format(type(error).__name__, lines[0] if lines else "")[:300]}
    os.write(answers, (json.dumps(found) + "\n").encode())
    # Without the library's clean-up: how it ends is another question.
    os._exit(0)


def imported(name):
    """Imports a package."""
    module_name, witness = MODULES[name]
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        if name != "cuda-python":
            raise
        module = importlib.import_module(OLDER_CUDA_PYTHON)
    top = sys.modules[module_name.split(".")[0]]
    version = getattr(top, "__version__", None) or getattr(top, "VERSION_TEXT", None)
    found = {"version": version and str(version), "file": getattr(module, "__file__", None)}
    if not hasattr(module, witness):
        place = found["file"] or list(getattr(module, "__path__", []))[:1] or "nowhere"
        return dict(found, works=False, error="{} has no {}: something else of that name".format(place, witness))
    return dict(found, works=True, error=None)


def libraries(root):
    """The vendor's libraries that lie where the loader or a package looks: name → [path, real file name]."""
    folders = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    for pattern in LIBRARY_FOLDERS:
        folders += sorted(glob.glob(os.path.join(root, pattern)))
    for entry in sys.path:
        folders += sorted(glob.glob(os.path.join(glob.escape(entry), "nvidia", "*", "lib")))
        folders += sorted(glob.glob(os.path.join(glob.escape(entry), "tensorrt*_libs")))
    found = {}
    for name in LIBRARIES:
        files = [path for folder in folders for path in sorted(glob.glob(os.path.join(folder, name + ".so.*")))]
        by_file = {os.path.realpath(path): path for path in reversed(files)}
        found[name] = sorted([path, os.path.basename(real)] for real, path in by_file.items())
    return found


def trtexec(root):
    """TensorRT's own command, as NVIDIA's packages place it."""
    packaged = os.path.join(root, "usr/src/tensorrt/bin/trtexec")
    return packaged if os.access(packaged, os.X_OK) else shutil.which("trtexec")


def board(root):
    """The board's name, and the release of Jetson Linux on it; None where this is no such board."""
    model = read(os.path.join(root, "proc/device-tree/model")).replace("\0", "").strip()
    release = read(os.path.join(root, "etc/nv_tegra_release"))
    numbers = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", release)
    if not numbers and not re.search("jetson|tegra|orin", model, re.IGNORECASE):
        return None
    return {"model": model or None, "l4t": "{}.{}".format(*numbers.groups()) if numbers else None}


def read(path):
    """A small text file, or nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(10000)
    except OSError:
        return ""


def cuda():
    """What the driver says: the newest CUDA it serves, and its GPUs."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"works": False, "error": str(error), "cuda": None, "gpus": []}
    version, count, code = ctypes.c_int(), ctypes.c_int(), driver.cuInit(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    newest = "{}.{}".format(version.value // 1000, version.value % 1000 // 10) if version.value else None
    if code:
        return {"works": False, "error": "cuInit: {}".format(error_name(driver, code)), "cuda": newest, "gpus": []}
    driver.cuDeviceGetCount(ctypes.byref(count))
    return {"works": True, "error": None, "cuda": newest, "gpus": [gpu(driver, index) for index in range(count.value)]}


def gpu(driver, index):
    """One GPU."""
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(128)
    raw = (ctypes.c_ubyte * 16)()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, 128, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    driver.cuDeviceGetUuid(raw, device)
    text = bytes(raw).hex()
    return {
        "name": name.value.decode("utf-8", "replace"),
        "capability": "{}.{}".format(*(attribute(driver, key, device) for key in (CAPABILITY_MAJOR, CAPABILITY_MINOR))),
        "memory_bytes": memory.value,
        "uuid": "GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])),
    }


def attribute(driver, number, device):
    """One number about a GPU."""
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value


def error_name(driver, code):
    """CUDA_ERROR_NO_DEVICE rather than 100."""
    name = ctypes.c_char_p()
    driver.cuGetErrorName(code, ctypes.byref(name))
    return name.value.decode() if name.value else "error {}".format(code)


if __name__ == "__main__":
    main()
