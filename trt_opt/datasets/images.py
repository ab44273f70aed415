"""A folder of images, decoded on threads ahead of the model.

Labels come from a file `labels.csv` in that folder, if there is one; `labels_csv.py` says how it is written.
Sub-folders are not entered, and their names are not taken for classes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trt_opt.datasets.checks import check_dtype, checked_array, shape_text
from trt_opt.datasets.content_hash import sha256_from_folder
from trt_opt.datasets.labels_csv import LABELS_FILE, labels_from_csv
from trt_opt.datasets.pixels import array_from_image
from trt_opt.datasets.preprocess import Preprocess
from trt_opt.errors import DataError
from trt_opt.values.samples import DataProvenance, Sample
from trt_opt.values.tensors import TensorSpec

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pnm", ".tif", ".tiff"})

_THREADS = max(1, min(4, os.cpu_count() or 1))
_LOOK_AHEAD = 2 * _THREADS
"""Decoded images that may wait for the model: enough to hide decoding, few enough not to matter for memory."""


class ImageFolderDataset:
    """The images of a folder in the order of their names, one sample each.

    Args:
        source: What the user wrote.
        paths: The images, sorted.
        inputs: What the model wants: one input of rank 4 (a batch of one is made) or 3 (none is made).
        preprocess: How an image becomes that input.
        any_labels: Labels need not be class numbers.

    Raises:
        DataError: The model's input is not image-like, the preprocessing does not lead to its shape, the first image
            cannot be used, or labels.csv does not fit the images.
    """

    is_random = False

    def __init__(
        self,
        source: str,
        paths: tuple[Path, ...],
        inputs: tuple[TensorSpec, ...],
        preprocess: Preprocess | None,
        *,
        any_labels: bool = False,
    ) -> None:
        self.source = source
        self._paths = paths
        self._input = _image_input(inputs, source)
        self._preprocess = _known(preprocess, self._input, source)
        _check_layout(self._preprocess, self._input, source)
        self._labels_path = paths[0].parent / LABELS_FILE
        self._labels = None
        if self._labels_path.exists():
            self._labels = labels_from_csv(self._labels_path, paths, any_labels=any_labels)
        self._tensor(paths[0])

    @property
    def has_labels(self) -> bool:
        """Whether there is a labels.csv."""
        return self._labels is not None

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[Sample]:
        for path, tensor in zip(self._paths, self._tensors(), strict=True):
            label = None
            if self._labels is not None:
                value = self._labels[path.name]
                label = np.array(value if self._rank == 3 else [value])
            yield Sample(self._name(path), {self._input.name: tensor}, label)

    def provenance(self) -> DataProvenance:
        """Source, the SHA-256 over names, bytes, labels and preprocessing, and the number of samples."""
        return DataProvenance(self.source, self._sha256, len(self._paths), preprocess=str(self._preprocess))

    @cached_property
    def _sha256(self) -> str:
        labels = () if self._labels is None else (self._labels_path,)
        return sha256_from_folder((*self._paths, *labels), str(self._preprocess))

    @property
    def _rank(self) -> int:
        return 4 if self._input.shape is None else len(self._input.shape)

    def _name(self, path: Path) -> str:
        return f"{path.parent.name}/{path.name}"

    def _tensor(self, path: Path) -> NDArray[np.generic]:
        array = array_from_image(path, self._preprocess)
        tensor = array[np.newaxis] if self._rank == 4 else array
        _check_size(tensor.shape, self._input, self._preprocess, self._name(path))
        return checked_array(tensor, self._input, self._name(path))

    def _tensors(self) -> Iterator[NDArray[np.generic]]:
        """The tensors in order, the next few being decoded on threads; an image's error comes at its turn."""
        waiting: deque[Future[NDArray[np.generic]]] = deque()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="images") as pool:
            try:
                for path in self._paths:
                    waiting.append(pool.submit(self._tensor, path))
                    if len(waiting) > _LOOK_AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


def _image_input(inputs: tuple[TensorSpec, ...], source: str) -> TensorSpec:
    listed = ", ".join(map(str, inputs))
    if len(inputs) != 1 or (inputs[0].shape is not None and len(inputs[0].shape) not in (3, 4)):
        raise DataError(
            f"images fit a model with one input of rank 4 (or 3), this one takes {listed}",
            where=source,
            hint="give an .npz with one array per input",
        )
    batch = inputs[0].shape[0] if inputs[0].shape is not None and len(inputs[0].shape) == 4 else 1
    if isinstance(batch, int) and batch != 1:
        raise DataError(
            f"images are fed one at a time, the model wants batches of {batch}",
            where=source,
            hint=f"make the model's first dimension dynamic, or give an .npz of shape [N, {batch}, …]",
        )
    return inputs[0]


def _known(preprocess: Preprocess | None, spec: TensorSpec, source: str) -> Preprocess:
    if preprocess is None:
        raise DataError(
            f"how do these images become {spec}?",
            where=source,
            hint='say it, for example --preprocess "resize=256,crop=224,layout=NCHW,color=RGB,scale=1/255,'
            'mean=0.485:0.456:0.406,std=0.229:0.224:0.225"',
        )
    try:
        check_dtype(np.dtype(preprocess.dtype), spec, source)
    except DataError as error:
        other = "uint8" if preprocess.dtype == "float32" else "float32"
        raise DataError(error.what, where=source, hint=f"dtype={other} in --preprocess") from error
    return preprocess


def _check_layout(preprocess: Preprocess, spec: TensorSpec, source: str) -> None:
    """Refuses a layout or colour that gives another number of channels than the input's."""
    if spec.shape is None:
        return
    sizes = spec.shape[-3:]
    here, there = (0, 2) if preprocess.layout == "NCHW" else (2, 0)
    if not isinstance(sizes[here], int) or sizes[here] == preprocess.channels:
        return
    other = "NHWC" if preprocess.layout == "NCHW" else "NCHW"
    if sizes[there] == preprocess.channels:
        hint = f"layout={other}"
    else:
        hint = {1: "color=L", 3: "color=RGB or color=BGR"}.get(int(sizes[here]), "give arrays in .npz files")
    raise DataError(
        f"layout={preprocess.layout} with color={preprocess.color} gives {preprocess.channels} channel(s), "
        f"the input wants {shape_text(spec.shape)}",
        where=source,
        hint=hint,
    )


def _check_size(shape: tuple[int, ...], spec: TensorSpec, preprocess: Preprocess, where: str) -> None:
    """Refuses an image whose final size is not the input's, naming the options that would make it so."""
    if spec.shape is None:
        return
    rows, columns = (-2, -1) if preprocess.layout == "NCHW" else (-3, -2)
    wanted = (spec.shape[columns], spec.shape[rows])
    found = (shape[columns], shape[rows])
    if all(not isinstance(want, int) or want == size for want, size in zip(wanted, found, strict=True)):
        return
    target = "x".join(str(want if isinstance(want, int) else size) for want, size in zip(wanted, found, strict=True))
    raise DataError(
        f"the image ends as {found[0]}x{found[1]} pixels (width x height), the model wants {target}",
        where=where,
        hint=f"add resize={target} (distorts), or resize=<shorter side>,crop={target}; nothing is resized unasked",
    )
