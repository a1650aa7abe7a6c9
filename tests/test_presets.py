"""The presets: each loads with the least a user must say, is safe as it stands, and signs somebody
in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc.jwk import ECKey

from oauthgate.config import Config
from oauthgate.config_checks import ENDPOINTS
from oauthgate.config_providers import preset_names
from oauthgate.errors import ConfigError
from oauthgate.providers import Provider, origin
from oauthgate.testing import Account, Client, LocalProvider, client_auth, jose, running, sign_in
from tests.support import KINDS, PAGE, Kind, SiteUnderTest, site_under_test

SITE = "https://app.example"
APPLE_KEY = ECKey.generate_key("P-256", {"kid": "KEY1234567"})
#: What a user must say beside client_id and client_secret.
MINIMAL: dict[str, dict[str, str]] = {
    "apple": {
        "team_id": "TEAM123456",
        "private_key_id": "KEY1234567",
        "private_key": APPLE_KEY.as_pem(private=True).decode(),
    },
    "cognito": {
        "domain": "example.auth.eu-west-1.amazoncognito.com",
        "region": "eu-west-1",
        "user_pool_id": "eu-west-1_Example",
    },
    "microsoft": {"tenant": "common"},
}
SHIPPED = (
    "apple", "cognito", "discord", "facebook", "github", "google", "kakao", "line", "microsoft", "naver",
    "slack", "spotify", "twitter", "twitter2",
)  # fmt: skip


def minimal(name: str) -> dict[str, str]:
    """The table of a user who follows the manual."""
    table = {"client_id": f"{name}-client", **MINIMAL.get(name, {})}
    return table if name == "apple" else {**table, "client_secret": "0123456789abcdef" * 2}


def load(name: str, **changes: Any) -> Provider:
    table = {**minimal(name), **changes}
    return Config.load({"oauthgate": {"store": "memory:"}, "providers": {name: table}}).providers[name]


def test_the_shipped_presets_are_known() -> None:
    """What is promised is there; more may come."""
    assert set(SHIPPED) <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_safe_as_it_stands(name: str) -> None:
    """Row 11 and row 82: https everywhere, an id for the account, a protocol with state or its like."""
    provider = load(name)
    for endpoint in (*ENDPOINTS, "issuer", "api_base_url"):
        url = getattr(provider, endpoint)
        if url:
            assert origin(url)[0] == "https", (endpoint, url)
            assert "{" not in url.replace("{client_id}", ""), (endpoint, url)
    assert provider.authorization_endpoint and provider.token_endpoint
    assert provider.profile["id"]
    assert provider.protocol in ("oauth1", "oauth2", "oidc")
    assert provider.title != provider.name
    assert provider.client_id not in provider.title
    if provider.protocol == "oidc":
        assert provider.issuer.startswith("https://")
        assert "openid" in provider.scope
        assert provider.profile["id"] in ("sub", "id")
    protocol_names = {"state", "redirect_uri", "client_id", "code_challenge", "nonce", "response_type"}
    assert not protocol_names & set(provider.authorization_params)


@pytest.mark.parametrize("name", [name for name in preset_names() if name in MINIMAL])
def test_what_a_preset_needs_is_named(name: str) -> None:
    """A missing placeholder is refused at start, and the message says which and where."""
    for key in MINIMAL[name]:
        if key == "private_key_id":
            continue
        table = {item: value for item, value in minimal(name).items() if item != key}
        with pytest.raises(ConfigError) as refused:
            Config.load({"providers": {name: table}})
        assert f"[providers.{name}] {key}" in str(refused.value)


@pytest.mark.parametrize("name", preset_names())
def test_two_tables_of_one_preset(name: str) -> None:
    """Row 32: two tables of one issuer would make a mix-up possible and are refused; without an issuer
    each has its own redirect URI, and they may stand beside each other."""
    tables = {name: minimal(name), "second": {**minimal(name), "preset": name}}
    if load(name).issuer:
        with pytest.raises(ConfigError, match="mix-up"):
            Config.load({"providers": tables})
    else:
        assert set(Config.load({"providers": tables}).providers) == {name, "second"}


# -- a sign-in through each

SHAPES: dict[str, dict[str, Any]] = {
    "discord": {"global_name": "Ada", "verified": True, "avatar": "abc"},
    "facebook": {"picture": {"data": {"url": "https://facebook.example/a.png"}}},
    "github": {"login": "ada", "avatar_url": "https://github.example/a.png"},
    "naver": {"response": {"id": "n-1001", "nickname": "ada", "email": "ada@example.com"}},
    "slack": {"user": {"id": "U1001", "name": "Ada", "email": "ada@example.com"}},
    "spotify": {"display_name": "Ada", "images": [{"url": "https://spotify.example/a.png"}]},
    "twitter": {"id_str": "1001", "screen_name": "ada"},
    "twitter2": {"data": {"id": "1001", "username": "ada", "name": "Ada"}},
}
IDS = {"naver": "n-1001", "slack": "U1001"}


def local_table(name: str, url: str) -> dict[str, Any]:
    """The preset with its endpoints at the local provider, and everything else as it is."""
    provider = load(name)
    table: dict[str, Any] = {**minimal(name), "api_base_url": f"{url}/api"}
    if provider.protocol == "oidc":
        # Its own server is found by discovery, which leaves the rest of the preset as it is.
        return {**table, "issuer": url, "scope_delimiter": " "}
    if provider.protocol == "oauth1":
        return {
            **table,
            "request_token_url": f"{url}/oauth1/request_token",
            "authorization_endpoint": f"{url}/oauth1/authenticate",
            "token_endpoint": f"{url}/oauth1/access_token",
            "userinfo_endpoint": f"{url}/api/me",
        }
    table |= {
        "authorization_endpoint": f"{url}/oauth2/authorize",
        "token_endpoint": f"{url}/oauth2/token",
        "userinfo_endpoint": f"{url}/api/me",
    }
    if provider.profile_documents:
        table["profile_documents"] = dict.fromkeys(provider.profile_documents, f"{url}/api/echo")
    return table


def local_provider(name: str) -> LocalProvider:
    """A provider that knows this preset's client and scopes, and describes its accounts in its way."""
    preset = load(name)
    scope = preset.scope
    provider = LocalProvider(
        clients=[
            Client(
                client_id=preset.client_id,
                client_secret=preset.client_secret or "a signed token, see below",
                token_endpoint_auth_method=preset.token_endpoint_auth_method or "client_secret_basic",
                redirect_uris=[f"{SITE}/_oauth/{name}/callback"],
                id_token_signed_response_alg=preset.id_token_signed_response_alg or None,
            )
        ],
        accounts=[
            Account(
                id="1001",
                username="ada",
                name="Ada",
                email="ada@example.com",
                extra=SHAPES.get(name, {}),
            )
        ],
        scopes_supported=[*scope, preset.scope_delimiter.join(scope), "openid"],
    )
    if name == "slack":
        provider.faults.tamper_token_response = lambda answer: {
            "ok": True,
            "access_token": "the bot's",
            "token_type": "bot",
            "authed_user": {**answer, "token_type": "user", "scope": "identity.basic,identity.email"},
        }
    if name == "github":
        emails = [
            {"email": "old@example.com", "primary": False, "verified": False},
            {"email": "ada@example.com", "primary": True, "verified": True},
        ]
        provider.faults.set("echo", body=json.dumps(emails), content_type="application/json")
    return provider


