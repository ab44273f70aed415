"""The stand-in's engine file: a magic, the length of a record, the record as JSON, and the ONNX graph."""

from __future__ import annotations

import json
from typing import Any

MAGIC = b"STAND-IN ENGINE\n"


def packed(record: dict[str, Any], model: bytes) -> bytes:
    """The bytes of an engine."""
    text = json.dumps(record, sort_keys=True).encode()
    return MAGIC + len(text).to_bytes(8, "little") + text + model


def unpacked(engine: bytes) -> tuple[dict[str, Any], bytes]:
    """Record and ONNX graph of an engine.

    Raises:
        ValueError: These are not such bytes.
    """
    if not engine.startswith(MAGIC):
        raise ValueError("not an engine of the stand-in")
    start = len(MAGIC) + 8
    end = start + int.from_bytes(engine[len(MAGIC) : start], "little")
    return json.loads(engine[start:end]), engine[end:]
