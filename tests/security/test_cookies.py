"""Cookies, credentials and caches: rows 51 to 62 of the threat list."""

from __future__ import annotations

import random
import re
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from oauthgate.testing import Account, LocalProvider
from tests.flows.steps import (
    SESSION,
    cookie_header,
    counting,
    location,
    post_json,
    probing,
    set_cookies,
    start,
    who,
)
from tests.support import PAGE, Kind, SiteUnderTest, make_provider

from .payloads import SEED
from .raw import Raw

HOSTILE_HOSTS = [
    (b"host", b"evil.example"),
    (b"x-forwarded-proto", b"http"),
    (b"x-forwarded-host", b"evil.example"),
    (b"forwarded", b"proto=http;host=evil.example"),
    (b"x-forwarded-ssl", b"off"),
    (b"x-url-scheme", b"http"),
]


@pytest.fixture
def user(site: SiteUnderTest) -> str:
    """The value of a signed-in session's cookie."""
    browser = site.browser()
    site.login(browser)
    value = browser.cookies.get(SESSION)
    assert value
    return value


def signed_in(raw: Raw, *cookies: bytes, **more: Any) -> bool:
    """Whether a request with these Cookie fields is recognised."""
    answer = raw(b"/_oauth/check", headers=[(b"cookie", value) for value in cookies], **more)
    answer.check()
    assert answer.status in (204, 401)
    assert not answer.values("set-cookie"), "no request's cookie is cleared"
    return answer.status == 204


def test_cookie_attributes(make_site: Callable[[], SiteUnderTest], config: dict[str, Any]) -> None:
    """Over https every cookie of ours has the __Host- name, Secure, HttpOnly, SameSite, Path=/ and no
    Domain, whatever Host and forwarded headers say (row 52)."""
    config["oauthgate"]["base_url"] = "https://app.example"
    site = make_site()
    raw = Raw(site)
    answer = raw(b"/_oauth/spotify/login", headers=HOSTILE_HOSTS)
    answer.check()
    assert "redirect_uri=https%3A%2F%2Fapp.example%2F_oauth%2Fspotify%2Fcallback" in answer.location
    logout = raw(
        b"/_oauth/logout", method="POST", headers=[(b"origin", b"https://app.example"), *HOSTILE_HOSTS]
    )
    cookies = [*answer.values("set-cookie"), *logout.values("set-cookie")]
    assert len(cookies) == 2
    for cookie in cookies:
        name, *attributes = [part.strip() for part in cookie.split(";")]
        assert name.startswith("__Host-oauthgate")
        kinds = {attribute.partition("=")[0].lower() for attribute in attributes}
        assert kinds == {"path", "httponly", "samesite", "secure", "max-age"}
        assert "Path=/" in attributes and "SameSite=Lax" in attributes


def test_only_the_prefixed_cookie_counts_over_https(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any], provider: LocalProvider
) -> None:
    """Over https the plain name, which a sibling domain could set, is not a session (row 52, row 53)."""
    site = make_site()
    browser = site.browser()
    site.login(browser)
    value = (browser.cookies.get(SESSION) or "").encode()
    config["oauthgate"]["base_url"] = "https://app.example"
    raw = Raw(make_site())
    assert signed_in(raw, b"__Host-oauthgate=" + value, scheme="https")
    for name in (
        b"oauthgate",
        b"__host-oauthgate",
        b"__HOST-oauthgate",
        b"__Secure-oauthgate",
        b"__Host-Oauthgate",
    ):
        assert not signed_in(raw, name + b"=" + value, scheme="https")


