"""The three forms of the hand-over: what each gives, whom it signs in, and which bodies are none."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from oauthgate.testing import LocalProvider
from tests.flows.steps import counting
from tests.support import BASE, SiteUnderTest

from .steps import APP, FrontEnd, bearer, hand_over, records, who

FORMS = ["access_token", "id_token", "code"]


def form(app: FrontEnd, name: str, account: str = "ada") -> dict[str, str]:
    """What a front end posts after a sign-in of its own."""
    make: Callable[[str], dict[str, str]] = getattr(app, name)
    return make(account)


@pytest.mark.parametrize("name", FORMS)
def test_first_and_next_time(site: SiteUnderTest, app: FrontEnd, name: str) -> None:
    """201 with a new user and a session token, 200 for one that is known, and never a cookie."""
    first = hand_over(site, form(app, name))
    assert first.status_code == 201, first.text
    shape = first.json()
    assert sorted(shape) == ["expires_in", "profile", "session_token", "token_type", "user_id"]
    assert shape["token_type"] == "Bearer"
    assert 14 * 86400 - 60 < shape["expires_in"] <= 14 * 86400
    assert shape["profile"]["id"] == "1001"
    again = hand_over(site, form(app, name))
    assert (again.status_code, again.json()["user_id"]) == (200, shape["user_id"])
    assert again.json()["session_token"] != shape["session_token"]
    for answer in (first, again):
        assert who(site, answer.json()["session_token"]) == shape["user_id"]
        assert "set-cookie" not in answer.headers
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", FORMS)
def test_it_is_the_same_account_as_in_a_browser(site: SiteUnderTest, app: FrontEnd, name: str) -> None:
    """Who signed in on the site is known to the hand-over, and the other way round."""
    browser = site.browser()
    site.login(browser, "corp")
    answer = hand_over(site, form(app, name))
    assert answer.status_code == 200
    assert answer.json()["user_id"] == browser.get("/who").json()["user_id"]
    assert hand_over(site, form(app, name, "grace")).json()["user_id"] != answer.json()["user_id"]
    assert len([key for key in records(site) if key.startswith("user/")]) == 2


@pytest.mark.parametrize("name", FORMS)
def test_the_profile_is_that_of_a_browser(site: SiteUnderTest, app: FrontEnd, name: str) -> None:
    """The profile is normalised as in a sign-in on the site, with every field."""
    profile = hand_over(site, form(app, name)).json()["profile"]
    assert list(profile) == ["id", "username", "name", "email", "email_verified", "picture", "gender"]
    if name != "id_token":  # whose claims this provider keeps for the user information
        assert (profile["name"], profile["email"]) == ("Ada Lovelace", "ada@example.com")
        assert profile["email_verified"] is True


def test_plain_oauth2(site: SiteUnderTest, spotify_app: FrontEnd) -> None:
    """Without OpenID Connect, `token_info` proves an access token, and the token endpoint a code."""
    scope = "player tweets"
    first = hand_over(site, spotify_app.access_token(scope=scope), "spotify")
    assert first.status_code == 201, first.text
    second = hand_over(site, spotify_app.code(scope=scope), "spotify")
    assert (second.status_code, second.json()["user_id"]) == (200, first.json()["user_id"])


def test_a_handler_calls_the_service_with_the_token(site: SiteUnderTest, spotify_app: FrontEnd) -> None:
    """A handed-over access token is kept with the link, as a token of the site's own flow is."""
    given = spotify_app.access_token(scope="player tweets")
    token = hand_over(site, given, "spotify").json()["session_token"]
    answer = site.browser().get("/call/spotify/me", headers=bearer(token))
    assert (answer.status_code, answer.json()["id"]) == (200, "1001")


def test_an_id_token_opens_no_service(site: SiteUnderTest, app: FrontEnd) -> None:
    """Who handed over an ID token is signed in, but a handler that calls the service is told to link."""
    token = hand_over(site, app.id_token()).json()["session_token"]
    answer = site.browser().get("/call/corp/me", headers=bearer(token))
    assert (answer.status_code, answer.json()["error"]) == (401, "link_required")
    assert answer.json()["reason"] == "reauth_required"


def test_an_id_token_takes_nothing_from_a_link(site: SiteUnderTest, app: FrontEnd) -> None:
    """A link that has a token keeps it, and its profile, when an ID token alone is handed over."""
    browser = site.browser()
    site.login(browser, "corp")
    before = browser.get("/who").json()["profile"]
    token = hand_over(site, app.id_token()).json()["session_token"]
    assert site.browser().get("/call/corp/me", headers=bearer(token)).status_code == 200
    assert browser.get("/who").json()["profile"] == before


def test_an_access_token_leaves_the_refresh_token(
    site: SiteUnderTest, spotify_app: FrontEnd, provider: LocalProvider
) -> None:
    """A link that can be refreshed still can after an access token was handed over."""
    browser = site.browser()
    site.login(browser, "spotify")
    given = spotify_app.access_token(scope="player tweets")
    assert hand_over(site, given, "spotify").status_code == 200
    before = provider.count["token"]
    provider.expire_access_tokens()
    assert browser.get("/call/spotify/me").status_code == 200
    assert provider.count["token"] == before + 1


