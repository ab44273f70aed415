"""What a model is run with, whoever runs it."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Runner(Protocol):
    """A model ready to be run inside a `with` block, which loads it on entry and releases it on exit."""

    @property
    def name(self) -> str:
        """What runs where, fit for a heading: "INT8 simulated on ONNX Runtime"."""

    def infer(self, feed: Mapping[str, NDArray[np.generic]], /) -> Mapping[str, NDArray[np.generic]]:
        """The outputs by name, in the graph's order; the arrays stay valid until the next call."""

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...
