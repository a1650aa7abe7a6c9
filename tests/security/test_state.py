"""State, binding, PKCE and nonce: rows 9 to 25, 46 and 47 of the threat list."""

from __future__ import annotations

import base64
import hashlib
import random
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest

from oauthgate.config_providers import preset_names, read_preset
from oauthgate.testing import LocalProvider
from tests.flows.steps import (
    SESSION,
    cookie_header,
    counting,
    flow_cookies,
    location,
    post_json,
    set_cookies,
    start,
    who,
)
from tests.support import PAGE, SiteUnderTest

from .payloads import SEED, raw_values, texts
from .raw import Raw

TOKEN_ENDPOINT = {"twitter": "access_token", "spotify": "token", "corp": "token"}
ALL = list(TOKEN_ENDPOINT)
OIDC_STEPS = ("token", "access_token", "userinfo", "me")


def asked(provider: LocalProvider) -> int:
    """How many requests reached the provider after the browser came back (NTR when unchanged)."""
    return sum(provider.count[endpoint] for endpoint in OIDC_STEPS)


def rejected(answer: httpx2.Response, *echoes: str) -> None:
    """REJECT as the threat list defines it: 4xx, no session cookie touched, nothing echoed."""
    assert 400 <= answer.status_code < 500, answer.status_code
    assert not [value for value in set_cookies(answer) if value.startswith(f"{SESSION}=")]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    for echo in echoes:
        assert len(echo) < 6 or echo not in answer.text


