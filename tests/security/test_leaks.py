"""Nothing secret leaves by a side door: rows 76 to 78 of the threat list.

A `Canaries` knows every secret that a site and its provider ever had; flows and failures run with all
loggers at DEBUG, and everything that came out is searched for them.
"""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import httpx2
import pytest
from flask import Flask
from flask import request as flask_request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

import oauthgate
from oauthgate.testing import Account, LocalProvider
from tests.flows.steps import SESSION, Clock, flow_cookies, location, post_json, start, who
from tests.support import BASE, PAGE, Kind, SiteUnderTest

CLIENT_SECRETS = [f"{name}-secret-{'s' * 24}" for name in ("twitter", "spotify", "corp")]
MASTER = "canary-of-the-master-secret-0123456789"


class Canaries:
    """Every secret of a site, its provider and its browsers."""

    def __init__(self, provider: LocalProvider) -> None:
        self._provider = provider
        self.found: set[str] = {MASTER, *CLIENT_SECRETS}
        #: What the browser and the provider are told on purpose, but no log and no page.
        self.urls: set[str] = set()

    def collect(self, *browsers: httpx2.Client) -> None:
        """Note the secrets that exist now."""
        shelves = (
            self._provider.codes, self._provider.access_tokens, self._provider.refresh_store,
            self._provider.oauth1_tokens, self._provider.request_tokens,
        )  # fmt: skip
        for shelf in shelves:
            for key, item in shelf._items.items():
                self.found.add(key)
                for name in ("secret", "verifier"):
                    if getattr(item, name, None):
                        self.found.add(getattr(item, name))
        for message in self._provider.log:
            for name, value in (*message.query, *message.form):
                if name in (
                    "state",
                    "nonce",
                    "code",
                    "code_verifier",
                    "refresh_token",
                    "token",
                    "oauth_verifier",
                ):
                    self.found.add(value)
            authorization = message.header("authorization") or ""
            self.found.update(part for part in authorization.split() if len(part) > 20)
        for browser in browsers:
            for cookie in browser.cookies.jar:
                value = cookie.value or ""
                self.found.add(value)
                if cookie.name == SESSION:
                    self.found.add(value.partition(".")[2])
        self.found = {secret for secret in self.found if len(secret) >= 12}

    def hits(self, text: str) -> list[str]:
        return [secret for secret in self.found if secret in text]


