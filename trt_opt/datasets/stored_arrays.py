"""Arrays in .npy and .npz files, read one row at a time so that memory never depends on the file's size.

The header tells shape and element type without touching the data. Rows are read from the stream, also where the file
could be mapped: mapped pages count as the process's memory, so a walk over a mapped file looks like a leak.
"""

from __future__ import annotations

import io
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from trt_opt.datasets.checks import RAGGED
from trt_opt.errors import DataError

_GATHER_BYTES = 4 << 20
"""How much of an array in Fortran order is sorted into rows at a time."""

_HOW_TO_WRITE = "write it with numpy.savez(path, input_name=array, …)"


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array that lies in a file, known by its header.

    Attributes:
        path: The .npy or .npz file.
        member: The name inside the .npz, with its ".npy"; None for an .npy file.
        shape: All dimensions.
        dtype: The element type as stored, byte order included.
        fortran_order: Whether the first dimension runs fastest.
        offset: Where the elements begin, in bytes from the start of the .npy stream.
    """

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran_order: bool
    offset: int

    @property
    def where(self) -> str:
        """The file, and the array's name in it, fit for an error message."""
        return str(self.path) if self.member is None else f"{self.path}: {self.member.removesuffix('.npy')}"

    @property
    def data_bytes(self) -> int:
        """Size of the elements, in bytes."""
        count = 1
        for size in self.shape:
            count *= size
        return count * self.dtype.itemsize

    def rows(self) -> Generator[NDArray[np.generic], None, None]:
        """Yields `a[0]`, `a[1]`, …, each a fresh array; needs a rank of at least 1.

        An array in Fortran order has its rows scattered over the whole file: it is sorted into an unnamed temporary
        file first.

        Raises:
            DataError: The data are damaged or shorter than the header says.
        """
        with _opened(self.path, self.member) as stream:
            if self.fortran_order:
                yield from self._scattered_rows(stream)
                return
            stream.read(self.offset)
            for index in range(self.shape[0]):
                row = np.empty(self.shape[1:], self.dtype)
                wanted = row.reshape(-1).view(np.uint8)
                if wanted.size and stream.readinto(wanted.data) != wanted.size:  # type: ignore[attr-defined]
                    raise DataError(f"the data end in row {index} of {self.shape[0]}", where=self.where)
                yield row

    def whole(self) -> NDArray[np.generic]:
        """The whole array.

        Raises:
            DataError: The data are damaged or shorter than the header says.
        """
        with _opened(self.path, self.member) as stream:
            array: NDArray[np.generic] = npy_format.read_array(stream, allow_pickle=False)
            return array

    def _scattered_rows(self, stream: IO[bytes]) -> Iterator[NDArray[np.generic]]:
        stream.read(self.offset)
        rows = self.shape[0]
        row_bytes = self.data_bytes // max(1, rows)
        with tempfile.TemporaryFile() as gathered:
            for position, pieces in self._pieces_of_rows(stream):
                for index in range(rows):
                    gathered.seek(index * row_bytes + position * self.dtype.itemsize)
                    gathered.write(pieces[:, index].tobytes())
            gathered.seek(0)
            for _ in range(rows):
                row = np.frombuffer(bytearray(gathered.read(row_bytes)), self.dtype)
                yield row.reshape(self.shape[1:], order="F")

    def _pieces_of_rows(self, stream: IO[bytes]) -> Iterator[tuple[int, NDArray[np.generic]]]:
        """Yields (first element, [elements, rows]): the next few elements of every row, as Fortran order has them."""
        rows = self.shape[0]
        row_size = self.data_bytes // max(1, rows * self.dtype.itemsize)
        step = max(1, _GATHER_BYTES // max(1, rows * self.dtype.itemsize))
        for position in range(0, row_size, step):
            count = min(step, row_size - position) * rows
            data = stream.read(count * self.dtype.itemsize)
            if len(data) != count * self.dtype.itemsize:
                raise DataError("the data end too early", where=self.where)
            yield position, np.frombuffer(data, self.dtype).reshape(-1, rows)


def array_in_npy(path: Path) -> StoredArray:
    """The array of an .npy file.

    Raises:
        DataError: Not an .npy file, cut off, or pickled.
    """
    with _opened(path, None) as stream:
        array = _header(stream, path, None)
    _check_size(array, path.stat().st_size)
    return array


def arrays_in_npz(path: Path, labels: str | None = None) -> dict[str, StoredArray]:
    """The arrays of an .npz file by name, in the file's order; only their headers are read.

    Args:
        path: The file.
        labels: The array that need not hold numbers.

    Raises:
        DataError: Not an .npz file, cut off, pickled, encrypted, or holding something else than arrays.
    """
    with _translated(path, None), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    arrays: dict[str, StoredArray] = {}
    for info in members:
        _check_member(info, path)
        name = info.filename.removesuffix(".npy")
        if name in arrays:
            raise DataError(f"holds two arrays named {name!r}", where=str(path), hint=_HOW_TO_WRITE)
        with _opened(path, info.filename) as stream:
            arrays[name] = _header(stream, path, info.filename, any_labels=name == labels)
        _check_size(arrays[name], info.file_size)
    return arrays


def _check_member(info: zipfile.ZipInfo, path: Path) -> None:
    if not info.filename.endswith(".npy"):
        raise DataError(f"holds {info.filename!r}, which is not an array", where=str(path), hint=_HOW_TO_WRITE)
    encrypted = bool(info.flag_bits & 0x1)
    if encrypted or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        kind = "encrypted" if encrypted else "compressed in a way that NumPy does not write"
        raise DataError(f"{info.filename!r} is {kind}", where=str(path), hint=_HOW_TO_WRITE)


def _header(stream: IO[bytes], path: Path, member: str | None, *, any_labels: bool = False) -> StoredArray:
    version = npy_format.read_magic(stream)
    readers = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    where = str(path) if member is None else f"{path}: {member.removesuffix('.npy')}"
    if version not in readers:
        # Version 3 differs from 2 only by field names in UTF-8, so it holds records:
        # https://numpy.org/neps/nep-0001-npy-format.html
        raise DataError(f"an .npy stream of version {version}, which is not a plain array", where=where)
    shape, fortran_order, dtype = readers[version](stream)
    if dtype.hasobject:
        raise DataError(
            "the array is pickled (dtype object), and pickles are refused: loading one can run any code",
            where=where,
            hint=RAGGED if any_labels else "store numbers: numpy.asarray(values, dtype='float32') before saving",
        )
    if not any_labels and dtype.kind not in "fiubc":
        raise DataError(f"an array of {dtype} holds no numbers", where=where)
    return StoredArray(path, member, shape, dtype, fortran_order, stream.tell())


def _check_size(array: StoredArray, stream_bytes: int) -> None:
    if array.offset + array.data_bytes != stream_bytes:
        raise DataError(
            f"the header promises {array.data_bytes} bytes of data, {stream_bytes - array.offset} are there",
            where=array.where,
            hint="the file was cut off or damaged; copy or write it again",
        )


@contextmanager
def _opened(path: Path, member: str | None) -> Iterator[IO[bytes]]:
    """The .npy stream from its start; whatever goes wrong while it is read becomes a DataError."""
    with _translated(path, member):
        if member is None:
            with path.open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(path) as archive, archive.open(member) as entry:
                yield entry


@contextmanager
def _translated(path: Path, member: str | None) -> Iterator[None]:
    where = str(path) if member is None else f"{path}: {member.removesuffix('.npy')}"
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(
            f"not an .npz file, or a damaged one ({error or 'it ends too early'})", where=where, hint=_HOW_TO_WRITE
        ) from error
    except (io.UnsupportedOperation, NotImplementedError, ValueError, tokenize.TokenError) as error:
        raise DataError(f"not an array that NumPy can read ({error})", where=where, hint=_HOW_TO_WRITE) from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=where) from error
