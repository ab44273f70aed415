"""Python classes with exactly the members that one class of NVIDIA's bindings has, and its argument checks."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, TypeVar

import tensorrt_bindings as vendor

from ._signatures import STAND_INS, bound, fits, signatures_of

Made = TypeVar("Made")

MODELLED: dict[str, tuple[str, ...]] = {}
"""The public members that each stand-in brings, whether or not this version's class has them."""

BORROWED = ("__enter__", "__exit__")
SPECIAL = ("__len__", "__getitem__", "__bool__")
DEFAULTS: dict[str, Any] = {"int": 0, "bool": False, "float": 0.0, "str": ""}


class NotModelledError(Exception):
    """The vendor has this member; the stand-in does not say how it behaves."""


def stand_in(body: type[Made]) -> type[Made]:
    """A class with the public members of the vendor's class of the same name: as in `body` where that has them.

    A member that the vendor's class lacks in this version does not exist here either; a property that `body` lacks is
    stored and read back; a method that it lacks raises NotModelledError, which no caller expects.
    """
    name = body.__name__
    real = getattr(vendor, name)
    own = {key: value for key, value in vars(body).items() if not key.startswith("_")}
    MODELLED[name] = tuple(own)
    members: dict[str, Any] = {"__module__": "tensorrt", "__doc__": real.__doc__}
    members.update({key: value for key, value in vars(body).items() if _is_kept(key, real)})
    members.update({key: getattr(real, key) for key in BORROWED if hasattr(real, key)})
    for key in dir(real):
        if not key.startswith("_"):
            members[key] = _member(name, key, getattr(real, key), own.get(key))
    members.update(__init__=_constructor(real), __setattr__=_set)
    made: type[Made] = types.new_class(name, (), exec_body=lambda namespace: namespace.update(members))
    STAND_INS[name] = made
    return made


def _is_kept(name: str, real: type) -> bool:
    """Whether a member that is not public belongs to the class: the stand-in's own, or an operator that both have."""
    return (name.startswith("_") and not name.startswith("__")) or (name in SPECIAL and hasattr(real, name))


def make(kind: type[Made], **state: Any) -> Made:
    """An object of a stand-in class, which callers mostly cannot construct themselves."""
    made = object.__new__(kind)
    object.__setattr__(made, "_s", types.SimpleNamespace(stored={}, **state))
    return made


def _set(self: Any, name: str, value: Any) -> None:
    if not isinstance(getattr(type(self), name, None), property):
        raise AttributeError(f"'tensorrt_bindings.tensorrt.{type(self).__name__}' object has no attribute '{name}'")
    object.__setattr__(self, name, value)


def _constructor(real: type) -> Callable[..., None]:
    overloads = signatures_of("__init__", real.__init__.__doc__)  # type: ignore[misc]

    def construct(self: Any, *arguments: Any, **named: Any) -> None:
        if not overloads:
            raise TypeError(f"tensorrt_bindings.tensorrt.{real.__name__}: No constructor defined!")
        object.__setattr__(self, "_s", types.SimpleNamespace(stored={}))
        self._construct(*bound("__init__", overloads, vendor, arguments, named))

    return construct


def _member(owner: str, name: str, real: Any, own: Any) -> Any:
    if isinstance(real, property):
        return _property(owner, name, real, own)
    if not callable(real) or isinstance(real, type):
        return real
    overloads = signatures_of(name, real.__doc__)

    @functools.wraps(own or real, assigned=("__doc__",), updated=())
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        checked = bound(name, overloads, vendor, arguments, named)
        if own is None:
            raise NotModelledError(f"{owner}.{name}")
        return own(self, *checked)

    return method


def _property(owner: str, name: str, real: property, own: property | None) -> property:
    returned = (getattr(real.fget, "__doc__", None) or "").partition(" -> ")[2].split("\n")[0].strip()
    taken = _taken(real)

    def stored(self: Any) -> Any:
        return self._s.stored.get(name, DEFAULTS.get(returned))

    def store(self: Any, value: Any) -> None:
        if taken is not None and not fits(taken, value, vendor):
            raise TypeError(f"(): incompatible function arguments. {owner}.{name} takes {taken}, not {value!r}")
        self._s.stored[name] = value
        if own is not None and own.fset is not None:
            own.fset(self, value)

    return property(own.fget if own is not None else stored, store if real.fset is not None else None)


def _taken(real: property) -> str | None:
    """The annotation of the value that a property takes; None where the bindings do not say."""
    found = signatures_of("", (getattr(real.fset, "__doc__", None) or "").strip())
    return found[0][0].annotation if found and found[0] else None