@contextmanager
def signing_in(kind: Kind, name: str, tmp_path: Path) -> Iterator[tuple[SiteUnderTest, LocalProvider]]:
    provider = local_provider(name)
    with ExitStack() as stack:
        url = stack.enter_context(running(provider))
        config = {
            "oauthgate": {"base_url": SITE, "store": f"sqlite:///{tmp_path / 'gate.db'}"},
            "providers": {name: local_table(name, url)},
        }
        yield stack.enter_context(site_under_test(kind, config)), provider


def apple_secret(given: str | None, expected: str | None) -> bool:
    """What Apple checks of a client secret."""
    jose.verify(given or "", [APPLE_KEY], ["ES256"])
    header, claims = jose.peek(given or "")
    return (header["kid"], claims["iss"], claims["sub"], claims["aud"]) == (
        "KEY1234567", "TEAM123456", "apple-client", "https://appleid.apple.com",
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", preset_names())
def test_a_sign_in_through_a_preset(
    name: str, kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 11: state (or the request token), PKCE and nonce are sent and checked for every preset."""
    if name == "apple":
        monkeypatch.setattr(client_auth, "_same", apple_secret)
    with signing_in(kind, name, tmp_path) as (site, provider):
        preset = site.gate.config.providers[name]
        browser = site.browser()
        started = browser.get(f"/_oauth/{name}/login?next=/who", headers=PAGE)
        assert started.status_code == 303, started.text
        url = started.headers["location"]
        sent = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
        if preset.protocol == "oauth1":
            assert sent["oauth_token"]
        else:
            assert len(sent["state"]) >= 43
            assert sent["code_challenge_method"] == "S256" and len(sent["code_challenge"]) == 43
            assert ("nonce" in sent) == (preset.protocol == "oidc")
            assert sent["redirect_uri"] == f"{SITE}/_oauth/{name}/callback"
            assert all(sent[key] == value for key, value in preset.authorization_params.items())
        with httpx2.Client() as client:
            callback = sign_in(client, url)
        binding = "oauth_token" if preset.protocol == "oauth1" else "state"
        forged = _deliver(
            browser, str(callback).replace(sent[binding], "forged"), _forged(callback.fields)
        )
        assert forged.status_code == 400
        assert provider.count["token"] + provider.count["access_token"] == 0
        answer = _deliver(browser, str(callback), callback.fields)
        assert (answer.status_code, answer.headers.get("location")) == (303, f"{SITE}/who"), answer.text
        (link,) = browser.get("/_oauth/session").json()["links"]
        assert (link["provider"], link["account_id"]) == (name, IDS.get(name, "1001"))
        if name == "github":
            assert (link["profile"]["email"], link["profile"]["email_verified"]) == (
                "ada@example.com",
                True,
            )
            assert all(message.header("user-agent") for message in provider.received("me"))
        if name == "naver":
            assert provider.received("token")[0].params["state"] == sent["state"]
        if name == "slack":
            assert link["scope"] == ["identity.basic", "identity.email"]
        assert browser.get(f"/call/{name}/me").json()["username"] == "ada"


def _forged(fields: dict[str, str] | None) -> dict[str, str] | None:
    return None if fields is None else {**fields, "state": "forged"}


def _deliver(browser: httpx2.Client, url: str, fields: dict[str, str] | None) -> httpx2.Response:
    if fields is None:
        return browser.get(url, headers=PAGE)
    return browser.post(url, data=fields, headers={**PAGE, "origin": "https://op.example"})
