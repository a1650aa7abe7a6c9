"""What the command prints: text for people or JSON for programs, never both, and never a secret.

Results go to standard output; warnings, errors and progress to standard error. Every secret that a
configuration resolves to is handed to `hide` before anything is done with it: commands print none by
design, and this is the second lock.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

#: Anything shorter is no secret, and would tear holes into words.
SHORTEST = 6
HIDDEN = "…"


class Problem(Exception):
    """Why a command cannot do what it was asked to: the cause and the cure. Exit status 1."""


class Output:
    """One run's output. `json` says which form."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._hidden: list[str] = []

    def hide(self, values: Iterable[str]) -> None:
        """Never print these."""
        found = {*self._hidden, *(value for value in values if len(value) >= SHORTEST)}
        # The longest first: one may be a part of another.
        self._hidden = sorted(found, key=len, reverse=True)

    def hide_url(self, url: str) -> None:
        """Never print the credentials of a store's URL, as they stand there or as they are meant."""
        try:
            password = urlsplit(url).password or ""
        except ValueError:
            password = ""
        query = re.findall(r"password=([^&]*)", url)
        self.hide([each for raw in (password, *query) for each in (raw, unquote(raw))])

    def clean(self, text: str) -> str:
        """`text` without secrets, and without user names and passwords in URLs."""
        for value in self._hidden:
            text = text.replace(value, HIDDEN)
        return re.sub(r"(?<=://)[^/\s?#]*@", f"{HIDDEN}@", text)

    def say(self, text: str = "") -> None:
        """A line for people."""
        if not self.json:
            self._write(printable(text))

    def document(self, value: object) -> None:
        """The answer for programs: one line of JSON."""
        if self.json:
            self._write(json.dumps(value, default=str))

    def note(self, text: str) -> None:
        """A line on standard error, in both forms."""
        print(self.clean(printable(text)), file=sys.stderr, flush=True)

    def _write(self, text: str) -> None:
        print(self.clean(text), flush=True)


class Notes(logging.Handler):
    """What the package itself logs, as notes."""

    def __init__(self, out: Output) -> None:
        super().__init__(logging.WARNING)
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        # Not `format`: a traceback of the application's hooks may show what a terminal must not.
        self._out.note(f"{record.levelname.lower()}: {record.getMessage()}")


def printable(text: str) -> str:
    """A provider's names may hold what a terminal obeys; it is shown as an escape instead."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def when(moment: float) -> str:
    """Unix seconds as people read them."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
