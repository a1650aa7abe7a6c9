"""Whole flows at a provider that misbehaves, and what a refused one must leave untouched."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit
from weakref import WeakKeyDictionary

import httpx2

from oauthgate.testing import LocalProvider, sign_in
from oauthgate.testing.browser import Callback
from tests.support import PAGE, SiteUnderTest

#: https, so that the cookies are the ones of a real site.
SITE = "https://app.example"
SESSION = "__Host-oauthgate"
Json = dict[str, Any]
#: Building one costs more than a whole flow.
_TLS = httpx2.create_ssl_context()
_signed_in: WeakKeyDictionary[SiteUnderTest, httpx2.Client] = WeakKeyDictionary()
#: Records that a refused flow may write: its own single-use marker, and the check of the keys.
_PASSING = ("flow-used/", "lease/", "meta/")


def query_of(url: str) -> dict[str, str]:
    """The query of a URL, each parameter once."""
    found = parse_qs(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)
    assert all(len(values) == 1 for values in found.values()), found
    return {name: values[0] for name, values in found.items()}


def with_query(url: str, **changes: str | None) -> str:
    """The URL with parameters replaced, added, or (None) removed."""
    base, _, query = url.partition("?")
    pairs = dict(parse_qsl(query, keep_blank_values=True))
    pairs.update({name: value for name, value in changes.items() if value is not None})
    return (
        f"{base}?{urlencode({name: pairs[name] for name in pairs if changes.get(name, '') is not None})}"
    )


def set_cookie_names(answer: httpx2.Response) -> list[str]:
    return [value.partition("=")[0] for value in answer.headers.get_list("set-cookie")]


@dataclass
class Harness:
    """One site, one provider, and a browser that is signed in already through another provider."""

    site: SiteUnderTest
    provider: LocalProvider
    posts: bool = False
    authorization_url: str = field(default="", init=False)

    def browser(self) -> httpx2.Client:
        return self.site.browser()

    def start(self, browser: httpx2.Client, name: str = "corp", **query: str) -> httpx2.Response:
        return browser.get(f"/_oauth/{name}/login", params={"next": "/who", **query}, headers=PAGE)

    def authorize(self, started: httpx2.Response, account: str = "ada") -> Callback:
        """Through the provider's page; the callback that the browser is sent to."""
        assert started.status_code == 303, started.text
        self.authorization_url = started.headers["location"]
        with httpx2.Client(verify=_TLS) as client:
            return sign_in(client, self.authorization_url, account)

    def deliver(self, browser: httpx2.Client, callback: str | Callback) -> httpx2.Response:
        """Bring the provider's answer back, as a browser does in the response mode in use."""
        fields = getattr(callback, "fields", None)
        if fields is None:
            return browser.get(str(callback), headers=PAGE)
        # A cross-site POST: a browser sends only cookies that say SameSite=None along.
        flows = [item for item in browser.cookies.jar if item.name.startswith(f"{SESSION}-flow-")]
        cookies = {"cookie": "; ".join(f"{item.name}={item.value}" for item in flows)}
        headers = {**PAGE, "origin": "https://op.example", "sec-fetch-site": "cross-site", **cookies}
        with closing(self.browser()) as posting:
            answer = posting.post(str(callback), data=fields, headers=headers)
        for item in answer.cookies.jar:
            browser.cookies.jar.set_cookie(item)
        return answer

    def login(self, browser: httpx2.Client, name: str = "corp", **query: str) -> httpx2.Response:
        return self.deliver(browser, self.authorize(self.start(browser, name, **query)))

    def succeeds(self, name: str = "corp", **query: str) -> httpx2.Client:
        """A whole sign-in that must work; the browser it was made with."""
        browser = self.browser()
        answer = self.login(browser, name, **query)
        assert (answer.status_code, answer.headers.get("location")) == (303, f"{SITE}/who"), answer.text
        assert SESSION in set_cookie_names(answer)
        who = browser.get("/who").json()
        assert [link.partition(":")[0] for link in who["links"]] == [name]
        return browser

    def signed_in(self) -> httpx2.Client:
        """A browser that is signed in through another provider; one for all tests of a site."""
        browser = _signed_in.get(self.site)
        if browser is None:
            browser = _signed_in[self.site] = self.browser()
            # As somebody whom no test signs in: a user has at most so many sessions.
            callback = self.authorize(self.start(browser, "spotify"), "grace")
            assert self.deliver(browser, callback).status_code == 303
        return browser

    def records(self) -> dict[str, tuple[int, bytes]]:
        """Every record that outlives a flow, with its version."""
        path = self.site.config["oauthgate"]["store"].removeprefix("sqlite:///")
        with closing(sqlite3.connect(path)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
                return {}
            rows = connection.execute("SELECT key, version, value FROM oauthgate").fetchall()
        return {key: (version, value) for key, version, value in rows if not key.startswith(_PASSING)}

    def refuses(
        self,
        status: int,
        *,
        name: str = "corp",
        token_requests: int = 1,
        userinfo_requests: int = 0,
        change: Callable[[Callback], str | Callback] | None = None,
        prepare: Callable[[], object] | None = None,
        **query: str,
    ) -> httpx2.Response:
        """A flow that must end with `status`, having changed nothing: no record, no session, no cookie
        but the flow's own, no call to the user information (or just those allowed).

        The browser is signed in through another provider, so that a session that is lost or replaced
        would be seen. `prepare` sets the fault before the flow starts; `change` alters the callback.
        """
        browser = self.signed_in()
        before, who = self.records(), browser.get("/who").json()
        assert who["user_id"]
        if prepare:
            prepare()
        started = self.start(browser, name, **query)
        callback = self.authorize(started)
        self.provider.count.clear()
        answer = self.deliver(browser, change(callback) if change else callback)
        assert answer.status_code == status, answer.text
        assert self.provider.count["token"] == token_requests
        assert self.provider.count["userinfo"] == userinfo_requests
        assert self.provider.count["me"] == 0
        assert self.records() == before
        flow = f"{SESSION}-flow-"
        assert all(cookie.startswith(flow) for cookie in set_cookie_names(answer)), answer.headers
        assert browser.get("/who").json() == who
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        return answer
