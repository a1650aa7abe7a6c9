"""What a second reader broke once: grants that end for no good reason, hooks, and endless 401s."""

from __future__ import annotations

import threading
from typing import Any

import httpx2
import pytest

import oauthgate
from oauthgate.testing import LocalProvider
from tests.support import Kind, SiteUnderTest, site_under_test


@pytest.fixture
def browser(site: SiteUnderTest) -> httpx2.Client:
    """A browser signed in at the OpenID provider, whose refreshes bring an ID token."""
    found = site.browser()
    assert site.login(found, "corp").status_code == 303
    return found


def forget_keys(site: SiteUnderTest) -> None:
    """Have the gate know no keys of the provider, as a fresh worker does."""
    for entry in site.gate.directory._entries.values():
        entry.keys_at = None
        entry.key_fetches = []


def states(site: SiteUnderTest) -> list[str]:
    with oauthgate.open(site.config) as gate:
        return [link.state for user in gate.users() for link in user.links]


def test_keys_that_cannot_be_had_end_no_grant(
    site: SiteUnderTest, provider: LocalProvider, browser: httpx2.Client
) -> None:
    """A refresh whose ID token cannot be checked fails closed and keeps the new refresh token."""
    forget_keys(site)
    provider.expire_access_tokens()
    provider.faults.set("jwks", status=503)
    assert browser.get("/call/corp/me").status_code == 503
    assert states(site) == ["active"]
    provider.faults.clear()
    forget_keys(site)
    site.gate.refresher._failed.clear()
    assert browser.get("/call/corp/me").status_code == 200


def test_a_key_that_is_not_known_yet_ends_no_grant(
    site: SiteUnderTest, provider: LocalProvider, browser: httpx2.Client
) -> None:
    """The provider rotated its keys while ours cannot be renewed: doubtful, not refused."""
    provider.rotate_keys()
    provider.faults.set("jwks", status=503)
    provider.expire_access_tokens()
    assert browser.get("/call/corp/me").status_code == 503
    assert states(site) == ["active"]


def test_a_refreshed_id_token_of_somebody_else_ends_the_grant(
    site: SiteUnderTest, provider: LocalProvider, browser: httpx2.Client
) -> None:
    """Another subject in a refreshed ID token is no doubt: the result is discarded (row 98)."""
    provider.faults.tamper_id_token = lambda claims, header: {**claims, "sub": "1002"}
    provider.expire_access_tokens()
    assert browser.get("/call/corp/me").status_code == 401
    assert states(site) == ["reauth_required"]


def test_an_api_that_always_refuses_causes_one_refresh(
    site: SiteUnderTest, provider: LocalProvider
) -> None:
    """An API that says 401 whatever the token costs one refresh, not one a call."""
    browser = site.browser()
    site.login(browser, "spotify")
    before = provider.count["token"]
    provider.faults.set("echo", status=401)
    for _ in range(10):
        assert browser.get("/call/spotify/echo").status_code == 401
    assert provider.count["token"] == before + 1


class AsyncGuard:
    """A hook that is an object with an async `__call__`."""

    async def __call__(self, event: oauthgate.Event) -> None:
        raise oauthgate.Refused("nobody comes in")


async def refuse(event: oauthgate.Event) -> None:
    raise oauthgate.Refused("nobody comes in")


@pytest.mark.parametrize("hook", [AsyncGuard(), lambda event: refuse(event)], ids=["object", "lambda"])
def test_every_spelling_of_an_async_hook_refuses(kind: Kind, config: dict[str, Any], hook: Any) -> None:
    """A guard that is async in an unusual spelling is awaited, not skipped."""
    with site_under_test(kind, config, hooks={"login": hook}) as site:
        browser = site.browser()
        assert site.login(browser, "spotify").status_code == 403
        assert browser.get("/_oauth/session").status_code == 401


def test_a_hook_that_calls_the_api_does_not_block(
    config: dict[str, Any], provider: LocalProvider
) -> None:
    """The `refreshed` hook runs when lock and lease are free: it may call the service itself."""
    called = []

    def refreshed(event: oauthgate.Event) -> None:
        with oauthgate.open(config) as gate:
            called.append(gate.services(event.user_id)["spotify"].get("me").status_code)

    with site_under_test("wsgi", config, hooks={"refreshed": refreshed}) as site:
        browser = site.browser()
        site.login(browser, "spotify")
        provider.expire_access_tokens()
        done = threading.Event()

        def call() -> None:
            browser.get("/call/spotify/me")
            done.set()

        threading.Thread(target=call, daemon=True).start()
        assert done.wait(10)
    assert called == [200]


def test_a_logout_token_may_come_again_after_a_fault(
    kind: Kind, config: dict[str, Any], provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A back-channel logout that met a dead store is not burnt: a retry ends the session."""
    from tests.logout.test_provider_logout import claims, send

    with site_under_test(kind, config) as site:
        browser = site.browser()
        site.login(browser, "corp")
        content = claims(provider)
        put = site.gate.store.put

        async def failing(*args: Any, **kwargs: Any) -> int:
            raise oauthgate.StoreError("down")

        monkeypatch.setattr(site.gate.store, "put", failing)
        assert send(site, provider, content).status_code == 503
        monkeypatch.setattr(site.gate.store, "put", put)
        assert send(site, provider, content).status_code == 200
        assert browser.get("/_oauth/session").status_code == 401
        assert send(site, provider, content).status_code == 400


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "key": (
        {"token_endpoint_auth_method": "private_key_jwt", "private_key": "no"},
        "private_key: expected",
    ),
    "alg": (
        {"token_endpoint_auth_method": "client_secret_jwt", "token_endpoint_auth_signing_alg": "FOO"},
        "token_endpoint_auth_signing_alg: found 'FOO'",
    ),
    "id-token-alg": ({"id_token_signed_response_alg": "RS265"}, 'did you mean "RS256"'),
    "params": ({"authorization_params": {"state": "x"}}, "authorization_params.state"),
    "headers": ({"headers": {"X": "a\r\nb"}}, "headers.X"),
    "leeway": ({"refresh_leeway": float("nan")}, "refresh_leeway"),
    "max-age": ({"max_age": -1}, "max_age"),
    "hosts": ({"api_hosts": ["*.com"]}, "api_hosts"),
    "host": ({"token_endpoint": "https://" + "a" * 70 + ".example/"}, "token_endpoint"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_only_fail_later_is_refused_at_start(config: dict[str, Any], name: str) -> None:
    """A table whose first sign-in would be a 500 does not start."""
    keys, message = REFUSED[name]
    config["providers"]["spotify"].update(keys)
    with pytest.raises(oauthgate.ConfigError) as refusal:
        oauthgate.Config.load(config)
    assert message in str(refusal.value)
