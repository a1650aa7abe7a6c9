"""Going through the provider's pages without a browser.

Owns: `sign_in` and `sign_in_async`. What they do by HTTP, anyone can: GET the authorization URL;
the answer is a redirect, or a page with one form; POST that form's hidden `request` back to the
same path with `account=<id or username>` (or `deny=1`); the answer redirects to the client, or
for form_post is a page with a form that posts to it.
"""

from __future__ import annotations

from collections.abc import Generator
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import urljoin

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Client, Response

Step = tuple[str, str, dict[str, str] | None]


class SignInError(Exception):
    """The provider showed a problem instead of a way on; the message is what it said."""


class Callback(str):
    """Where the browser is sent, as a string; `fields` are what form_post posts there.

    In the out-of-band flow of OAuth 1.0a it is the PIN that the page shows.
    """

    __slots__ = ("fields",)
    fields: dict[str, str] | None

    def __new__(cls, url: str, fields: dict[str, str] | None = None) -> Callback:
        self = super().__new__(cls, url)
        self.fields = fields
        return self


class _Page(HTMLParser):
    """Collects the one form of a page, its hidden fields, the PIN and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.pin: str | None = None
        self.words: list[str] = []
        self._in_output = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = values.get("action", "")
        elif tag == "input" and values.get("type") == "hidden":
            self.fields[values["name"]] = values["value"]
        self._in_output = tag == "output"

    def handle_endtag(self, tag: str) -> None:
        self._in_output = False

    def handle_data(self, data: str) -> None:
        if self._in_output:
            self.pin = data.strip()
        if data.strip():
            self.words.append(data.strip())


def sign_in(client: Client, url: str, account: str = "ada", *, deny: bool = False) -> Callback:
    """Go through the sign-in page at `url`; return where it sends the browser.

    Args:
        client: keeps the provider's cookies between calls, as a browser would.
        url: the authorization URL (OAuth 1.0a or 2).
        account: id or username.
        deny: press Deny instead.

    Raises:
        SignInError: the provider answered with a problem page.
    """
    steps = _steps(url, account, deny)
    method, target, data = next(steps)
    while True:
        response = client.request(method, target, data=data, follow_redirects=False)
        try:
            method, target, data = steps.send(response)
        except StopIteration as done:
            return _result(done)


async def sign_in_async(
    client: AsyncClient, url: str, account: str = "ada", *, deny: bool = False
) -> Callback:
    """Do what `sign_in` does, with an asynchronous client."""
    steps = _steps(url, account, deny)
    method, target, data = next(steps)
    while True:
        response = await client.request(method, target, data=data, follow_redirects=False)
        try:
            method, target, data = steps.send(response)
        except StopIteration as done:
            return _result(done)


def _result(done: StopIteration) -> Callback:
    value = done.value
    if not isinstance(value, Callback):
        raise TypeError("the steps of a sign-in end with a Callback")
    return value


def _steps(url: str, account: str, deny: bool) -> Generator[Step, Response, Callback]:
    response = yield "GET", url, None
    page = _read(response)
    if isinstance(page, Callback):
        return page
    if page.action is not None and "request" in page.fields:
        choice = {"deny": "1"} if deny else {"account": account}
        target = urljoin(str(response.url).partition("?")[0], page.action).rstrip("?")
        response = yield "POST", target, {"request": page.fields["request"], **choice}
        page = _read(response)
        if isinstance(page, Callback):
            return page
    if page.pin is not None:
        return Callback(page.pin)
    if page.action is not None and "request" not in page.fields:
        return Callback(page.action, page.fields)
    raise SignInError("the provider showed: " + " / ".join(page.words))


def _read(response: Response) -> _Page | Callback:
    if response.has_redirect_location:
        return Callback(urljoin(str(response.url), response.headers["location"]))
    page = _Page(response.text)
    if response.status_code != 200:
        raise SignInError(f"status {response.status_code}: " + " / ".join(page.words))
    return page
