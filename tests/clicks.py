"""A visitor without a browser: reads a page, follows its links, fills its forms and presses buttons.

It sends the headers by which a browser says that a person navigates, and follows redirects from site to
site with one cookie jar. Of SameSite and CSP it knows nothing: `tests/browser` has a real browser.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

import httpx2

ACCEPT = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"


@dataclass
class Form:
    """A form: where it goes, its fields with their values, and its buttons by what stands on them."""

    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: dict[str, tuple[str, str]] = field(default_factory=dict)


class Page(HTMLParser):
    """The links, the forms and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: dict[str, str] = {}
        self.forms: list[Form] = []
        self.words: list[str] = []
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self._hidden = 0
        self.feed(html)

    @property
    def text(self) -> str:
        """What a person can read."""
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(values.get("method", "get").lower(), values.get("action", "")))
        elif tag == "input" and self.forms:
            self.forms[-1].fields[values.get("name", "")] = values.get("value", "")
        elif tag in ("a", "button", "textarea"):
            self._open.append((tag, values, []))
        elif tag in ("style", "head"):
            self._hidden += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "head"):
            self._hidden -= 1
        if not self._open or tag != self._open[-1][0]:
            return
        _, values, words = self._open.pop()
        text = " ".join(" ".join(words).split())
        if tag == "a":
            self.links[text] = values.get("href", "")
        elif tag == "button":
            shown = values.get("aria-label") or text
            self.forms[-1].buttons[shown] = (values.get("name", ""), values.get("value", ""))
        else:
            self.forms[-1].fields[values["name"]] = text

    def handle_data(self, data: str) -> None:
        for _, _, words in self._open:
            words.append(data)
        if not self._hidden:
            self.words.append(data)


class Visitor:
    """Somebody at the site `base`, with cookies of their own. `reply` and `page` are what is shown."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.client = httpx2.Client(follow_redirects=True, trust_env=False, timeout=20)
        self.reply: httpx2.Response
        self.page: Page

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.client.close()

    @property
    def url(self) -> str:
        """The address of the page that is shown."""
        return str(self.reply.url)

    @property
    def text(self) -> str:
        """What can be read on it."""
        return self.page.text

    def open(self, path: str) -> None:
        """Type an address: a path of the site, or a URL."""
        self._send("GET", urljoin(self.base, path), {})

    def click(self, link: str) -> None:
        """Follow the link with exactly this text."""
        assert link in self.page.links, f"no link {link!r} in {self.page.links}: {self.text}"
        self._send("GET", urljoin(self.url, self.page.links[link]), {})

    def press(self, button: str, **fields: str) -> None:
        """Press the first button whose text or label has this in it, with some fields filled in."""
        for form in self.page.forms:
            for label, (name, value) in form.buttons.items():
                if button in label:
                    data = {**form.fields, **fields, **({name: value} if name else {})}
                    self._submit(form, data)
                    return
        shown = [label for form in self.page.forms for label in form.buttons]
        raise AssertionError(f"no button {button!r} in {shown}: {self.text}")

    def _submit(self, form: Form, data: dict[str, str]) -> None:
        assert form.method == "post"
        here = urlsplit(self.url)
        # A form without an action, or with "?", goes to its own page's path.
        target = urljoin(self.url, form.action).rstrip("?") if form.action != "?" else here.path
        self._send("POST", urljoin(self.url, target), data)

    def _send(self, method: str, url: str, data: dict[str, str]) -> None:
        headers = {"accept": ACCEPT, "sec-fetch-mode": "navigate"}
        if method == "POST":
            here = urlsplit(self.url)
            headers["origin"] = f"{here.scheme}://{here.netloc}"
        self.reply = self.client.request(method, url, headers=headers, data=data or None)
        self.page = Page(self.reply.text)


def sign_in_and_link(visitor: Visitor, account: str = "Ada Lovelace") -> None:
    """The now-playing story up to the song: sign in with Twitter, link Spotify."""
    visitor.open("/")
    assert "What are you listening to?" in visitor.text
    visitor.click("Sign in with Twitter")
    visitor.press(f"as {account}")
    assert visitor.url == f"{visitor.base}/"
    assert f"Hello, {account}" in visitor.text
    visitor.click("Link Spotify")
    visitor.press("Link Spotify")
    visitor.press(f"as {account}")
    assert visitor.url == f"{visitor.base}/"
    assert "Now playing" in visitor.text


def post_unlink_and_sign_out(visitor: Visitor) -> None:
    """The rest of it: post the song, unlink Spotify, sign out."""
    song = visitor.page.forms[0].fields["text"]
    assert song.startswith("♪ ") and " by " in song
    visitor.press("Post to Twitter")
    assert "Posted." in visitor.text
    visitor.click("Account")
    assert "Linked accounts" in visitor.text
    visitor.press("Unlink: Spotify")
    assert "no longer linked" in visitor.text
    visitor.open("/")
    assert "Link Spotify" in visitor.page.links
    visitor.press("Sign out")
    assert "You are signed out" in visitor.text
    visitor.open("/")
    assert "Sign in with Twitter" in visitor.page.links
