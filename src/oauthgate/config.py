"""The configuration: read once at start, checked as a whole, every refusal with its cure.

A `Config` comes from a TOML file or a dict of the same shape. Whatever is wrong raises `ConfigError`,
whose message names file, table, key, what was found and what was expected; the value of a secret is
never part of it.
"""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import field

from . import references
from .config_access import Access, build_access
from .config_checks import check_handover_addresses
from .config_providers import build_providers
from .config_tables import nearest, read_table, shown
from .errors import ConfigError
from .protocols import jose
from .providers import Provider, is_loopback, origin
from .structs import decoder_of

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class GateTable(msgspec.Struct, kw_only=True):
    """The table `[oauthgate]`."""

    base_url: str = ""
    secret: str | list[str] = field(default_factory=list)
    store: str = "sqlite:///oauthgate.db"
    prefix: str = "/_oauth"
    allowed_origins: list[str] = field(default_factory=list)
    trusted_proxies: list[str] = field(default_factory=list)
    templates: str = ""
    near_cache: str | int | float = "1s"
    transport: Literal["httpx2", "aiohttp"] = "httpx2"

    def __repr__(self) -> str:
        return f"GateTable(base_url={self.base_url!r})"


class SessionTable(msgspec.Struct, kw_only=True):
    """The table `[session]`; durations such as "14d", "90m", or seconds."""

    idle_timeout: str | int = "14d"
    absolute_timeout: str | int = "90d"
    max_sessions: int = 20
    cookie: str = "oauthgate"
    api_token: Literal["opaque", "jwt"] = "opaque"  # noqa: S105 - a kind of token
    api_token_lifetime: str | int = "24h"  # noqa: S105 - a duration
    api_token_audience: str = ""
    api_token_key: str | list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"SessionTable(cookie={self.cookie!r}, api_token={self.api_token!r})"


class HooksTable(msgspec.Struct, kw_only=True):
    """The table `[hooks]`: import paths of functions, `package.module:function` (see `hooks.py`)."""

    login: str = ""
    linked: str = ""
    refreshed: str = ""
    reauth_required: str = ""
    unlinked: str = ""
    logout: str = ""


