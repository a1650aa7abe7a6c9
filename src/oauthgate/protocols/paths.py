"""Paths into a provider's JSON, and the normalised profile that they make.

A path is names joined by dots; a number indexes a list; `[key=value]` picks the first entry of a list
with that value. `a&b` is true when both are; a text with `{paths}` in it is filled in; a list of
paths is joined by spaces. The first name may be a document: `claims` (the ID token's), `token` (the
token answer), `callback` (what was posted beside the code), or one of `profile_documents`.
"""

from __future__ import annotations

import re
from typing import Any

from ..providers import PROFILE_FIELDS, Provider
from ..records import Profile

#: Characters that are kept of one text of a profile.
MAX_TEXT = 500
#: Characters of an account id; longer ones are refused, because cutting would join two accounts.
MAX_ID = 255
_INNER = re.compile(r"\{([^{}]+)\}")
_PICK = re.compile(r"\[([A-Za-z0-9_]+)=([^\]]*)\]")


def look_up(document: object, path: str) -> object:
    """What stands at `path`, or None. A name that has dots itself, as claims of one's own have
    (`https://example.com/roles`), is found by the whole of it."""
    if "." in path and isinstance(document, dict) and path in document:
        return document[path]
    found = document
    for step in path.split("."):
        pick = _PICK.fullmatch(step)
        if pick:
            found = _pick(found, pick.group(1), pick.group(2))
        elif isinstance(found, dict):
            found = found.get(step)
        elif isinstance(found, list) and step.isascii() and step.isdigit():
            found = found[int(step)] if int(step) < len(found) else None
        else:
            return None
    return found


def _pick(entries: object, key: str, value: str) -> object:
    if not isinstance(entries, list):
        return None
    for entry in entries:
        if isinstance(entry, dict) and _as_text(entry.get(key)) == value:
            return entry
    return None


def _as_text(value: object) -> str | None:
    if value is True:
        return "true"
    if value is False:
        return "false"
    return str(value) if isinstance(value, (str, int)) else None


class Documents:
    """What is known of an account: its profile document and the others, by name."""

    def __init__(self, main: dict[str, Any], **named: object) -> None:
        self._main = main
        self._named = named

    def get(self, path: str) -> object:
        first, dot, rest = path.partition(".")
        if dot and first in self._named:
            return look_up(self._named[first], rest)
        found = look_up(self._main, path)
        if found is None and isinstance(self._named.get("claims"), dict):
            # A claim may be in the ID token although the user information leaves it out.
            return look_up(self._named["claims"], path)
        return found

    def resolve(self, path: str | list[str]) -> object:
        if isinstance(path, list):
            parts = [text(self.get(item)) for item in path]
            return " ".join(part for part in parts if part) or None
        if "&" in path:
            return all(self.get(item) is True for item in path.split("&"))
        if "{" in path:
            return self._template(path)
        return self.get(path)

    def _template(self, template: str) -> str | None:
        values = {inner: text(self.get(inner)) for inner in _INNER.findall(template)}
        if not all(values.values()):
            return None
        return _INNER.sub(lambda match: values[match.group(1)] or "", template)


def text(value: object) -> str | None:
    """A value as bounded text without control characters, or None."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    cleaned = "".join(
        character for character in str(value)[:MAX_TEXT] if character.isprintable()
    ).strip()
    return cleaned or None


def account_id(value: object) -> str | None:
    """An account's id as the exact string it is known by; None when it cannot be one.

    A number and the same digits are one id for a provider that sends numbers; nothing is trimmed or
    folded, because two ids that differ must stay two accounts.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        value = str(value)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        return None
    if "\x00" in value or any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        return None
    return value


def normalize(provider: Provider, documents: Documents, identifier: str) -> Profile:
    """The normalised profile of the account `identifier`. Missing fields are None, never an error."""
    found = {
        name: documents.resolve(provider.profile[name])
        for name in PROFILE_FIELDS
        if name in provider.profile
    }
    verified = found.get("email_verified")
    email = text(found.get("email"))
    if email != found.get("email"):
        verified = False  # what had to be cleaned or cut is not the address that was verified
    picture = text(found.get("picture"))
    if picture is not None and not picture.startswith("https://"):
        picture = None
    return Profile(
        id=identifier,
        username=text(found.get("username")),
        name=text(found.get("name")),
        email=email,
        # Only true is verified; a provider that writes "true" says so in its table.
        email_verified=verified is True or (provider.boolean_strings and verified == "true"),
        picture=picture,
        gender=text(found.get("gender")),
    )