def test_tossed_cookies(site: SiteUnderTest, raw: Raw, user: str) -> None:
    """Two different values for our name, in whatever order and form, are no session; variants of the
    name are other cookies (row 53)."""
    ours, other = user.encode(), b"A" * 22 + b"." + b"B" * 43
    own = b"oauthgate=" + ours
    for tossed in (b"oauthgate=" + other, b"oauthgate=", b"oauthgate=x", b"oauthgate=" + ours + b"x"):
        assert not signed_in(raw, own + b"; " + tossed)
        assert not signed_in(raw, tossed + b"; " + own)
        assert not signed_in(raw, own, tossed)
    for harmless in (
        b"Oauthgate=" + other, b"OAUTHGATE=" + other, b"=oauthgate=" + other, b"oauthgate" + b"",
        b"xoauthgate=1",
        b"oauthgate2=1", b"oauthgate.x=1", b"oauthgate =" + other, b"oauthgate[]=" + other, own,
        b"__Host-oauthgate=" + other, b"$oauthgate=" + other, b"%6fauthgate=" + other,
        b"\"oauthgate\"=" + other,
    ):  # fmt: skip
        assert signed_in(raw, own + b"; " + harmless), harmless
        assert signed_in(raw, harmless + b"; " + own), harmless
    assert not signed_in(raw, b"=" + own), "a nameless cookie is not ours"


def test_poison_cookies(site: SiteUnderTest, raw: Raw, user: str) -> None:
    """Whatever a sibling domain can make a browser send beside it, the session is recognised, and no
    other cookie is given back (row 54)."""
    own = b"oauthgate=" + user.encode()
    rng = random.Random(SEED)
    alphabet = [bytes([number]) for number in range(256) if number not in b";\r\n\x00"]
    poison = [
        b'a="b',
        b'a="b\\',
        b"a=b,c",
        b'a={"x":1}',
        b"a",
        b"=",
        b"==",
        b'a="; "',
        b"[]",
        b"a=\xff\xfe",
        b"\t",
    ]
    poison += [
        b"$Version=1",
        b"path=/; domain=x",
        b"a=" + b"x" * 5000,
        b"expires=Thu, 01 Jan 1970 00:00:00 GMT",
    ]
    poison += [b"a==b", b'a="unclosed', b'a=b"c"', b"@=1", b"a[b]=c", b"httponly", b"secure; httponly"]
    poison += [b"".join(rng.choices(alphabet, k=rng.randint(1, 60))) for _ in range(300)]
    for bad in poison:
        if b"oauthgate" in bad:
            continue
        assert signed_in(raw, bad + b"; " + own), bad
        assert signed_in(raw, own + b"; " + bad), bad
        assert signed_in(raw, bad + b";" + own + b";" + bad), bad
        answer = raw(b"/_oauth/session", headers=[(b"cookie", bad + b"; " + own)])
        assert len(bad) < 8 or bad not in answer.body


def test_cookie_forms(site: SiteUnderTest, raw: Raw, user: str) -> None:
    """Split into fields as HTTP/2 may, without a space, quoted, repeated with the same value: recognised
    (row 55)."""
    own = b"oauthgate=" + user.encode()
    assert signed_in(raw, own)
    assert signed_in(raw, b"a=b", own, b"c=d")
    assert signed_in(raw, b"a=b;" + own + b";c=d")
    assert signed_in(raw, b"a=b;  " + own + b" ;c=d")
    assert signed_in(raw, b'oauthgate="' + user.encode() + b'"')
    assert signed_in(raw, own, own)
    assert signed_in(raw, own + b"; " + own)


def test_flow_cookies_in_every_form(site: SiteUnderTest, raw: Raw) -> None:
    """The flow's cookie is found under the same conditions, and tossing one spoils only that flow."""
    browser = site.browser()
    target = site.authorize(start(site, browser)).removeprefix(site.base).encode()
    name, _, value = cookie_header(browser)["cookie"].encode().partition(b"=")
    tossed = [(b"cookie", name + b"=other; " + name + b"=" + value)]
    assert raw(target, headers=tossed).status == 400
    poisoned = [(b"cookie", b'a="b; [x]; \xff=1'), (b"cookie", b"c=d;" + name + b"=" + value)]
    assert raw(target, headers=poisoned).status == 303


