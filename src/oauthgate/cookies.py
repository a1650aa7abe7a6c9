"""The only reader and writer of our cookies (RFC 6265bis).

Python's `http.cookies` stops at the first odd cookie, so a neighbour on the same domain could make
ours invisible; a lenient parser lets a nameless cookie pose as ours. Here the header is split on `;`,
the name is compared exactly, and two different values for our name are no value at all.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Bytes of name and value that browsers keep (RFC 6265bis section 5.6).
MAX_COOKIE = 4096


def find(headers: Iterable[str], name: str) -> str | None:
    """The value of the cookie `name` over all `Cookie` fields; None when absent or ambiguous.

    Repeated and split header fields are what HTTP/2 sends (RFC 9113 section 8.2.3). Two *different*
    values mean that somebody tossed a cookie at us: neither is believed.
    """
    found: str | None = None
    for header in headers:
        if name not in header:
            continue
        for part in header.split(";"):
            key, equals, value = part.strip(" \t").partition("=")
            if equals and key == name:
                value = _unquote(value)
                if found is not None and found != value:
                    return None
                found = value
    return found


def find_one(header: bytes, name: bytes) -> str | None:
    """What `find` finds in a single field, for every request; None also where `find` must look.

    `name` ends with its equals sign. Only the plain case is decided here: the name stands in the field
    once, at its start or right after a separator, and its value is not quoted.
    """
    start = header.find(name)
    if start < 0 or header.find(name, start + 1) >= 0:
        return None
    if start and header[start - 2 : start] != b"; ":
        return None
    start += len(name)
    end = header.find(b";", start)
    value = header[start:] if end < 0 else header[start:end]
    return None if value[:1] in (b'"', b" ", b"\t") else value.decode("latin-1").rstrip(" \t")


def find_prefixed(headers: Iterable[str], prefix: str, limit: int = 50) -> dict[str, str]:
    """All cookies whose name starts with `prefix`, at most `limit`; ambiguous ones are left out."""
    found: dict[str, str] = {}
    ambiguous: set[str] = set()
    for header in headers:
        if prefix not in header:
            continue
        for part in header.split(";"):
            key, equals, value = part.strip(" \t").partition("=")
            if equals and key.startswith(prefix) and len(found) < limit:
                if found.setdefault(key, value) != value:
                    ambiguous.add(key)
    return {key: value for key, value in found.items() if key not in ambiguous}


def _unquote(value: str) -> str:
    value = value.strip(" \t")
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


def set_cookie(
    name: str,
    value: str,
    *,
    secure: bool,
    max_age: int | None = None,
    same_site: str = "Lax",
) -> str:
    """A `Set-Cookie` value. `max_age` is in seconds; without it the cookie ends with the browser.

    Always `HttpOnly` and `Path=/`, never `Domain`: the `__Host-` prefix demands it (section 4.1.3).
    """
    parts = [f"{name}={value}", "Path=/", "HttpOnly", f"SameSite={same_site}"]
    if secure:
        parts.append("Secure")
    if max_age is not None:
        parts.append(f"Max-Age={max_age}")
    return "; ".join(parts)


def delete_cookie(name: str, *, secure: bool, same_site: str = "Lax") -> str:
    """A `Set-Cookie` value that removes the cookie."""
    return set_cookie(name, "", secure=secure, max_age=0, same_site=same_site)
