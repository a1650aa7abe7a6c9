"""What can be told from the configuration alone: address, cookies, secrets, files. Asks nobody."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..config import Config
from ..keyfile import key_file
from ..providers import SECRET_KEYS
from .findings import Finding, ok, problem, warning
from .opening import database

_OTHERS = 0o077


def findings(config: Config) -> Iterator[Finding]:
    yield from _address(config)
    yield from _cookies(config)
    yield from _secrets(config)
    yield from _files(config)


def _address(config: Config) -> Iterator[Finding]:
    if not config.base_url:
        yield warning(
            "base_url",
            "missing: only this machine is served, and every other host is answered 421; set "
            '[oauthgate] base_url = "https://…" to the address that visitors type',
        )
        return
    parts = urlsplit(config.base_url)
    if parts.scheme == "http":
        yield warning(
            "base_url",
            f"{config.base_url} is this machine's own: visitors elsewhere cannot come back from a "
            "provider; for a real site set its https address, also where a proxy speaks http to it",
        )
    else:
        yield ok("base_url", config.base_url)
    if parts.path:
        yield warning(
            "base_url",
            f"it has the path {parts.path}: the application must be mounted there, and a proxy must not "
            "take the path away",
        )


def _cookies(config: Config) -> Iterator[Finding]:
    parts = urlsplit(config.base_url)
    secure = parts.scheme == "https"
    name = f"__Host-{config.cookie}" if secure else config.cookie
    flags = "HttpOnly; SameSite=Lax; Path=/" + ("; Secure" if secure else "")
    if secure:
        yield ok("cookie", f"{name} with {flags}")
    else:
        yield warning(
            "cookie", f"{name} with {flags}: not Secure, because browsers refuse that over http"
        )
    if parts.path and config.cookie == "oauthgate":
        yield warning(
            "cookie",
            f"{name} is sent to every path of the host: another gate on it needs another [session] "
            "cookie",
        )
    for provider in config.providers.values():
        if provider.response_mode == "form_post" and not secure:
            yield warning(
                f"providers.{provider.name}",
                "it answers with a POST from its own site, for which the flow's cookie is "
                "SameSite=None; Secure: over http some browsers drop that; use https",
            )
    for origin in config.allowed_origins:
        other = urlsplit(origin)
        if parts.hostname and _site(other.hostname) != _site(parts.hostname):
            yield warning(
                "allowed_origins",
                f"{origin} is another site than {parts.hostname}: the cookie is SameSite=Lax, so "
                "browsers leave it out there; use one domain for both, or bearer session tokens",
            )
        elif secure and other.scheme == "http":
            yield warning(
                "allowed_origins",
                f"{origin} is http: browsers count it as another site and leave the cookie out",
            )


def _site(host: str | None) -> str:
    # Without the public suffix list: right for example.com, and too mild for example.co.uk.
    return ".".join((host or "").split(".")[-2:])


def _secrets(config: Config) -> Iterator[Finding]:
    path = key_file(config)
    shared = config.store.partition(":")[0] not in ("sqlite", "memory")
    if shared and not config.secrets:
        yield problem(
            "secret",
            "missing: a store that several machines share needs one, for example "
            'secret = ["env:OAUTHGATE_SECRET"]; make one with: '
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    elif len(set(config.secrets)) < len(config.secrets):
        yield warning("secret", "one is in the list twice; remove the second")
    elif len(config.secrets) > 1:
        yield ok(
            "secret",
            f"{len(config.secrets)} secrets; oauthgate keys check tells when an older one may go",
        )
    elif config.secrets:
        yield ok("secret", "one secret")
    elif path is None:
        yield ok("secret", "none: what memory: holds ends with the process")
    elif not path.exists():
        yield warning("secret", f"none: the key file {path} will be made at the first use")
    elif path.stat().st_mode & _OTHERS:
        yield problem("secret", f"the key file {path} can be read by others; run: chmod 600 {path}")
    else:
        yield ok("secret", f"the key file {path}")


def _files(config: Config) -> Iterator[Finding]:
    path = database(config.store)
    if path is not None and path.is_file() and path.stat().st_mode & _OTHERS:
        yield warning("store", f"{path} can be read by others; run: chmod 600 {path}")
    source = Path(config.source)
    if source.is_file() and source.stat().st_mode & _OTHERS:
        written = sorted(_written(tomllib.loads(source.read_text(encoding="utf-8")), ""))
        if written:
            yield warning(
                "secrets in the file",
                f"{source} can be read by others and holds {', '.join(written)}; run: chmod 600 "
                f"{source}, or put them behind a reference (env:, file:, ssm:)",
            )


def _written(table: dict[str, Any], where: str) -> Iterator[str]:
    """The secrets that stand in the file itself, by the names of their keys."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _written(value, f"{where}{name}.")
        elif name in SECRET_KEYS:
            values = value if isinstance(value, list) else [value]
            if any(str(each).partition(":")[0] not in ("env", "file", "ssm") for each in values):
                yield where + name
