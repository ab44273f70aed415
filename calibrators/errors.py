"""What can go wrong in this package."""

from __future__ import annotations


class CalibratorError(ValueError):
    """Data, a specification or a cache that no range can be taken from; the message says which and why."""