def test_a_session_of_the_visitor_plays_no_part(site: SiteUnderTest, app: FrontEnd) -> None:
    """A cookie that comes along is neither used nor replaced; a bearer token signs nobody else in."""
    browser = site.browser()
    site.login(browser, "corp", "grace")
    cookies = dict(browser.cookies)
    answer = browser.post("/_oauth/corp/token", json=app.access_token(), headers=site.origin())
    assert answer.status_code == 201
    assert dict(browser.cookies) == cookies
    assert browser.get("/who").json()["user_id"] != answer.json()["user_id"]
    other = hand_over(site, app.access_token("grace"), **bearer(answer.json()["session_token"]))
    assert other.json()["user_id"] == browser.get("/who").json()["user_id"]


# -- bodies


REFUSED_BODIES: list[Any] = [
    {}, [], "text", 1, [{"access_token": "x"}],
    {"access_token": ""}, {"access_token": None}, {"access_token": 1}, {"access_token": True},
    {"access_token": ["x"]}, {"access_token": {"x": "y"}},
    {"access_token": "x", "client_id": "other"}, {"access_token": "x", "nonce": "n"},
    {"access_token": "x", "id_token": "y", "nonce": "n"}, {"id_token": "x"}, {"nonce": "n"},
    {"id_token": "x", "nonce": ""}, {"id_token": "x", "nonce": 1},
    {"code": "x"}, {"code": "x", "code_verifier": "y"}, {"code": "x", "redirect_uri": APP},
    {"code": "x", "code_verifier": "y" * 43, "redirect_uri": APP, "state": "s"},
    {"code": "x", "code_verifier": "short", "redirect_uri": APP},
    {"code": "x", "code_verifier": "é" * 43, "redirect_uri": APP},
    {"code": "x\n", "code_verifier": "y" * 43, "redirect_uri": APP},
    {"access_token": "two tokens"}, {"access_token": "one,two"}, {"access_token": "a\r\nX: y"},
    {"access_token": "토큰"}, {"access_token": "x" * 40_000}, {"Access_Token": "x"},
]  # fmt: skip


def test_bodies_of_no_form(site: SiteUnderTest, provider: LocalProvider) -> None:
    """Row 65: whatever is not exactly one of the three forms is 400, asks nobody and stores nothing."""
    store = counting(site.gate)
    provider.count.clear()
    for body in REFUSED_BODIES:
        answer = hand_over(site, body)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), body
        assert "short" not in answer.text and "토큰" not in answer.text
    assert not provider.count and not store.count


HOSTILE = [
    b"", b"{", b"\xff\xfe", b'{"access_token": "a", "access_token": "b"}', b'{"access_token": NaN}',
    b'{"access_token": "\\ud800"}', b"[" * 5000, b'{"a":' * 2000,
    b'{"access_token": ' + b"9" * 500 + b"}",
    b'{"access_token": "x"}{}', b"\x00", b'{"access_token": 1e999}',
    b'{"\xed\xa0\x80": 1}', b"{'access_token': 'x'}", b"true", b"null",
]  # fmt: skip


def post_raw(site: SiteUnderTest, body: bytes, content_type: str | None) -> httpx2.Response:
    headers = {"content-type": content_type} if content_type is not None else {}
    return site.browser().post("/_oauth/corp/token", content=body, headers=headers)


def test_hostile_json(site: SiteUnderTest) -> None:
    """Row 65: JSON with two meanings, or none, is 400, whatever it is; generated garbage too."""
    chance = random.Random(65)
    for body in [*HOSTILE, *(chance.randbytes(chance.randrange(200)) for _ in range(100))]:
        answer = post_raw(site, body, "application/json")
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), body


@pytest.mark.parametrize(
    "content_type",
    [
        None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
        "application/jsonp", "text/json", "application/json-seq", "application/jso",
    ],
)  # fmt: skip
def test_other_content_types(site: SiteUnderTest, app: FrontEnd, content_type: str | None) -> None:
    """Row 26, row 65: only JSON, which another site's page cannot send unasked; 415 says so."""
    body = json.dumps(app.access_token()).encode()
    answer = post_raw(site, body, content_type)
    assert (answer.status_code, answer.json()["error"]) == (415, "unsupported_media_type")
    assert "application/json" in answer.json()["error_description"]
    assert not records(site)


def test_json_with_a_charset(site: SiteUnderTest, app: FrontEnd) -> None:
    """A parameter of the content type, and its case, do not matter."""
    body = json.dumps(app.access_token()).encode()
    assert post_raw(site, body, "Application/JSON; charset=utf-8").status_code == 201


