"""The URL of a DynamoDB store: which table, where, and how long an answer may take.

Owns: `Place`, and `read_url` with its options. Credentials are never in it: boto3 finds them by its own
chain (https://docs.aws.amazon.com/boto3/latest/guide/credentials.html), which knows roles and renews
what expires. No message repeats a part of the URL: somebody may have put a secret there all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import parse_qsl, urlsplit

from ..errors import ConfigError

FORM = "dynamodb://TABLE?region=REGION"
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html
_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A store URL that was read. Times are in seconds; nothing in it is secret."""

    table: str
    region: str | None = None
    endpoint: str | None = None
    prefix: str = ""
    timeout: float = 3.0
    connect_timeout: float = 3.0
    connections: int = 50

    def __str__(self) -> str:
        """How messages name it."""
        return f"{self.table}, {self.region}" if self.region else self.table


def read_url(url: str) -> Place:
    """Read and check a store URL. Raises `ConfigError`."""
    try:
        parts = urlsplit(url)
    except ValueError:
        _refuse(f"the URL cannot be read, expected {FORM}")
    if "@" in parts.netloc:
        _refuse(
            "found a user or password in the URL; credentials come from where boto3 looks for them: the "
            "environment (AWS_ACCESS_KEY_ID, …), the AWS configuration files, or the machine's role"
        )
    if not _TABLE.fullmatch(parts.netloc) or parts.path.strip("/") or parts.fragment or "#" in url:
        _refuse(
            f"expected {FORM}, with the name of a table: 3 to 255 letters, digits, dots, '-' and '_'"
        )
    return Place(table=parts.netloc, **_options(parts.query))


def _refuse(problem: str) -> NoReturn:
    raise ConfigError(f"[oauthgate] store: {problem}")


def _text(value: str) -> str:
    return value


def _region(value: str) -> str:
    # It becomes a part of a host name.
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value):
        raise ValueError
    return value


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.port == 0
        or "@" in parts.netloc
        or parts.path.strip("/")
        or re.search(r"[?#\s]", value)
    ):
        raise ValueError
    return f"{parts.scheme}://{parts.netloc}"


def _seconds(value: str) -> float:
    seconds = float(value)
    if not 0.05 <= seconds <= 60:
        raise ValueError
    return seconds


def _connections(value: str) -> int:
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 10_000):
        raise ValueError
    return int(value)


# What each option may be: how it is read, and the words for it.
_OPTIONS: dict[str, tuple[Callable[[str], object], str]] = {
    "region": (_region, "the name of a region, such as eu-central-1"),
    "endpoint": (_endpoint, "an address such as https://HOST[:PORT], without user, path and query"),
    "prefix": (_text, "a text"),
    "timeout": (_seconds, "seconds between 0.05 and 60"),
    "connect_timeout": (_seconds, "seconds between 0.05 and 60"),
    "connections": (_connections, "a number between 1 and 10000"),
}


def _options(query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for position, (name, value) in enumerate(parse_qsl(query, keep_blank_values=True), 1):
        if name not in _OPTIONS:
            _refuse(
                f"option {position} after the '?' is not known, expected one of: {', '.join(_OPTIONS)}"
            )
        if name in found:
            _refuse(f"the option {name} is there twice")
        read, expected = _OPTIONS[name]
        try:
            found[name] = read(value)
        except ValueError:
            _refuse(f"the option {name} is not {expected}")
    return found
