"""Generated attack input: the same for every run, because the seed is fixed."""

from __future__ import annotations

import itertools
import random
from urllib.parse import quote

SEED = 20260119
HOST = "evil.example"

_SLASHES = [
    "//",
    "///",
    "////",
    "/\\",
    "\\/",
    "\\\\",
    "\\",
    "/\t/",
    "/\n/",
    "/\r/",
    "/\x0b/",
    "/ /",
    "/\x00/",
]
_SLASHES += [
    "\t//",
    " //",
    "\r\n//",
    "/%2f",
    "/%2F/",
    "/%5c",
    "/%5C/",
    "%2f%2f",
    "/%09/",
    "/%0a/",
    "/%0d%0a/",
]
_SLASHES += [
    "/./",
    "/.//",
    "/..//",
    "/../",
    "/%2e/",
    "/%2e%2e/",
    "/.%2e//",
    "/;/",
    "/;//",
    "/..;/",
    "/a/..//",
]
_SLASHES += [
    "／／",
    "/／",
    "//\u2028",
    "/\u200b/",
    "/%00/",
    "/%ef%bc%8f/",
    "/%252f",
    "/%255c",
    "/%25252f/",
]
_SCHEMES = [
    "http:",
    "https:",
    "HTTPS:",
    "https:/",
    "http:///",
    "javascript:",
    "data:",
    "vbscript:",
    "ftp:",
]
_SCHEMES += [
    "blob:",
    "file:",
    "java\tscript:",
    "\x01javascript:",
    "mailto:",
    "about:",
    "ws:",
    "://",
    ":",
    "",
]
_AUTHORITIES = [
    HOST,
    f"{HOST}/",
    f"localhost@{HOST}",
    f"localhost:x@{HOST}",
    f"{HOST}\\@localhost",
    f"{HOST}#@localhost",
]
_AUTHORITIES += [
    f"{HOST}?@localhost",
    f"localhost.{HOST}",
    f"localhost{HOST}",
    f"{HOST}:99999",
    f"{HOST}:80x",
    "[",
    "[::1",
]
_AUTHORITIES += [
    "[::ffff:1.2.3.4]",
    "2130706433",
    "0x7f.1",
    "①②⑦.⓪.⓪.①",
    "ｅｖｉｌ.example",
    "xn--",
    "e\u0301vil.example",
    "%65vil.example",
]
_AUTHORITIES += [
    f"{HOST}%2f@localhost",
    f"{HOST}%00.localhost",
    f"{HOST}%0d%0aset-cookie:x=1",
    f"{HOST}\r\nset-cookie: x=1",
]
_WHOLE = [
    "",
    "?",
    "#",
    "/?//evil",
    "/#//evil",
    "a",
    "a/b",
    ".",
    "..",
    "~",
    "*",
    "/a b",
    "/<script>",
    '/"',
    "/{{7*7}}",
]
_WHOLE += [
    "/\ud800",
    "/\udfff",
    "/é",
    "/%",
    "/%zz",
    "/%u002f",
    "/" + "a" * 600,
    "/%ff",
    "/%c0%af",
    "/%e2%80%a8",
]
_WHOLE += [
    "/_oauth",
    "/_oauth/",
    "/_oauth/logout",
    "/_oauth/spotify/login",
    "/_oauth/spotify/callback?code=x&state=y",
]
_WHOLE += [
    "/_OAUTH/logout",
    "/%5foauth/logout",
    "/_oauth%2flogout",
    "/_oauth/./logout",
    "/_oauth//logout",
    "/%255foauth/logout",
]
#: Targets that are fine and must survive as they are.
GOOD = [
    "/",
    "/who",
    "/who?x=1",
    "/a/b/c?d=e&f=%2F%2F",
    "/a;b=c/d",
    "/%C3%A9",
    "/a?next=//evil.example",
    "/a?u=https://x/",
]
GOOD += ["/_oauthx/y", "/~user/", "/a:b@c", "/a+b", "/?", "/a%20b"]


def targets(count: int | None = None) -> list[str]:
    """Return targets that an attacker would try (row 1, row 2, row 3, row 5)."""
    found = [slashes + host for slashes, host in itertools.product(_SLASHES, _AUTHORITIES)]
    found += [
        scheme + slashes + host
        for scheme, slashes, host in itertools.product(_SCHEMES, ["", *_SLASHES[:8]], _AUTHORITIES)
    ]
    found += [f"/a{text}" for text in found[::7]]
    found += [quote(text, safe="", errors="replace") for text in found[::5]]
    found += _WHOLE
    found = list(dict.fromkeys(found))
    if count is None:
        return found
    chosen = random.Random(SEED).sample(found, count - len(_WHOLE))
    return [*_WHOLE, *chosen]


_ALPHABET = [
    *list("abc/_%?&=;:#@\\\"'<>{}|^`~ \t\r\n\x00\x7f\x0bé\u2028\uffff"),
    "%00",
    "%0d%0a",
    "%ff",
    "%F0%9F%98%80",
    "%ED%A0%80",
]


def texts(count: int, longest: int = 60) -> list[str]:
    """Return random texts of troublesome characters and escapes."""
    rng = random.Random(SEED)
    return ["".join(rng.choices(_ALPHABET, k=rng.randint(0, longest))) for _ in range(count)]


def raw_values(count: int, longest: int = 80) -> list[bytes]:
    """Return random bytes for a query value, without the separators of a query."""
    rng = random.Random(SEED)
    pieces = [bytes([number]) for number in range(256) if number not in b"&#? \r\n\t"]
    pieces += [
        b"%00",
        b"%0d%0aSet-Cookie:%20x=1",
        b"%0a",
        b"%ff",
        b"%ED%A0%80",
        b"%C0%AF",
        b"%E2%80%A8",
        b"%",
        b"%zz",
        b"%u0041",
    ]
    return [b"".join(rng.choices(pieces, k=rng.randint(0, longest))) for _ in range(count)]


def origin_in_a_browser(location: str, base: str) -> str:
    """Scheme, host and port to which a browser goes for a Location header (WHATWG URL, special
    schemes)."""
    text = location.strip("".join(map(chr, range(33))))
    for dropped in "\t\n\r":
        text = text.replace(dropped, "")
    scheme, colon, rest = text.partition(":")
    home_scheme = base.partition("://")[0]
    if not colon or not scheme.replace("+", "").replace("-", "").replace(".", "").isalnum():
        rest = text.replace("\\", "/")
        if not rest.startswith("//"):
            return base
        scheme = home_scheme
    scheme = scheme.lower()
    if scheme not in ("http", "https"):
        return f"{scheme}:"
    rest = rest.replace("\\", "/")
    if not rest.startswith("//") and scheme == home_scheme:
        return base
    authority = rest.lstrip("/")
    for end in "/?#":
        authority = authority.partition(end)[0]
    host = authority.rpartition("@")[2].lower()
    default = ":443" if scheme == "https" else ":80"
    return f"{scheme}://{host.removesuffix(default)}"
