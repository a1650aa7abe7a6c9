"""Where a visitor may be sent after a flow: the only validator of return targets.

Accepted is a path and query on this site, in the plainest ASCII spelling, so that no browser, proxy
or framework can read another host into it (RFC 9700 section 4.11.1). Everything else becomes the
default target; nothing is repaired, because a repaired attack is still one.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

DEFAULT = "/"
MAX_LENGTH = 512

# RFC 3986 path and query characters, less the backslash, quotes, angle brackets, controls and space.
_PLAIN = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*)?")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DOT_SEGMENT = re.compile(r"(?:^|/)\.{1,2}(?:/|$|;)")


def return_target(candidate: str | None, prefix: str) -> str | None:
    """`candidate` if a browser can be sent there safely, else None.

    `prefix` is the gate's own path: a return to one of its action routes would sign out, start a
    flow or loop, so only the account page itself is a target.
    """
    if candidate is None or len(candidate) > MAX_LENGTH or not _PLAIN.fullmatch(candidate):
        return None
    if _BAD_ESCAPE.search(candidate):
        return None
    path = candidate.partition("?")[0]
    # What an app may do to the path later (decode it once or twice, redirect to add a slash).
    decoded = path
    for _ in range(3):
        if not _safe_path(decoded):
            return None
        under = decoded.rstrip("/").lower()
        if under.startswith(prefix.lower() + "/"):
            return None
        decoded = unquote(decoded, errors="replace")
    return candidate


def _safe_path(path: str) -> bool:
    if "//" in path or "\\" in path or _DOT_SEGMENT.search(path):
        return False
    return all(character.isprintable() and character != "�" for character in path)


def safe_target(candidate: str | None, prefix: str) -> str:
    """The target itself, or the default one."""
    return return_target(candidate, prefix) or DEFAULT
