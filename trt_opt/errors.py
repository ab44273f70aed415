"""What can go wrong, as one tree; the exit code of the command line hangs on the branch.

TrtOptError
├── RequestError            2  the request is wrong
│   ├── ModelFileError         the file is missing, not ONNX, truncated, or its external data is
│   ├── DataError              calibration or evaluation data do not fit the model, or are not numbers
│   ├── TargetError            no such target
│   ├── RecipeError            a recipe or manifest cannot be read
│   └── StaleError             a table, cache or engine belongs to another model, data set or version
├── UnsupportedModelError   3  this model cannot be handled as asked
├── StageError              4  a stage failed
│   ├── WorkerError            the child process crashed, hung or was killed
│   └── StorageError           the disk is full, or the folder cannot be written
└── MissingError            5  something is missing here: a library, a GPU, a version
"""

from __future__ import annotations


class TrtOptError(Exception):
    """The root of everything this package raises on purpose.

    Args:
        what: What happened, one sentence without a full stop's worth of blame.
        where: The file, node, tensor or sample it happened at.
        hint: What to try next.
    """

    exit_code = 4

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        return text if self.hint is None else f"{text}\n  try: {self.hint}"


class RequestError(TrtOptError):
    """The request is wrong: nothing was started."""

    exit_code = 2


class ModelFileError(RequestError):
    """The model file cannot be read as ONNX."""


class DataError(RequestError):
    """Calibration or evaluation data do not fit the model, or hold NaN or infinity."""


class TargetError(RequestError):
    """The target is unknown, or cannot be served by what it names."""


class RecipeError(RequestError):
    """A recipe or manifest cannot be read."""


class StaleError(RequestError):
    """A table, cache or engine belongs to something else than what it is used for."""


class UnsupportedModelError(TrtOptError):
    """This model cannot be handled as asked.

    Args:
        what: The reason.
        where: The node or tensor.
        hint: The nearest thing that would work.
        nodes: Every node concerned, as (node name, operator, reason).
    """

    exit_code = 3

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        nodes: tuple[tuple[str, str, str], ...] = (),
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.nodes = nodes


class StageError(TrtOptError):
    """A stage failed though the request was sound."""

    exit_code = 4


class WorkerError(StageError):
    """The child process crashed, hung or was killed."""


class StorageError(StageError):
    """The disk is full, or the folder cannot be written."""


class MissingError(TrtOptError):
    """Something is missing here: a library, a GPU, a version."""

    exit_code = 5
