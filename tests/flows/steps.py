"""What the scenario tests share: forms read from real pages, apps that show what a handler sees, a
clock that can be moved, and a store that counts.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import httpx2
import pytest
from flask import Flask
from flask import request as flask_request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from werkzeug.middleware.lint import LintMiddleware

import oauthgate
from oauthgate.gate import Gate
from oauthgate.stores import ANY, Expect, Record, Store
from tests.support import BASE, PAGE, Kind, SiteUnderTest

JSON = {"accept": "application/json", "sec-fetch-mode": "cors", "sec-fetch-site": "same-origin"}
SESSION = "oauthgate"
FLOW = "oauthgate-flow-"


def location(answer: httpx2.Response) -> str:
    """Where a redirect leads; only 303 is one (row 8)."""
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def who(browser: httpx2.Client) -> dict[str, Any]:
    """What a handler sees of the visitor."""
    found: dict[str, Any] = browser.get("/who").json()
    return found


def cookie_header(browser: httpx2.Client) -> dict[str, str]:
    """The Cookie header that a browser would send, for a request without its jar."""
    return {"cookie": "; ".join(f"{item.name}={item.value}" for item in browser.cookies.jar)}


def flow_cookies(browser: httpx2.Client) -> dict[str, str]:
    """The flow cookies in a browser's jar."""
    return {item.name: item.value or "" for item in browser.cookies.jar if item.name.startswith(FLOW)}


def set_cookies(answer: httpx2.Response) -> list[str]:
    """All Set-Cookie values of an answer."""
    return list(answer.headers.get_list("set-cookie"))


def post_json(
    site: SiteUnderTest, browser: httpx2.Client, route: str, **fields: str | bool
) -> httpx2.Response:
    """A POST by a script of this site, with its CSRF token."""
    return browser.post(
        f"/_oauth{route}",
        json={"csrf_token": site.csrf(browser), **fields},
        headers={**site.origin(), **JSON},
    )


def start(site: SiteUnderTest, browser: httpx2.Client, provider: str = "spotify", **query: str) -> str:
    """Begin a sign-in; the authorization URL."""
    params = {"next": "/who", **query}
    return location(browser.get(f"/_oauth/{provider}/login", params=params, headers=PAGE))


@dataclass
class Form:
    """A form or a link of a page, as a person would use it."""

    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)


class _Forms(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self._open: Form | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._open = Form(values.get("method", "get").lower(), values.get("action", ""))
            self.forms.append(self._open)
        elif tag == "a":
            self.links.append(values.get("href", ""))
        elif tag in ("input", "button") and self._open is not None and "name" in values:
            self._open.fields[values["name"]] = values.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = None


def forms(answer: httpx2.Response) -> list[Form]:
    """The forms of a page."""
    return _Forms(answer.text).forms


def links(answer: httpx2.Response) -> list[str]:
    """The links of a page."""
    return [urljoin(str(answer.url), href) for href in _Forms(answer.text).links]


def press(
    site: SiteUnderTest, browser: httpx2.Client, page: httpx2.Response, action: str
) -> httpx2.Response:
    """Submit the form of a page whose action ends with `action`, as a browser does."""
    (form,) = [form for form in forms(page) if form.action.endswith(action)]
    assert form.method == "post"
    headers = {**PAGE, "origin": site.base, "sec-fetch-site": "same-origin"}
    return browser.post(urljoin(str(page.url), form.action), data=form.fields, headers=headers)


class Clock:
    """Moves the gate's time: what `time.time` says to it, and the store's own clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = time.time
        self._offset = 0.0
        monkeypatch.setattr(time, "time", self.now)

    def now(self) -> float:
        return self._real() + self._offset

    def advance(self, seconds: float, *gates: Gate) -> None:
        self._offset += seconds
        for gate in gates:
            gate.store.clock = self.now  # type: ignore[attr-defined]


class CountingStore:
    """A store around another: counts its calls, and can be told to do something at a write."""

    colour = "both"

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.count: Counter[str] = Counter()
        self.before_write: Callable[[str, str], None] | None = None

    @property
    def writes(self) -> int:
        return self.count["put"] + self.count["delete"]

    async def open(self) -> None:
        await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    async def get(self, key: str) -> Record | None:
        self.count["get"] += 1
        return await self.inner.get(key)

    async def put(
        self, key: str, value: bytes, *, expires_at: float | None = None, expect: Expect = ANY
    ) -> int:
        self.count["put"] += 1
        if self.before_write:
            self.before_write("put", key)
        return await self.inner.put(key, value, expires_at=expires_at, expect=expect)

    async def delete(self, key: str, *, expect: Expect = ANY) -> bool:
        self.count["delete"] += 1
        if self.before_write:
            self.before_write("delete", key)
        return await self.inner.delete(key, expect=expect)

    async def scan(self, prefix: str) -> AsyncIterator[tuple[str, Record]]:
        self.count["scan"] += 1
        async for item in self.inner.scan(prefix):
            yield item

    async def purge(self, now: float) -> int:
        self.count["purge"] += 1
        return await self.inner.purge(now)


def counting(gate: Gate) -> CountingStore:
    """Put a counting store into a gate that has not been used yet, or has."""
    store = CountingStore(gate.vault.store)
    gate.vault.store = store
    return store


def pep_3333(app: Any) -> Any:
    """`app` with PATH_INFO as servers give it: bytes disguised as Latin-1, which httpx2's transport
    does not do."""

    def wrapped(environ: dict[str, Any], start_response: Any) -> Any:
        environ["PATH_INFO"] = environ["PATH_INFO"].encode("utf-8", "surrogatepass").decode("latin-1")
        return app(environ, start_response)

    return wrapped


Probe = Callable[[oauthgate.Visitor, Any], Any]


@contextlib.contextmanager
def probing(kind: Kind, config: dict[str, Any], probe: Probe) -> Iterator[httpx2.Client]:
    """A browser at an app whose every page returns `probe(visitor, services)` as JSON."""
    if kind == "asgi":

        async def page(request: Request) -> Response:
            found = probe(request.state.oauth, request.state.services)
            return JSONResponse(await found if inspect.isawaitable(found) else found)

        asgi_app = Starlette(routes=[Route("/{path:path}", page, methods=["GET", "POST"])])
        oauthgate.install(asgi_app, config)
        with TestClient(asgi_app, base_url=BASE, follow_redirects=False) as client:
            yield client
        return
    wsgi_app = Flask("probe")

    @wsgi_app.route("/", defaults={"path": ""}, methods=["GET", "POST"])
    @wsgi_app.route("/<path:path>", methods=["GET", "POST"])
    def view(path: str) -> Any:
        state = flask_request.state  # type: ignore[attr-defined]
        return probe(state.oauth, state.services)

    oauthgate.install(wsgi_app, config)
    with httpx2.Client(
        transport=httpx2.WSGITransport(app=LintMiddleware(wsgi_app)), base_url=BASE
    ) as plain:
        yield plain
    gate: Any = wsgi_app.wsgi_app
    gate.close()
