"""Which paths of the application ask for a signed-in visitor: `protect` in `[access]`.

A gate that reads a path in another way than the application behind it is a hole, and applications
differ: some merge slashes, resolve dot segments, drop `;parameters`, decode once more, or ignore case.
So a path is protected when any reading of it is: what seems too much is answered 401, never let through.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from .errors import GateError, NotLinked
from .records import User

#: How often a path is decoded once more, beyond what the server did. One that has escapes left after
#: that is under every pattern.
DECODINGS = 3

Segments = tuple[str, ...]

#: A path that can be read in one way only, which is nearly every one.
_PLAIN = re.compile(r"(?:/[a-z0-9_-](?:[a-z0-9._-]*[a-z0-9_-])?)*/?")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
#: What stands before the path of a target in absolute form (RFC 9112 section 3.2.2), or `//host/path`.
_AUTHORITY = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?(?://[^/]*)?")
#: What ends a path for somebody who decodes it before looking for its query.
_END = re.compile(r"[?#\x00]")
#: Characters that show nothing; some routers take `/admin` and a line break for `/admin`. U+FFFD stands
#: for bytes that are no UTF-8: who decodes with `errors="ignore"`, as Bottle does, has nothing there.
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f\xad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\ufffd]")


@dataclass(frozen=True, slots=True)
class Requirement:
    """What the paths of one entry of `protect` ask for.

    `segments` are those of its path, folded; with `below` everything below them is meant too. Without a
    `provider` a signed-in visitor is enough; `scope` is what the link must have been granted.
    """

    segments: Segments
    below: bool
    provider: str = ""
    scope: tuple[str, ...] = ()

    def covers(self, reading: Segments) -> bool:
        if self.below:
            return reading[: len(self.segments)] == self.segments
        return reading == self.segments

    def meet(self, user: User | None) -> None:
        """Raise `GateError` 401 or `NotLinked` for a visitor who has not got what is asked for."""
        if not self.provider:
            if user is None:
                raise GateError("login_required", "sign in first, at the given url")
            return
        links = user.links_of(self.provider) if user is not None else []
        usable = next((link for link in links if link.state == "active"), None)
        if usable is None:
            raise NotLinked(self.provider, reason="reauth_required" if links else "not_linked")
        missing = tuple(item for item in self.scope if item not in usable.scope)
        if missing:
            raise NotLinked(self.provider, reason="scope", scope=missing)


class Protected:
    """The protected paths of one site. Paths and patterns are below the application's mount point."""

    def __init__(self, requirements: Iterable[Requirement]) -> None:
        # Signing in with the provider that a path asks for is one step instead of two.
        self._requirements = sorted(requirements, key=lambda each: not each.provider)

    def __repr__(self) -> str:
        return f"Protected({len(self._requirements)} paths)"

    def of(self, path: str) -> list[Requirement]:
        """All that a path, decoded once, asks for; empty for one that anybody may see."""
        if _PLAIN.fullmatch(path):
            reading = tuple(filter(None, path.split("/")))
            return [each for each in self._requirements if each.covers(reading)]
        found, unclear = _readings(path)
        return [
            each
            for each in self._requirements
            if unclear or any(each.covers(reading) for reading in found)
        ]

    def check(self, user: User | None, path: str, whole: str | None = None) -> None:
        """Raise `GateError` 401 or `NotLinked` unless `user` may see `path`.

        `whole` is the same with the mount point, for an application that may not take that off.
        """
        for requirement in self.of(path):
            requirement.meet(user)
        if whole is not None and whole != path:
            for requirement in self.of(whole):
                requirement.meet(user)


def fold(text: str) -> str:
    """Text as it is compared: also `／ＡＤＭＩＮ` is `/admin` to somebody."""
    return unicodedata.normalize("NFKC", text).casefold()


def _readings(path: str) -> tuple[set[Segments], bool]:
    """Every way in which an application may read a path, and whether there may be more."""
    found: set[Segments] = set()
    text = path
    for _ in range(1 + DECODINGS):
        folded = fold(text).replace("\\", "/")
        bare = _AUTHORITY.sub("", folded, count=1)
        for whole in (folded, _END.split(folded)[0], bare, _END.split(bare)[0]):
            for segments in (_split(whole), _cleaned(whole)):
                found.add(segments)
                found.add(_resolved(segments))
        if not _ESCAPE.search(text):
            return found, False
        text = unquote(text, errors="replace")
    return found, True


def _split(path: str) -> Segments:
    return tuple(filter(None, path.split("/")))


def _cleaned(path: str) -> Segments:
    return tuple(filter(None, (_clean(segment) for segment in path.split("/"))))


def _clean(segment: str) -> str:
    """A segment without parameters (RFC 3986 section 3.3) and what some file systems drop at its end."""
    bare = _INVISIBLE.sub("", segment.partition(";")[0]).strip()
    return bare if bare in (".", "..") else bare.rstrip(" .")


def _resolved(segments: Segments) -> Segments:
    """The segments without dot segments (RFC 3986 section 5.2.4)."""
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return tuple(kept)
