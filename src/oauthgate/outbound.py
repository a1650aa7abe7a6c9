"""The one way in which the gate itself calls a provider.

Every call has a total deadline and a size limit, follows no redirect (a redirected token request
would post the client secret elsewhere), keeps no cookies, and turns every failure into a `GateError`
that names the provider and never repeats what the provider wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx2

from . import strict_json
from .errors import GateError
from .io import IO, BodyTooLarge, Heartbeat, Reply
from .protocols.dpop import Proofs
from .providers import Provider

#: Bytes of a decoded answer that are read at most.
MAX_ANSWER = 1024 * 1024
USER_AGENT = "oauthgate"


class Redirected(GateError):
    """An endpoint answered with a redirect, which is not followed: waiting does not cure it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's answer, read whole."""

    status: int
    body: bytes = field(repr=False)
    _reply: Reply = field(repr=False)

    @property
    def headers(self) -> httpx2.Headers:
        return self._reply.headers

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json_object(self) -> dict[str, Any]:
        """The body as one unambiguous JSON object. Raises `StrictJSONError`."""
        return strict_json.loads_object(self.body)

    def form(self) -> dict[str, str]:
        """The body as `application/x-www-form-urlencoded`, whatever its declared type.

        Raises `StrictJSONError` for what is not one, or repeats a name.
        """
        try:
            text = self.body.decode("utf-8").strip()
            pairs = parse_qsl(
                text,
                keep_blank_values=True,
                strict_parsing=True,
                max_num_fields=200,
                errors="strict",
            )
        except ValueError:
            raise strict_json.StrictJSONError("not a form-encoded answer") from None
        if len(dict(pairs)) != len(pairs):
            raise strict_json.StrictJSONError("a name is repeated in a form-encoded answer")
        return dict(pairs)


def build(
    method: str,
    url: str,
    *,
    params: dict[str, str] | None = None,
    form: dict[str, str] | None = None,
    json: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> httpx2.Request:
    """A request of ours. Parameters go after those that the URL has already."""
    if params:
        url += ("&" if "?" in url else "?") + urlencode(params)
    content: bytes | None = None
    target: str | httpx2.URL = url
    merged = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": USER_AGENT,
    }
    if form is not None:
        content = urlencode(form).encode()
        merged["Content-Type"] = "application/x-www-form-urlencoded"
        target = url if params else _endpoint(url)
    elif json is not None:
        content = httpx2.Request("POST", url, json=json).read()
        merged["Content-Type"] = "application/json"
    merged.update(headers or {})
    return httpx2.Request(method, target, content=content, headers=merged)


@lru_cache(maxsize=256)
def _endpoint(url: str) -> httpx2.URL:
    """A form's address, which is a provider's endpoint and the same each time: parsed once."""
    return httpx2.URL(url)


class Outbound:
    """Calls to providers over one `IO`. `count` is the number of requests sent; `proofs` are those of
    tokens that are bound to a key."""

    def __init__(self, io: IO) -> None:
        self.io = io
        self.count = 0
        self.proofs = Proofs()

    async def send(
        self,
        provider: Provider,
        request: httpx2.Request,
        *,
        deadline: float | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> Answer:
        """Send `request`; any status but a redirect is an answer.

        Raises `GateError`: `provider_timeout`, `provider_unreachable` or `provider_misbehaved`.
        """
        for name, value in provider.headers.items():
            request.headers[name] = value
        host = request.url.host
        self.count += 1
        seconds = deadline or provider.timeout
        try:
            answer = await self.io.exchange(
                provider.name, request, deadline=seconds, limit=MAX_ANSWER, heartbeat=heartbeat
            )
        except httpx2.TimeoutException:
            raise GateError(
                "provider_timeout",
                f"{host} did not answer within {seconds:g} s",
                provider=provider.name,
            ) from None
        except (BodyTooLarge, httpx2.DecodingError):
            raise GateError(
                "provider_misbehaved",
                f"{host} answered with more than {MAX_ANSWER} bytes, or with a broken coding",
                provider=provider.name,
            ) from None
        except (httpx2.RemoteProtocolError, httpx2.LocalProtocolError):
            raise GateError(
                "provider_misbehaved", f"{host} did not answer in HTTP", provider=provider.name
            ) from None
        except (httpx2.HTTPError, OSError) as error:
            raise GateError(
                "provider_unreachable",
                f"{host} cannot be reached ({type(error).__name__})",
                provider=provider.name,
            ) from None
        if 300 <= answer.status_code < 400:
            raise Redirected(
                "provider_misbehaved",
                f"{host} answered with a redirect where an answer was expected",
                provider=provider.name,
            )
        return Answer(answer.status_code, answer.content, answer)
