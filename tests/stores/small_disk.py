"""A disk that can be full: a small file system of its own, or where none can be mounted a limit."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

#: Bytes of the file system: for an empty store of each engine.
SIZE = "6m"


class SmallDisk:
    """`mounted` says which it is. With a limit an engine is told "File too large" where a full disk says
    "No space left on device"; both are refused writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)]
        self.mounted = (
            shutil.which("mount") is not None
            and subprocess.run(mount, capture_output=True, check=False).returncode == 0
        )
        self._limited: Sequence[int] = []
        self._as_owner: Callable[..., object] = _run

    def fill(
        self, pids: Sequence[int], size: int, as_owner: Callable[..., object] | None = None
    ) -> None:
        """From now on nothing more goes on it; where it is a limit, for these processes no file grows
        over `size` bytes. `as_owner` runs a program as the user of these processes, if that is not ours.
        """
        if not self.mounted:
            self._limited, self._as_owner = pids, as_owner or _run
            self._limit(size)
            return
        with (self.folder / "filler").open("wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def free(self) -> None:
        """There is room again."""
        self._limit("unlimited")
        self._limited = []
        (self.folder / "filler").unlink(missing_ok=True)

    def _limit(self, size: int | str) -> None:
        for pid in self._limited:
            if Path(f"/proc/{pid}").exists():
                self._as_owner("prlimit", f"--pid={pid}", f"--fsize={size}:")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


@contextlib.contextmanager
def small_disk(folder: Path, owner: tuple[int, int] | None = None) -> Iterator[SmallDisk]:
    """A disk at `folder`, which is made; `owner` is the user and group of whom it is to be."""
    folder.mkdir()
    disk = SmallDisk(folder)
    try:
        if owner is not None:
            os.chown(folder, *owner)
        yield disk
    finally:
        disk.free()
        if disk.mounted:
            # Lazily: what a server has open there ends with the server.
            subprocess.run(["umount", "-l", str(folder)], check=True)
