"""What the scripts that write a page of docs/measured have in common."""

from __future__ import annotations

import argparse
from pathlib import Path


def asked_for(description: str | None) -> argparse.Namespace:
    """The command line: `models`, a folder or None, and `output`, a page or None."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="folder of models with feeds.py")
    parser.add_argument("--output", type=Path, help="page to write; its text after the line '## Notes' is kept")
    return parser.parse_args()


def write_page(page: str, output: Path | None) -> None:
    """Writes a page and keeps the hand-written notes at the end of the old one; does nothing without an output."""
    if output is None:
        return
    old = output.read_text(encoding="utf-8") if output.exists() else ""
    notes = old[old.index("## Notes") :] if "## Notes" in old else ""
    output.write_text(page + (f"\n{notes}" if notes else ""), encoding="utf-8")