def test_cookies_stay_small(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any], provider: LocalProvider
) -> None:
    """Tokens of 16 KB and many flows: no cookie over 4,096 bytes, all together at most 6 KB, and no
    token in any of them (row 56)."""
    config["providers"]["spotify"]["carry"] = {f"note{part}": {"max_length": 500} for part in range(3)}
    site = make_site()
    big = "t" * 16_000
    provider.faults.tamper_token_response = lambda answer: {**answer, "refresh_token": big}
    browser = site.browser()
    site.login(browser)
    for _ in range(8):
        notes = {f"note{part}": "n" * 500 for part in range(3)}
        begun = browser.get("/_oauth/spotify/login", params=notes)
        for cookie in set_cookies(begun):
            assert len(cookie.partition(";")[0]) <= 4096
    header = cookie_header(browser)["cookie"]
    assert len(header) <= 6 * 1024 + 100
    assert "ttttt" not in header
    made_up = "; ".join(f"oauthgate-flow-{number:016d}=x" for number in range(300))
    answer = browser.get("/_oauth/spotify/login", headers={"cookie": made_up})
    assert answer.status_code == 303 and len(set_cookies(answer)) <= 60, (
        "no loop driven by a cookie count"
    )


def test_a_value_too_long_for_a_cookie_is_refused(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any]
) -> None:
    """Carried values that would make a cookie that browsers drop are refused at the start (row 56)."""
    config["providers"]["spotify"]["carry"] = {f"note{part}": {"max_length": 500} for part in range(9)}
    notes = {f"note{part}": "n" * 500 for part in range(9)}
    answer = make_site().browser().get("/_oauth/spotify/login", params=notes)
    assert answer.status_code == 400


def test_the_stolen_store(site: SiteUnderTest, provider: LocalProvider, tmp_path: Path) -> None:
    """The database and its log hold no session secret, token, code, account id or e-mail in the clear;
    the files are readable by their owner alone (row 57)."""
    browser = site.browser()
    site.login(browser, "corp")
    site.link(browser, "twitter")
    site.link(browser, "spotify")
    provider.expire_access_tokens()
    secrets = [
        (browser.cookies.get(SESSION) or "").partition(".")[2],
        site.csrf(browser),
        *list(provider.codes._items),
        *list(provider.access_tokens._items),
        *list(provider.refresh_store._items),
        *list(provider.oauth1_tokens._items),
        *[token.secret for token in provider.oauth1_tokens.values()],
        "ada@example.com", "Ada Lovelace", *[f"{name}-secret" for name in ("corp", "twitter",
        "spotify")],
    ]  # fmt: skip
    assert len(secrets) >= 14 and all(secrets)
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert {path.name for path in files} >= {"gate.db", "gate.db-wal", "gate.db.key"}
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        if path.suffix == ".key":
            continue
        content = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in content, (path, secret)
        # The account id as a record would spell it: the bare digits turn up in hashes by chance.
        assert b"\xa41001" not in content
    # What is in the store is no ticket either: hash and id do not sign anybody in.
    assert who(site.browser())["user_id"] is None


def test_cookie_and_bearer_of_two_users(site: SiteUnderTest, raw: Raw, user: str) -> None:
    """With both, the bearer token counts alone; a bad one is not made good by the cookie (row 59)."""
    browser = site.browser()
    site.login(browser, "twitter", account="grace")
    grace = (browser.cookies.get(SESSION) or "").encode()
    both = [(b"cookie", b"oauthgate=" + user.encode()), (b"authorization", b"Bearer " + grace)]
    assert b"twitter" in raw(b"/_oauth/session", headers=both).body
    assert b"spotify" not in raw(b"/_oauth/session", headers=both).body
    dead = [both[0], (b"authorization", b"Bearer " + b"A" * 22 + b"." + b"B" * 43)]
    assert raw(b"/_oauth/session", headers=dead).status == 401
    # A bearer header exempts from CSRF only what it authenticates itself.
    for header in (
        b"Bearer x",
        b"Basic " + grace,
        b"Bearer",
        b"bearer " + grace[:-1],
        b"Bearer " + grace + b", x",
    ):
        request = [both[0], (b"authorization", header), (b"content-type", b"application/json")]
        answer = raw(b"/_oauth/logout", method="POST", headers=request, body=b"{}")
        assert answer.status == 403, header
    assert signed_in(raw, b"oauthgate=" + user.encode())


