"""The provider tables: a preset below, the user's keys on top, and checks that it can work safely."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from . import references
from .config_checks import ENDPOINTS, check_provider
from .config_tables import explain, nearest
from .errors import ConfigError
from .providers import STANDARD_CLAIMS, Provider, fill, placeholders_in

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
#: Path segments of the gate's own routes, which a provider cannot be called.
RESERVED = frozenset(
    {"session", "logout", "providers", "check", "style.css", "static", "login", "popup", "end-session"}
)
#: Filled in when a request is made, not when the configuration is read.
_LATE = frozenset(
    {"access_token", "refresh_token", "state", "code", "redirect_uri", "id_token", "tid"}
    | {"post_logout_redirect_uri", "id", "account_id"}
)
_TEMPLATED = (*ENDPOINTS, "issuer", "api_base_url", "client_secret_jwt")


def preset_names() -> list[str]:
    """The names of the presets that ship with oauthgate."""
    folder = files("oauthgate").joinpath("presets")
    return sorted(
        item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")
    )


def read_preset(name: str) -> dict[str, Any]:
    """The keys of a preset. Raises `KeyError` when there is none of that name."""
    if not _NAME.fullmatch(name):
        raise KeyError(name)
    file = files("oauthgate").joinpath("presets", f"{name}.toml")
    if not file.is_file():
        raise KeyError(name)
    return tomllib.loads(file.read_text(encoding="utf-8"))


def build_providers(tables: dict[str, Any], file: str, base: Path) -> dict[str, Provider]:
    """Every `[providers.NAME]` as a `Provider`. Raises `ConfigError`."""
    providers: dict[str, Provider] = {}
    for name, table in tables.items():
        where = f"{file}: [providers.{name}]"
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise ConfigError(
                f"{where}: not a usable name, expected lower-case letters, digits, - and _"
            )
        if not isinstance(table, dict):
            raise ConfigError(f"{where}: expected a table, found {type(table).__name__}")
        providers[name] = _build(name, table, where, base)
    by_issuer: dict[str, str] = {}
    for provider in providers.values():
        for issuer in filter(None, [provider.issuer, *provider.issuer_aliases]):
            # A slash at the end is not enough to keep two servers apart.
            other = by_issuer.setdefault(issuer.rstrip("/"), provider.name)
            if other == provider.name:
                continue
            raise ConfigError(
                f"{file}: [providers.{provider.name}] issuer: {provider.issuer!r} is the issuer of "
                f"[providers.{other}] already; two providers with one issuer "
                "make mix-up attacks possible (RFC 9207): use one table, and several accounts in it"
            )
    return providers


def _build(name: str, table: dict[str, Any], where: str, base: Path) -> Provider:
    preset = _preset_for(name, table, where)
    own_placeholders = preset.pop("placeholders", [])
    known = [item.name for item in msgspec.structs.fields(Provider)]
    known = [key for key in known if key not in ("name", "placeholders", "questions")]
    for key in table:
        if key not in known and key not in own_placeholders:
            raise ConfigError(f"{where} {key}: unknown key{nearest(key, known + own_placeholders)}")
    resolved = {key: references.resolve(table[key], f"{where} {key}", base) for key in table}
    if "issuer" in table and resolved["issuer"] != preset.get("issuer"):
        for endpoint in (*ENDPOINTS, "issuer_aliases", "issuer_template", "token_info"):
            preset.pop(endpoint, None)
    if _moved(preset, resolved):
        # The user's own authorization server under a preset's name: the preset's issuer is not its
        # issuer, and its tokens are none of the preset's endpoints' business.
        for key in (
            "revocation_endpoint",
            "introspection_endpoint",
            "end_session_endpoint",
            "token_info",
        ):
            preset.pop(key, None)
        if preset.get("protocol") == "oauth2":
            preset.pop("issuer", None)
    values: dict[str, Any] = {**preset, **resolved, "name": name}
    values.setdefault("title", name.replace("_", " ").replace("-", " ").title())
    values.setdefault("protocol", "oidc" if values.get("issuer") else "oauth2")
    if values["protocol"] == "oidc":
        # The standard claims (OpenID Connect Core 5.1); a table that maps some of them keeps the rest.
        given = values.get("profile", {})
        values["profile"] = {**STANDARD_CLAIMS, **given} if isinstance(given, dict) else given
    _fill_placeholders(values, own_placeholders, where)
    if values.get("client_id", "") == "":
        raise ConfigError(
            f"{where} client_id: missing, expected the id that {values['title']} gave to your app"
        )
    try:
        provider = msgspec.convert(values, Provider)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(error, {**values, **table}, where)) from None
    check_provider(provider, where)
    info = provider.token_info
    if info is not None and "token_info" in table:
        # A preset may leave one open for a table that hands nothing over; a table of one's own may not.
        for name in {*placeholders_in(f"{info.url} {info.equals}")} - {"client_id"}:
            raise ConfigError(f"{where} token_info: {{{name}}} stands for nothing here")
    return provider


def _moved(preset: dict[str, Any], table: dict[str, Any]) -> bool:
    """Whether a table sends people or codes to another server than its preset does."""
    for key in ("authorization_endpoint", "token_endpoint"):
        given, usual = table.get(key), preset.get(key)
        if given and usual and urlsplit(str(given)).netloc != urlsplit(str(usual)).netloc:
            return True
    return False


def _preset_for(name: str, table: dict[str, Any], where: str) -> dict[str, Any]:
    wanted = table.get("preset")
    if wanted is None:
        # A table that says everything itself needs no preset of its name.
        try:
            return read_preset(name)
        except KeyError:
            if any(key in table for key in ("issuer", "authorization_endpoint")):
                return {}
            raise ConfigError(
                f"{where}: no preset is called {name!r}{nearest(name, preset_names())}; give preset, "
                "issuer (for OpenID Connect discovery), or authorization_endpoint and token_endpoint"
            ) from None
    try:
        return read_preset(str(wanted))
    except KeyError:
        raise ConfigError(
            f"{where} preset: found {wanted!r}{nearest(str(wanted), preset_names())}"
        ) from None


def _fill_placeholders(values: dict[str, Any], own: list[str], where: str) -> None:
    """Replace a preset's placeholders (`{tenant}`) by the user's values, wherever they stand."""
    given = {key: str(values.pop(key)) for key in own if key in values}
    for key, value in given.items():
        if not re.fullmatch(r"[A-Za-z0-9._-]+", value):
            raise ConfigError(f"{where} {key}: found {value!r}, expected a plain name or host")
    context = {**given, "client_id": str(values.get("client_id", ""))}
    for key, value in list(values.items()):
        if key not in ("client_id", "client_secret", "private_key", "profile"):
            values[key] = _fill_deep(value, context)
    for key in _TEMPLATED:
        missing = [item for item in placeholders_in(str(values.get(key, ""))) if item not in _LATE]
        if missing and values.get("issuer_template") and key == "issuer":
            continue
        if missing:
            raise ConfigError(
                f"{where} {missing[0]}: missing, {values['title']} needs it for {key} ({values[key]})"
            )
    values["placeholders"] = given


def _fill_deep(value: object, context: dict[str, str]) -> object:
    if isinstance(value, str):
        return fill(value, context)
    if isinstance(value, list):
        return [_fill_deep(item, context) for item in value]
    if isinstance(value, dict):
        return {key: _fill_deep(item, context) for key, item in value.items()}
    return value
