"""The samples a model is calibrated and judged with, from files, folders, a function, or random numbers.

Start at `open_dataset`. Every reader yields the samples one at a time, in the same order on each walk, and checks every
value it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trt_opt.datasets.arrays import ArrayDataset
from trt_opt.datasets.checks import closest_hint
from trt_opt.datasets.generator import FunctionDataset, is_function_reference
from trt_opt.datasets.npz_folder import NpzFolderDataset
from trt_opt.datasets.preprocess import Preprocess, preprocess_from_table, preprocess_from_text
from trt_opt.datasets.random_feeds import RandomDataset
from trt_opt.errors import DataError
from trt_opt.values.samples import Dataset
from trt_opt.values.shapes import Shape
from trt_opt.values.tensors import TensorSpec

__all__ = ["SOURCES", "Preprocess", "open_dataset", "preprocess_from_table", "preprocess_from_text"]

SOURCES = (
    "data.npz (one array per input), data.npy (one input), a folder of .npz files (one sample each), "
    "a folder of images (with --preprocess), package.module:function (yields feeds), or random:16"
)


def open_dataset(
    source: str,
    inputs: tuple[TensorSpec, ...],
    *,
    preprocess: Preprocess | None = None,
    shapes: Mapping[str, Shape] | None = None,
    any_labels: bool = False,
) -> Dataset:
    """Opens what the user named after --calib-data or --eval-data.

    What can be known without reading all of it is checked here: names, ranks, sizes, element types, numbers of samples.
    Values are checked as they are read.

    Args:
        source: One of `SOURCES`.
        inputs: What the model wants fed; initialisers that have a value are not among them.
        preprocess: How images become the input; the other sources hold finished arrays and do without.
        shapes: For random data: the shapes of inputs with dynamic dimensions.
        any_labels: Labels are read by code of the user's own and pass unchanged, whatever NumPy holds but Python
            objects: boxes, masks, floats, texts. Otherwise they are class numbers.

    Raises:
        DataError: There is no such source, it cannot be read, or it does not fit the model.
    """
    if not inputs:
        raise DataError("the model has no inputs, so there is nothing to feed", where=source)
    if source.startswith("random:"):
        return RandomDataset(source, inputs, shapes)
    path = Path(source)
    if not source or not _exists(path):
        if is_function_reference(source):
            return FunctionDataset(source, inputs, any_labels=any_labels)
        raise DataError("no such file or folder", where=repr(source), hint=_missing_hint(source, path))
    if path.is_dir():
        return _open_folder(source, path, inputs, preprocess, any_labels=any_labels)
    if path.suffix.lower() in (".npz", ".npy"):
        return ArrayDataset(source, path, inputs, any_labels=any_labels)
    raise DataError(f"a {path.suffix or 'nameless kind of'} file is not a data source", where=source, hint=SOURCES)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name, or holding a null byte
        return False


def _open_folder(
    source: str, folder: Path, inputs: tuple[TensorSpec, ...], preprocess: Preprocess | None, *, any_labels: bool
) -> Dataset:
    # Pillow is loaded for those who have images only.
    from trt_opt.datasets.images import IMAGE_SUFFIXES, ImageFolderDataset

    files = _visible_files(folder)
    arrays = tuple(path for path in files if path.suffix.lower() == ".npz")
    images = tuple(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
    if arrays and images:
        raise DataError(
            f"the folder mixes .npz files ({len(arrays)}) and images ({len(images)})",
            where=source,
            hint="put them into two folders",
        )
    if arrays:
        return NpzFolderDataset(source, arrays, inputs, any_labels=any_labels)
    if images:
        return ImageFolderDataset(source, images, inputs, preprocess, any_labels=any_labels)
    raise DataError(_nothing_usable(folder, files), where=source, hint=SOURCES)


def _visible_files(folder: Path) -> list[Path]:
    try:
        return sorted(
            (path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")),
            key=lambda path: path.name,
        )
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=str(folder)) from error


def _nothing_usable(folder: Path, files: list[Path]) -> str:
    if files:
        kinds = ", ".join(sorted({path.suffix or path.name for path in files})[:8])
        return f"the folder holds neither .npz files nor images, only {kinds}"
    if any(path.is_dir() for path in folder.iterdir()):
        return "the folder holds only sub-folders, which are not entered"
    return "the folder is empty"


def _missing_hint(source: str, path: Path) -> str:
    parent = path.parent
    try:
        neighbours = [entry.name for entry in parent.iterdir()] if source else []
    except (OSError, ValueError):
        neighbours = []
    near = closest_hint(path.name, neighbours)
    return f"{near} Data come from {SOURCES}" if near else f"data come from {SOURCES}"
