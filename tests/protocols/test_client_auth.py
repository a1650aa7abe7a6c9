"""Client authentication at a provider that holds each client to its registered method (RFC 6749 2.3)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from oauthgate.config import Config as LoadedConfig
from oauthgate.protocols import client_auth
from oauthgate.testing import Client, LocalProvider, jose

from .steps import SITE, Harness, with_query

Config = dict[str, Any]
Make = Callable[[], Harness]
#: Everything that has a meaning in Basic, in a form or in a URL.
ODD = "a:b+c%2B d/e&f=g?h#i\"j'k\\é漢"


def register(provider: LocalProvider, config: Config, **changes: Any) -> None:
    """The same client at the provider and in the table `spotify`."""
    table = config["providers"]["spotify"]
    fields = {
        "client_id": table["client_id"],
        "client_secret": table["client_secret"],
        "redirect_uris": [f"{SITE}/_oauth/spotify/callback"],
    }
    fields.update(changes)
    provider.add_client(Client(**fields))


@pytest.mark.parametrize("client_id", ["spotify-client", ODD])
@pytest.mark.parametrize("secret", ["plain-secret", ODD])
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_secrets_with_every_odd_character(
    method: str, secret: str, client_id: str, make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Row 83: ids and secrets are form-encoded inside Basic, and in the body; both ends agree on
    them."""
    table = config["providers"]["spotify"]
    table |= {"client_id": client_id, "client_secret": secret, "token_endpoint_auth_method": method}
    register(provider, config, token_endpoint_auth_method=method)
    harness = make_harness()
    browser = harness.succeeds("spotify")
    provider.expire_access_tokens()
    assert browser.get("/call/spotify/me").json()["id"] == "1001"
    assert harness.site.post(browser, "/spotify/unlink", account_id="1001").status_code in (200, 303)
    assert provider.count["revoke"] > 0
    (message, *_) = provider.received("token")
    assert ("client_secret" in message.params) == (method == "client_secret_post")
    assert (message.header("authorization") is None) == (method == "client_secret_post")


