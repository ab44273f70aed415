"""A lock beside a file: many share it while they use the file, one has it alone to exchange the file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trt_opt.errors import StorageError

POLL_S = 0.02


@contextmanager
def lock(path: Path, *, alone: bool, timeout_s: float) -> Iterator[None]:
    """Holds the lock; it falls with the process.

    Where the folder cannot be written, nobody can exchange the file and there is nothing to lock; nor is there on
    Windows, which does not let an open file be exchanged.

    Raises:
        StorageError: Others hold it for longer than the time given.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    try:
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        yield
        return
    try:
        wanted = (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB
        until = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, wanted)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise StorageError(
                        f"another process keeps the history locked for more than {timeout_s:g} s",
                        where=str(path),
                        hint="wait for it, or look who holds it",
                    ) from None
                time.sleep(POLL_S)
        yield
    finally:
        os.close(descriptor)
