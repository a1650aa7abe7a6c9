"""Hosts, forwarded headers, methods, paths and forged requests: rows 17, 26, 29 and 67 to 75."""

from __future__ import annotations

import itertools
import multiprocessing
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx2
import pytest

import oauthgate
from oauthgate import sessions
from oauthgate.flows import random_value
from oauthgate.seal import Keys
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
from tests.support import PAGE, Kind, SiteUnderTest, make_config

from .payloads import SEED, texts
from .raw import Headers, Raw, asgi_scope, call_wsgi, run_asgi, wsgi_environ

FORWARDED: list[tuple[bytes, bytes]] = [
    (b"x-forwarded-host", b"evil.example"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-port", b"666"),
    (b"x-forwarded-prefix", b"/evil"),
    (b"x-forwarded-uri", b"/_oauth/logout"),
    (b"x-forwarded-for", b"10.0.0.1, 127.0.0.1"),
    (b"x-forwarded-server", b"evil.example"),
    (b"forwarded", b"for=10.0.0.1;host=evil.example;proto=https"),
    (b"x-original-url", b"/_oauth/logout"),
    (b"x-rewrite-url", b"/_oauth/logout"),
    (b"x-original-host", b"evil.example"),
    (b"x-host", b"evil.example"),
    (b"x_forwarded_host", b"evil.example"),
    (b"x_forwarded_proto", b"https"),
    (b"script-name", b"/evil"),
    (b"x-script-name", b"/evil"),
]


def shape(raw: Raw, target: bytes, headers: Headers) -> tuple[Any, ...]:
    """All of an answer that may not depend on a hostile header; random values taken out."""
    answer = raw(target, headers=headers)
    answer.check()
    places = [urlsplit(value)._replace(query="").geturl() for value in answer.values("location")]
    redirect = [
        parse_qs(urlsplit(value).query).get("redirect_uri") for value in answer.values("location")
    ]
    names = [value.partition("=")[0].partition("flow-")[0] for value in answer.values("set-cookie")]
    flags = [value.partition(";")[2] for value in answer.values("set-cookie")]
    body = b"" if answer.status == 303 else answer.body
    return answer.status, places, redirect, names, flags, body


ROUTES = [
    b"/",
    b"/session",
    b"/providers",
    b"/check",
    b"/spotify/login",
    b"/twitter/login",
    b"/spotify/link",
]


HOSTS = [
    b"evil.example",
    b"localhost:99999",
    b"localhost@evil.example",
    b"LOCALHOST",
    b"[",
    b"",
    b"a b",
    b"\xff",
]


def test_the_host_decides_nothing(site: SiteUnderTest, raw: Raw) -> None:
    """Redirect URI, links, cookies and targets come from `base_url`, whatever Host is sent (row 69)."""
    for route, host in itertools.product(ROUTES, HOSTS):
        honest = shape(raw, b"/_oauth" + route, [(b"accept", b"text/html")])
        hostile = shape(raw, b"/_oauth" + route, [(b"accept", b"text/html"), (b"host", host)])
        assert hostile == honest, host
        not_linked = raw(b"/call/spotify/me", headers=[(b"accept", b"text/html"), (b"host", host)])
        assert not_linked.location.startswith(f"{site.base}/_oauth/spotify/link?")


def test_two_hosts_decide_nothing(site: SiteUnderTest, raw: Raw) -> None:
    """A repeated Host is refused or ignored, never the one of two that an attacker chose (row 69)."""
    headers = [(b"host", b"localhost"), (b"host", b"evil.example")]
    answer = raw(b"/_oauth/spotify/login", headers=headers)
    answer.check()
    assert answer.status == 400 or "evil" not in answer.location


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:80", "app.localhost"])
def test_without_base_url_this_machine_is_served(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any], host: str
) -> None:
    """Without a base_url the loopback hosts are served under their own names (row 69)."""
    del config["oauthgate"]["base_url"]
    answer = Raw(make_site())(b"/_oauth/spotify/login", headers=[(b"host", host.encode())])
    assert parse_qs(urlsplit(answer.location).query)["redirect_uri"] == [
        f"http://{host}/_oauth/spotify/callback"
    ]


FOREIGN_HOSTS = [
    b"evil.example", b"localhost.evil.example", b"127.0.0.1.evil.example", b"localhost@evil.example",
    b"xlocalhost",
    b"127.0.0.1:80:80", b"localhost:999999", b"127.1", b"0.0.0.0", b"2130706433",
    b"[::ffff:127.0.0.1]", b"\xff", b"",
    b"localhost/evil", b"localhost, evil.example", b"localhost\tx",
]  # fmt: skip