def test_a_public_client_sends_no_secret(
    make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Row 22: without a secret the client names itself, and the code verifier is its proof."""
    del config["providers"]["spotify"]["client_secret"]
    config["providers"]["spotify"]["token_endpoint_auth_method"] = "none"
    provider.add_client(
        Client(
            client_id="spotify-client",
            token_endpoint_auth_method="none",
            redirect_uris=[f"{SITE}/_oauth/spotify/callback"],
        )
    )
    make_harness().succeeds("spotify")
    (message,) = provider.received("token")
    assert message.params["client_id"] == "spotify-client"
    assert 43 <= len(message.params["code_verifier"]) <= 128
    assert message.header("authorization") is None and "client_secret" not in message.params


KEYS: dict[str, Any] = {
    "RS256": lambda: RSAKey.generate_key(2048, {"kid": "k1"}),
    "PS256": lambda: RSAKey.generate_key(2048, {"kid": "k1"}),
    "ES256": lambda: ECKey.generate_key("P-256", {"kid": "k1"}),
    "EdDSA": lambda: OKPKey.generate_key("Ed25519", {"kid": "k1"}),
}


@pytest.mark.parametrize("alg", KEYS)
def test_private_key_jwt(alg: str, make_harness: Make, provider: LocalProvider, config: Config) -> None:
    """RFC 7523: a short-lived assertion for this server, new for every request, and no secret."""
    key = KEYS[alg]()
    table = config["providers"]["spotify"]
    del table["client_secret"]
    table |= {"token_endpoint_auth_method": "private_key_jwt", "private_key_id": "k1"}
    table["private_key"] = key.as_pem(private=True).decode()
    if alg == "PS256":
        table["token_endpoint_auth_signing_alg"] = "PS256"
    provider.add_client(
        Client(
            client_id="spotify-client",
            token_endpoint_auth_method="private_key_jwt",
            jwks=dict(KeySet([key]).as_dict(private=False)),
            redirect_uris=[f"{SITE}/_oauth/spotify/callback"],
        )
    )
    browser = make_harness().succeeds("spotify")
    provider.expire_access_tokens()
    assert browser.get("/call/spotify/me").json()["id"] == "1001"
    assertions = [message.params["client_assertion"] for message in provider.received("token")]
    parts = [jose.peek(text) for text in assertions]
    assert len({claims["jti"] for _, claims in parts}) == 2
    for header, claims in parts:
        assert (header["alg"], header["kid"]) == (alg, "k1")
        assert claims["iss"] == claims["sub"] == "spotify-client"
        assert claims["exp"] - claims["iat"] <= 120
        assert claims["aud"] in (provider.issuer, f"{provider.issuer}/oauth2/token")


def loaded(config: Config, **changes: Any) -> Any:
    config["providers"]["spotify"] |= changes
    return LoadedConfig.load(config).providers["spotify"]


def test_client_secret_jwt(config: Config) -> None:
    """OpenID Connect Core section 9: the assertion is keyed with the secret, which itself is not
    sent."""
    secret = "s" * 40
    provider = loaded(config, token_endpoint_auth_method="client_secret_jwt", client_secret=secret)
    form: dict[str, str] = {}
    headers: dict[str, str] = {}
    client_auth.apply(provider, form, headers, "https://op.example")
    assert headers == {}
    jose.verify(form["client_assertion"], secret.encode(), ["HS256"])
    _, claims = jose.peek(form["client_assertion"])
    assert (claims["aud"], claims["iss"]) == ("https://op.example", "spotify-client")
    assert secret not in repr(form)


def test_a_secret_that_is_a_signed_token(config: Config) -> None:
    """Apple's client secret: a JWT of the team's key, with the placeholders filled in."""
    key = ECKey.generate_key("P-256", {"kid": "KEY1234567"})
    preset = {
        "preset": "apple",
        "client_id": "com.example.app",
        "team_id": "TEAM123456",
        "private_key_id": "KEY1234567",
        "private_key": key.as_pem(private=True).decode(),
    }
    config["providers"] = {"apple": preset}
    provider = LoadedConfig.load(config).providers["apple"]
    form: dict[str, str] = {}
    client_auth.apply(provider, form, {}, provider.issuer)
    jose.verify(form["client_secret"], [key], ["ES256"])
    header, claims = jose.peek(form["client_secret"])
    assert header["kid"] == "KEY1234567"
    assert (claims["iss"], claims["sub"]) == ("TEAM123456", "com.example.app")
    assert claims["aud"] == "https://appleid.apple.com"
    assert 0 < claims["exp"] - time.time() <= 180 * 86400


@pytest.mark.parametrize("registered", ["client_secret_post", "none"])
def test_the_wrong_method_is_not_retried_in_another_way(
    registered: str, make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Row 91: a provider that refuses the client gets no second try with the same code."""
    register(provider, config, token_endpoint_auth_method=registered)
    harness = make_harness()
    browser = harness.browser()
    assert harness.login(browser, "spotify").status_code == 502
    assert provider.count["token"] == 1


def test_a_provider_that_publishes_only_post_gets_it(
    make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """RFC 8414: without a configured method the published ones decide between the two with a secret."""
    table = config["providers"]["corp"]
    provider.add_client(
        Client(
            client_id=table["client_id"],
            client_secret=table["client_secret"],
            token_endpoint_auth_method="client_secret_post",
            redirect_uris=[f"{SITE}/_oauth/corp/callback"],
        )
    )
    provider.faults.tamper_discovery = lambda found: {
        **found,
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
    }
    make_harness().succeeds()


@pytest.mark.parametrize(
    "value", ["code&client_id=evil", "a\r\nX: y", "%", "é", "a+b c", "=", ";", "\x00"]
)
def test_a_code_cannot_add_a_parameter(value: str, harness: Harness, provider: LocalProvider) -> None:
    """Row 83: whatever the code holds, it reaches the token endpoint as one encoded value."""
    browser = harness.browser()
    callback = str(harness.authorize(harness.start(browser, "spotify")))
    provider.count.clear()
    assert harness.deliver(browser, with_query(callback, code=value)).status_code in (400, 502)
    for message in provider.received("token"):
        assert message.params["code"] == value
        names = [name for name, _ in message.form]
        assert len(set(names)) == len(names)
        assert message.params.get("client_id") in (None, "spotify-client")
