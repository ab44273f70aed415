"""From a description and files to all that a bundle's archive holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from trt_opt.bundling.conf import conf_text
from trt_opt.bundling.layout import CONF, DESCRIPTION, MODEL, SUMS, sums_text
from trt_opt.values.bundle import Bundle
from trt_opt.values.codec import json_from_value
from trt_opt.values.engine import FileRecord


def packed(bundle: Bundle, files: Mapping[str, bytes]) -> tuple[Bundle, dict[str, bytes]]:
    """Adds `build.conf`, `bundle.json` and the checksums.

    Args:
        bundle: The description; what it says of files is written anew.
        files: The graph, the recipe, the samples, and the calibration cache if there is one.

    Returns:
        The description as it was written, and every file in the archive's order.

    Raises:
        UnsupportedModelError: `build.conf` cannot hold a name.
    """
    conf = conf_text(bundle, _record(MODEL, files[MODEL])).encode()
    described = {**files, CONF: conf}
    bundle = replace(bundle, files=tuple(_record(name, described[name]) for name in sorted(described)))
    everything = {**described, DESCRIPTION: json_from_value(bundle).encode()}
    return bundle, with_sums(everything)


def with_sums(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files in the archive's order, their checksums in front."""
    ordered = {name: files[name] for name in sorted(files)}
    sums = sums_text({name: hashlib.sha256(content).hexdigest() for name, content in ordered.items()})
    return {SUMS: sums.encode(), **ordered}


def _record(name: str, content: bytes) -> FileRecord:
    return FileRecord(name, len(content), hashlib.sha256(content).hexdigest())