def test_bearer_needs_no_csrf_token(site: SiteUnderTest, raw: Raw, user: str) -> None:
    """A request with a bearer session token alone may change things: a browser adds none by itself."""
    headers = [(b"authorization", b"Bearer " + user.encode()), (b"content-type", b"application/json")]
    answer = raw(b"/_oauth/spotify/unlink", method="POST", headers=headers, body=b"{}")
    assert (answer.status, answer.body) == (200, b'{"unlinked":true,"revoked":true}')
    assert raw(b"/_oauth/logout", method="POST", headers=headers, body=b"{}").status == 200
    assert raw(b"/_oauth/logout", method="POST", headers=headers, body=b"{}").status in (200, 401, 403)
    assert not signed_in(raw, b"oauthgate=" + user.encode())


def test_tokens_elsewhere_are_no_credential(site: SiteUnderTest, raw: Raw, user: str) -> None:
    """Our token in the query, in another cookie or under another scheme signs nobody in (row 66)."""
    value = user.encode()
    for target in (
        b"/_oauth/check?token=" + value,
        b"/_oauth/check?access_token=" + value,
        b"/_oauth/check?session_token=" + value,
    ):
        assert raw(target).status == 401
    for header in (b"Basic " + value, b"Token " + value, value, b"Bearer:" + value, b"BearerX " + value):
        assert raw(b"/_oauth/check", headers=[(b"authorization", header)]).status == 401
    twice = [(b"authorization", b"Bearer " + value)] * 2
    assert raw(b"/_oauth/check", headers=twice).status in (400, 401)


def test_nothing_of_ours_is_cached(site: SiteUnderTest) -> None:
    """Everything that depends on a session or sets a cookie is no-store and varies on Cookie (row
    60)."""
    browser = site.browser()
    begun = browser.get("/_oauth/spotify/login")
    answers = [begun, browser.get(site.authorize(location(begun)))]
    answers += [
        browser.get(f"/_oauth{route}", headers=PAGE)
        for route in ("/", "/session", "/providers", "/check")
    ]
    answers += [
        browser.get(f"/_oauth{route}", headers=PAGE)
        for route in ("/spotify/link", "/nosuch", "/nosuch/login")
    ]
    answers += [browser.get("/call/twitter/me", headers=PAGE), browser.get("/call/twitter/me")]
    answers += [
        site.post(browser, "/spotify/link"),
        site.post(browser, "/logout"),
        browser.post("/_oauth/logout"),
    ]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store", answer.url
        assert "cookie" in answer.headers["vary"].lower()
    sheet = re.search(r'href="([^"]+style\.css[^"]*)"', browser.get("/_oauth/", headers=PAGE).text)
    assert sheet
    public = browser.get(sheet.group(1))
    assert "immutable" in public.headers["cache-control"] and "set-cookie" not in public.headers


def test_no_bleed_between_visitors(site: SiteUnderTest, provider: LocalProvider) -> None:
    """Twelve visitors at once, thousands of calls: each sees its own account and nobody's provider
    cookie (row 61)."""
    people = 12
    for number in range(people):
        provider.accounts[f"p{number}"] = Account(id=f"p{number}", username=f"user{number}")
    browsers = []
    for number in range(people):
        browser = site.browser()
        site.login(browser, account=f"p{number}")
        browsers.append(browser)

    def visit(number: int) -> int:
        bled = 0
        for turn in range(25):
            route = "call" if turn % 2 else "sync"
            found = browsers[number].get(f"/{route}/spotify/echo").json()
            bled += found["account"] != f"p{number}" or found["cookie"] is not None
            bled += who(browsers[number])["profile"]["id"] != f"p{number}"
        return bled

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(visit, range(people))) == 0


