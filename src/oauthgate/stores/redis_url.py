"""The URL of a Redis store: where the servers are, and how they are spoken to.

Owns: `Place`, and `read_url` with its options. What is not named here is refused: redis-py's own URL
options can switch off the check of a certificate, read from replicas, or retry a write unseen.

No message repeats a part of the URL: a password that was not percent-encoded can end up in any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import ConfigError

DEFAULT_PORT = 6379
SENTINEL_PORT = 26379

Kind = Literal["server", "socket", "sentinel", "cluster"]
KINDS: dict[str, Kind] = {
    "redis": "server",
    "rediss": "server",
    "unix": "socket",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}
_FORMS: dict[Kind, str] = {
    "server": "redis://[USER:PASSWORD@]HOST[:PORT][/DB]",
    "socket": "unix://[USER:PASSWORD@]/absolute/path.sock",
    "sentinel": "redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]/SERVICE",
    "cluster": "redis+cluster://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A store URL that was read. Times are in seconds; nothing of it that is secret is shown."""

    scheme: str
    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    db: int = 0
    prefix: str = "oauthgate:"
    timeout: float = 3.0
    connect_timeout: float = 3.0
    connections: int = 50
    ca: str | None = None
    cert: str | None = None
    key: str | None = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)

    @property
    def tls(self) -> bool:
        return self.scheme.startswith("rediss")

    def __str__(self) -> str:
        """The URL without credentials and options, for messages."""
        hosts = ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )
        path = {"server": f"/{self.db}", "socket": self.path, "sentinel": f"/{self.service}"}
        return f"{self.scheme}://{hosts}{path.get(self.kind, '')}"


def _refuse(problem: str) -> NoReturn:
    raise ConfigError(f"[oauthgate] store: {problem}")


def _text(value: str) -> str:
    return value


def _seconds(value: str) -> float:
    seconds = float(value)
    if not 0.05 <= seconds <= 60:
        raise ValueError
    return seconds


def _whole(lowest: int, highest: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not (value.isascii() and value.isdigit() and lowest <= int(value) <= highest):
            raise ValueError
        return int(value)

    return read


def _file(value: str) -> str:
    if not (Path(value).is_absolute() and Path(value).is_file()):
        raise ValueError
    return value


_database = _whole(0, 65_535)
_port = _whole(1, 65_535)
# What each option may be: how it is read, and the words for it.
_OPTIONS: dict[str, tuple[Callable[[str], object], str]] = {
    "prefix": (_text, "a text"),
    "timeout": (_seconds, "seconds between 0.05 and 60"),
    "connect_timeout": (_seconds, "seconds between 0.05 and 60"),
    "connections": (_whole(1, 10_000), "a number between 1 and 10000"),
    "db": (_database, "the number of a database"),
    "ca": (_file, "the absolute path of a PEM file that is there"),
    "cert": (_file, "the absolute path of a PEM file that is there"),
    "key": (_file, "the absolute path of a PEM file that is there"),
    "sentinel_username": (_text, "a text"),
    "sentinel_password": (_text, "a text"),
}
_EVERYWHERE = ("prefix", "timeout", "connect_timeout", "connections")
_OF_KIND: dict[Kind, tuple[str, ...]] = {
    "server": (),
    "socket": ("db",),
    "sentinel": ("db", "sentinel_username", "sentinel_password"),
    "cluster": (),
}
_OF_TLS = ("ca", "cert", "key")


def read_url(url: str) -> Place:
    """Read and check a store URL. Raises `ConfigError`."""
    scheme = url.partition(":")[0]
    kind = KINDS[scheme]
    form = _FORMS[kind].replace("redis", scheme.partition("+")[0])
    try:
        parts = urlsplit(url)
    except ValueError:
        _refuse(f"the URL cannot be read, expected {form}; percent-encode what is special in a password")
    if parts.fragment or "#" in url:
        _refuse(f"expected {form}, found a '#'; in a password it is written %23")
    userinfo, _, place = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    found: dict[str, Any] = {
        "scheme": scheme,
        "kind": kind,
        "username": unquote(username) or None,
        "password": unquote(password) or None,
    }
    path = unquote(parts.path)
    if kind == "socket":
        if place or len(path) < 2:
            _refuse(f"expected {form}, with three slashes when there is no user")
        found["path"] = path
    else:
        port = SENTINEL_PORT if kind == "sentinel" else DEFAULT_PORT
        found["hosts"] = tuple(_host(each, port, form) for each in place.split(","))
        found |= _path(kind, path.strip("/"), form)
        if kind == "server" and "," in place:
            _refuse(
                f"found several hosts, expected one: several make a {scheme}+sentinel or +cluster URL"
            )
    found |= _options(parts.query, kind, tls=scheme.startswith("rediss"))
    if ("cert" in found) != ("key" in found):
        _refuse("the options cert and key belong together, found one of them")
    return Place(**found)


def _host(text: str, port: int, form: str) -> tuple[str, int]:
    host, bracket, rest = text.partition("]")
    if bracket:
        host = host.removeprefix("[")
    else:
        host, colon, rest = text.partition(":")
        rest = colon + rest
    number = rest.removeprefix(":")
    if not host or (rest and not rest.startswith(":")):
        _refuse(f"a host is missing, expected {form}")
    if not number:
        return host, port
    try:
        return host, _port(number)
    except ValueError:
        _refuse(
            f"a port is not a number between 1 and 65535, expected {form}; "
            "percent-encode what is special in a password"
        )


def _path(kind: Kind, path: str, form: str) -> dict[str, object]:
    if kind == "sentinel":
        if not path or "/" in path:
            _refuse(f"expected {form}, with the name under which the sentinels know the primary")
        return {"service": path}
    if kind == "cluster":
        if path not in ("", "0"):
            _refuse("a cluster has no numbered databases: leave the path away")
        return {}
    try:
        return {"db": _database(path or "0")}
    except ValueError:
        _refuse(f"the database is not a number, expected {form}; keep records apart with ?prefix=")


def _options(query: str, kind: Kind, *, tls: bool) -> dict[str, object]:
    known = (*_EVERYWHERE, *_OF_KIND[kind], *(_OF_TLS if tls else ()))
    found: dict[str, object] = {}
    for position, (name, value) in enumerate(parse_qsl(query, keep_blank_values=True), 1):
        if name in _OF_TLS and not tls:
            _refuse(f"the option {name} needs TLS, so a URL that begins with rediss")
        if name not in known:
            _refuse(f"option {position} after the '?' is not known, expected one of: {', '.join(known)}")
        if name in found:
            _refuse(f"the option {name} is there twice")
        read, expected = _OPTIONS[name]
        try:
            found[name] = read(value)
        except (ValueError, OSError):
            _refuse(f"the option {name} is not {expected}")
    return found
