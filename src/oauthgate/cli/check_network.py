"""What only asking can tell: store, providers' metadata, clocks, the site itself through its proxy."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx2
import msgspec

from ..errors import GateError, SealError, StoreError
from ..gate import Gate
from ..io import BodyTooLarge, Heartbeat, Reply
from ..keyring import KEY_CHECK
from ..outbound import Answer, Outbound, build
from ..protocols.discovery import Directory
from ..providers import Provider
from .findings import Finding, ok, problem, warning
from .opening import describe

#: Seconds of difference that an ID token is accepted with (`protocols/oidc.py`).
TOLERANCE = 60.0
#: Seconds that the site itself may take.
PATIENCE = 10.0


class _Dated(Outbound):
    """Notes by how much each answer's clock differs from ours, in seconds."""

    skew: float | None = None

    async def send(
        self,
        provider: Provider,
        request: httpx2.Request,
        *,
        deadline: float | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> Answer:
        before = time.time()
        answer = await super().send(provider, request, deadline=deadline, heartbeat=heartbeat)
        self.skew = _skew(answer.headers.get("date"), before)
        return answer


def _skew(date: str | None, before: float) -> float | None:
    """How far a `Date` header is from our clock; both ends of the exchange are right for it."""
    try:
        theirs = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None
    now = time.time()
    if before - 1 <= theirs <= now + 1:
        return 0.0
    return theirs - now if theirs > now else theirs - before


async def store(gate: Gate) -> AsyncIterator[Finding]:
    """Whether it answers, and whether our secrets open it. Writes no record."""
    about = describe(gate.store)
    try:
        await gate.store.open()
        stored = await gate.store.get(KEY_CHECK)
    except StoreError as error:
        yield problem("store", f"{error}: check that it runs, and the address and password in its URL")
        return
    try:
        if stored is not None:
            gate.keys.open(KEY_CHECK, stored.value)
    except SealError as error:
        yield problem(
            "store",
            f"{about} was sealed with another secret ({error}): put that one back into [oauthgate] "
            "secret",
        )
        return
    yield ok("store", f"{about} answers" + ("" if stored else "; it is empty yet"))


async def provider(gate: Gate, given: Provider) -> AsyncIterator[Finding]:
    """Whether an issuer's metadata and keys can be had, over TLS, and whether its clock is ours."""
    about = f"providers.{given.name}"
    if not given.issuer or given.protocol == "oauth1":
        yield ok(about, f"{given.protocol}, endpoints from the configuration; not asked")
        return
    outbound = _Dated(gate.io)
    directory = Directory(gate.io, outbound)
    try:
        complete = await directory.complete(given)
        if complete.jwks_uri:
            await directory.keys(complete)
    except GateError as error:
        yield problem(
            about,
            f"{error.description}: check the issuer, its TLS certificate, and the way out of this "
            "machine",
        )
        return
    if outbound.skew is not None and abs(outbound.skew) > TOLERANCE:
        yield _clock(about, outbound.skew)
    asked = "its metadata and keys can be had" if outbound.count else "everything is configured"
    tls = " over TLS" if given.issuer.startswith("https:") else " over http, on this machine"
    yield ok(about, f"{given.issuer}: {asked}{tls if outbound.count else ''}")


def _clock(about: str, skew: float) -> Finding:
    return warning(
        about,
        f"its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's: ID "
        f"tokens are accepted with {TOLERANCE:.0f} s of difference; set the clock (NTP)",
    )


async def site(gate: Gate) -> AsyncIterator[Finding]:
    """Whether the address that visitors use leads to this gate."""
    config = gate.config
    if not config.base_url:
        return
    url = f"{config.base_url}{config.prefix}/providers"
    gate.io.trust(frozenset({(urlsplit(url).hostname or "").lower()}))
    before = time.time()
    try:
        answer = await gate.io.exchange("site", build("GET", url), deadline=PATIENCE, limit=1024 * 1024)
    except (httpx2.HTTPError, BodyTooLarge, OSError) as error:
        yield warning(
            "site",
            f"{url} cannot be reached from here ({type(error).__name__}): start the site, or check DNS, "
            "proxy and certificate",
        )
        return
    skew = _skew(answer.headers.get("date"), before)
    if skew is not None and abs(skew) > TOLERANCE:
        yield _clock("site", skew)
    names = _names(answer.content) if answer.status_code == 200 else None
    if names is None:
        yield problem("site", f"{url} answered {answer.status_code}, not as a gate: {_why(answer)}")
    elif names != set(config.providers):
        yield warning("site", "the running site has other providers than this file: restart it")
    elif "no-store" not in answer.headers.get("cache-control", ""):
        yield problem("site", "a proxy changes Cache-Control: nothing below the prefix may be cached")
    else:
        yield ok("site", f"{url} answers as this gate")


def _why(answer: Reply) -> str:
    if answer.status_code == 421:
        return "the running site has no base_url; restart it with this file"
    if 300 <= answer.status_code < 400:
        return "something in front redirects; base_url must be the address that it redirects to"
    if answer.status_code in (502, 503, 504):
        return "the proxy does not reach the application"
    return (
        "the proxy does not pass the path on, the gate is not installed, or the application itself uses "
        "the prefix; give [oauthgate] prefix another path then"
    )


def _names(body: bytes) -> set[str] | None:
    """The providers of the answer of `/providers`; None for any other answer."""
    try:
        return {str(each["name"]) for each in msgspec.json.decode(body)["providers"]}
    except (msgspec.DecodeError, KeyError, TypeError):
        return None
