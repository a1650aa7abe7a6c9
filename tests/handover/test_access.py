"""`[access]` decides on a hand-over as it does on a sign-in in the browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from oauthgate.testing import LocalProvider
from tests.support import SiteUnderTest

from .steps import FrontEnd, bearer, hand_over, records, who

MakeSite = Callable[[], SiteUnderTest]


def test_places(make_site: MakeSite, config: dict[str, Any], app: FrontEnd) -> None:
    """Who is one too many gets 403 and leaves nothing; who is in gets in by each form."""
    config["access"] = {"max_users": 1}
    site = make_site()
    assert hand_over(site, app.access_token("ada"), "corp").status_code == 201
    before = records(site)
    for body in (app.access_token("grace"), app.id_token("grace"), app.code("grace")):
        answer = hand_over(site, body)
        assert (answer.status_code, answer.json()["error"]) == (403, "too_many_users")
    assert records(site) == before
    assert hand_over(site, app.id_token("ada")).status_code == 200


def test_allow(
    make_site: MakeSite, config: dict[str, Any], app: FrontEnd, provider: LocalProvider
) -> None:
    """Only an address that the provider verified gets in, by each form."""
    provider.accounts["1002"] = replace(provider.accounts["1002"], email_verified=False)
    config["access"] = {"allow": ["*@example.com"]}
    site = make_site()
    for body in (app.access_token("grace"), app.code("grace")):
        answer = hand_over(site, body)
        assert (answer.status_code, answer.json()["error"]) == (403, "not_allowed")
    assert [key for key in records(site) if key.startswith(("user/", "account/"))] == []
    assert hand_over(site, app.access_token("ada")).status_code == 201


def test_a_claim_that_is_withheld(
    make_site: MakeSite,
    config: dict[str, Any],
    app: FrontEnd,
    provider: LocalProvider,
) -> None:
    """A `deny` by a claim of the profile is not evaded by handing over the ID token alone, with which
    the profile is not read; where the profile was read, the claim is known."""
    provider.accounts["1001"] = replace(provider.accounts["1001"], extra={"groups": ["guests"]})
    config["access"] = {"deny": [{"provider": "corp", "claim": "groups", "value": "guests"}]}
    site = make_site()
    for body in (app.access_token("ada"), app.code("ada"), app.id_token("ada"), app.id_token("grace")):
        answer = hand_over(site, body)
        assert (answer.status_code, answer.json()["error"]) == (403, "not_allowed")
    assert hand_over(site, app.access_token("grace")).status_code == 201


def test_protected_paths(make_site: MakeSite, config: dict[str, Any], app: FrontEnd) -> None:
    """A session token opens what is protected; without it a program is told to sign in."""
    config["access"] = {"protect": ["/who"]}
    site = make_site()
    token = hand_over(site, app.access_token()).json()["session_token"]
    assert who(site, token)
    for headers in ({}, bearer(token[:-1] + ("A" if token[-1] != "A" else "B"))):
        answer = site.browser().get("/who", headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (401, "login_required")


def test_a_rule_ends_a_jwt_too(make_site: MakeSite, config: dict[str, Any], app: FrontEnd) -> None:
    """A session token that is a JWT is worth nothing once its account is not admitted any more."""
    config["session"] = {"api_token": "jwt"}
    token = hand_over(make_site(), app.access_token()).json()["session_token"]
    assert token.count(".") == 2
    assert who(make_site(), token)
    config["access"] = {"deny": ["corp:1001"]}
    assert who(make_site(), token) is None
