"""What the profile lacks, and what the provider cannot answer: each with its code, nothing stored."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

import oauthgate
from oauthgate.testing import LocalProvider
from tests.security.test_leaks import Capture, capture
from tests.support import Kind, SiteUnderTest, site_under_test

from .steps import APP, FrontEnd, bearer, hand_over, records

__all__ = ["capture"]
FORMS = ["access_token", "id_token", "code"]


def outcome(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("error", "")


@pytest.mark.parametrize("name", FORMS)
def test_a_field_that_is_needed(
    make_site: Callable[[], SiteUnderTest],
    config: dict[str, Any],
    app: FrontEnd,
    provider: LocalProvider,
    name: str,
) -> None:
    """Without a field of `required_profile` nobody is made: 403, and the field is named."""
    config["providers"]["corp"]["required_profile"] = ["email"]
    site = make_site()
    provider.withheld_scope.add("email")
    answer = hand_over(site, getattr(app, name)())
    assert outcome(answer) == (403, "missing_profile_field")
    assert "email" in answer.json()["error_description"]
    assert not records(site)
    provider.withheld_scope.clear()
    provider.claims_in_id_token = True
    assert hand_over(site, getattr(app, name)()).status_code == 201


def test_expired_access_token(
    site: SiteUnderTest, spotify_app: FrontEnd, provider: LocalProvider
) -> None:
    """A token that has ended is 401, by the provider's own word."""
    given = spotify_app.access_token(scope="player")
    provider.expire_access_tokens()
    assert outcome(hand_over(site, given, "spotify")) == (401, "invalid_token")
    assert not records(site)


def test_a_scope_that_was_refused(
    site: SiteUnderTest, spotify_app: FrontEnd, provider: LocalProvider
) -> None:
    """A token that may not read the profile is 403 `insufficient_scope`."""
    given = spotify_app.access_token(scope="player")
    provider.api_scopes["me"] = "profile"
    assert outcome(hand_over(site, given, "spotify")) == (403, "insufficient_scope")
    assert not records(site)


def test_a_token_that_ends_in_between(
    site: SiteUnderTest, spotify_app: FrontEnd, provider: LocalProvider
) -> None:
    """Good when it was asked about and refused for the profile: the token's fault all the same."""
    given = spotify_app.access_token(scope="player")
    provider.faults.set("me", status=401)
    assert outcome(hand_over(site, given, "spotify")) == (401, "invalid_token")


@pytest.mark.parametrize("endpoint", ["token_info", "me"])
@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_provider_that_is_down(
    site: SiteUnderTest,
    spotify_app: FrontEnd,
    provider: LocalProvider,
    endpoint: str,
    status: int,
) -> None:
    """A provider that cannot answer is never a yes: 503 where it cannot say whose token it is."""
    given = spotify_app.access_token(scope="player")
    provider.faults.set(endpoint, status=status)
    answer = hand_over(site, given, "spotify")
    if endpoint == "me":
        assert outcome(answer) == (502, "provider_misbehaved")
    else:
        assert outcome(answer) == (503, "provider_unavailable")
        assert answer.headers["retry-after"]
    assert not records(site)
    provider.faults.clear()
    assert hand_over(site, given, "spotify").status_code == 201


@pytest.mark.parametrize("endpoint", ["token_info", "me"])
def test_a_provider_that_is_slow(
    make_site: Callable[[], SiteUnderTest],
    config: dict[str, Any],
    spotify_app: FrontEnd,
    provider: LocalProvider,
    endpoint: str,
) -> None:
    """Slower than `timeout` is 504, and the token is still good afterwards."""
    config["providers"]["spotify"]["timeout"] = 0.3
    site = make_site()
    given = spotify_app.access_token(scope="player")
    provider.faults.set(endpoint, delay=30)
    assert outcome(hand_over(site, given, "spotify")) == (504, "provider_timeout")
    assert not records(site)
    provider.faults.clear()
    assert hand_over(site, given, "spotify").status_code == 201


def test_a_provider_that_is_not_there(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any]
) -> None:
    """No connection is 502; an issuer whose metadata cannot be had is 503."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{held.getsockname()[1]}"
        config["providers"]["spotify"]["token_info"]["url"] = f"{nowhere}/token_info"
        config["providers"]["corp"]["issuer"] = nowhere
        site = make_site()
        given = {"access_token": "x"}
        assert outcome(hand_over(site, given, "spotify")) == (502, "provider_unreachable")
        assert outcome(hand_over(site, given, "corp")) == (503, "provider_unavailable")
    assert not records(site)


def test_a_hook_that_refuses(kind: Kind, config: dict[str, Any], app: FrontEnd) -> None:
    """The `login` hook decides here too, and a refused newcomer leaves nothing behind."""
    seen: list[tuple[str, bool]] = []

    def login(event: oauthgate.Event) -> None:
        assert event.link is not None
        seen.append((event.link.provider, event.new_user))
        raise oauthgate.Refused("members only")

    with site_under_test(kind, config, {"login": login}) as site:
        answer = hand_over(site, app.access_token())
        assert outcome(answer) == (403, "refused")
        assert seen == [("corp", True)]
        assert not records(site)


@pytest.mark.parametrize("provider_name", ["corp", "spotify"])
def test_nothing_secret_is_logged(
    site: SiteUnderTest,
    app: FrontEnd,
    spotify_app: FrontEnd,
    provider: LocalProvider,
    capture: Capture,
    provider_name: str,
) -> None:
    """Row 76: neither what was handed over nor what was given for it is in a log, or in an answer."""
    capture.paused = True
    if provider_name == "corp":
        bodies = [app.access_token(), app.id_token(), app.code()]
    else:
        bodies = [spotify_app.access_token(scope="player"), spotify_app.code(scope="player")]
    capture.paused = False
    secrets = [body[name] for body in bodies for name in body if name not in ("redirect_uri", "nonce")]
    answers = [hand_over(site, body, provider_name) for body in (*bodies, *bodies)]
    answers.append(hand_over(site, {"access_token": secrets[0][:-1] + "_"}, provider_name))
    provider.faults.set("token_info", status=500)
    provider.faults.set("introspect", status=500)
    answers.append(hand_over(site, bodies[0], provider_name))
    for answer in answers:
        if "session_token" in answer.text:
            token = answer.json()["session_token"]
            secrets.append(token)
            site.browser().get("/who", headers=bearer(token))
    assert len(secrets) > len(bodies) * 2
    for line in capture.lines:
        assert not [secret for secret in secrets if secret in line], line
    for answer in answers:
        shown = {**answer.json(), "session_token": ""}
        assert not [secret for secret in secrets if secret in json.dumps(shown)]
        assert APP not in answer.text