class Capture(logging.Handler):
    """Every record of every logger, as it would be written, with its traceback and arguments."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.paused = False

    def emit(self, record: logging.LogRecord) -> None:
        # The test's own browsers log what they were told to fetch; the gate's calls are not made so.
        if self.paused or (record.name == "httpx2" and BASE + "/" in record.getMessage()):
            return
        self.lines.append(f"{record.name} {self.format(record)} {record.args!r}")


@pytest.fixture
def capture() -> Iterator[Capture]:
    """All logging of the process at DEBUG."""
    handler = Capture()
    root = logging.getLogger()
    levels = {
        name: logger.level
        for name, logger in root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
    }
    before = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


class Observed:
    """Browsers whose every answer is kept for the search."""

    def __init__(self, site: SiteUnderTest, provider: LocalProvider, capture: Capture) -> None:
        self.site, self.capture = site, capture
        self.canaries = Canaries(provider)
        self.answers: list[httpx2.Response] = []
        self.browsers: list[httpx2.Client] = []

    def browser(self) -> httpx2.Client:
        browser = self.site.browser()
        browser.event_hooks = {"response": [self.note]}
        self.browsers.append(browser)
        return browser

    def note(self, answer: httpx2.Response) -> None:
        self.answers.append(answer)
        self.canaries.collect(*self.browsers)

    def authorize(self, url: str, account: str = "ada", *, deny: bool = False) -> str:
        self.capture.paused = True
        try:
            return self.site.authorize(url, account, deny=deny)
        finally:
            self.capture.paused = False

    def login(self, browser: httpx2.Client, name: str, account: str = "ada") -> httpx2.Response:
        return browser.get(self.authorize(start(self.site, browser, name), account), headers=PAGE)

    def link(self, browser: httpx2.Client, name: str) -> httpx2.Response:
        url = location(self.site.post(browser, f"/{name}/link", next="/who"))
        return browser.get(self.authorize(url), headers=PAGE)

    def search(self) -> None:
        """No secret in any log line, header or body, but those that the protocol puts there."""
        self.canaries.collect(*self.browsers)
        assert len(self.canaries.found) > 10
        for line in self.capture.lines:
            assert not self.canaries.hits(line), line
        for answer in self.answers:
            answer.read()
            assert not self.canaries.hits(answer.text), (answer.url.path, answer.text)
            for name, value in answer.headers.multi_items():
                # Session and flow are the browser's to keep; the state is the provider's to return.
                if name == "set-cookie" or (
                    name == "location" and not value.startswith(f"{self.site.base}/")
                ):
                    secret = [
                        hit for hit in self.canaries.hits(value) if hit in (MASTER, *CLIENT_SECRETS)
                    ]
                    assert not secret
                    continue
                assert not self.canaries.hits(value), (name, value)


@pytest.fixture
def observed(
    make_site: Callable[[], SiteUnderTest],
    config: dict[str, Any],
    provider: LocalProvider,
    capture: Capture,
) -> Observed:
    """A site that is watched, with a secret of its own."""
    config["oauthgate"]["secret"] = [MASTER]
    for table in config["providers"].values():
        table["timeout"] = 1.0
    return Observed(make_site(), provider, capture)


def test_no_secret_in_whole_flows(observed: Observed, provider: LocalProvider, clock: Clock) -> None:
    """Sign-in, link, calls, refresh, pages, unlink and logout of every protocol (row 76)."""
    browser = observed.browser()
    assert observed.login(browser, "twitter").status_code == 303
    for name in ("spotify", "corp"):
        assert observed.link(browser, name).status_code == 303
    for name in ("twitter", "spotify", "corp"):
        assert browser.get(f"/call/{name}/me").status_code == 200
    clock.advance(3590, observed.site.gate)
    provider.timestamp_window = 7200
    for name in ("spotify", "corp"):
        assert browser.get(f"/call/{name}/me").status_code == 200
    assert provider.count["token"] == 4
    for route in ("/", "/session", "/providers", "/spotify/link", "/nosuch"):
        browser.get(f"/_oauth{route}", headers=PAGE)
    post_json(observed.site, browser, "/spotify/unlink")
    observed.login(browser, "corp")
    post_json(observed.site, browser, "/logout")
    observed.search()


FAULTS: dict[str, Callable[[LocalProvider], None]] = {
    "token_500": lambda provider: provider.faults.set("token", status=500),
    "token_html": lambda provider: provider.faults.set("token", body="<html>", status=200),
    "token_redirect": lambda provider: provider.faults.set(
        "token", status=302, headers={"location": "https://evil.example/"}
    ),
    "token_cut": lambda provider: provider.faults.set("token", after=True, truncate=True),
    "token_late": lambda provider: provider.faults.set("token", after=True, delay=2.0),
    "token_type": lambda provider: setattr(
        provider.faults, "tamper_token_response", lambda answer: {**answer, "token_type": "mac"}
    ),
    "token_error_text": lambda provider: setattr(
        provider.faults,
        "tamper_token_response",
        lambda answer: {"error": "invalid_grant", "error_description": f"bad {answer['access_token']}"},
    ),
    "profile_500": lambda provider: provider.faults.set("me", status=500),
    "profile_array": lambda provider: provider.faults.set("me", body="[]", status=200),
    "userinfo_500": lambda provider: provider.faults.set("userinfo", status=500),
    "bad_signature": lambda provider: setattr(provider.faults, "sign_with", "other_key"),
    "no_signature": lambda provider: setattr(provider.faults, "sign_with", "none"),
    "jwks_500": lambda provider: provider.faults.set("jwks", status=500),
    "wrong_audience": lambda provider: setattr(
        provider.faults, "tamper_id_token", lambda claims, header: {**claims, "aud": "other"}
    ),
    "access_token_html": lambda provider: provider.faults.set("access_token", body="<html>", status=200),
    "access_token_401": lambda provider: provider.faults.set("access_token", status=401),
    "request_token_401": lambda provider: provider.faults.set("request_token", status=401),
    "iss": lambda provider: setattr(
        provider.faults,
        "tamper_authorization_response",
        lambda answer: {**answer, "iss": "https://evil.example"},
    ),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_no_secret_in_failures(observed: Observed, provider: LocalProvider, fault: str) -> None:
    """The same for every way in which a provider fails, in login and link (row 76, row 77)."""
    FAULTS[fault](provider)
    for name in ("twitter", "spotify", "corp"):
        browser = observed.browser()
        begun = browser.get(f"/_oauth/{name}/login", headers=PAGE)
        if begun.status_code == 303:
            url = observed.authorize(location(begun))
            answer = browser.get(url, headers=PAGE)
            check_page(answer)
            again = browser.get(url, headers={"accept": "application/json"})
            assert again.status_code in (303, 400)
            assert not flow_cookies(browser) or fault == "iss"
        else:
            check_page(begun)
    observed.search()


def check_page(answer: httpx2.Response) -> None:
    """What a browser shows after a callback cannot tell anybody its address (row 77, row 78)."""
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    if answer.status_code == 303:
        return
    policy = answer.headers["content-security-policy"]
    assert (
        "default-src 'none'" in policy
        and "frame-ancestors 'none'" in policy
        and "base-uri 'none'" in policy
    )
    assert "unsafe" not in policy and "script-src" not in policy
    for tag, name, value in Attributes(answer.text).found:
        assert tag not in (
            "script",
            "iframe",
            "object",
            "embed",
            "base",
            "svg",
            "math",
            "form-action",
        ), tag
        assert not name.startswith("on") and name not in ("style", "srcdoc"), (tag, name)
        if name in ("href", "src", "action", "formaction"):
            assert value.startswith(("/", f"{BASE}/", "https://")) or value in ("#main", "data:,"), (
                tag,
                name,
                value,
            )
            assert tag == "img" or not value.startswith("https:"), "no third-party content but pictures"


class Attributes(HTMLParser):
    """Every tag and attribute of a page, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, "", ""))
        self.found += [(tag, name, value or "") for name, value in attrs]


