"""Switches that make a local provider misbehave, one place for all of them.

Owns: `Fault` (what one endpoint does wrong), `Faults` (the faults by endpoint and the hooks that
tamper with what the provider says). Nothing here is on unless a test turns it on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Literal

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .jose import SigningKey

ENDPOINTS = (
    *("discovery", "jwks", "authorize", "token", "revoke", "introspect", "userinfo", "logout"),
    *("request_token", "oauth1_authorize", "access_token"),
    *("me", "player", "tweets", "echo", "token_info"),
)

Json = dict[str, Any]
Hook = Callable[[Json], Json | None]
TokenHook = Callable[[Json, Json], tuple[Json, Json] | Json | None]
SignWith = Literal["none", "hs256_public_key", "other_key"] | SigningKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What an endpoint does wrong.

    `delay` waits (seconds) first; who hangs up meanwhile is not served any more. With `status`
    or `body` the answer is replaced and the endpoint does not run. With `after` it does its work
    before any of this, so that only its answer is late or lost. `headers` are added, and replace
    headers of the same name. `drip` sends the body one byte at a time with that many seconds
    between; `truncate` announces the whole body, sends half and closes the connection. `times`
    is how often (None: always).
    """

    status: int | None = None
    delay: float = 0.0
    body: str | bytes | None = None
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int | None = None
    after: bool = False
    drip: float = 0.0
    truncate: bool = False

    @property
    def replaces(self) -> bool:
        return self.status is not None or self.body is not None

    def apply(self, genuine: Response | None) -> Response:
        """Return the answer to send; `genuine` is what the endpoint itself answered, if it ran."""
        if self.replaces or genuine is None:
            status = self.status or 200
            body = self.body if self.body is not None else HTTPStatus(status).phrase
            response = Response(body, status, media_type=self.content_type or "text/plain")
        else:
            response = genuine
            if self.content_type is not None:
                response.headers["content-type"] = self.content_type
        for name, value in self.headers.items():
            response.headers[name] = value
        if self.drip or self.truncate:
            return _Broken(response, self)
        return response


class _Broken(Response):
    """Sends a finished answer slowly, or only half of it."""

    def __init__(self, whole: Response, fault: Fault) -> None:
        super().__init__()
        self.whole, self.fault = whole, fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(self.whole.body)
        stop = len(body) // 2 if self.fault.truncate else len(body)
        step = 1 if self.fault.drip else max(stop, 1)
        start = {"type": "http.response.start", "status": self.whole.status_code}
        await send({**start, "headers": self.whole.raw_headers})
        for index in range(0, stop, step):
            piece = body[index : min(index + step, stop)]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await anyio.sleep(self.fault.drip)
        if not self.fault.truncate:  # else the server sees it unfinished and hangs up
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class Faults:
    """The faults of one provider.

    Set one with `faults.set("token", status=503, times=1)` or `faults["token"] = Fault(...)`.
    The hooks are plain attributes. A hook gets a copy, may change it in place, and may return
    another one: `tamper_id_token(claims, header)` returns claims, or both, or None; the others
    take and return one dict. `tamper_authorization_response` sees the parameters of an OAuth 2
    redirect, `tamper_oauth1_response` those of the form-encoded answers of OAuth 1.0a, and
    `tamper_token_info` what is said of a token, by introspection too.
    `sign_with` signs ID tokens wrongly: unsigned, with HMAC keyed by the public key, with a
    stranger's key under the right `kid`, or with a key of yours. `omit_kid` drops the `kid`
    from ID tokens and from the published keys. `endless_dpop_nonce` names the servers
    ("authorization", "resource") that take no DPoP nonce, not even the one they gave.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_endpoint: dict[str, Fault] = {}
        self._reset_hooks()

    def _reset_hooks(self) -> None:
        self.tamper_id_token: TokenHook | None = None
        self.tamper_token_response: Hook | None = None
        self.tamper_userinfo: Hook | None = None
        self.tamper_discovery: Hook | None = None
        self.tamper_jwks: Hook | None = None
        self.tamper_token_info: Hook | None = None
        self.tamper_authorization_response: Hook | None = None
        self.tamper_oauth1_response: Hook | None = None
        self.sign_with: SignWith | None = None
        self.omit_kid = False
        self.endless_dpop_nonce: frozenset[str] = frozenset()

    def set(
        self,
        endpoint: str,
        *,
        status: int | None = None,
        delay: float = 0.0,
        body: str | bytes | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        times: int | None = None,
        after: bool = False,
        drip: float = 0.0,
        truncate: bool = False,
    ) -> None:
        """Make an endpoint fail; the meaning of each argument is at `Fault`."""
        self[endpoint] = Fault(
            status=status,
            delay=delay,
            body=body,
            content_type=content_type,
            headers=headers or {},
            times=times,
            after=after,
            drip=drip,
            truncate=truncate,
        )

    def __setitem__(self, endpoint: str, fault: Fault) -> None:
        if endpoint not in ENDPOINTS:
            raise KeyError(f"no endpoint {endpoint!r}; there are {', '.join(ENDPOINTS)}")
        with self._lock:
            self._by_endpoint[endpoint] = fault

    def clear(self, endpoint: str | None = None) -> None:
        """Heal one endpoint, or all of them and every hook."""
        with self._lock:
            if endpoint is not None:
                self._by_endpoint.pop(endpoint, None)
                return
            self._by_endpoint.clear()
            self._reset_hooks()

    def take(self, endpoint: str) -> Fault | None:
        """Return the fault for one request and count it off; safe from any thread."""
        with self._lock:
            fault = self._by_endpoint.get(endpoint)
            if fault is None or fault.times is None:
                return fault
            if fault.times <= 1:
                del self._by_endpoint[endpoint]
            else:
                self._by_endpoint[endpoint] = replace(fault, times=fault.times - 1)
            return fault if fault.times > 0 else None


def tampered(hook: Hook | None, genuine: Json) -> Json:
    """Run a hook over a copy, so that a hook cannot reach into the provider's state."""
    if hook is None:
        return genuine
    copy = dict(genuine)
    changed = hook(copy)
    return copy if changed is None else changed
