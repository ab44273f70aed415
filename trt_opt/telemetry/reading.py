"""Files of /proc and /sys, which another kernel may not have and which may not be read by everybody."""

from __future__ import annotations

from pathlib import Path


def text_of(path: Path) -> str:
    """What is in a file; nothing where it is missing or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