@pytest.mark.parametrize("name", ["twitter", "spotify", "corp"])
def test_no_secret_after_denials_and_forgeries(
    observed: Observed, provider: LocalProvider, name: str
) -> None:
    """Denials, forged callbacks, CSRF failures, conflicts and expiry (row 76)."""
    browser, other = observed.browser(), observed.browser()
    browser.get(observed.authorize(start(observed.site, browser, name), deny=True), headers=PAGE)
    url = observed.authorize(start(observed.site, browser, name))
    other.get(url, headers=PAGE)
    browser.get(
        url.replace("code=", "code=x").replace("oauth_verifier=", "oauth_verifier=x"), headers=PAGE
    )
    observed.login(browser, name)
    observed.login(other, "spotify" if name != "spotify" else "twitter", account="grace")
    assert observed.link(other, name).status_code == 409
    browser.post("/_oauth/logout", data={"csrf_token": "x"}, headers=observed.site.origin())
    provider.revoke_all()
    provider.expire_access_tokens()
    for path in ("me", "player"):
        browser.get(f"/call/{name}/{path}", headers=PAGE)
        browser.get(f"/sync/{name}/{path}")
    observed.search()


# -- repr and tracebacks


def ours(*roots: object) -> list[object]:
    """Every object of our own classes that can be reached from `roots`."""
    seen: set[int] = set()
    found: list[object] = []
    todo = list(roots)
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, (type, str, bytes, int)):
            continue
        seen.add(id(item))
        module = type(item).__module__
        mine = module.startswith("oauthgate") and not module.startswith("oauthgate.testing")
        if mine:
            found.append(item)
        if mine or isinstance(item, (dict, list, tuple, set, httpx2.Client, httpx2.AsyncClient)):
            todo.extend(gc.get_referents(item))
    return found


class Boom(Exception):
    """What a handler of the test raises."""


Handler = Callable[[Any, Any], Any]


