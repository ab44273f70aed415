"""Models with data, small enough to be installed with the tool."""

from __future__ import annotations

from pathlib import Path

DIGITS = Path(__file__).parent / "digits"
"""A folder: `model.onnx`, `calibration.npz` and `test.npz` of a handwritten-digit classifier; its README tells more."""