def parameters(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


@pytest.fixture
def signed_in(site: SiteUnderTest) -> httpx2.Client:
    """A browser signed in as grace, with another pending flow."""
    browser = site.browser()
    site.login(browser, "twitter", account="grace")
    start(site, browser, "corp")
    return browser


@pytest.mark.parametrize("name", ALL)
def test_made_up_states(
    site: SiteUnderTest, provider: LocalProvider, signed_in: httpx2.Client, name: str
) -> None:
    """Missing, empty, unknown and random states: refused without a question to anybody (row 9)."""
    before, flows = asked(provider), flow_cookies(signed_in)
    store = counting(site.gate)
    key = "oauth_token" if name == "twitter" else "state"
    other = "oauth_verifier" if name == "twitter" else "code"
    for value in [None, "", "x", "A" * 43, "A" * 5000, *texts(40)]:
        query = {other: "made-up-code"} | ({} if value is None else {key: value})
        for browser in (signed_in, site.browser()):
            answer = browser.get(f"/_oauth/{name}/callback", params=query, headers=PAGE)
            rejected(answer, "made-up-code", value or "")
    assert asked(provider) == before
    assert store.writes == 0
    assert flow_cookies(signed_in) == flows
    assert who(signed_in)["links"] == ["twitter:1002"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("victim_is_signed_in", [True, False])
def test_an_attackers_answer_in_the_victims_browser(
    site: SiteUnderTest, provider: LocalProvider, name: str, victim_is_signed_in: bool
) -> None:
    """A valid state and code of the attacker's browser do nothing in the victim's (row 10, row 46)."""
    attacker, victim = site.browser(), site.browser()
    if victim_is_signed_in:
        site.login(victim, "twitter", account="grace")
    before = who(victim)
    url = site.authorize(start(site, attacker, name))
    count = asked(provider)
    rejected(victim.get(url, headers=PAGE), *parameters(url).values())
    assert asked(provider) == count
    assert {**who(victim), "csrf_token": 0} == {**before, "csrf_token": 0}
    assert attacker.get(url).status_code == 303, "the attacker's own flow was not used up by it"


@pytest.mark.parametrize("name", ALL)
def test_an_attackers_link_in_the_victims_browser(
    site: SiteUnderTest, provider: LocalProvider, name: str
) -> None:
    """An account cannot be pushed onto a victim by the answer of the attacker's link flow (row 18)."""
    attacker, victim = site.browser(), site.browser()
    first = "spotify" if name != "spotify" else "twitter"
    site.login(attacker, first)
    site.login(victim, first, account="grace")
    url = site.authorize(location(site.post(attacker, f"/{name}/link")))
    rejected(victim.get(url, headers=PAGE))
    assert who(victim)["links"] == [f"{first}:1002"]


@pytest.mark.parametrize("how", ["logged_out", "other_user", "other_session", "no_session"])
def test_a_link_ends_in_its_own_session_only(
    site: SiteUnderTest, provider: LocalProvider, how: str
) -> None:
    """A link flow whose session has gone or changed links nothing to anybody (row 18)."""
    browser = site.browser()
    site.login(browser, "twitter")
    url = site.authorize(location(site.post(browser, "/spotify/link")))
    flows = "; ".join(f"{name}={value}" for name, value in flow_cookies(browser).items())
    before = asked(provider)
    if how == "logged_out":
        post_json(site, browser, "/logout")
    elif how == "other_user":
        site.login(browser, "twitter", account="grace")
    elif how == "other_session":
        site.login(browser, "twitter")
    else:
        browser = site.browser()
    before = asked(provider)
    answer = browser.get(url, headers={**PAGE, "cookie": f"{cookie_header(browser)['cookie']}; {flows}"})
    rejected(answer, *parameters(url).values())
    assert answer.status_code == 403
    assert asked(provider) == before
    for account in ("ada", "grace"):
        check = site.browser()
        site.login(check, "twitter", account=account)
        assert [link for link in who(check)["links"] if link.startswith("spotify")] == []


@pytest.mark.parametrize("name", ALL)
def test_a_flow_ends_at_its_own_provider_only(
    site: SiteUnderTest, provider: LocalProvider, name: str
) -> None:
    """A flow of A finished on B's callback: no request to either, and A's flow goes on (row 16)."""
    for other in ALL:
        if other == name:
            continue
        browser = site.browser()
        url = site.authorize(start(site, browser, name))
        values = parameters(url)
        values |= {"state": values.get("state") or values["oauth_token"]}
        values |= {
            "oauth_token": values["state"],
            "oauth_verifier": "x",
            "code": values.get("code", "x"),
        }
        before = asked(provider)
        rejected(browser.get(f"/_oauth/{other}/callback", params=values, headers=PAGE))
        assert asked(provider) == before
        assert browser.get(url).status_code == 303


PARAMETERS = {
    "twitter": ("oauth_token", "oauth_verifier"),
    "spotify": ("state", "code", "iss"),
    "corp": ("state", "code", "iss"),
}


@pytest.mark.parametrize("name", ALL)
def test_repeated_parameters(site: SiteUnderTest, provider: LocalProvider, raw: Raw, name: str) -> None:
    """A parameter twice, the same or another value, first or last, or another spelling of its name:
    refused, the flow not used up (row 13, row 46)."""
    browser = site.browser()
    url = site.authorize(start(site, browser, name))
    cookie = [(b"cookie", cookie_header(browser)["cookie"].encode())]
    target = url.removeprefix(site.base).encode()
    before = asked(provider)
    for key in PARAMETERS[name]:
        value = parameters(url)[key]
        first, rest = key[:1].encode(), key[1:].encode()
        names = [key.encode(), b"%%%02x" % first[0] + rest, key.replace("_", "%5F").encode()]
        for spelt in names:
            for second in (value.encode(), b"other", b"", b"%20"):
                extra = spelt + b"=" + second
                path, _, query = target.partition(b"?")
                for changed in (query + b"&" + extra, extra + b"&" + query):
                    answer = raw(path + b"?" + changed, headers=cookie)
                    answer.check()
                    assert answer.status == 400
    for error in (b"error=a&error=b", b"denied=a&denied=b", b"error_description=a&error_description=b"):
        assert raw(target + b"&" + error, headers=cookie).status == 400
    assert asked(provider) == before
    assert browser.get(url).status_code == 303


@pytest.mark.parametrize("name", ALL)
def test_malformed_parameters(site: SiteUnderTest, provider: LocalProvider, raw: Raw, name: str) -> None:
    """Random bytes in every parameter of the callback: a 4xx, no 500, no header of their making
    (row 4, row 14)."""
    keys = ["state", "code", "iss", "error", "error_description", "error_uri", "user", "oauth_token"]
    keys += ["oauth_verifier", "denied", "oauth_problem", "resume", "x", "%00", "%ff", "", "[]", "a[b]"]
    rng = random.Random(SEED)
    before = asked(provider)
    for value in raw_values(400):
        pairs = [key.encode() + b"=" + value for key in rng.sample(keys, rng.randint(1, 6))]
        answer = raw(f"/_oauth/{name}/callback?".encode() + b"&".join(pairs))
        answer.check()
        assert answer.status in (400, 405, 414), answer.status
    for long in (b"state=" + b"a" * 20_000, b"&".join([b"a=1"] * 5_000), b"code=" + b"%5B" * 9_000):
        answer = raw(f"/_oauth/{name}/callback?".encode() + long)
        answer.check()
        assert answer.status in (400, 414)
    assert asked(provider) == before


def test_malformed_parameters_everywhere(site: SiteUnderTest, raw: Raw) -> None:
    """The same at every other route and method (row 4, row 14)."""
    browser = site.browser()
    site.login(browser)
    token = site.csrf(browser)
    session = [(b"cookie", cookie_header(browser)["cookie"].encode())]
    routes = ["/", "/session", "/session/refresh", "/logout", "/providers", "/check"]
    routes += [f"/spotify/{action}" for action in ("login", "link", "unlink", "callback", "account")]
    keys = [
        "next",
        "then",
        "prompt",
        "login_hint",
        "message",
        "reason",
        "scope",
        "session",
        "everywhere",
        "ask",
    ]
    keys += ["account_id", "label", "csrf_token", "provider_logout", "a"]
    rng = random.Random(SEED)
    form = [(b"content-type", b"application/x-www-form-urlencoded"), (b"origin", site.base.encode())]
    json = [(b"content-type", b"application/json"), (b"origin", site.base.encode())]
    for value in raw_values(200):
        query = b"&".join(key.encode() + b"=" + value for key in rng.sample(keys, 4))
        for accept in (b"text/html", b"application/json"):
            extra = [*(session if rng.random() < 0.5 else []), (b"accept", accept)]
            extra.append((b"accept-language", value.replace(b"\x00", b"") or b"ko"))
            route = f"/_oauth{rng.choice(routes)}".encode()
            raw(route + b"?" + query, headers=extra).check()
            with_token = query + b"&csrf_token=" + token.encode()
            raw(route, method="POST", headers=[*extra, *form], body=with_token).check()
            raw(
                route, method="POST", headers=[*extra, *json], body=b'{"next": "' + value + b'"}'
            ).check()


JSON_BODIES = [
    b"", b"null", b"[]", b"1", b'"x"', b"{", b"{}x", b'{"a":1,"a":2}', b'{"next":{"a":[1]}}',
    b'{"next":1e999}',
    b'{"next":NaN}', b'{"next":"\\ud800"}', b'{"next":"\\u0000"}', b"\xef\xbb\xbf{}", b'{"next":"\xff"}',
    b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a":' + b"9" * 5000 + b"}", b'{"csrf_token":null}',
]  # fmt: skip


def test_hostile_json_bodies(site: SiteUnderTest, raw: Raw) -> None:
    """JSON that is illegal, ambiguous or of another shape is a 4xx and changes nothing (row 65)."""
    browser = site.browser()
    site.login(browser)
    headers = [
        (b"cookie", cookie_header(browser)["cookie"].encode()),
        (b"content-type", b"application/json"),
        (b"origin", site.base.encode()),
        (b"x-csrf-token", site.csrf(browser).encode()),
    ]
    for body in JSON_BODIES:
        answer = raw(b"/_oauth/spotify/link", method="POST", headers=headers, body=body)
        answer.check()
        # No body is none; a target that is refused becomes the home page.
        assert answer.status == (200 if body == b"" or b"\\u0000" in body else 400), body


def test_large_bodies_are_refused(site: SiteUnderTest, raw: Raw) -> None:
    """More than 64 KB is a 413, on whatever the body is (row 65, row 109)."""
    browser = site.browser()
    site.login(browser)
    for kind in (b"application/json", b"application/x-www-form-urlencoded"):
        headers = [
            (b"cookie", cookie_header(browser)["cookie"].encode()),
            (b"content-type", kind),
            (b"origin", site.base.encode()),
        ]
        answer = raw(b"/_oauth/logout", method="POST", headers=headers, body=b"a" * 70_000)
        answer.check()
        assert answer.status == 413
    assert who(browser)["user_id"] is not None


@pytest.mark.parametrize("name", ALL)
def test_unsolicited_errors(
    site: SiteUnderTest, provider: LocalProvider, signed_in: httpx2.Client, name: str
) -> None:
    """An error without a flow consumes nothing and signs nobody out (row 15)."""
    flows = flow_cookies(signed_in)
    for query in (
        {"error": "access_denied"},
        {"error": "x", "state": "y" * 43},
        {"denied": "z"},
        {"error": ""},
    ):
        rejected(signed_in.get(f"/_oauth/{name}/callback", params=query, headers=PAGE))
    assert flow_cookies(signed_in) == flows
    assert who(signed_in)["user_id"] is not None


@pytest.mark.parametrize("name", ["spotify", "corp"])
def test_pkce_is_fresh_and_s256(site: SiteUnderTest, provider: LocalProvider, name: str) -> None:
    """Each flow has a new verifier of 43 to 128 characters; only its S256 hash is in a URL (row 22)."""
    challenges, states, nonces = set(), set(), set()
    browser = site.browser()
    for _ in range(20):
        url = start(site, browser, name)
        sent = parameters(url)
        assert sent["code_challenge_method"] == "S256"
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", sent["code_challenge"])
        challenges.add(sent["code_challenge"])
        states.add(sent["state"])
        nonces.add(sent.get("nonce"))
        assert "code_verifier" not in url
    assert len(challenges) == len(states) == 20
    assert nonces == {None} if name == "spotify" else len(nonces) == 20 and None not in nonces
    browser.get(site.authorize(url))
    verifier = provider.received("token")[-1].params["code_verifier"]
    assert re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", verifier)
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    assert digest == sent["code_challenge"]


def test_the_flow_cookie_shows_nothing(site: SiteUnderTest, provider: LocalProvider) -> None:
    """A flow's cookie holds neither state nor verifier in the clear, and opens under its own name only
    (row 22)."""
    browser = site.browser()
    urls = [start(site, browser), start(site, browser)]
    names = list(flow_cookies(browser))
    values = list(flow_cookies(browser).values())
    raw = [base64.urlsafe_b64decode(value.partition(".")[2] + "==") for value in values]
    for url in urls:
        state = parameters(url)["state"]
        assert all(
            state.encode() not in text and state not in value
            for text, value in zip(raw, values, strict=True)
        )
    assert all(len(name) + len(value) <= 900 for name, value in flow_cookies(browser).items())
    callback = site.authorize(urls[0])
    swapped = f"{names[0]}={values[1]}; {names[1]}={values[0]}"
    rejected(site.browser().get(callback, headers={**PAGE, "cookie": swapped}))
    truncated = f"{names[0]}={values[0][:-1]}"
    rejected(site.browser().get(callback, headers={**PAGE, "cookie": truncated}))
    rng = random.Random(SEED)
    for _ in range(50):
        at = rng.randrange(10, len(values[0]))
        flipped = values[0][:at] + ("A" if values[0][at] != "A" else "B") + values[0][at + 1 :]
        if base64.urlsafe_b64decode(flipped.partition(".")[2] + "==") != raw[0]:
            rejected(site.browser().get(callback, headers={**PAGE, "cookie": f"{names[0]}={flipped}"}))
    assert provider.count["token"] == 0


def test_code_injection(site: SiteUnderTest, provider: LocalProvider) -> None:
    """A victim's code in the attacker's own flow is refused by PKCE; at a provider that ignores PKCE
    the nonce refuses it before userinfo is asked (row 21, row 23)."""
    for name, pkce in (("spotify", True), ("corp", True), ("corp", False)):
        attacker, victim = site.browser(), site.browser()
        stolen = parameters(site.authorize(start(site, victim, name), account="grace"))["code"]
        own = site.authorize(start(site, attacker, name))
        if not pkce:
            challenge = next(iter(provider.codes.values()[-1:])).code_challenge
            for code in provider.codes.values():
                code.code_challenge = challenge
        provider.count.clear()
        answer = attacker.get(own.replace(parameters(own)["code"], stolen), headers=PAGE)
        assert answer.status_code in (400, 502)
        assert provider.count["token"] == 1, "no second request without PKCE (row 22)"
        assert provider.count["userinfo"] == provider.count["me"] == 0
        assert who(attacker)["user_id"] is None


def test_a_wrong_nonce_stores_nothing(site: SiteUnderTest, provider: LocalProvider) -> None:
    """A nonce that is missing, wrong, of another type or of another flow ends the sign-in before
    userinfo (row 23)."""
    old = parameters(start(site, site.browser(), "corp"))["nonce"]
    for nonce in (None, "", "x", old, 7, ["x"], {"a": 1}, True):

        def tamper(claims: dict[str, Any], header: dict[str, Any], nonce: object = nonce) -> None:
            claims.pop("nonce")
            if nonce is not None:
                claims["nonce"] = nonce

        provider.faults.tamper_id_token = tamper
        provider.count.clear()
        browser = site.browser()
        answer = browser.get(site.authorize(start(site, browser, "corp")), headers=PAGE)
        assert answer.status_code == 502, nonce
        assert provider.count["userinfo"] == 0
        assert who(browser)["user_id"] is None


@pytest.mark.parametrize("name", ["spotify", "corp"])
def test_tokens_in_the_callback_are_ignored(
    site: SiteUnderTest, provider: LocalProvider, name: str
) -> None:
    """An access_token or id_token put into the callback is never used (row 24)."""
    browser = site.browser()
    url = site.authorize(start(site, browser, name))
    planted = "&access_token=planted-token&id_token=planted.id.token&token_type=Bearer&expires_in=9"
    assert browser.get(url + planted).status_code == 303
    assert browser.get(f"/call/{name}/me").status_code == 200
    used = [
        message.header("authorization") for message in provider.log if message.header("authorization")
    ]
    assert used and not any("planted" in str(value) for value in used)
    fragmentless = site.browser()
    start(site, fragmentless, name)
    query = {"access_token": "planted-token", "state": "x" * 43}
    rejected(fragmentless.get(f"/_oauth/{name}/callback", params=query, headers=PAGE), "planted-token")


def test_post_where_query_is_configured(site: SiteUnderTest, provider: LocalProvider) -> None:
    """A posted answer where the provider answers by redirect is a 405, the flow not used up (row 25)."""
    browser = site.browser()
    url = site.authorize(start(site, browser))
    answer = browser.post("/_oauth/spotify/callback", data=parameters(url), headers=PAGE)
    rejected(answer)
    assert answer.status_code == 405
    assert provider.count["token"] == 0
    assert browser.get(url).status_code == 303


@pytest.fixture
def posting(make_site: Callable[[], SiteUnderTest], config: dict[str, Any]) -> SiteUnderTest:
    """A site whose OpenID provider answers by form_post."""
    config["providers"]["corp"]["response_mode"] = "form_post"
    return make_site()


def posted(site: SiteUnderTest, url: str, account: str = "ada") -> tuple[str, dict[str, str]]:
    """Where the provider's form_post page posts to, and what."""
    from oauthgate.testing import sign_in

    with httpx2.Client() as client:
        callback = sign_in(client, url, account)
    assert callback.fields is not None
    return str(callback), callback.fields


CROSS_SITE = {**PAGE, "origin": "http://127.0.0.1:9999", "sec-fetch-site": "cross-site"}


def only(headers: dict[str, str], *, without: str) -> dict[str, str]:
    """A Cookie header without the cookies whose name is `without` (Lax ones, on a cross-site POST)."""
    parts = [part for part in headers["cookie"].split("; ") if part.partition("=")[0] != without]
    return {"cookie": "; ".join(parts)}


def test_form_post_login(posting: SiteUnderTest, provider: LocalProvider) -> None:
    """A cross-site POST carries only the SameSite=None flow cookie, and that is enough (row 25)."""
    browser = posting.browser()
    begun = browser.get("/_oauth/corp/login", params={"next": "/who"}, headers=PAGE)
    (cookie,) = set_cookies(begun)
    assert "SameSite=None" in cookie and "Secure" in cookie and "HttpOnly" in cookie
    url, fields = posted(posting, location(begun))
    pair = cookie.partition(";")[0]
    # On plain http a browser with a loopback exception keeps it; the jar of the test does not.
    answer = posting.browser().post(url, data=fields, headers={**CROSS_SITE, "cookie": pair})
    assert location(answer) == f"{posting.base}/who"
    assert posting.browser().get(url, headers=PAGE).status_code in (400, 405), "a GET is not its way"
    other = posting.browser().post(url, data=fields, headers=CROSS_SITE)
    rejected(other)
    assert provider.count["token"] == 1


def test_form_post_link(posting: SiteUnderTest, provider: LocalProvider) -> None:
    """A link by form_post ends in its session although the POST came without the session cookie; the
    answer stands in no URL (row 25, row 18)."""
    browser, other = posting.browser(), posting.browser()
    posting.login(browser, "twitter")
    posting.login(other, "twitter", account="grace")
    begun = posting.post(browser, "/corp/link", next="/who")
    url, fields = posted(posting, location(begun))
    flow = set_cookies(begun)[0].partition(";")[0]
    session = cookie_header(browser)["cookie"]
    middle = posting.browser().post(url, data=fields, headers={**CROSS_SITE, "cookie": flow})
    kept = set_cookies(middle)[0].partition(";")[0]
    assert fields["code"] not in location(middle)
    foreign = f"{cookie_header(other)['cookie']}; {flow}; {kept}"
    rejected(posting.browser().get(location(middle), headers={**PAGE, "cookie": foreign}))
    assert provider.count["token"] == 0
    mine = f"{session}; {flow}; {kept}"
    answer = posting.browser().get(location(middle), headers={**PAGE, "cookie": mine})
    assert location(answer) == f"{posting.base}/who"
    assert who(browser)["services"] == ["corp", "twitter"]
    assert who(other)["services"] == ["twitter"]


def test_form_post_with_parameters_in_both_places(
    posting: SiteUnderTest, provider: LocalProvider
) -> None:
    """Parameters split over address and body are refused (row 13)."""
    begun = posting.browser().get("/_oauth/corp/login", headers=PAGE)
    url, fields = posted(posting, location(begun))
    cookie = {"cookie": set_cookies(begun)[0].partition(";")[0]}
    for name in ("state", "code", "iss", "error"):
        answer = posting.browser().post(
            f"{url}?{name}={fields.get(name, 'x')}", data=fields, headers={**CROSS_SITE, **cookie}
        )
        rejected(answer)
    twice = "&".join(f"{key}={value}" for key, value in [*fields.items(), ("state", fields["state"])])
    headers = {**CROSS_SITE, **cookie, "content-type": "application/x-www-form-urlencoded"}
    rejected(posting.browser().post(url, content=twice, headers=headers))
    assert provider.count["token"] == 0


def test_requested_parameters_do_not_reach_the_provider(site: SiteUnderTest) -> None:
    """A request sets prompt and login_hint and nothing else of the authorization request (row 27)."""
    browser = site.browser()
    before = repr([sorted(_fields(item)) for item in site.gate.config.providers.values()])
    hostile = dict.fromkeys(("scope", "redirect_uri", "client_id", "nonce", "state", "code_challenge",
    "code_challenge_method", "response_type", "response_mode", "request", "request_uri", "max_age",
    "claims", "acr_values", "display", "id_token_hint", "resource", "audience", "registration",
    "oauth_callback"), "attacker")  # fmt: skip
    for name in ALL:
        expected = parameters(start(site, browser, name))
        found = parameters(
            start(site, browser, name, **hostile, prompt="login", login_hint="ada@example.com")
        )
        extra = {} if name == "twitter" else {"prompt": "login", "login_hint": "ada@example.com"}
        assert set(found) == set(expected) | set(extra)
        assert "attacker" not in found.values()
        for prompt in ("none login", "evil", "login&scope=x", "LOGIN"):
            assert "prompt" not in parameters(start(site, browser, name, prompt=prompt))
    assert repr([sorted(_fields(item)) for item in site.gate.config.providers.values()]) == before


def _fields(provider: Any) -> list[str]:
    return [f"{name}={getattr(provider, name)!r}" for name in provider.__struct_fields__]


def test_every_preset_binds_its_flow(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any], provider_url: str
) -> None:
    """Every built-in provider sends state and PKCE (OAuth 1.0a: its request token), and its callback
    refuses an answer without them (row 11)."""
    endpoints = {
        "authorization_endpoint": f"{provider_url}/oauth2/authorize",
        "token_endpoint": f"{provider_url}/oauth2/token",
        "jwks_uri": f"{provider_url}/jwks",
    }
    config["providers"] = {}
    for name in preset_names():
        preset = read_preset(name)
        if preset.get("protocol") == "oauth1":
            continue
        table = {"preset": name, "client_id": "an-id", "client_secret": "s" * 30, **endpoints}
        table |= dict.fromkeys(preset.get("placeholders", []), "value")
        if "client_secret_jwt" in preset:
            table.pop("client_secret")
            continue
        config["providers"][name] = table
    site = make_site()
    assert len(config["providers"]) >= 10
    for name in config["providers"]:
        sent = parameters(start(site, site.browser(), name))
        assert len(sent["state"]) >= 22
        assert sent["code_challenge_method"] == "S256"
        query = {"code": "x", "state": ""}
        answer = site.browser().get(f"/_oauth/{name}/callback", params=query, headers=PAGE)
        assert answer.status_code in (400, 405)


