"""A line on standard error that counts, for who is watching: nothing where that is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

EVERY = 0.1


class Progress:
    """`with Progress("copying") as done: done(17)`."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr.isatty()
        self._at = 0.0
        self._drawn = False

    def __enter__(self) -> Progress:
        return self

    def __call__(self, count: int) -> None:
        now = time.monotonic()
        if self._shown and now - self._at >= EVERY:
            self._at, self._drawn = now, True
            print(f"\r\033[K{self._what}: {count:,} records", end="", file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._drawn:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
