"""What an operator does to the SQLite file itself: an online backup, and a clean-up of what was deleted.

Both go through SQLite (https://sqlite.org/backup.html, https://sqlite.org/lang_vacuum.html), so the site
may serve meanwhile. Copying the file by other means would leave out what is in its `-wal`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import StoreError

#: Seconds to wait for a writer. `VACUUM` needs a moment without one.
BUSY = 30.0
#: Milliseconds that emptying the write-ahead log may keep writers waiting, and how often it is tried.
CHECKPOINT_WAIT = 250
CHECKPOINTS = 40


def backup(source: Path, target: Path) -> int:
    """Copy a database to a new file with mode 0600; the number of records in the copy.

    In one step, on one snapshot: with WAL that stops nobody, whereas a copy in parts begins anew with
    every write. Raises `StoreError`; a failed copy is removed, a file that was there is not touched.
    """
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, stat.S_IRUSR | stat.S_IWUSR))
    except FileExistsError:
        raise StoreError(f"{target} is there already; name a file that is not") from None
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}") from None
    try:
        with _opened(source) as original, _opened(target) as copy:
            original.backup(copy)
            # The copy is made page by page: a page that the disk gave back wrong is found here.
            (verdict,) = copy.execute("PRAGMA quick_check").fetchone()
            if verdict != "ok":
                raise StoreError(f"{source} is damaged; restore an older backup")
            (count,) = copy.execute("SELECT count(*) FROM oauthgate").fetchone()
        _sync(target)
    except BaseException:
        for leftover in (target, *(Path(f"{target}{end}") for end in ("-wal", "-shm", "-journal"))):
            leftover.unlink(missing_ok=True)
        raise
    return int(count)


def vacuum(path: Path) -> bool:
    """Write the file anew without what was deleted or replaced in it, and empty its write-ahead log.

    Writers wait for as long as that takes, some seconds for 100 MB. False when the site was reading or
    writing for so long that old pages may remain; nothing is lost then. Raises `StoreError`.
    """
    with _opened(path) as connection:
        try:
            # Waits for its turn without a lock of its own, so nobody waits for that.
            connection.execute("VACUUM")
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (
                sqlite3.SQLITE_BUSY,
                sqlite3.SQLITE_LOCKED,
            ):
                return False
            raise
        # This one keeps writers out while it waits for readers: a moment at a time, and often.
        connection.execute(f"PRAGMA busy_timeout={CHECKPOINT_WAIT}")
        for _ in range(CHECKPOINTS):
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return True
    return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = None
    try:
        # Never made by being opened.
        address = f"{path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(address, uri=True, timeout=BUSY, isolation_level=None)
        yield connection
    except sqlite3.Error as error:
        reason = getattr(error, "sqlite_errorname", None) or type(error).__name__
        raise StoreError(f"SQLite file {path}: {reason}") from None
    finally:
        if connection is not None:
            connection.close()


def _sync(path: Path) -> None:
    """To the disk, with its name, before anybody is told that there is a backup."""
    for place in (path, path.absolute().parent):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
