"""Rendering: escaped templates, links that cannot run script, and a strict policy per page.

Content Security Policy Level 3; RFC 6454 section 6.2 (origins). The pages need no JavaScript; the one at
the end of a popup has a script, which is a file of the gate's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from .language import LANGUAGES, language_for, load_messages
from .scripts import load_scripts

STYLESHEET_PATH = "/style.css"  # below the gate's prefix

#: Pages that run a file of this origin; none may run anything else.
_SCRIPTED = {"popup": "script-src 'self'; "}

# What a caller may leave out; anything else that a template uses and does not get is an error.
_OPTIONAL: dict[str, object] = {
    **dict.fromkeys(("message", "retry_url", "title_key", "cause", "cure", "ask", "here")),
    **{"provider_title": "", "next": "", "scope": (), "reason": "not_linked", "anonymous": False},
}
# Browsers drop tabs and newlines inside a URL and read "\" as "/": neither may get past a check.
_LINK = re.compile(r"(?:https?://|/(?!/))[^\x00-\x20\x7f\\]*", re.IGNORECASE)
_IMAGE = re.compile(r"https://[^\x00-\x20\x7f\\]+", re.IGNORECASE)
_ORIGIN = re.compile(r"https?://[a-z0-9._-]+(?::[0-9]{1,5})?|https?:", re.IGNORECASE)
_IPV6_ORIGIN = re.compile(r"(https?:)//\[[0-9a-f:.]+\](?::[0-9]{1,5})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """A finished page: the document and the headers that belong to it."""

    html: str
    headers: list[tuple[str, str]]


class Pages:
    """The pages of one gate."""

    def __init__(self, templates: str | None = None, prefix: str = "/_oauth") -> None:
        """Load templates and messages.

        Args:
            templates: a directory whose files replace ours of the same name (`style.css` too);
                a replacement can build on ours: `{% extends "oauthgate/account.html" %}`.
            prefix: the path under which the gate answers.
        Raises:
            NotADirectoryError: `templates` is not a directory.
        """
        # Loaded with the first gate, not with the package.
        from jinja2 import (
            ChoiceLoader,
            Environment,
            FileSystemLoader,
            PackageLoader,
            PrefixLoader,
            StrictUndefined,
        )

        ours = PackageLoader(__package__ or "", "templates")
        if templates is not None and not Path(templates).is_dir():
            raise NotADirectoryError(f"templates: expected a directory, found {templates!r}")
        theirs = [FileSystemLoader(templates)] if templates is not None else []
        loader = ChoiceLoader([*theirs, ours, PrefixLoader({"oauthgate": ours})])
        # Always on, whatever a file is called: a template that escapes by its suffix can forget.
        self._env = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._env.filters.update(
            url=lambda url: url if _LINK.fullmatch(str(url)) else "#",
            picture=lambda url: url if _IMAGE.fullmatch(str(url)) else "",
            utc=lambda seconds, layout: datetime.fromtimestamp(seconds, UTC).strftime(layout),
        )
        self._messages = {language: load_messages(language) for language in LANGUAGES}
        self.prefix = prefix
        self.scripts = load_scripts(prefix)
        self.stylesheet: bytes = loader.get_source(self._env, "style.css")[0].encode()
        self.stylesheet_hash: str = hashlib.sha256(self.stylesheet).hexdigest()[:16]
        self.stylesheet_headers: list[tuple[str, str]] = [
            ("Content-Type", "text/css; charset=utf-8"),
            ("Cache-Control", "public, max-age=31536000, immutable"),
            ("X-Content-Type-Options", "nosniff"),
        ]

    def text(self, key: str, language: str, **values: object) -> str:
        """Return one message with its values filled in; a value not given is left out.

        Raises:
            KeyError: there is no such message.
        """
        message = self._messages.get(language, self._messages["en"])[key]
        return " ".join(message.format_map(_Values(values)).split())

    def render(
        self,
        page: str,
        *,
        accept_language: str = "",
        form_action: Iterable[str] = (),
        **context: object,
    ) -> Page:
        """Render `page` in the visitor's language.

        Args:
            page: the template's name without its suffix.
            accept_language: the request's header.
            form_action: origins to which a form's answer may redirect (browsers apply the
                policy to the redirect too); `https:` allows every origin of that scheme, for
                providers that redirect onwards.
            context: what the template shows; `prefix` here replaces the one given at the start
                (an app mounted below a path).
        Raises:
            ValueError: an entry of `form_action` is no origin.
            jinja2.UndefinedError: the context lacks something that the page needs.
        """
        language = language_for(accept_language)
        values = {**_OPTIONAL, "prefix": self.prefix, **context}
        shared = {name: values.get(name, "") for name in ("site", "provider_title")}
        values["language"] = language
        values["t"] = lambda key, **own: self.text(key, language, **{**shared, **own})
        values["known"] = self._messages["en"].__contains__
        values["stylesheet_url"] = f"{values['prefix']}{STYLESHEET_PATH}?v={self.stylesheet_hash}"
        values["error_key"] = partial(self._error_key, values.get("code"), values.get("status"))
        policy = (
            f"default-src 'none'; {_SCRIPTED.get(page, '')}style-src 'self'; img-src https: data:; "
            f"form-action {_sources(form_action)}; base-uri 'none'; frame-ancestors 'none'"
        )
        headers = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Language", language),
            ("Content-Security-Policy", policy),
            ("X-Content-Type-Options", "nosniff"),
        ]
        return Page(self._env.get_template(f"{page}.html").render(values), headers)

    def _error_key(self, code: object, status: object, part: str) -> str:
        """Return the message key for an error code; an unknown code is told by its status."""
        if f"errors.{code}.{part}" not in self._messages["en"]:
            code = "internal_error" if isinstance(status, int) and status >= 500 else "refused"
        return f"errors.{code}.{part}"


class _Values(dict[str, object]):
    def __missing__(self, key: str) -> str:
        return ""


def _sources(origins: Iterable[str]) -> str:
    """Return the source list for form-action; only whole origins get into the header."""
    sources = ["'self'"]
    for origin in origins:
        ipv6 = _IPV6_ORIGIN.fullmatch(origin)  # CSP's grammar has no such hosts: allow the scheme
        if not ipv6 and not _ORIGIN.fullmatch(origin):
            raise ValueError(f"form_action: expected an origin, found {origin!r}")
        sources.append(ipv6[1] if ipv6 else origin)
    return " ".join(dict.fromkeys(sources))
