"""Who may sign in: `allow` and `deny` in `[access]`, as data.

A rule says something about the account that somebody signs in with. Whether the claims that it names
hold is looked up while the provider's documents are at hand (`identities.py`), and kept with the link;
all else is decided from the link alone. So a rule that is changed later is obeyed by the sessions there
are: see `Rules.stands`.

An e-mail address lets somebody in only when the provider verified it and it is spelt plainly; it keeps
somebody out however it is spelt.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import GateError
from .records import Link, Session, User

#: What an address looks like that may let somebody in: one @, and nothing that mail servers read in
#: different ways (RFC 5321 section 4.1.2 without quoted strings and address literals).
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
PLAIN_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ATOM = r"[^\s@\"(),:;<>\[\]\\.\x00-\x20\x7f]+"
PLAIN_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
MAX_ADDRESS = 254  # characters, RFC 5321 section 4.5.3.1.3
#: Parts between @s of what may still be read as an address: one may stand in a quoted local part.
MAX_PARTS = 4


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `allow` or `deny`; what is empty says nothing, what is given must all hold.

    `local` and `domain` are the parts of an e-mail address; with a `domain` alone every address of
    exactly that domain is meant.
    """

    provider: str = ""
    account: str = ""
    local: str = ""
    domain: str = ""
    claim: str = ""
    value: str = ""

    @property
    def question(self) -> str:
        """The name under which a link keeps whether the claim holds."""
        return f"{self.claim}={self.value}"

    def admits(self, link: Link) -> bool:
        """Whether an account is surely the one meant: what is not known does not count."""
        if self._elsewhere(link):
            return False
        if self.domain and not self._is_verified_address(link):
            return False
        return not self.claim or link.claims.get(self.question, False)

    def excludes(self, link: Link) -> bool:
        """Whether an account may be the one meant: what is not known counts."""
        if self._elsewhere(link):
            return False
        if self.domain and not self._may_be_address(link.profile.email):
            return False
        return not self.claim or link.claims.get(self.question, True)

    def _elsewhere(self, link: Link) -> bool:
        if self.provider and self.provider != link.provider:
            return True
        return bool(self.account) and self.account != link.account_id

    def _is_verified_address(self, link: Link) -> bool:
        email = link.profile.email
        if not link.profile.email_verified or email is None or len(email) > MAX_ADDRESS:
            return False
        local, at, domain = email.rpartition("@")
        if not at or not PLAIN_LOCAL.fullmatch(local) or not PLAIN_DOMAIN.fullmatch(domain):
            return False
        # Domains have no case (RFC 4343). Local parts have one by the letter only (RFC 5321 section
        # 2.4), and for ASCII alone: the lower case of U+212A KELVIN SIGN is a plain k.
        if domain.lower() != self.domain:
            return False
        return not self.local or local == self.local or _ascii_lower(local) == _ascii_lower(self.local)

    def _may_be_address(self, email: str | None) -> bool:
        if not email:
            return False
        parts = unicodedata.normalize("NFKC", email).split("@")
        # Nobody's address: what somebody makes of it cannot be told, and trying to would take long.
        if len(email) > MAX_ADDRESS or len(parts) > MAX_PARTS:
            return True
        for position in range(1, len(parts)):
            local, domain = "@".join(parts[:position]), "@".join(parts[position:])
            if self.domain in _domain_spellings(domain) and (
                not self.local or _loose(self.local) == _loose(local.strip(' "'))
            ):
                return True
        return False


def _ascii_lower(text: str) -> str:
    return text.lower() if text.isascii() else text


def _loose(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _domain_spellings(domain: str) -> set[str]:
    """The ASCII forms that a domain may mean, by the old rules (RFC 3490) and the new (RFC 5891)."""
    bare = domain.strip().rstrip(".").lower()
    spellings = {bare, bare.casefold()}
    with contextlib.suppress(UnicodeError):  # no domain by the old rules
        spellings.add(bare.encode("idna").decode())
    with contextlib.suppress(UnicodeError):  # a lone surrogate is in no domain
        labels = (
            label if label.isascii() else "xn--" + label.encode("punycode").decode()
            for label in bare.split(".")
        )
        spellings.add(".".join(labels))
    return spellings


@dataclass(frozen=True, slots=True)
class Rules:
    """`allow` and `deny`. With `allow` nobody else gets in; `deny` beats it."""

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()

    def __repr__(self) -> str:
        return f"Rules({len(self.allow)} allow, {len(self.deny)} deny)"

    def __bool__(self) -> bool:
        return bool(self.allow or self.deny)

    def admit(self, link: Link) -> None:
        """Raise `GateError` 403 for an account that may not sign in."""
        if not self._admits(link):
            raise GateError(
                "not_allowed",
                "this account is not among those that [access] admits; sign in with another one",
                provider=link.provider,
            )

    def _admits(self, link: Link) -> bool:
        if any(rule.excludes(link) for rule in self.deny):
            return False
        return not self.allow or any(rule.admits(link) for rule in self.allow)

    def stands(self, user: User, session: Session) -> bool:
        """Whether a session may go on: the account it signed in with is linked and still admitted."""
        if not self:
            return True
        link = user.link(session.provider, session.account_id)
        return link is not None and self._admits(link)

    def questions(self, provider: str) -> list[tuple[str, str]]:
        """The claims and values that must be looked at when somebody signs in with a provider."""
        return sorted(
            {
                (rule.claim, rule.value)
                for rule in (*self.allow, *self.deny)
                if rule.claim and rule.provider in ("", provider)
            }
        )


def values_of(found: object) -> Iterable[str]:
    """What stands at a claim's path as texts: one, or each of a list."""
    for item in found if isinstance(found, list) else [found]:
        if isinstance(item, bool):
            yield "true" if item else "false"
        elif isinstance(item, (str, int)):
            yield str(item)