def test_a_body_that_is_too_long(site: SiteUnderTest) -> None:
    """Row 65: more than 64 KiB is 413."""
    answer = hand_over(site, {"access_token": "x" * 70_000})
    assert (answer.status_code, answer.json()["error"]) == (413, "request_too_large")


def test_tokens_in_the_address(site: SiteUnderTest, app: FrontEnd) -> None:
    """Row 66: a token in the query is none."""
    query = app.access_token()
    answer = site.browser().post("/_oauth/corp/token", params=query, json={})
    assert answer.status_code == 400
    assert not records(site)


def test_other_methods_and_providers(site: SiteUnderTest) -> None:
    """GET, PUT and the like are 405 with `Allow`; a provider that there is not is 404."""
    browser = site.browser()
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH"):
        answer = browser.request(method, "/_oauth/corp/token")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    answer = hand_over(site, {"access_token": "x"}, "nobody")
    assert (answer.status_code, answer.json()["error"]) == (404, "unknown_provider")


# -- who may call


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"}, {"origin": "null"}, {"origin": "http://localhost.evil.example"},
        {"origin": f"{BASE}:81"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"}, {"origin": BASE, "sec-fetch-site": "cross-site"},
        {"origin": "https://spa.example.com.evil.example"}, {"origin": ""},
    ],
)  # fmt: skip
def test_pages_of_other_sites(
    make_site: Callable[[], SiteUnderTest],
    config: dict[str, Any],
    app: FrontEnd,
    headers: dict[str, str],
) -> None:
    """Row 26: a browser on another site's page is refused, before anything is read or asked."""
    config["oauthgate"]["allowed_origins"] = ["https://spa.example.com"]
    site = make_site()
    answer = hand_over(site, app.access_token(), **headers)
    assert (answer.status_code, answer.json()["error"]) == (403, "csrf_failed")
    assert "access-control-allow-origin" not in answer.headers
    assert not records(site)


def test_pages_that_may(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any], app: FrontEnd
) -> None:
    """A page of this site, and one of an allowed origin, hand over; the latter may read the answer."""
    config["oauthgate"]["allowed_origins"] = ["https://spa.example.com"]
    site = make_site()
    own = {"origin": BASE, "sec-fetch-site": "same-origin"}
    assert hand_over(site, app.access_token(), **own).status_code == 201
    spa = {"origin": "https://spa.example.com", "sec-fetch-site": "cross-site"}
    answer = hand_over(site, app.access_token(), **spa)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://spa.example.com"
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    preflight = site.browser().options("/_oauth/corp/token", headers={**spa, **asked})
    assert preflight.status_code == 204
    assert "content-type" in preflight.headers["access-control-allow-headers"].lower()


# -- providers that take none


def test_providers_without_a_proof(site: SiteUnderTest, spotify_app: FrontEnd) -> None:
    """Row 63: where nothing proves whom a token was issued to, none is taken: 404 and the cure."""
    cases: list[tuple[str, dict[str, str], str]] = [
        ("plain", spotify_app.access_token(scope="player"), "token_info"),
        ("plain", {"id_token": "a.b.c", "nonce": "n"}, "OpenID Connect"),
        ("plain", spotify_app.code(scope="player"), "handover_redirect_uris"),
        ("spotify", {"id_token": "a.b.c", "nonce": "n"}, "OpenID Connect"),
    ]
    for provider, body, cure in cases:
        answer = hand_over(site, body, provider)
        assert (answer.status_code, answer.json()["error"]) == (404, "handover_disabled"), body
        assert cure in answer.json()["error_description"]
    assert not records(site)


def test_oauth1_takes_none(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any], provider_url: str
) -> None:
    """OAuth 1.0a tokens are nothing without the client's signature, so there is nothing to hand over."""
    config["providers"]["old"] = {
        "request_token_url": f"{provider_url}/oauth1/request_token",
        "authorization_endpoint": f"{provider_url}/oauth1/authenticate",
        "token_endpoint": f"{provider_url}/oauth1/access_token",
        "userinfo_endpoint": f"{provider_url}/api/me",
        "client_id": "old",
        "client_secret": "s" * 32,
        "profile": {"id": "id"},
        "protocol": "oauth1",
    }
    site = make_site()
    bodies: list[dict[str, str]] = [
        {"access_token": "x"}, {"id_token": "x", "nonce": "n"},
        {"code": "x", "code_verifier": "y" * 43, "redirect_uri": APP},
    ]  # fmt: skip
    for body in bodies:
        answer = hand_over(site, body, "old")
        assert (answer.status_code, answer.json()["error"]) == (404, "handover_disabled")


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_are_switched_off(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any], app: FrontEnd, name: str
) -> None:
    """`handover` names the forms that are taken; an empty list switches the route off."""
    corp = config["providers"]["corp"]
    corp["handover"] = [form for form in FORMS if form != name]
    answer = hand_over(make_site(), form(app, name))
    assert (answer.status_code, answer.json()["error"]) == (404, "handover_disabled")
    corp["handover"] = [name]
    assert hand_over(make_site(), form(app, name)).status_code == 201
