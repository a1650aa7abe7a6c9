"""Signs a person in at the servers of this folder, without a browser.

Owns the forms: each helper opens an authorization URL, fills in what the server's pages ask, and
hands back what the server would send the browser to, without following it, so that the caller
delivers it to the app under test. The client plays the browser towards the server: its cookie jar
is the person's session there, and a second call with the same client is already signed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx2

_MAX_STEPS = 20
_MAX_SAID = 600


class LoginFailed(Exception):
    """The server showed something else than a login, a consent or a redirect back to the client."""


@dataclass(frozen=True, slots=True)
class Callback:
    """What the server makes the browser send to the client.

    Attributes:
        url: The redirect URI, with the answer in its query unless `fields` is set.
        fields: The form's fields when the answer comes as `form_post`; else None.
        origin: The server's origin, which a browser names in the form's `Origin` header.
    """

    url: str
    fields: Mapping[str, str] | None = field(default=None, repr=False)
    origin: str = ""

    @property
    def params(self) -> dict[str, str]:
        """The answer's parameters, wherever they stand."""
        if self.fields is not None:
            return dict(self.fields)
        return dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True))

    def send(self, browser: httpx2.Client) -> httpx2.Response:
        """Deliver it to the client as a browser would; redirects are left to the caller.

        A real browser leaves `SameSite=Lax` cookies out of the cross-site POST of `form_post`;
        this client knows nothing of sites and sends every cookie of the host.
        """
        if self.fields is None:
            return browser.get(self.url, follow_redirects=False)
        headers = {"Origin": self.origin, "Sec-Fetch-Site": "cross-site"}
        return browser.post(self.url, data=dict(self.fields), headers=headers, follow_redirects=False)


@dataclass(slots=True)
class _Form:
    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: dict[str, str] = field(default_factory=dict)