class TestOAuth1:
    """Rows 46 and 47."""

    @pytest.mark.parametrize("verifier", [None, "", "x" * 2000])
    def test_no_usable_verifier(
        self, site: SiteUnderTest, provider: LocalProvider, verifier: str | None
    ) -> None:
        """Without a verifier no token is asked for (row 46)."""
        browser = site.browser()
        token = parameters(site.authorize(start(site, browser, "twitter")))["oauth_token"]
        query = {"oauth_token": token} | ({} if verifier is None else {"oauth_verifier": verifier})
        answer = browser.get("/_oauth/twitter/callback", params=query, headers=PAGE)
        assert answer.status_code == 400
        assert provider.count["access_token"] == 0

    def test_another_request_token(self, site: SiteUnderTest, provider: LocalProvider) -> None:
        """A request token that this browser did not get, though it is authorized, is refused (row
        46)."""
        browser, other = site.browser(), site.browser()
        mine = parameters(site.authorize(start(site, browser, "twitter")))
        theirs = parameters(site.authorize(start(site, other, "twitter"), account="grace"))
        for query in (theirs, {**mine, "oauth_token": theirs["oauth_token"]}):
            rejected(browser.get("/_oauth/twitter/callback", params=query, headers=PAGE))
        assert provider.count["access_token"] == 0
        mixed = {**mine, "oauth_verifier": theirs["oauth_verifier"]}
        assert browser.get("/_oauth/twitter/callback", params=mixed, headers=PAGE).status_code == 502
        assert who(browser)["user_id"] is None

    @pytest.mark.parametrize("confirmed", [None, "", "false", "True", "1", "TRUE ", "true,true"])
    def test_callback_not_confirmed(
        self, site: SiteUnderTest, provider: LocalProvider, confirmed: str | None
    ) -> None:
        """A server that does not confirm the callback speaks OAuth 1.0: nobody is sent there (row
        47)."""

        def tamper(answer: dict[str, Any]) -> dict[str, Any]:
            answer.pop("oauth_callback_confirmed", None)
            return answer if confirmed is None else {**answer, "oauth_callback_confirmed": confirmed}

        provider.faults.tamper_oauth1_response = tamper
        answer = site.browser().get("/_oauth/twitter/login", headers=PAGE)
        assert answer.status_code == 502
        assert "set-cookie" not in answer.headers

    BODIES = (
            "<html>Sorry</html>", "", "oauth_problem=token_rejected", '{"oauth_token":"x"}', "\x00",
            "é=é",
            "oauth_token=x&oauth_callback_confirmed=true",
            "oauth_token=x&oauth_token_secret=&oauth_callback_confirmed=true",
            "oauth_token=&oauth_token_secret=y&oauth_callback_confirmed=true",
            "oauth_token=x&oauth_token=z&oauth_token_secret=y&oauth_callback_confirmed=true",
            "oauth_token=x%0d%0aa:b&oauth_token_secret=y&oauth_callback_confirmed=true",
    )  # fmt: skip

    @pytest.mark.parametrize("step", ["request_token", "access_token"])
    def test_unusable_answers(self, site: SiteUnderTest, provider: LocalProvider, step: str) -> None:
        """HTML, no secret, an error with status 200, repeated names: 502 and nothing stored (row 47)."""
        for body in self.BODIES:
            provider.faults.clear()
            browser = site.browser()
            if step == "access_token":
                url = site.authorize(start(site, browser, "twitter"))
            provider.faults.set(step, body=body, status=200)
            if step == "access_token":
                answer = browser.get(url, headers=PAGE)
            else:
                answer = browser.get("/_oauth/twitter/login", headers=PAGE)
                assert "set-cookie" not in answer.headers
            assert answer.status_code == 502, body
            assert "Sorry" not in answer.text
            assert who(browser)["user_id"] is None

    def test_denied(self, site: SiteUnderTest, provider: LocalProvider) -> None:
        """`denied=` of another flow, or of none, uses nothing up (row 47)."""
        browser = site.browser()
        url = site.authorize(start(site, browser, "twitter"))
        for token in ("x", "A" * 43):
            rejected(browser.get("/_oauth/twitter/callback", params={"denied": token}, headers=PAGE))
        assert browser.get(url).status_code == 303
