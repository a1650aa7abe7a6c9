"""The URL of a PostgreSQL store: libpq's own, and three options of ours.

Owns: `Place`, and `read_url`. Whatever libpq knows passes through (`sslmode`, `host`, several hosts,
https://www.postgresql.org/docs/current/libpq-connect.html); where the URL says nothing, the defaults
here make a dead server noticed within seconds and a standby refused.

No message repeats a part of the URL: a password that was not percent-encoded can end up in any of them,
and libpq's own complaints quote the URL.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import quote, unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ..config_tables import nearest
from ..errors import ConfigError

FORM = "postgresql://[USER:PASSWORD@]HOST[:PORT]/DATABASE[?OPTION=VALUE&…]"
#: Bytes of an identifier; PostgreSQL cuts off the rest, so that two long names could be one.
LONGEST_NAME = 63

_DEFAULTS: dict[str, str] = {
    "fallback_application_name": "oauthgate",
    "client_encoding": "UTF8",
    # Seconds for each host that the name or the URL stands for.
    "connect_timeout": "3",
    # A standby answers reads with what was true a moment ago: sign-outs would be undone.
    "target_session_attrs": "read-write",
    # A peer that is gone, or a firewall that forgot an idle connection, is noticed before it is used.
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
#: An environment variable of libpq's says it as well as the URL does.
_ENVIRONMENT = {
    "client_encoding": "PGCLIENTENCODING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
_SECRET = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A store URL that was read. `timeout` is in seconds; nothing of it that is secret is shown."""

    parameters: dict[str, Any] = field(repr=False)
    schema: str
    timeout: float
    connections: int

    def __str__(self) -> str:
        """Servers and database, for messages."""
        hosts = str(self.parameters.get("host") or self.parameters.get("hostaddr") or "").split(",")
        ports = str(self.parameters.get("port") or "").split(",")
        if len(ports) < len(hosts):
            ports = ports[:1] * len(hosts)
        hosts = [f"[{host}]" if ":" in host else host for host in hosts]
        places = (f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=False))
        return f"{','.join(places)}/{self.parameters.get('dbname') or ''}"

    def scrub(self, text: str) -> str:
        """One line of `text` without what this URL keeps secret: a server may say anything back."""
        known = [str(self.parameters.get(name) or "") for name in _SECRET]
        known.append(os.environ.get("PGPASSWORD", ""))
        for secret in sorted(filter(None, known), key=len, reverse=True):
            for spelling in (secret, quote(secret, safe=""), quote(secret)):
                text = text.replace(spelling, "***")
        return "".join(each if each.isprintable() else " " for each in " ".join(text.split()))[:400]


def _refuse(problem: str) -> NoReturn:
    raise ConfigError(f"[oauthgate] store: {problem}")


def _schema(value: str) -> str:
    if not value or "\0" in value or len(value.encode("utf-8")) > LONGEST_NAME:
        raise ValueError
    return value


def _seconds(value: str) -> float:
    number = float(value)
    if not (math.isfinite(number) and 0.05 <= number <= 60):
        raise ValueError
    return number


def _count(value: str) -> int:
    number = int(value)
    if not 1 <= number <= 10_000:
        raise ValueError
    return number


# Each option of ours: how it is read, its default, and the words for it.
_OURS: dict[str, tuple[Callable[[str], Any], Any, str]] = {
    "schema": (_schema, "public", f"a name of 1 to {LONGEST_NAME} bytes"),
    "timeout": (_seconds, 5.0, "seconds between 0.05 and 60"),
    "connections": (_count, 10, "a number between 1 and 10000"),
}


def read_url(url: str) -> Place:
    """Read and check a store URL; connects to nothing. Raises `ConfigError`."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        _refuse(f"expected {FORM}")
    # As libpq reads it: what stands before an "@" is user and password, whatever else is in it, unless
    # there is a slash in it.
    found = re.match("[^@/]*@", rest)
    user = found[0] if found else ""
    place, _, query = rest[len(user) :].partition("?")
    if "@" in place:
        # Else the end of a password would be taken for a host or a database, and shown in messages.
        _refuse(
            f"found an '@' too many, expected {FORM}; in a password it is written %40, and a '/' %2F"
        )
    base = f"{scheme}://{user}{place}"
    ours, theirs = _split(query)
    try:
        parameters = conninfo_to_dict(f"{base}?{theirs}" if theirs else base)
    except (psycopg.Error, ValueError):
        _refuse(
            f"the URL cannot be read, expected {FORM}; "
            "percent-encode what is special in a password (%25 for %, %40 for @)"
        )
    for port in filter(None, str(parameters.get("port") or "").split(",")):
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
            _refuse(
                f"a port is not a number between 1 and 65535, expected {FORM}; "
                "percent-encode what is special in a password"
            )
    for name, value in _DEFAULTS.items():
        if not os.environ.get(_ENVIRONMENT.get(name, "")):
            parameters.setdefault(name, value)
    return Place(parameters=parameters, **ours)


def _split(query: str) -> tuple[dict[str, Any], str]:
    """Our options, read, and what is left for libpq."""
    # `ssl=true` is JDBC's word for `sslmode=require`, which libpq takes in URLs.
    libpq = {each.keyword.decode() for each in psycopg.pq.Conninfo.get_defaults()} | {"ssl"}
    ours = {name: default for name, (_, default, _) in _OURS.items()}
    seen: set[str] = set()
    rest = []
    for position, part in enumerate(filter(None, query.split("&")), 1):
        name, _, value = part.partition("=")
        name = unquote(name)
        if name in seen:
            _refuse(f"the option {name} is there twice")
        if name in _OURS:
            read, _, expected = _OURS[name]
            try:
                ours[name] = read(unquote(value, errors="strict"))
            except ValueError:
                _refuse(f"the option {name} is not {expected}")
        elif name in libpq:
            rest.append(part)
        else:
            # The name is not shown: it may be the end of a password that holds a "?" or "&".
            _refuse(f"option {position} after the '?' is not known{nearest(name, (*_OURS, *libpq))}")
        seen.add(name)
    return ours, "&".join(rest)
