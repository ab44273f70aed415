"""The names of the vendor's module that source code uses, read from the code itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOTS = ("trt", "_trt")
"""What the adapter calls the vendor's module: a variable, or an attribute of `self`."""


def names_used(file: Path) -> dict[str, int]:
    """Dotted names behind the module, `BuilderFlag.FP16`, and the line that uses each first."""
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    found: dict[str, int] = {}
    for scope in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]:
        aliases = _aliases(scope)
        for node in ast.walk(scope):
            chain = _chain(node, aliases) if isinstance(node, ast.Attribute) else None
            if chain and not any(part.startswith("__") for part in chain):
                found.setdefault(".".join(chain), node.lineno)
    return found


def _aliases(scope: ast.AST) -> dict[str, tuple[str, ...]]:
    """Local variables that hold the module or a part of it."""
    found: dict[str, tuple[str, ...]] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            for target, value in _pairs(node):
                chain = _chain(value, found)
                if isinstance(target, ast.Name) and chain is not None:
                    found[target.id] = chain
    return found


def _pairs(node: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=False)
        else:
            yield target, node.value


def _chain(node: ast.expr, aliases: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """The path from the module to an expression; None where it does not begin there."""
    match node:
        case ast.Name(id=name):
            return () if name in ROOTS else aliases.get(name)
        case ast.Attribute(value=ast.Name(id="self"), attr=name) if name in ROOTS:
            return ()
        case ast.Attribute(value=base, attr=name):
            before = _chain(base, aliases)
            return None if before is None else (*before, name)
        case _:
            return None
