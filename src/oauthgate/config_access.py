"""The table `[access]`: who may sign in, how many, and which paths ask for it."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec import field as key

from .access_paths import Protected, Requirement, fold
from .access_rules import MAX_ADDRESS, PLAIN_DOMAIN, PLAIN_LOCAL, Rule, Rules
from .access_seats import MOST
from .config_tables import nearest, read_table
from .errors import ConfigError
from .structs import decoder_of


class AccessTable(msgspec.Struct, kw_only=True):
    """The table `[access]`."""

    max_users: int | None = None
    allow: list[str | dict[str, Any]] = key(default_factory=list)
    deny: list[str | dict[str, Any]] = key(default_factory=list)
    protect: list[str | dict[str, Any]] = key(default_factory=list)
    original_uri_header: str = ""


class RuleTable(msgspec.Struct, kw_only=True):
    """An entry of `allow` or `deny` in its long form."""

    provider: str = ""
    account: str = ""
    email: str = ""
    claim: str = ""
    value: str | int | bool | list[str | int] = ""


class PathTable(msgspec.Struct, kw_only=True):
    """An entry of `protect` in its long form."""

    path: str = ""
    provider: str = ""
    scope: list[str] = key(default_factory=list)


for _table in (AccessTable, RuleTable, PathTable):
    decoder_of(_table)


@dataclass(frozen=True, kw_only=True)
class Access:
    """A checked `[access]`. `max_users` is None where there is no limit, `protected` None without a
    protected path."""

    max_users: int | None = None
    rules: Rules = field(default_factory=Rules)
    protected: Protected | None = None
    original_uri_header: str = ""


def build_access(
    table: object, where: str, base: Path, providers: Collection[str], prefix: str
) -> Access:
    """Read and check `[access]`. Raises `ConfigError`."""
    read = read_table(AccessTable, table, where, base)
    if read.max_users is not None and not 0 <= read.max_users <= MOST:
        raise ConfigError(
            f"{where} max_users: found {read.max_users}, expected 0 to {MOST}, or no such key"
        )
    lists = {
        name: tuple(
            rule
            for position, entry in enumerate(getattr(read, name))
            for rule in _rules(entry, f"{where} {name}[{position}]", base, providers)
        )
        for name in ("allow", "deny")
    }
    requirements = [
        _requirement(entry, f"{where} protect[{position}]", base, providers, prefix)
        for position, entry in enumerate(read.protect)
    ]
    header = read.original_uri_header
    if header and not re.fullmatch(r"[A-Za-z0-9-]+", header):
        raise ConfigError(
            f"{where} original_uri_header: found {header!r}, expected a header such as X-Original-URI"
        )
    if header and not requirements:
        raise ConfigError(f"{where} original_uri_header: without protect there is nothing to look up")
    return Access(
        max_users=read.max_users,
        rules=Rules(lists["allow"], lists["deny"]),
        protected=Protected(requirements) if requirements else None,
        original_uri_header=header.lower(),
    )


# -- allow and deny


def _rules(
    entry: str | dict[str, Any], where: str, base: Path, providers: Collection[str]
) -> list[Rule]:
    if isinstance(entry, str):
        provider, colon, account = entry.partition(":")
        if colon and "@" not in provider:
            table = RuleTable(provider=provider, account=account)
            if not account:
                raise ConfigError(f"{where}: found {entry!r}, expected an account's id after the colon")
        else:
            table = RuleTable(email=entry)
    else:
        table = read_table(RuleTable, entry, where, base)
    if table.provider and table.provider not in providers:
        raise ConfigError(f"{where}: no provider {table.provider!r}{nearest(table.provider, providers)}")
    if bool(table.claim) != (table.value != ""):
        raise ConfigError(f"{where}: claim and value belong together")
    if table.claim.partition(".")[0] == "callback":
        raise ConfigError(
            f"{where} claim: what is posted beside the code is not signed, so it can admit nobody"
        )
    if table.account and not table.provider:
        raise ConfigError(f"{where} account: expected the provider that it is an account of as well")
    local, domain = _address(table.email, where) if table.email else ("", "")
    values = table.value if isinstance(table.value, list) else [table.value]
    if not (table.provider or domain or table.claim) or not values:
        raise ConfigError(f"{where}: expected provider, email, or claim and value")
    return [
        Rule(
            provider=table.provider,
            account=table.account,
            local=local,
            domain=domain,
            claim=table.claim,
            value=str(value).lower() if isinstance(value, bool) else str(value),
        )
        for value in values
    ]


def _address(text: str, where: str) -> tuple[str, str]:
    """The parts of an e-mail pattern; the first is empty for every address of the domain."""
    local, at, domain = text.rpartition("@")
    if not at and PLAIN_DOMAIN.fullmatch(text):
        raise ConfigError(f'{where}: found {text!r}; did you mean "*@{text}"?')
    if not domain.isascii():
        raise ConfigError(
            f"{where}: found {text!r}, expected the domain in its ASCII form (xn--…), because there are "
            "two ways to write it so (RFC 3490, RFC 5891)"
        )
    whole = local == "*" or (PLAIN_LOCAL.fullmatch(local) and "*" not in local)
    if not whole or not PLAIN_DOMAIN.fullmatch(domain) or len(text) > MAX_ADDRESS:
        raise ConfigError(
            f'{where}: found {text!r}, expected "*@example.com", an e-mail address, '
            '"provider:account_id", or a table'
        )
    return "" if local == "*" else local, domain.lower()


# -- protect

#: What a path does not hold when people read it.
_ODD = re.compile(r"[*%;?#\\\x00-\x20\x7f]")


def _requirement(
    entry: str | dict[str, Any], where: str, base: Path, providers: Collection[str], prefix: str
) -> Requirement:
    table = (
        PathTable(path=entry) if isinstance(entry, str) else read_table(PathTable, entry, where, base)
    )
    if table.provider and table.provider not in providers:
        raise ConfigError(f"{where}: no provider {table.provider!r}{nearest(table.provider, providers)}")
    if table.scope and not table.provider:
        raise ConfigError(f"{where} scope: expected the provider that grants it as well")
    path = table.path
    if not path:
        raise ConfigError(f"{where} path: missing, expected a path such as /admin/*")
    bare = path.removesuffix("/*") if path != "/*" else ""
    segments = bare.strip("/").split("/") if bare.strip("/") else []
    if not path.startswith("/"):
        raise ConfigError(f'{where}: found {path!r}; did you mean "/{path}"?')
    if any(
        segment in ("", ".", "..") or _ODD.search(segment)
        for segment in segments
        for segment in segments
    ):
        raise ConfigError(
            f"{where}: found {path!r}, expected a path as people read it, such as /admin, or with /* at "
            "its end for everything below"
        )
    if f"{bare.rstrip('/')}/".startswith(f"{prefix}/"):
        raise ConfigError(f"{where}: {prefix} is the gate's own and protects itself")
    return Requirement(
        segments=tuple(fold(segment) for segment in segments),
        below=path.endswith("/*"),
        provider=table.provider,
        scope=tuple(table.scope),
    )