def run_handler(
    kind: Kind,
    config: dict[str, Any],
    prepare: Callable[[httpx2.Client], None],
    handler: Any,
) -> None:
    """Call `handler(visitor, services, gate)` inside a request of a signed-in visitor."""
    if kind == "asgi":

        async def page(request: Request) -> Response:
            if request.url.path == "/":
                state = request.state
                result = handler(state.oauth, state.services, state.oauthgate)
                if result is not None:
                    await result
            return JSONResponse({})

        app = Starlette(routes=[Route("/{path:path}", page)])
        oauthgate.install(app, config)
        with TestClient(app, base_url=BASE, follow_redirects=False) as client:
            prepare(client)
            client.get("/")
        return
    flask = Flask("leaks")

    @flask.route("/", defaults={"path": ""})
    @flask.route("/<path:path>")
    def view(path: str) -> dict[str, str]:
        if not path:
            state = flask_request.state  # type: ignore[attr-defined]
            handler(state.oauth, state.services, flask.wsgi_app)
        return {}

    oauthgate.install(flask, config)
    with httpx2.Client(transport=httpx2.WSGITransport(app=flask), base_url=BASE) as plain:
        prepare(plain)
        plain.get("/")
    gate: Any = flask.wsgi_app
    gate.close()


def sign_in_everywhere(browser: httpx2.Client) -> None:
    for name in ("twitter", "spotify", "corp"):
        route = f"/_oauth/{name}/login?then="
        if name != "twitter":
            token = browser.get("/_oauth/session").json()["csrf_token"]
            url = browser.post(
                f"/_oauth/{name}/link",
                json={"csrf_token": token},
                headers={"origin": BASE, "accept": "application/json"},
            ).json()["authorization_url"]
        else:
            url = browser.get(route).headers["location"]
        assert browser.get(SiteUnderTest.authorize(url)).status_code == 303


def test_no_secret_in_any_repr(kind: Kind, config: dict[str, Any], provider: LocalProvider) -> None:
    """`repr` and `str` of everything that a handler can reach, and of every object behind it (row
    76)."""
    config["oauthgate"]["secret"] = [MASTER]
    canaries = Canaries(provider)
    seen: list[str] = []

    def handler(oauth: Any, services: Any, gate: Any) -> Any:
        clients = [services[name] for name in services]
        roots = [
            oauth,
            services,
            gate,
            gate.gate,
            gate.gate.config,
            *clients,
            *oauth.links,
            oauth._visit,
        ]
        found = ours(*roots)
        kinds = {type(item).__name__ for item in found}
        expected = {
            "Gate",
            "Config",
            "Provider",
            "Services",
            "LinkAuth",
            "Grant",
            "Link",
            "LinkInfo",
            "Token",
        }
        assert kinds >= expected | {
            "Session",
            "User",
            "Visitor",
            "Visit",
            "Keys",
            "Vault",
            "Refresher",
            "Outbound",
        }
        for item in [*roots, *found]:
            seen.append(f"{type(item).__name__}: {item!r} {item}")

    def prepare(client: httpx2.Client) -> None:
        sign_in_everywhere(client)
        canaries.collect(client)

    run_handler(kind, config, prepare, handler)
    assert len(seen) > 30
    assert len(canaries.found) > 10
    for text in seen:
        assert not canaries.hits(text), text


