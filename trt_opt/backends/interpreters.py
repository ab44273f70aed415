"""The Pythons of a machine, and the one that runs the child process with TensorRT.

TensorRT often lives under another Python than this tool: JetPack installs it for the system's, and this tool lives in
a virtual environment. Every candidate is asked by running `worker/probe.py` under it; none is trusted to answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from trt_opt.backends.probing import ROOT_VARIABLE, ask, holds, interpreter_from_answer
from trt_opt.backends.python_places import PATH, SYSTEM, THIS, located, places
from trt_opt.backends.remedies import install_commands, trtexec_route
from trt_opt.errors import MissingError
from trt_opt.values.machine import Interpreter

TENSORRT_PYTHON_VARIABLE = "TRT_OPT_TENSORRT_PYTHON"

OPTION = "--tensorrt-python"
FOUND_BY_ITSELF = (THIS, SYSTEM, PATH)
"""Where TensorRT is looked for without being told; what else is found is only shown."""

QUICK_S = 12.0
"""How long a candidate may take that nobody asked for, seconds."""

PATIENT_S = 60.0
"""How long one may take that is to be used, seconds: a first import from an SD card is slow."""

BEFORE_THE_END_S = 3.0
"""The imports of a probe end this long before it, so that it can still say which of them hung."""

NEEDED = ("tensorrt", "numpy", "polygraphy")


def tensorrt_python(asked: str | None) -> str:
    """The interpreter that runs the child process with TensorRT.

    In this order: the one asked for, the one of TRT_OPT_TENSORRT_PYTHON, this one, the system's, those on the PATH.

    Args:
        asked: A path, a name on the PATH, or the folder of a virtual environment; None looks for one.

    Raises:
        MissingError: The one asked for is no Python or lacks something; or none has TensorRT.
    """
    named = named_interpreter(asked)
    if named is not None:
        origin, text = named
        interpreter = examined((origin,), located(text), PATIENT_S)
        require(interpreter, f"{origin} {text}")
        return interpreter.path
    found: list[Interpreter] = []
    for origins in ((THIS,), (SYSTEM, PATH)):
        found += _all_examined([place for place in places() if place[0] in origins], PATIENT_S)
        chosen, _ = choice(found)
        if chosen is not None:
            return chosen.path
    raise _none_found(found)


def candidates(asked: str | None = None) -> tuple[Interpreter, ...]:
    """Every Python that was found here, each once, in the order in which they are considered.

    Takes no longer than the slowest, and that no longer than `QUICK_S`.

    Args:
        asked: As for `tensorrt_python`.
    """
    named = named_interpreter(asked)
    first = [] if named is None else [(named[0], located(named[1]))]
    return _all_examined([*first, *places()], QUICK_S)


def choice(interpreters: Iterable[Interpreter]) -> tuple[Interpreter | None, str]:
    """Which of some candidates runs TensorRT, and why that one, or why none.

    Args:
        interpreters: In the order in which they are considered.
    """
    several = tuple(interpreters)
    for origin in (OPTION, TENSORRT_PYTHON_VARIABLE):
        for interpreter in several:
            if origin in interpreter.origins:
                problem = unfitness(interpreter)
                if problem is not None:
                    return None, f"{origin} names {interpreter.path}, but {problem}"
                return interpreter, f"{origin} names it"
    for origin in FOUND_BY_ITSELF:
        for interpreter in several:
            if origin in interpreter.origins and interpreter.can_build:
                others = {THIS: "it is this interpreter", SYSTEM: "the system's", PATH: "the first on the PATH"}
                return interpreter, f"{others[origin]}, and has TensorRT {interpreter.version_of('tensorrt')}"
    elsewhere = [interpreter for interpreter in several if interpreter.can_build]
    if elsewhere:
        return None, f"only {elsewhere[0].path} has TensorRT, and it is not used unless {OPTION} names it"
    return None, "no Python here has all of TensorRT, NumPy and Polygraphy"


def unfitness(interpreter: Interpreter) -> str | None:
    """Why an interpreter cannot run the child process with TensorRT; None where it can."""
    if interpreter.problem is not None:
        return interpreter.problem
    if not interpreter.is_new_enough:
        return f"it is Python {interpreter.python}, and 3.8 or later is needed"
    package = interpreter.package("tensorrt")
    if package is None:
        return "it has no TensorRT"
    if not package.works:
        return f"its TensorRT cannot be imported ({package.detail})"
    if interpreter.lacks:
        return f"it has TensorRT {package.version}, and lacks {' and '.join(interpreter.lacks)}"
    return None


def require(interpreter: Interpreter, where: str) -> None:
    """Refuses an interpreter that was asked for and cannot be used.

    Args:
        interpreter: As examined.
        where: Who asked for it.

    Raises:
        MissingError: Says what it lacks, and what to install.
    """
    problem = unfitness(interpreter)
    if problem is None:
        return
    if interpreter.problem is not None:
        hint = "trt-opt doctor shows every Python here, and what each has"
    elif not interpreter.is_new_enough:
        hint = trtexec_route()
    else:
        hint = "; ".join(install_commands(interpreter)) or "trt-opt doctor says what to install"
    raise MissingError(f"this Python cannot run TensorRT: {problem}", where=where, hint=hint)


def named_interpreter(asked: str | None) -> tuple[str, str] | None:
    """Who names an interpreter, and what was named; None where nobody does."""
    if asked:
        return OPTION, asked
    by_variable = os.environ.get(TENSORRT_PYTHON_VARIABLE)
    return (TENSORRT_PYTHON_VARIABLE, by_variable) if by_variable else None


def examined(origins: tuple[str, ...], path: Path, limit_s: float) -> Interpreter:
    """What one interpreter has.

    Args:
        origins: How it was found.
        path: The file to run.
        limit_s: How long that may take, seconds.
    """
    # What decides the answer of the same file is part of the key.
    variables = tuple(os.environ.get(name) for name in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", ROOT_VARIABLE))
    return replace(_answered(str(path), limit_s, variables), origins=origins)


@lru_cache(maxsize=64)
def _answered(path: str, limit_s: float, _variables: tuple[str | None, ...]) -> Interpreter:
    wanted = [part for name in NEEDED for part in ("--only", name)] if limit_s == PATIENT_S else []
    limit = ["--limit", str(limit_s - BEFORE_THE_END_S)]
    return interpreter_from_answer(path, ask(path, ["--part", "packages", *wanted, *limit], limit_s))


def _all_examined(found_at: list[tuple[str, Path]], limit_s: float) -> tuple[Interpreter, ...]:
    """Each once: a link to another, and two names of one, are the same interpreter found twice."""
    by_file: dict[tuple[str, str], tuple[Path, list[str]]] = {}
    for origin, path in found_at:
        by_file.setdefault(_identity(path), (path, []))[1].append(origin)
    distinct = [(tuple(dict.fromkeys(origins)), path) for path, origins in by_file.values()]
    if not distinct:
        return ()
    with ThreadPoolExecutor(len(distinct)) as pool:
        answers = tuple(pool.map(lambda place: examined(place[0], place[1], limit_s), distinct))
    merged: list[Interpreter] = []
    for found in answers:
        same = next((place for place, known in enumerate(merged) if _says_the_same(known, found)), None)
        if same is None:
            merged.append(found)
        else:
            merged[same] = replace(merged[same], origins=(*merged[same].origins, *found.origins))
    return tuple(merged)


def _says_the_same(one: Interpreter, other: Interpreter) -> bool:
    """Whether two files start one interpreter, as a shim does; not so where one sets a variable first."""
    return one.problem is None and replace(one, path="", origins=()) == replace(other, path="", origins=())


def _identity(path: Path) -> tuple[str, str]:
    """The file behind a path, and the virtual environment it belongs to, if it belongs to one."""
    home = path.parent.parent
    return os.path.realpath(path), str(home.resolve()) if holds((home / "pyvenv.cfg").is_file) else ""


def _none_found(found: list[Interpreter]) -> MissingError:
    """Tells of the one that comes nearest."""
    near = [interpreter for interpreter in found if interpreter.has_tensorrt] or [
        interpreter for interpreter in found if interpreter.package("tensorrt")
    ]
    if not near:
        return MissingError(
            "no Python here has TensorRT",
            hint=f"trt-opt doctor says what to install; {OPTION} names a Python that has it; --target rtx needs none",
        )
    try:
        require(near[0], near[0].path)
    except MissingError as error:
        return error
    return MissingError("no Python here can run TensorRT", hint="trt-opt doctor")
