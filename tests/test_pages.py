"""Pages: escaping, policy, languages, and documents that hold together (security rows 77, 78)."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import UndefinedError

from oauthgate.pages import LANGUAGES, STYLESHEET_PATH, Pages, language_for
from oauthgate.pages.language import load_messages

PAGES = Pages()
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}{site.__class__}&amp;"
CODES = """invalid_request flow_not_found flow_expired flow_used access_denied provider_error
    provider_unreachable provider_timeout provider_misbehaved account_in_use session_mismatch
    not_found unknown_provider method_not_allowed csrf_failed login_required link_required
    reauth_required store_unavailable provider_unavailable unsupported_media_type request_too_large
    host_not_allowed too_many_users not_allowed missing_profile_field record_unreadable
    internal_error logout_incomplete refused invalid_token uri_too_long"""
MESSAGES = "signed_out signed_out_everywhere unlinked unlinked_revoke_failed unlinked_no_revocation"
VOID = {"meta", "link", "input", "img", "br", "hr"}
POLICY = (
    "default-src 'none'; style-src 'self'; img-src https: data:; form-action 'self'{}; "
    "base-uri 'none'; frame-ancestors 'none'"
)


class Document(HTMLParser):
    """Parses a page and refuses unbalanced tags and everything that could run or be inline."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"repeated attribute in {tag}"
        assert tag not in {"script", "style", "iframe", "object", "embed", "base"}
        assert not any(name.startswith("on") or name == "style" for name in names)
        for name, value in attrs:
            if name in {"href", "action", "src"}:
                assert re.match(r"/(?!/)|https://|#(\?|$)|data:,$", value or ""), value
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def find(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [a for name, a in self.tags if name == tag and wanted.items() <= a.items()]


def contexts(text: str, url: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every page, with every untrusted string set to `text` and every address to `url`."""
    keys = ("provider", "title", "account_id", "label", "name", "username", "email", "user_id")
    link: dict[str, Any] = {
        **dict.fromkeys(keys, text),
        "picture": url,
        "scope": [text],
        "unlink_url": url,
        "describe_url": url,
    }
    link |= {"state": "reauth_required", "linked_at": 1763700000.5, "is_default": True}
    session = {"id": text, "created": 0.0, "last_seen": 1763700000.0, "provider": text}
    site = {"site": text, "home_url": url}
    form = {**site, "csrf_token": text, "provider_title": text, "link_url": url}
    choice = {"name": text, "title": text, "link_url": url, "login_url": url}
    account: dict[str, Any] = {
        **{**form, "user_id": text, "logout_url": url, "message": "linked", "can_link": [choice]},
        "links": [SimpleNamespace(**link), SimpleNamespace(**{**link, "state": "active"})],
        "sessions": [{**session, "current": c, "revoke_url": url} for c in (True, False)],
    }
    asking = {**form, "login_url": url, "cancel_url": url, "next": text, "scope": [text]}
    pages: dict[str, tuple[str, dict[str, Any]]] = {
        "account": ("account", account),
        "account_empty": ("account", {**account, "links": [], "can_link": [], "message": text}),
        "login": ("account_anonymous", {**site, "login": [choice]}),
        "login_empty": ("account_anonymous", {**site, "login": []}),
        "anonymous": ("link", {**asking, "anonymous": True}),
        "error": ("error", {**site, "status": 400, "code": text, "retry_url": url, "cause": text}),
    }
    for reason in ("not_linked", "reauth_required", "scope"):
        pages[reason] = ("link", {**asking, "reason": reason})
    for key in MESSAGES.split():
        pages[key] = ("message", {**site, "key": key, "provider_title": text})
    return pages


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", contexts("", ""))
@pytest.mark.parametrize("url", ["javascript:alert(1)", "//evil.example/", "/\\evil", "/\t/x", ""])
def test_hostile_strings_are_shown_and_nothing_more(name: str, language: str, url: str) -> None:
    page, context = contexts(HOSTILE, url)[name]
    rendered = PAGES.render(page, accept_language=language, **context)
    document = Document(rendered.html)
    assert HOSTILE in document.words  # as text, to the letter; no template syntax was evaluated
    assert [t for t, _ in document.tags].count("h1") == 1
    assert document.find("html", lang=language) and document.find("main")
    assert ("Content-Language", language) in rendered.headers
    assert not document.find("img")


def test_forms_carry_their_fields_and_pictures_are_https() -> None:
    page, context = contexts("a b", "https://x.example/p.png")["account"]
    document = Document(PAGES.render(page, **context).html)
    forms = len(document.find("form"))
    assert forms == len(document.find("form", method="post")) == 9
    assert len(document.find("input", name="csrf_token", value="a b")) == forms
    assert document.find("form", action="/_oauth/a%20b/link")
    assert len(document.find("input", name="account_id", value="a b")) == 4
    assert document.find("input", name="session") and document.find("input", name="everywhere")
    assert document.find("time", datetime="2025-11-21T04:40:00Z")
    assert len(document.find("img", referrerpolicy="no-referrer", alt="")) == 2


def test_anonymous_link_page_keeps_the_query_and_the_return_target() -> None:
    page, context = contexts("a", "/_oauth/x/login")["anonymous"]
    context["next"] = "/now?a=1&b=2"
    for login_url, mark in (("/_oauth/x/login", "?"), ("/_oauth/x/login?then=y", "&")):
        document = Document(PAGES.render(page, **{**context, "login_url": login_url}).html)
        assert document.find("a", href=f"{login_url}{mark}next=%2Fnow%3Fa%3D1%26b%3D2")
        assert not document.find("form")


def test_headers_are_exact() -> None:
    page, context = contexts("x", "/")["not_linked"]
    assert PAGES.render(page, **context).headers == [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Language", "en"),
        ("Content-Security-Policy", POLICY.format("")),
        ("X-Content-Type-Options", "nosniff"),
    ]
    origins = ["https://accounts.spotify.com", "http://127.0.0.1:8001", "http://[::1]:8", "https:"]
    headers = dict(PAGES.render(page, form_action=origins * 2, **context).headers)
    allowed = " https://accounts.spotify.com http://127.0.0.1:8001 http: https:"
    assert headers["Content-Security-Policy"] == POLICY.format(allowed)


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "",
        "data:",
        "'unsafe-inline'",
        "https://*.example.com",
        "https://a.example/path",
        "a.b",
        "https://a@b",
        "https://a.example; script-src *",
        "https://a.example\r\nX: y",
        "https://a.example\n",
    ],
)
def test_only_origins_get_into_the_policy(origin: str) -> None:
    page, context = contexts("x", "/")["not_linked"]
    with pytest.raises(ValueError, match="form_action"):
        PAGES.render(page, form_action=[origin], **context)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("code", CODES.split())
def test_every_error_has_title_cause_and_cure(code: str, language: str) -> None:
    context: dict[str, Any] = {"site": "app.example", "home_url": "/", "status": 400, "code": code}
    document = Document(PAGES.render("error", accept_language=language, **context).html)
    for part in ("title", "cause", "cure"):
        message = PAGES.text(f"errors.{code}.{part}", language, site="app.example")
        assert message in document.words and "{" not in message
    assert code in document.words and "400" in document.words


def test_unknown_codes_and_the_sites_own_words() -> None:
    def words(**context: str | int) -> str:
        values: dict[str, Any] = {"site": "s", "home_url": "/", **context}
        return Document(PAGES.render("error", **values).html).words

    assert PAGES.text("errors.internal_error.title", "en") in words(code="novel", status=500)
    assert PAGES.text("errors.refused.title", "en") in words(code="novel", status=400)
    refusal = words(code="refused", status=403, cause="Members only.", cure="Ask Bo.")
    assert "Members only." in refusal and "Ask Bo." in refusal


def test_languages_have_the_same_messages() -> None:
    english, *others = (load_messages(language) for language in LANGUAGES)
    for messages in (english, *others):
        assert messages.keys() == english.keys()
        for text in messages.values():
            assert text.strip() and set(re.findall(r"{(.*?)}", text)) <= {"site", "provider_title"}
    # Particles that depend on a final consonant cannot follow a name that is not known.
    assert not re.search(r"}(을|를|이|가|은|는|과|와|로|으로)(?![가-힣])", " ".join(others[0].values()))
    assert PAGES.text("messages.linked.text", "ko") == "계정을 연결했어요."
    assert PAGES.text("login.with", "xx", provider_title="{site}") == "Sign in with {site}"


# What is cut off does not count, nor does a range that lost part of its weight.
CUT = ["x" * 199 + ",ko", "fr," * 64 + "ja;q=0.55", "-" * 10**6, "," * 10**6]
NEGOTIATED = {
    "en": ["", "fr", "fr, *;q=0.5", "*;q=0", "korean", "ko;q=nan", "ko;", "ko;q=0.1234"],
    "ko": ["ko", "ko-KR,ko;q=0.9,en;q=0.8", "en;q=0, *", "ko ;\tq=1.000 , ja", "ko," + "x" * 9999],
    "ja": ["JA-jp", "en;q=0.1, ja;q=0.9", "ja;q=0.5,ko;q=0.5", "en;q=0, ko;q=0, *;q=0.1"],
}
NEGOTIATED["en"] += ["\x00ko", "한국어", "ko_KR", *CUT]
NEGOTIATED["ja"] += ["ko;Q=0.1,ja;q=0.2", "ko;q=2, ja;q=0.1", ",;=,,ja,", "fr," * 64 + "ja;q=0.5"]


@pytest.mark.parametrize("expected", NEGOTIATED)
def test_language_negotiation(expected: str) -> None:
    for header in NEGOTIATED[expected]:
        assert language_for(header) == expected, header[:40]


def test_own_templates_replace_ours_and_build_on_them(tmp_path: Path) -> None:
    (tmp_path / "message.html").write_text(
        '{% extends "oauthgate/message.html" %}{% block title %}Mine {{ site }}{% endblock %}'
    )
    (tmp_path / "style.css").write_text("body { margin: 0 }")
    pages = Pages(str(tmp_path), prefix="/auth")
    html = pages.render("message", key="signed_out", site="<s>", home_url="/").html
    assert "<title>Mine &lt;s&gt; · &lt;s&gt;</title>" in html and Document(html)
    assert pages.stylesheet == b"body { margin: 0 }"
    assert f'href="/auth{STYLESHEET_PATH}?v={pages.stylesheet_hash}"' in html
    mounted = pages.render("message", key="signed_out", site="s", home_url="/", prefix="/m/auth")
    assert 'href="/m/auth/style.css?v=' in mounted.html
    with pytest.raises(NotADirectoryError, match="templates"):
        Pages(str(tmp_path / "absent"))


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="site"):
        PAGES.render("message", key="signed_out", home_url="/")


def test_stylesheet_is_cached_by_content_and_loads_nothing() -> None:
    assert ("Cache-Control", "public, max-age=31536000, immutable") in PAGES.stylesheet_headers
    assert b"url(" not in PAGES.stylesheet and b"@import" not in PAGES.stylesheet
    assert hashlib.sha256(PAGES.stylesheet).hexdigest().startswith(PAGES.stylesheet_hash)
