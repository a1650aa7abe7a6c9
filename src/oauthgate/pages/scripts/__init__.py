"""The few scripts that the gate serves: files as they are, fetched with a name for their content.

Owns what a cache may keep of them. An address with the content's hash (`?v=…`) is for ever; the plain
one, which a page's author writes down, is asked for again and answered with 304 while it has not changed
(RFC 9110 section 13.1.2).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

#: Below the gate's prefix: what a front end imports, its types, and the script of the popup's page.
CLIENT_PATH, POPUP_SCRIPT_PATH = "/oauthgate.js", "/popup.js"
_NAMES = {
    CLIENT_PATH: "text/javascript; charset=utf-8",
    "/oauthgate.d.ts": "application/typescript; charset=utf-8",
    POPUP_SCRIPT_PATH: "text/javascript; charset=utf-8",
}
#: As `oauthgate.js` has it, for the gate's own prefix to be put in its place.
_PREFIX = 'const PREFIX = "/_oauth";'


@dataclass(frozen=True, slots=True)
class Script:
    """One file as it is served. `version` names its content."""

    body: bytes
    content_type: str
    version: str

    def answer(self, query: str, if_none_match: str) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body for a request with this query and `If-None-Match`."""
        tag = f'"{self.version}"'
        kept = "public, max-age=31536000, immutable" if query == f"v={self.version}" else "no-cache"
        headers = [("Cache-Control", kept), ("ETag", tag), ("X-Content-Type-Options", "nosniff")]
        asked = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
        if tag in asked or "*" in asked:
            return 304, headers, b""
        return 200, [("Content-Type", self.content_type), *headers], self.body


def load_scripts(prefix: str) -> dict[str, Script]:
    """The scripts of a gate that answers below `prefix`, by their paths below it."""
    found: dict[str, Script] = {}
    for path, content_type in _NAMES.items():
        text = files(__package__).joinpath(path[1:]).read_text("utf-8")
        body = text.replace(_PREFIX, f'const PREFIX = "{prefix}";').encode()
        found[path] = Script(body, content_type, hashlib.sha256(body).hexdigest()[:16])
    return found