ERRORS = [
    "not_linked", "unknown_provider", "foreign_host", "refresh_failed", "reauth_required", "handler",
    "api_down",
    "scope", "bad_url",
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_no_secret_in_tracebacks(
    kind: Kind, config: dict[str, Any], provider: LocalProvider, clock: Clock, error: str
) -> None:
    """Tracebacks with the values of all locals, as error trackers send them, of every error that reaches
    a handler (row 76)."""
    config["oauthgate"]["secret"] = [MASTER]
    if error == "api_down":
        config["providers"]["spotify"]["api_base_url"] = "http://127.0.0.1:1/api"
    canaries = Canaries(provider)
    texts: list[str] = []

    def note(problem: BaseException) -> None:
        canaries.collect()
        found = traceback.TracebackException.from_exception(problem, capture_locals=True)
        texts.append("".join(found.format()))
        texts.append(f"{problem!r} {problem} {problem.args!r} {vars(problem)!r}")

    def provoke(services: Any, gate: Any) -> Any:
        if error == "not_linked":
            return services["corp:nobody"]
        if error == "unknown_provider":
            return services["nosuch"]
        if error == "foreign_host":
            return services["spotify"].get("https://evil.example/")
        if error == "scope":
            return services.require("spotify", scope=["more"])
        if error == "bad_url":
            return services["spotify"].get("http://[")
        if error == "handler":
            raise Boom
        return services["spotify"].get("me")

    def handler(oauth: Any, services: Any, gate: Any) -> Any:
        spotify = services["spotify"]
        assert spotify.link.provider == "spotify" and oauth.links
        if kind == "wsgi":
            try:
                provoke(services, gate)
            except Exception as problem:
                note(problem)
            return None

        async def work() -> None:
            try:
                result = provoke(services, gate)
                await result
            except Exception as problem:
                note(problem)

        return work()

    def prepare(client: httpx2.Client) -> None:
        sign_in_everywhere(client)
        canaries.collect(client)
        if error in ("refresh_failed", "reauth_required"):
            clock.advance(4000)
        if error == "refresh_failed":
            provider.faults.set("token", status=500)
        if error == "reauth_required":
            provider.revoke_all()

    run_handler(kind, config, prepare, handler)
    assert texts, "nothing was raised"
    for text in texts:
        assert not canaries.hits(text), [line for line in text.splitlines() if canaries.hits(line)]


# -- pages (row 78)

SCRIPTS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "</title><svg/onload=x>",
]
SCRIPTS += [
    "{{7*7}}",
    "{% for x in y %}",
    "javascript:alert(1)",
    "\u202eevil",
    "a\x00b",
    "<!--",
    "]]>",
    "&lt;b&gt;",
]


@pytest.mark.parametrize("text", SCRIPTS, ids=range(len(SCRIPTS)))
def test_profiles_cannot_write_pages(site: SiteUnderTest, provider: LocalProvider, text: str) -> None:
    """Names, e-mail addresses, ids and pictures of the provider's making are text on the account page
    (row 78)."""
    provider.accounts["evil"] = Account(
        id="evil", username="mallory", name=text, email=f"{text}@example.com", picture=f"https://x.example/{text}",
        extra={"id": text[:40], "username": text},
    )  # fmt: skip
    browser = site.browser()
    answer = site.login(browser, account="mallory")
    if answer.status_code != 303:
        assert answer.status_code == 502
        return
    page = browser.get("/_oauth/", headers=PAGE)
    assert page.status_code == 200
    check_page(page)
    assert browser.get("/_oauth/session").json()["links"][0]["provider"] == "spotify"


@pytest.mark.parametrize(
    "picture",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "http://tracker.example/x.png",
        "//x.example/y",
        'https://x"onerror=y',
    ],
)
def test_pictures_are_https_or_none(site: SiteUnderTest, provider: LocalProvider, picture: str) -> None:
    """A picture that is not a plain https URL is not shown (row 78)."""
    provider.accounts["evil"] = Account(id="evil", username="mallory", picture=picture)
    browser = site.browser()
    site.login(browser, account="mallory")
    page = browser.get("/_oauth/", headers=PAGE)
    check_page(page)
    shown = [value for tag, name, value in Attributes(page.text).found if (tag, name) == ("img", "src")]
    assert not [value for value in shown if not value.startswith("https://")]
    assert "tracker.example" not in page.text
    assert who(browser)["user_id"]


def test_errors_echo_nothing(site: SiteUnderTest) -> None:
    """No route repeats what was sent to it, in a page or in JSON (row 78)."""
    marker = "zq9<b>marker"
    browser = site.browser()
    site.login(browser)
    for route in (
        "/",
        "/nosuch",
        f"/{marker}/login",
        "/spotify/callback",
        "/session",
        f"/spotify/{marker}",
    ):
        for headers in (PAGE, {"accept": "application/json"}):
            query = dict.fromkeys(
                ["state", "code", "error", "error_description", "message", "reason", "then"], marker
            )
            answer = browser.get(f"/_oauth{route}", params=query, headers=headers)
            assert "zq9" not in answer.text, route
            check = answer.headers.get("content-security-policy")
            assert check is None or "default-src 'none'" in check
