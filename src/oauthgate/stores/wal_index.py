"""Whether anybody has written to a SQLite file, seen without a lock, a query or a system call.

In WAL mode every commit, by whatever process, rewrites the header of the `-shm` file: a counter, the
number of frames, checksums and salts (https://sqlite.org/walformat.html, section 2.1). All connections
map that file into memory, and so does this module, to compare those bytes: equal bytes, no commit in
between. That is 0.2 microseconds where the smallest query costs 4, most of it for locks.

Only while this process has a connection open is the file sure to be the one in use, so whoever holds a
`WalIndex` lets go of it when it closes a connection.

A descriptor of the file must not be closed carelessly: POSIX drops all locks that a process holds on a
file when it closes any descriptor of it, SQLite's among them (https://sqlite.org/howtocorrupt.html,
section 2.2). So there is one per file and process, shared, and it is closed only once the file has been
deleted, which SQLite does when the last connection of all processes is closed.
"""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

#: Both copies of the header (48 bytes each).
_HEADER = 96


class WalIndex:
    """The header of one WAL index, mapped."""

    __slots__ = ("_map", "descriptor")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, _HEADER, access=mmap.ACCESS_READ)

    def stamp(self) -> bytes:
        """The header. A copy torn by a writer equals no other one, so it only costs a real read."""
        return self._map[:_HEADER]

    def close(self) -> None:
        self._map.close()
        os.close(self.descriptor)


_mapped: dict[tuple[int, int], WalIndex] = {}
_lock = threading.Lock()


def wal_index(database: Path) -> WalIndex | None:
    """The WAL index of a database that this process has a connection to; None where there is none.

    There is none in another journal mode, and where SQLite shares no memory (some network file systems).
    """
    # SQLite puts it beside the file itself, not beside a symbolic link to it.
    path = f"{os.path.realpath(database)}-shm"
    with _lock:
        _forget_deleted()
        try:
            found = os.stat(path)
            held = _mapped.get((found.st_dev, found.st_ino))
            if held is None and found.st_size >= _HEADER:
                # Write access is not needed, and what is opened is known to be new to this process.
                held = WalIndex(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                _mapped[found.st_dev, found.st_ino] = held
        except (OSError, ValueError):
            return None
        return held


def _forget_deleted() -> None:
    for key, held in list(_mapped.items()):
        if os.fstat(held.descriptor).st_nlink == 0:
            del _mapped[key]
            held.close()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it in the parent


os.register_at_fork(after_in_child=_after_fork)
