"""The manifest beside an engine: written, read, and held against what the engine is to be used with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trt_opt.errors import RecipeError, RequestError, StaleError, StorageError
from trt_opt.files import sha256_of_file, write_atomically
from trt_opt.values.codec import json_from_value, plain_from_value, value_from_json
from trt_opt.values.engine import FileRecord, Manifest
from trt_opt.values.hardware import numbers_of
from trt_opt.values.target import ComputeCapability, RtxTarget, target_from_text

MANIFEST = "manifest.json"

AMPERE: ComputeCapability = (8, 0)
"""The first GPUs that hardware-compatible engines run on."""

KEY_DIGITS = 16
"""64 bits of SHA-256: among a million engines two share a key with a probability of 3e-8."""


def build_key(decided_by: Mapping[str, Any]) -> str:
    """The key of an engine: a hash of everything that decides it, 16 hexadecimal digits.

    Args:
        decided_by: Strings, numbers, None, sequences, mappings and values of this package; the order of mappings does
            not matter.

    Raises:
        TypeError: Something that JSON does not know.
    """
    text = json.dumps(plain_from_value(decided_by), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Writes a manifest whole or not at all.

    Raises:
        StorageError: It cannot be written.
    """
    write_atomically(path, json_from_value(manifest))


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest.

    Raises:
        RecipeError: There is none, or it is unreadable, something else, or of a newer version of this package.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RecipeError(
            f"the manifest cannot be read ({reason})", where=str(path), hint="name a manifest.json of the engine store"
        ) from error
    try:
        return value_from_json(Manifest, text, where=str(path))
    except RecipeError:
        raise
    except RequestError as error:
        raise RecipeError(f"the manifest holds an impossible value: {error.what}", where=str(path)) from error
    except RecursionError as error:
        raise RecipeError("the manifest is nested too deeply", where=str(path)) from error


def record_of_file(path: Path) -> FileRecord:
    """A file's name, size and hash.

    Raises:
        StorageError: It cannot be read.
    """
    sha256 = sha256_of_file(path)
    return FileRecord(path.name, path.stat().st_size, sha256)


def file_problems(record: FileRecord, path: Path) -> tuple[str, ...]:
    """What is wrong with a file, against its record; nothing if it is the one recorded."""
    try:
        if not path.is_file():
            return (f"{record.name} is missing",)
        size = path.stat().st_size
        if size != record.bytes:
            return (f"{record.name} has {size} bytes, {record.bytes} are recorded",)
        found = sha256_of_file(path)
    except (OSError, StorageError) as error:
        return (f"{record.name} cannot be read: {error}",)
    if found != record.sha256:
        return (f"{record.name} has other content: SHA-256 {found[:12]}…, recorded is {record.sha256[:12]}…",)
    return ()


def check_engine(
    manifest: Manifest, engine_path: Path, *, library: str, version: str, capability: ComputeCapability | None
) -> None:
    """Refuses an engine that is not the recorded one, or was not built for what is here; run before deserialising it.

    Args:
        manifest: The engine's manifest.
        engine_path: The engine.
        library: The library that is to run it: "tensorrt_rtx".
        version: Its version: "1.7.1.116"; engines are taken by the very version that built them only.
        capability: The GPU's compute capability; None leaves it unchecked.

    Raises:
        StaleError: With every mismatch.
    """
    problems = [*file_problems(manifest.engine, engine_path), *_library_problems(manifest, library, version)]
    if capability is not None:
        problems += _capability_problems(manifest, capability)
    if problems:
        raise StaleError(
            "the engine cannot be used: " + "; ".join(problems),
            where=str(engine_path),
            hint="build it again here: trt-opt build --from its manifest.json",
        )


def _library_problems(manifest: Manifest, library: str, version: str) -> list[str]:
    built_with, _, built_version = manifest.library.partition(" ")
    if built_with != library:
        return [f"it was built with {manifest.library}, here is {library} {version}"]
    if manifest.options.version_compatible and numbers_of(version) >= numbers_of(built_version):
        return []
    if built_version != version:
        return [f"it was built with version {built_version} of {library}, here is {version}"]
    return []


def _capability_problems(manifest: Manifest, capability: ComputeCapability) -> list[str]:
    target = target_from_text(manifest.options.target)
    here = "{}.{}".format(*capability)
    if not isinstance(target, RtxTarget):
        return _gpu_problems(manifest, capability)
    if capability in target.capabilities:
        return []
    built_for = ", ".join(f"{major}.{minor}" for major, minor in target.capabilities)
    return [f"it was built for compute capability {built_for}, the GPU here has {here}"]


def _gpu_problems(manifest: Manifest, capability: ComputeCapability) -> list[str]:
    """Engines of TensorRT run on the compute capability they were built on, or on all since Ampere."""
    here = "{}.{}".format(*capability)
    if manifest.gpu is None:
        return [f"its manifest does not say which compute capability it was built for, the GPU here has {here}"]
    if manifest.options.hardware_compatible and capability >= AMPERE:
        return []
    if manifest.gpu.capability == here:
        return []
    return [f"it was built for {manifest.gpu}, the GPU here has {here}"]