def test_without_base_url_nothing_else_is(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any]
) -> None:
    """Any other host is answered 421, and no flow starts (row 69)."""
    del config["oauthgate"]["base_url"]
    raw = Raw(make_site())
    for route, host in itertools.product(ROUTES, FOREIGN_HOSTS):
        answer = raw(b"/_oauth" + route, headers=[(b"host", host)])
        answer.check()
        assert answer.status == 421, host
        assert not answer.values("set-cookie")


@pytest.mark.parametrize("configured", [True, False])
def test_forwarded_headers_are_ignored(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any], configured: bool
) -> None:
    """No forwarded or rewriting header changes anything, alone or all together, in either spelling
    (row 70)."""
    if not configured:
        del config["oauthgate"]["base_url"]
    site = make_site()
    raw = Raw(site)
    browser = site.browser()
    site.login(browser)
    session = [(b"cookie", cookie_header(browser)["cookie"].encode()), (b"accept", b"text/html")]
    for route in ROUTES:
        honest = shape(raw, b"/_oauth" + route, session)
        for extra in [*[[header] for header in FORWARDED], FORWARDED, list(reversed(FORWARDED))]:
            assert shape(raw, b"/_oauth" + route, [*session, *extra]) == honest
    app = shape(raw, b"/who", session)
    assert shape(raw, b"/who", [*session, *FORWARDED]) == app
    assert who(browser)["user_id"] is not None


STATE_CHANGING = ["/logout", "/spotify/unlink", "/spotify/link", "/session/refresh"]
SAFE = ["GET", "HEAD", "OPTIONS", "TRACE"]
OVERRIDES = [
    (b"x-http-method-override", b"POST"),
    (b"x-http-method", b"POST"),
    (b"x-method-override", b"POST"),
]


def test_safe_methods_change_nothing(site: SiteUnderTest, raw: Raw, provider: LocalProvider) -> None:
    """GET, HEAD, OPTIONS and TRACE with every override change nothing, anywhere (rows 17, 26, 71)."""
    browser = site.browser()
    site.login(browser, "twitter")
    site.link(browser, "spotify")
    token = site.csrf(browser).encode()
    callback = site.authorize(start(site, browser)).removeprefix(site.base).encode()
    session = [(b"cookie", cookie_header(browser)["cookie"].encode()), (b"origin", site.base.encode())]
    session.append((b"x-csrf-token", token))
    store = counting(site.gate)
    provider.count.clear()
    for route, method in itertools.product(STATE_CHANGING, SAFE):
        query = b"?_method=POST&method=POST&csrf_token=" + token
        answer = raw(f"/_oauth{route}".encode() + query, method=method, headers=[*session, *OVERRIDES])
        answer.check()
        assert answer.status in ((204,) if method == "OPTIONS" else (200, 405)), (route, method)
        if method == "GET" and route != "/spotify/link":
            assert answer.status == 405
        assert not answer.values("set-cookie"), (route, method)
    for method in (
        "HEAD",
        "OPTIONS",
        "TRACE",
        "PUT",
        "DELETE",
        "PATCH",
        "get",
        "Get",
        "CONNECT",
        "X" * 50,
    ):
        for target in (b"/_oauth/spotify/login?next=/who", callback):
            answer = raw(target, method=method, headers=[*session, *OVERRIDES])
            answer.check()
            assert answer.status == (204 if method == "OPTIONS" else 405), (method, answer.status)
            assert not answer.values("set-cookie") and not answer.values("location")
            if method == "HEAD":
                assert answer.body == b""
            if answer.status == 405:
                assert answer.values("allow")
    assert store.writes == 0
    assert sum(provider.count.values()) == 0
    assert who(browser)["services"] == ["spotify", "twitter"]
    assert raw(callback, headers=session).status == 303, "the flow was not used up"


@pytest.mark.parametrize(
    "header",
    [
        (b"sec-purpose", b"prefetch;prerender"),
        (b"purpose", b"prefetch"),
        (b"x-moz", b"prefetch"),
        (b"x-purpose", b"PreFetch"),
    ],
)
def test_prefetching_starts_and_ends_nothing(
    site: SiteUnderTest, raw: Raw, provider: LocalProvider, header: tuple[bytes, bytes]
) -> None:
    """A browser that looks ahead starts no flow and redeems no code (row 71)."""
    browser = site.browser()
    callback = site.authorize(start(site, browser)).removeprefix(site.base).encode()
    cookie = [(b"cookie", cookie_header(browser)["cookie"].encode())]
    for target in (b"/_oauth/spotify/login", callback):
        answer = raw(target, headers=[*cookie, header])
        answer.check()
        assert answer.status == 400 and not answer.values("set-cookie")
    assert provider.count["token"] == 0
    assert raw(callback, headers=cookie).status == 303


