"""The collection of real models, where it lies beside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("TRT_OPT_MODELS") or Path(__file__).parents[2] / "shared" / "models")

needs_collection = pytest.mark.skipif(
    not (FOLDER / "feeds.py").is_file(), reason="the collection of real models is not beside the checkout"
)

# The collection's reader leaves files open, which pytest would hold against this project: it gets its own process.
WRITE_FEEDS = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from feeds import feeds
for number, feed in enumerate(feeds(sys.argv[2], int(sys.argv[3]))):
    np.savez(f"{sys.argv[4]}/{number:04}.npz", **feed)
"""


def model_file(name: str) -> Path:
    """A model of the collection."""
    return FOLDER / "models" / f"{name}.onnx"


def data_folder(name: str, count: int, folder: Path) -> Path:
    """The first real inputs of a model, at most `count`, as a folder of .npz files."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [str(FOLDER), name, str(count), str(folder)]
    subprocess.run([sys.executable, "-c", WRITE_FEEDS, *arguments], check=True)
    return folder
