"""Large buffers between processes of one host: one file in shared memory, mapped copy-on-write by each reader.

Both sides use this. The writer reserves the space first (a sparse file on a full filesystem would be a SIGBUS later),
writes each buffer at an aligned place, and makes one hard link per reader. A reader opens its link and removes it at
once: when all have, the memory belongs to their mappings alone and goes with them, however a process ends.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import tempfile
from collections.abc import Sequence
from typing import Any

#: buffers below this stay inside the message
SMALL_BYTES = 65_536
#: arrays start at multiples of a cache line
_ALIGNMENT = 64

_SHARED_MEMORY = "/dev/shm"


#: where a reader finds the buffers of a message: its own link to the file, and (offset, bytes) of each buffer
Lent = tuple[str, tuple[tuple[int, int], ...]]


def shared_memory() -> str | None:
    """Return the filesystem in shared memory; None where there is none."""
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else None


def make_folder() -> str:
    """Create a folder that only this user can look into, in shared memory where there is some."""
    return tempfile.mkdtemp(prefix="pxtools-", dir=shared_memory())


def dump(message: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Pickle a message; large buffers are left beside the stream."""
    large: list[pickle.PickleBuffer] = []

    def stays_inside(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < SMALL_BYTES:
            return True
        large.append(buffer)
        return False

    return pickle.dumps(message, protocol=5, buffer_callback=stays_inside), large


def lend(buffers: Sequence[pickle.PickleBuffer], folder: str, n_readers: int) -> list[Lent]:
    """Write buffers to a file in `folder`; return one description per reader.

    Raises
    ------
    OSError
        There is no room, or no such folder: send the bytes another way.
    """
    places, end = [], 0
    for buffer in buffers:
        size = buffer.raw().nbytes
        places.append((end, size))
        end = -(-(end + size) // _ALIGNMENT) * _ALIGNMENT
    handle, path = tempfile.mkstemp(prefix=_prefix(os.getpid()), dir=folder)
    links: list[str] = []
    try:
        os.posix_fallocate(handle, 0, max(end, 1))
        for buffer, (offset, _) in zip(buffers, places, strict=True):
            _write(handle, buffer.raw(), offset)
        for k in range(n_readers):
            links.append(f"{path}.{k}")
            os.link(path, links[-1])
    except BaseException:  # an interrupt, too
        for link in links:
            with contextlib.suppress(OSError):
                os.unlink(link)
        raise
    finally:
        os.close(handle)
        os.unlink(path)
    return [(link, tuple(places)) for link in links]


def _prefix(pid: int) -> str:
    return f"of-{pid}-"


def sweep(folder: str, pid: int) -> None:
    """Remove what a process that is gone had lent, in the folder and in the one on disk that stands in for it."""
    for place in (folder, disk_path(folder)):
        with contextlib.suppress(OSError):
            for name in os.listdir(place):
                if name.startswith(_prefix(pid)):
                    give_back((os.path.join(place, name), ()))


def _write(handle: int, data: memoryview, offset: int) -> None:
    while data.nbytes:
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written


def borrow(lent: Lent) -> list[memoryview]:
    """Map a file that was lent to this process, and remove its name.

    The mapping is private: writing to an array in it changes this process's pages only.
    """
    path, places = lent
    handle = os.open(path, os.O_RDWR)
    try:
        os.unlink(path)
        mapped = mmap.mmap(handle, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(handle)
    whole = memoryview(mapped)
    return [whole[offset : offset + size] for offset, size in places]


def give_back(lent: Lent | None) -> None:
    """Remove a link whose reader may never have come."""
    if lent is not None:
        with contextlib.suppress(OSError):
            os.unlink(lent[0])


def encode(message: Any, folder: str | None, n_readers: int = 1) -> tuple[bytes, list[Lent | None]]:
    """Pickle a message: large buffers shared through `folder` if that works, else through a disk, else inside.

    Returns
    -------
    (bytes, list)
        The stream, and for each reader what `decode` needs beside it.
    """
    if folder is None or not os.path.isdir(folder):
        return pickle.dumps(message, protocol=5), [None] * n_readers
    data, large = dump(message)
    if not large:
        return data, [None] * n_readers
    for place in (lambda: folder, lambda: disk_folder(folder)):
        with contextlib.suppress(OSError):
            return data, list(lend(large, place(), n_readers))
    return pickle.dumps(message, protocol=5), [None] * n_readers


def decode(data: bytes, lent: Lent | None) -> Any:
    """Read a message that `encode` made."""
    return pickle.loads(data, buffers=borrow(lent) if lent is not None else ())


def disk_folder(folder: str) -> str:
    """Return the folder on disk that stands in for one in shared memory, made if need be.

    Raises
    ------
    OSError
    """
    path = disk_path(folder)
    os.makedirs(path, mode=0o700, exist_ok=True)
    return path


def disk_path(folder: str) -> str:
    """Return where `disk_folder` is, made or not."""
    return os.path.join(tempfile.gettempdir(), os.path.basename(folder) + "-disk")