FORGED: dict[str, dict[str, str]] = {
    "cross_site": {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
    "same_site_sibling": {"origin": "http://sibling.localhost", "sec-fetch-site": "same-site"},
    "null": {"origin": "null"},
    "no_origin": {},
    "other_port": {"origin": "http://localhost:81"},
    "other_scheme": {"origin": "https://localhost"},
    "suffix": {"origin": "http://localhost.evil.example"},
    "only_referer": {"referer": "http://localhost/"},
    "says_same_origin_but_is_not": {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
    "says_none": {"sec-fetch-site": "none"},
    "own_origin_but_cross_site": {"origin": "http://localhost", "sec-fetch-site": "cross-site"},
}
BODIES: list[tuple[str, str]] = [
    ("text/plain", '{"csrf_token":"x"}'),
    ("application/json", '{"csrf_token":"x"}'),
    ("application/x-www-form-urlencoded", "csrf_token=x"),
    ("multipart/form-data; boundary=x", "--x--"),
    ("", ""),
]


@pytest.mark.parametrize("route", STATE_CHANGING)
def test_forged_requests(site: SiteUnderTest, provider: LocalProvider, route: str) -> None:
    """A POST that is not of this site's own page changes nothing, not even with the right token
    (rows 17, 26)."""
    browser = site.browser()
    site.login(browser)
    token = site.csrf(browser)
    store = counting(site.gate)
    for forged, (kind, body) in itertools.product(FORGED, BODIES):
        headers = {**PAGE, **FORGED[forged], **({"content-type": kind} if kind else {})}
        for text in (body, body.replace("x", token, 1)):
            answer = browser.post(f"/_oauth{route}", content=text, headers=headers)
            assert answer.status_code in (403, 415), (forged, kind, answer.status_code)
            assert not set_cookies(answer)
    assert store.writes == 0 and provider.count["revoke"] == 0
    assert who(browser)["links"] == ["spotify:1001"]


@pytest.mark.parametrize("route", STATE_CHANGING[:3])
def test_wrong_csrf_tokens(site: SiteUnderTest, route: str) -> None:
    """Missing, wrong, another session's, another user's or an old session's token: 403 (row 26)."""
    browser, other, grace = site.browser(), site.browser(), site.browser()
    site.login(browser)
    old = site.csrf(browser)
    site.login(browser)
    site.login(other)
    site.login(grace, account="grace")
    mine = site.csrf(browser)
    wrong = [
        "",
        "x",
        old,
        site.csrf(other),
        site.csrf(grace),
        mine[:-1],
        mine + "A",
        mine.swapcase(),
        "é",
    ]
    for token in wrong:
        for headers, data in (({}, {"csrf_token": token}), ({"x-csrf-token": token}, {})):
            try:
                answer = browser.post(f"/_oauth{route}", data=data, headers={**site.origin(), **headers})
            except UnicodeEncodeError:
                continue  # not a header that can be sent
            assert (answer.status_code, answer.json()["error"]) == (403, "csrf_failed")
    missing = browser.post(f"/_oauth{route}", headers=site.origin())
    assert missing.status_code == 403
    in_query = browser.post(f"/_oauth{route}?csrf_token={mine}", headers=site.origin())
    assert in_query.status_code == 403, "a token in the address would be in logs and referrers"
    assert who(browser)["links"] == ["spotify:1001"]


def test_plain_text_forms_are_refused(site: SiteUnderTest) -> None:
    """A text/plain form that smuggles JSON is a 415, even from this site (row 26)."""
    browser = site.browser()
    site.login(browser)
    body = '{"csrf_token": "' + site.csrf(browser) + '", "everywhere": "1"}'
    for kind in (
        "text/plain",
        "text/plain; application/json",
        "application/json-patch",
        "text/json",
        "*/*",
    ):
        headers = {**site.origin(), "content-type": kind}
        assert browser.post("/_oauth/logout", content=body, headers=headers).status_code == 415
    assert who(browser)["user_id"] is not None


def test_the_link_page_starts_nothing(site: SiteUnderTest, provider: LocalProvider) -> None:
    """GET /link is a page with a button: 200, no flow, no cookie, framed by nobody (row 17)."""
    browser = site.browser()
    site.login(browser, "twitter")
    count = sum(provider.count.values())
    answer = browser.get("/_oauth/spotify/link", params={"next": "/who"}, headers=PAGE)
    assert answer.status_code == 200 and not set_cookies(answer)
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert not flow_cookies(browser)
    assert sum(provider.count.values()) == count
    assert browser.get("/_oauth/spotify/unlink").status_code == 405


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost.evil.example", "*", "http://localhost:81"],
)
def test_no_cors_for_strangers(
    make_site: Callable[[], SiteUnderTest], config: dict[str, Any], origin: str
) -> None:
    """No Access-Control header for an origin that is not listed; a preflight does and says nothing
    (row 67)."""
    config["oauthgate"]["allowed_origins"] = ["https://front.example"]
    site = make_site()
    browser = site.browser()
    site.login(browser)
    store = counting(site.gate)
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-csrf-token"}
    for route in ("/session", "/providers", "/check", "/logout", "/spotify/link", "/", "/nosuch"):
        for answer in (
            browser.get(f"/_oauth{route}", headers={"origin": origin}),
            browser.options(f"/_oauth{route}", headers={"origin": origin, **asked}),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert "origin" in answer.headers["vary"].lower()
    store.count.clear()
    for sent in (origin, "https://front.example"):
        answer = browser.options("/_oauth/session", headers={"origin": sent, **asked})
        assert answer.content == b"" and not store.count, "a preflight has no identity"


# -- paths


class Witness:
    """An app of either kind that says which path it was given."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.paths.append(environ["PATH_INFO"])
        start_response("299 App", [])
        return []


def fuzzed_paths(count: int) -> list[bytes]:
    """Spellings of the gate's own routes that a proxy, a server or an app could read as such (row
    72)."""
    rng = random.Random(SEED)
    base = [b"/_oauth", b"/_oauth/", b"/_oauth/session", b"/_oauth/logout", b"/_oauth/spotify/login"]
    base += [
        b"/_oauth/spotify/callback",
        b"/_oauth/spotify/unlink",
        b"/_oauth/check",
        b"/_oauth/style.css",
    ]
    pieces = [
        b"/",
        b"//",
        b"/./",
        b"/../",
        b"%2f",
        b"%2F",
        b"%5c",
        b"\\",
        b"%5F",
        b"%5f",
        b";p",
        b";",
        b"%3b",
        b".",
    ]
    pieces += [
        b"..",
        b"%2e",
        b"%2e%2e",
        b"%00",
        b"%3F",
        b"%3f",
        b"%23",
        b"%25",
        b"%252f",
        b"%20",
        b"%09",
        b"%0a",
        b"+",
    ]
    pieces += [
        b"\xff",
        b"%ff",
        b"%c0%af",
        b"%e2%88%95",
        b"%ef%bc%8f",
        b"%EF%BC%BF",
        b"@",
        b":",
        b"*",
        b"%",
        b"%zz",
        b"&",
        b"=",
    ]
    found = set(base)
    while len(found) < count:
        path = bytearray(rng.choice(base))
        for _ in range(rng.randint(1, 4)):
            kind = rng.randrange(5)
            at = rng.randrange(len(path) + 1)
            if kind == 0:
                path[at:at] = rng.choice(pieces)
            elif kind == 1 and at < len(path):
                path[at : at + 1] = rng.choice(pieces)
            elif kind == 2 and at < len(path):
                path[at : at + 1] = b"%%%02X" % path[at]
            elif kind == 3 and at < len(path):
                path[at : at + 1] = bytes([path[at]]).swapcase()
            else:
                path += rng.choice(pieces)
        if path[:1] == b"/" and not set(path) & set(b"?# "):
            found.add(bytes(path))
    return sorted(found)


def test_paths_are_decided_alike(tmp_path: Path) -> None:
    """10,000 spellings of our routes: ASGI and WSGI decide alike, and each is either a canonical route
    with its checks or the app with its path untouched (rows 72, 73)."""
    config = make_config("http://127.0.0.1:9", tmp_path)
    asgi_app, wsgi_app = Witness(), Witness()
    asgi = oauthgate.ASGIGate(asgi_app.asgi, config)
    wsgi = oauthgate.WSGIGate(wsgi_app.wsgi, config)
    paths = fuzzed_paths(10_000)
    ours = 0
    import asyncio

    from .raw import call_asgi

    async def all_asgi() -> list[tuple[int, str]]:
        found = []
        for path in paths:
            scope = asgi_scope(path, headers=[(b"host", b"localhost")])
            before, given = len(asgi_app.paths), scope["path"]
            answer = await call_asgi(asgi, scope)
            reached = len(asgi_app.paths) > before
            assert (answer.status == 299) == reached
            assert scope["path"] == given and (not reached or asgi_app.paths[-1] == given)
            found.append((answer.status, "app" if reached else ""))
        await asgi.close()
        return found

    for path, decided in zip(paths, asyncio.run(all_asgi()), strict=True):
        environ = wsgi_environ(path, headers=[(b"host", b"localhost")])
        before, given = len(wsgi_app.paths), environ["PATH_INFO"]
        answer = call_wsgi(wsgi, environ)
        reached = len(wsgi_app.paths) > before
        assert environ["PATH_INFO"] == given and (not reached or wsgi_app.paths[-1] == given)
        assert (answer.status, "app" if reached else "") == decided, path
        decoded = unquote(path.decode("latin-1"))
        assert reached == (decoded != "/_oauth" and not decoded.startswith("/_oauth/")), path
        assert answer.status != 500
        if not reached:
            ours += 1
            route = decoded.removeprefix("/_oauth") or "/"
            known = route in ("/", "/session", "/check", "/providers", "/style.css")
            known = known or route.startswith("/spotify/")
            assert answer.status in (200, 204, 303, 400, 401, 405, 404)
            assert known or answer.status in (404, 405), (path, answer.status)
    wsgi.close()
    assert 1000 < ours < 9999


NAMES = [
    "..", ".", "__class__", "spotify%00", "SPOTIFY", "spotify%20", "sp%C3%B6tify", "ѕpotify",
    "spotify%2F", "%2e%2e",
    "constructor", "spotify;x", "*", "spotify.", "spotif%D1%83", "{spotify}", "spotify%0d%0ax:y",
    "a" * 3000, "%ff",
]  # fmt: skip


@pytest.mark.parametrize("action", ["login", "link", "callback", "unlink"])
def test_hostile_provider_names(site: SiteUnderTest, raw: Raw, action: str) -> None:
    """Only the exact name of a table is a provider: else 404, and the name is not repeated (row 75)."""
    methods = ("GET", "POST", "HEAD", "OPTIONS")
    for name, method, accept in itertools.product(NAMES, methods, (b"text/html", b"application/json")):
        target = f"/_oauth/{name}/{action}".encode()
        answer = raw(target, method=method, headers=[(b"accept", accept)])
        answer.check()
        assert answer.status in (404, 405), name
        assert len(name) < 4 or unquote(name).encode("utf-8", "replace") not in answer.body
        assert not answer.values("set-cookie")


MOUNTS = ["", "/app", "/a/b", "/app/", "/_oauth-app", "/ap%70"]


@pytest.mark.parametrize("root", MOUNTS)
@pytest.mark.parametrize("full_path", [True, False], ids=["path_with_root", "path_without_root"])
def test_mounted_below_a_path(kind: Kind, tmp_path: Path, root: str, full_path: bool) -> None:
    """Below a mount point redirect URI, links and matching are right, whether or not the server leaves
    the mount point in the path (row 74)."""
    config = make_config("http://127.0.0.1:9", tmp_path)
    del config["oauthgate"]["base_url"]
    witness = Witness()

    def call(path: bytes) -> Any:
        headers = [(b"host", b"localhost"), (b"accept", b"text/html")]
        if kind == "wsgi":
            gate = oauthgate.WSGIGate(witness.wsgi, config)
            return call_wsgi(gate, wsgi_environ(path, headers=headers, root=root.rstrip("/")))
        scope = asgi_scope(path, headers=headers, root=root)
        scope["path"] = (root.rstrip("/") if full_path else "") + unquote(path.decode())
        return run_asgi(oauthgate.ASGIGate(witness.asgi, config), scope)

    mounted = f"http://localhost{root.rstrip('/')}"
    answer = call(b"/_oauth/spotify/login")
    assert parse_qs(urlsplit(answer.location).query)["redirect_uri"] == [
        f"{mounted}/_oauth/spotify/callback"
    ]
    assert (
        f'action="{mounted}/' in call(b"/_oauth/spotify/link").text
        or f'href="{mounted}/' in call(b"/_oauth/spotify/link").text
    )
    assert call(b"/page").status == 299
    if root.rstrip("/") and (kind == "wsgi" or full_path):
        assert call(root.rstrip("/").encode() + b"/_oauth/session").status == 299, (
            "the mount is taken off once"
        )


def test_a_mount_point_is_not_a_prefix_of_a_longer_name(tmp_path: Path) -> None:
    """`/application/…` is not below `/app`, and what only looks like our prefix is the app's (row
    74)."""
    config = make_config("http://127.0.0.1:9", tmp_path)
    witness = Witness()
    gate = oauthgate.ASGIGate(witness.asgi, config)
    for root, path in (
        ("/app", "/application/_oauth/session"),
        ("/app", "/app_oauth/session"),
        ("", "/_oauthx/session"),
    ):
        scope = asgi_scope(b"/", headers=[(b"host", b"localhost")], root=root)
        scope["path"] = path
        assert run_asgi(gate, scope).status == 299


# -- randomness (row 29)


def _values(count: int) -> list[str]:
    keys = Keys([b"k" * 32])
    found = []
    for _ in range(count):
        ticket, _session = sessions.issue(
            keys, sessions.new_user_id(), now=0.0, provider="x", account_id="y"
        )
        found += [random_value(), ticket.secret, ticket.user_id]
    return found


def _child(queue: Any, count: int) -> None:
    queue.put(_values(count))


def test_random_values_never_repeat() -> None:
    """10^5 states, verifiers, session secrets and user ids, across forked workers: none twice, each of
    at least 128 bit (row 29)."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_child, args=(queue, 5000)) for _ in range(4)]
    for worker in workers:
        worker.start()
    values = [value for _ in workers for value in queue.get(timeout=60)] + _values(15_000)
    for worker in workers:
        worker.join(10)
    assert len(values) == 105_000 == len(set(values))
    assert all(len(value) * 6 >= 128 for value in values)
    for position in range(22):
        assert len({value[position] for value in values}) == 64, "every character is used everywhere"


