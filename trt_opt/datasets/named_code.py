"""A function or class of the user's own, named as `package.module:name`."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_opt.datasets.checks import closest_hint
from trt_opt.errors import DataError, RequestError
from trt_opt.files import sha256_of_file

FAILURES = (Exception, SystemExit)
"""What code of the user's own may raise: a script's `sys.exit` must not end the verb as if all were done."""


@dataclass(frozen=True, slots=True)
class NamedCode:
    """Imported code and the folder that is searched first while it runs.

    Attributes:
        source: "package.module:name".
        code: The function or class.
        folder: The folder that was current when it was imported.
    """

    source: str
    code: Callable[..., Any]
    folder: str

    @property
    def sha256(self) -> str | None:
        """The hash of the file that it is written in; None where there is none, as for compiled code."""
        try:
            file = inspect.getsourcefile(inspect.unwrap(self.code))
        except TypeError:
            return None
        return sha256_of_file(Path(file)) if file is not None and Path(file).is_file() else None

    def call(self, where: str, function: Callable[..., Any], *arguments: object) -> Any:
        """Calls the code, or a method of its instance.

        Raises:
            DataError: It raised something; `where` says at which sample.
        """
        try:
            with importable(self.folder):
                return function(*arguments)
        except FAILURES as error:
            raise DataError(f"raised {type(error).__name__}: {error}", where=where) from error


def named_code(source: str) -> NamedCode:
    """Imports code by its name; the current folder is searched first.

    Args:
        source: "package.module:name".

    Raises:
        RequestError: The module cannot be imported, or holds nothing of that name that can be called.
    """
    folder = str(Path.cwd())
    module_name, _, name = source.partition(":")
    try:
        with importable(folder):
            module = importlib.import_module(module_name)
    except FAILURES as error:
        raise RequestError(
            f"importing {module_name} failed with {type(error).__name__}: {error}",
            where=source,
            hint=f"modules are searched in {folder} and the installed packages; write no .py",
        ) from error
    code = getattr(module, name, None)
    if not callable(code):
        known = [key for key, value in vars(module).items() if callable(value)]
        what = "no function" if code is None else f"a {type(code).__name__}, not a function"
        raise RequestError(f"{module_name} holds {what} {name!r}", where=source, hint=closest_hint(name, known))
    return NamedCode(source, code, folder)


@contextmanager
def importable(folder: str) -> Iterator[None]:
    """Searches a folder first while the user's code runs."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