def test_provider_cookies_are_never_sent_back(kind: Kind, config: dict[str, Any]) -> None:
    """A cookie that a provider's API sets is kept by no client, not even for the next call of the same
    handler (row 61)."""

    def blocking(oauth: Any, services: Any) -> Any:
        return [services.sync["spotify"].get("echo").json()["cookie"] for _ in range(3)]

    async def suspending(oauth: Any, services: Any) -> Any:
        client = services["spotify"]
        return [(await client.get("echo")).json()["cookie"] for _ in range(3)]

    for probe in [blocking, suspending] if kind == "asgi" else [blocking]:
        with probing(kind, config, probe) as browser:
            begun = browser.get("/_oauth/spotify/login")
            assert browser.get(SiteUnderTest.authorize(location(begun))).status_code == 303
            assert browser.get("/").json() == [None, None, None]


def test_identity_is_not_taken_from_headers(site: SiteUnderTest, raw: Raw) -> None:
    """Headers that name a user are nobody, in any spelling and method (row 62)."""
    names = [
        "x-user",
        "x_user",
        "x-forwarded-user",
        "x_forwarded_user",
        "x-remote-user",
        "remote-user",
        "remote_user",
    ]
    names += [
        "oidc_claim_sub",
        "oidc-claim-sub",
        "x-auth-request-user",
        "oauthgate.user",
        "oauthgate-user",
        "x-user-id",
    ]
    headers = [(name.encode(), b"ada") for name in names]
    for method in ("GET", "OPTIONS", "HEAD"):
        answer = raw(b"/who", method=method, headers=headers)
        assert b'"user_id": "' not in answer.body.replace(b'":"', b'": "')
    assert raw(b"/_oauth/check", headers=headers).status == 401
    assert raw(b"/_oauth/session", headers=headers).status == 401


def test_an_unreadable_store_keeps_the_cookie(site: SiteUnderTest, raw: Raw, user: str) -> None:
    """While the store fails: 503 with Retry-After, no Set-Cookie, no anonymous answer; a callback asks
    the store before it redeems (row 102)."""
    from oauthgate.errors import StoreError

    store = counting(site.gate)

    async def broken(*args: object, **kwargs: object) -> Any:
        raise StoreError("out of order")

    browser = site.browser()
    url = site.authorize(start(site, browser))
    callback = [(b"cookie", cookie_header(browser)["cookie"].encode())]
    get, put = store.get, store.put
    store.get = broken  # type: ignore[method-assign]
    store.put = broken  # type: ignore[method-assign]
    own = [(b"cookie", b"oauthgate=" + user.encode())]
    provider_calls = site.gate.outbound.count
    for target, method, headers in (
        (b"/who", "GET", own), (b"/_oauth/session", "GET", own), (b"/_oauth/check", "GET", own),
        (b"/_oauth/", "GET", own), (b"/_oauth/logout", "POST", [*own, (b"origin", site.base.encode())]),
        (url.removeprefix(site.base).encode(), "GET", callback),
    ):  # fmt: skip
        answer = raw(target, method=method, headers=headers)
        assert answer.status == 503, target
        assert answer.values("retry-after")
        assert not answer.values("set-cookie")
    assert site.gate.outbound.count == provider_calls, "no code was redeemed"
    assert raw(b"/who").status == 200, "requests without a cookie are not touched"
    store.get, store.put = get, put  # type: ignore[method-assign]
    assert signed_in(raw, *[value for _, value in own]), "it recovers without a restart"
    assert raw(url.removeprefix(site.base).encode(), headers=callback).status == 303


def test_logout_ends_every_credential(site: SiteUnderTest, raw: Raw, user: str) -> None:
    """After a logout the old value is dead as a cookie and as a bearer token (row 111)."""
    browser = site.browser()
    browser.cookies.set(SESSION, user, domain="localhost.local", path="/")
    assert post_json(site, browser, "/logout").status_code == 200
    assert not signed_in(raw, b"oauthgate=" + user.encode())
    assert raw(b"/_oauth/check", headers=[(b"authorization", b"Bearer " + user.encode())]).status == 401


def test_the_provider_of_the_tests_is_its_own() -> None:
    """The shared server hands requests to the provider of the test that runs, and to no other."""
    assert make_provider() is not make_provider()