def test_random_headers_change_nothing(site: SiteUnderTest, raw: Raw) -> None:
    """Odd values in every header that the gate reads: a 4xx or the usual answer, never a 500
    (rows 4, 14)."""
    browser = site.browser()
    site.login(browser)
    session = cookie_header(browser)["cookie"].encode()
    names = [
        "accept",
        "accept-language",
        "origin",
        "referer",
        "sec-fetch-site",
        "sec-fetch-mode",
        "authorization",
    ]
    names += [
        "content-type",
        "content-length",
        "cookie",
        "x-csrf-token",
        "host",
        "user-agent",
        "sec-purpose",
    ]
    rng = random.Random(SEED)
    for text in texts(300):
        value = (
            text.encode("utf-8", "replace").replace(b"\r", b"").replace(b"\n", b"").replace(b"\x00", b"")
        )
        headers = [(name.encode(), value) for name in rng.sample(names, 3)]
        if rng.random() < 0.5:
            headers.append((b"cookie", session))
        for target, method in (
            (b"/_oauth/", "GET"),
            (b"/_oauth/logout", "POST"),
            (b"/_oauth/spotify/login", "POST"),
        ):
            raw(target, method=method, headers=headers).check()
        assert raw(b"/who", headers=headers).status != 500
    assert who(browser)["user_id"] is not None


def test_repeated_headers(site: SiteUnderTest, raw: Raw) -> None:
    """Repeated Origin, Sec-Fetch-Site, Content-Type or Authorization fields are not a way in (row
    26)."""
    browser = site.browser()
    site.login(browser)
    cookie = (b"cookie", cookie_header(browser)["cookie"].encode())
    token = (b"x-csrf-token", site.csrf(browser).encode())
    own, evil = (b"origin", site.base.encode()), (b"origin", b"https://evil.example")
    for origins in ([own, evil], [evil, own]):
        answer = raw(b"/_oauth/logout", method="POST", headers=[cookie, token, *origins])
        assert answer.status == 403
    fetch = [(b"sec-fetch-site", b"same-origin"), (b"sec-fetch-site", b"cross-site")]
    assert raw(b"/_oauth/logout", method="POST", headers=[cookie, token, own, *fetch]).status == 403
    assert who(browser)["user_id"] is not None
    assert post_json(site, browser, "/logout").status_code == 200
    assert isinstance(browser, httpx2.Client) and SESSION not in browser.cookies
    assert location(browser.get("/_oauth/spotify/login", headers=PAGE))