class _Forms(HTMLParser):
    """Collects the forms of a page (their named submit buttons apart), and its visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[_Form] = []
        self.text: list[str] = []
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden and data.strip():
            self.text.append(" ".join(data.split()))

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._hidden = tag in ("style", "script")
        if tag == "form":
            self.forms.append(_Form(given.get("action", ""), given.get("method", "get").lower()))
        elif self.forms and given.get("name") and tag in ("input", "button", "select"):
            form, kind = self.forms[-1], given.get("type", "")
            if kind == "submit" or tag == "button":
                form.buttons[given["name"]] = given.get("value", "")
            elif tag == "input" and (kind not in ("checkbox", "radio") or "checked" in given):
                form.fields[given["name"]] = given.get("value", "")


def login_oidc_provider(
    client: httpx2.Client, authorization_url: str, login: str = "ada", *, deny: bool = False
) -> Callback:
    """Sign in at oidc-provider's development pages and consent.

    Args:
        login: The `sub` of an account of the server's configuration; any password does.
        deny: Follow the page's "cancel" link, which answers `error=access_denied`.
    """
    origin = _origin(authorization_url)
    reply = client.get(authorization_url, follow_redirects=False)
    for _ in range(_MAX_STEPS):
        if callback := _leaving(reply, origin):
            return callback
        if reply.has_redirect_location:
            reply = client.get(_location(reply), follow_redirects=False)
            continue
        form = _only_form(reply)
        if _origin(form.action) != origin:
            return Callback(form.action, form.fields, origin)
        if deny:
            reply = client.get(f"{form.action}/abort", follow_redirects=False)
            continue
        answers = {"login": login, "password": "any"} if "login" in form.fields else {}
        reply = _submit(client, reply, form, answers)
    raise LoginFailed(f"no end after {_MAX_STEPS} steps, at {reply.url}")


def end_session_oidc_provider(client: httpx2.Client, end_session_url: str) -> str:
    """Confirm oidc-provider's logout page; return where it sends the browser afterwards.

    That is the `post_logout_redirect_uri`, or a page of the provider when none was asked for.
    """
    reply = client.get(end_session_url, follow_redirects=False)
    form = _only_form(reply)
    reply = _submit(client, reply, form, {"logout": "yes"})
    if not reply.has_redirect_location:
        raise _unexpected(reply)
    return _location(reply)


def login_oauth1(
    client: httpx2.Client,
    authorization_url: str,
    login: str | None = None,
    *,
    deny: bool = False,
) -> Callback:
    """Authorize at the OAuth 1.0a server, with either kind of consent.

    Args:
        login: The `screen_name` of an account of the configuration; by default the first.
        deny: Refuse.
    """
    origin = _origin(authorization_url)
    choice = {key: value for key, value in (("login", login), ("deny", "1" if deny else None)) if value}
    url = httpx2.URL(authorization_url).copy_merge_params(choice)
    reply = client.get(url, follow_redirects=False)
    if not reply.has_redirect_location and reply.headers.get("content-type", "").startswith("text/html"):
        form = _only_form(reply)
        answers = {"login": login} if login else {}
        reply = _submit(client, reply, form, {**answers, "cancel" if deny else "allow": "1"})
    if callback := _leaving(reply, origin):
        return callback
    raise _unexpected(reply)


def login_dot(
    client: httpx2.Client,
    authorization_url: str,
    username: str,
    password: str,
    *,
    deny: bool = False,
) -> Callback:
    """Sign in on Django's login page and answer django-oauth-toolkit's authorization form.

    Raises:
        LoginFailed: Also when the user name or the password is wrong.
    """
    origin = _origin(authorization_url)
    reply = client.get(authorization_url, follow_redirects=False)
    asked = False
    for _ in range(_MAX_STEPS):
        if callback := _leaving(reply, origin):
            return callback
        if reply.has_redirect_location:
            reply = client.get(_location(reply), follow_redirects=False)
            continue
        form = _only_form(reply)
        if "password" in form.fields:
            if asked:
                raise LoginFailed(f"{username} could not sign in: wrong user name or password")
            asked = True
            answers = {"username": username, "password": password}
        else:
            answers = {} if deny else {"allow": form.buttons.get("allow", "")}
        reply = _submit(client, reply, form, answers)
    raise LoginFailed(f"no end after {_MAX_STEPS} steps, at {reply.url}")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _location(reply: httpx2.Response) -> str:
    return urljoin(str(reply.url), reply.headers["location"])


def _leaving(reply: httpx2.Response, origin: str) -> Callback | None:
    if reply.has_redirect_location and _origin(_location(reply)) != origin:
        return Callback(_location(reply), None, origin)
    return None


def _only_form(reply: httpx2.Response) -> _Form:
    page = _Forms()
    page.feed(reply.text)
    forms = [form for form in page.forms if form.method == "post"]
    if len(forms) != 1 or (reply.status_code != 200 and _same_site(forms[0], reply)):
        raise _unexpected(reply)
    forms[0].action = urljoin(str(reply.url), forms[0].action)
    return forms[0]


def _same_site(form: _Form, reply: httpx2.Response) -> bool:
    # An error that goes to the client as form_post comes with status 400, and is no failure here.
    url = str(reply.url)
    return _origin(urljoin(url, form.action)) == _origin(url)


def _submit(
    client: httpx2.Client, page: httpx2.Response, form: _Form, answers: Mapping[str, str]
) -> httpx2.Response:
    headers = {"Origin": _origin(str(page.url)), "Referer": str(page.url)}
    return client.post(
        form.action, data={**form.fields, **answers}, headers=headers, follow_redirects=False
    )


def _unexpected(reply: httpx2.Response) -> LoginFailed:
    page = _Forms()
    page.feed(reply.text)
    said = [reply.headers.get("www-authenticate", ""), *page.text]
    return LoginFailed(
        f"unexpected answer {reply.status_code} from {reply.request.method} {reply.url.path}: "
        + " ".join(said)[:_MAX_SAID].strip()
    )