for _table in (GateTable, SessionTable, HooksTable):
    decoder_of(_table)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A checked configuration. Times are in seconds; `base_url` has no trailing slash, or is empty."""

    base_url: str
    secrets: tuple[bytes, ...]
    store: str
    prefix: str
    allowed_origins: tuple[str, ...]
    trusted_proxies: tuple[str, ...]
    templates: str
    near_cache: float
    transport: str
    idle_timeout: float
    absolute_timeout: float
    max_sessions: int
    cookie: str
    api_token: str
    api_token_lifetime: float
    api_token_audience: str
    api_token_keys: tuple[str, ...]
    hooks: dict[str, str]
    providers: dict[str, Provider]
    access: Access
    source: str = "configuration"

    def __repr__(self) -> str:
        return f"Config(base_url={self.base_url!r}, providers={sorted(self.providers)})"

    @classmethod
    def load(cls, source: Config | str | Path | Mapping[str, Any]) -> Config:
        """Read and check a TOML file (given by its path) or a dict of the same shape.

        Raises `ConfigError`.
        """
        if isinstance(source, Config):
            return source
        if isinstance(source, Mapping):
            with references.fetched(source):
                return _build(dict(source), "configuration", Path.cwd())
        path = Path(source)
        try:
            with path.open("rb") as file:
                document = tomllib.load(file)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: not valid TOML: {error}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: not UTF-8 text") from None
        with references.fetched(document):
            return _build(document, str(path), path.absolute().parent)


def _build(document: dict[str, Any], file: str, base: Path) -> Config:
    known = ("oauthgate", "session", "access", "hooks", "providers")
    for name in document:
        if name not in known:
            raise ConfigError(f"{file}: [{name}]: unknown table{nearest(name, known)}")
    gate = read_table(GateTable, document.get("oauthgate", {}), f"{file}: [oauthgate]", base)
    session = read_table(SessionTable, document.get("session", {}), f"{file}: [session]", base)
    hooks = read_table(HooksTable, document.get("hooks", {}), f"{file}: [hooks]", base)
    where = f"{file}: [oauthgate]"
    base_url = _base_url(gate.base_url, f"{where} base_url")
    secrets = [gate.secret] if isinstance(gate.secret, str) else gate.secret
    tables = document.get("providers", {})
    if not isinstance(tables, dict):
        raise ConfigError(f"{file}: [providers]: expected tables such as [providers.github]")
    prefix = _prefix(gate.prefix, f"{where} prefix")
    providers = build_providers(tables, file, base)
    for name, provider in providers.items():
        if base_url:
            check_handover_addresses(provider, f"{base_url}{prefix}", f"{file}: [providers.{name}]")
    access = build_access(document.get("access", {}), f"{file}: [access]", base, providers, prefix)
    # Relative stores and templates belong to the configuration, not to where the server was started.
    store = gate.store
    if store.startswith("sqlite:///") and not store.startswith("sqlite:////"):
        store = f"sqlite:///{base / store.removeprefix('sqlite:///')}"
    return Config(
        base_url=base_url,
        secrets=tuple(_secret(text, f"{where} secret") for text in secrets),
        store=store,
        prefix=prefix,
        allowed_origins=tuple(
            _origin(text, f"{where} allowed_origins") for text in gate.allowed_origins
        ),
        trusted_proxies=tuple(gate.trusted_proxies),
        templates=str(base / gate.templates) if gate.templates else "",
        near_cache=_seconds(gate.near_cache, f"{where} near_cache", 0, 60),
        transport=_transport(gate.transport, f"{where} transport"),
        idle_timeout=_seconds(session.idle_timeout, f"{file}: [session] idle_timeout"),
        absolute_timeout=_seconds(session.absolute_timeout, f"{file}: [session] absolute_timeout"),
        max_sessions=_positive(session.max_sessions, f"{file}: [session] max_sessions"),
        cookie=_cookie(session.cookie, f"{file}: [session] cookie"),
        api_token=session.api_token,
        api_token_lifetime=_seconds(
            session.api_token_lifetime, f"{file}: [session] api_token_lifetime", 60
        ),
        api_token_audience=session.api_token_audience or base_url,
        api_token_keys=_api_token_keys(session, base_url, f"{file}: [session]"),
        hooks={name: path for name, path in msgspec.structs.asdict(hooks).items() if path},
        providers={
            name: msgspec.structs.replace(provider, questions=access.rules.questions(name))
            for name, provider in providers.items()
        },
        access=access,
        source=file,
    )


_TEN_YEARS = 10 * 366 * 86400


def _seconds(value: str | float, where: str, least: float = 1, most: float = _TEN_YEARS) -> float:
    if isinstance(value, int | float):
        seconds = float(value)
    else:
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ConfigError(f'{where}: found {value!r}, expected a duration such as "14d" or "90m"')
        seconds = float(match.group(1)) * _UNITS[match.group(2)]
    if not least <= seconds <= most:
        to = "10 years" if most == _TEN_YEARS else f"{most:g} seconds"
        raise ConfigError(
            f"{where}: found {value!r}, expected between {least:g} second{'s' * (least != 1)} and {to}"
        )
    return seconds


def _transport(name: str, where: str) -> str:
    if name == "aiohttp" and importlib.util.find_spec("aiohttp") is None:
        raise ConfigError(
            f'{where}: aiohttp is not installed: pip install "oauthgate[aiohttp]", or leave the key out'
        )
    return name


def _positive(value: int, where: str) -> int:
    if not 1 <= value <= 1000:
        raise ConfigError(f"{where}: found {value}, expected between 1 and 1000")
    return value


def _secret(text: str, where: str) -> bytes:
    if len(text.encode()) < 32:
        raise ConfigError(
            f"{where}: found {len(text.encode())} bytes, expected at least 32; make one with: "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return text.encode()


def _api_token_keys(session: SessionTable, base_url: str, where: str) -> tuple[str, ...]:
    """The private keys of `api_token = "jwt"`, each one that can sign ES256."""
    keys = [session.api_token_key] if isinstance(session.api_token_key, str) else session.api_token_key
    if session.api_token == "jwt" and not base_url:  # noqa: S105 - a kind of token
        raise ConfigError(
            f"{where} api_token: a JWT names its issuer, so jwt needs base_url in [oauthgate]"
        )
    if keys and session.api_token != "jwt":  # noqa: S105 - a kind of token
        raise ConfigError(f'{where} api_token_key: only used with api_token = "jwt"')
    for pem in keys:
        try:
            jose.sign({}, jose.load_signing_key(pem), "ES256")
        except Exception:  # whatever joserfc has against this key
            raise ConfigError(
                f"{where} api_token_key: expected a P-256 private key in PEM, behind a reference "
                "(file:keys/api.pem); make one with: "
                "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
            ) from None
    return tuple(keys)


def _base_url(text: str, where: str) -> str:
    if not text:
        return ""
    _origin_and_path(text, where)
    # Browsers leave a default port out of Origin, so it must not be in what that is compared with.
    scheme, _, rest = text.partition("://")
    authority, slash, path = rest.partition("/")
    authority = authority.removesuffix({"http": ":80", "https": ":443"}[scheme])
    return f"{scheme}://{authority}{slash}{path}".rstrip("/")


def _origin_and_path(text: str, where: str) -> None:
    try:
        scheme, host, _ = origin(text)
    except ValueError as error:
        raise ConfigError(f"{where}: found {shown(text)!r}: {error}") from None
    if not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+(?:/[A-Za-z0-9._~/-]*)?", text):
        raise ConfigError(f"{where}: found {text!r}, expected no query, fragment or odd character")
    if scheme == "http" and not is_loopback(host):
        raise ConfigError(
            f"{where}: found {text!r}, expected https: over http anybody on the way reads the cookies"
        )


def _origin(text: str, where: str) -> str:
    _origin_and_path(text, where)
    scheme, host, port = origin(text)
    if text.count("/") > 2:
        raise ConfigError(f"{where}: found {text!r}, expected an origin without a path")
    shown = f"[{host}]" if ":" in host else host
    default = 443 if scheme == "https" else 80
    return f"{scheme}://{shown}" + ("" if port == default else f":{port}")


def _cookie(text: str, where: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", text):
        raise ConfigError(f"{where}: found {text!r}, expected up to 32 letters, digits, - and _")
    return text


def _prefix(text: str, where: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9_-]+)+", text):
        raise ConfigError(f"{where}: found {text!r}, expected a path such as /_oauth")
    return text
