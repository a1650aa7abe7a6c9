"""The two clients that handlers get: httpx2's own, over connections that the whole process shares.

Connections and the TLS context belong to the process; cookies, headers and tokens never do.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import httpx2

from . import telemetry
from .client_template import Addresses, set_up
from .errors import ForeignHost
from .link_auth import Grant, LinkAuth
from .link_info import LinkInfo, info
from .records import Profile
from .stepping import run

if TYPE_CHECKING:
    from .io import IO


class _NoCookies(httpx2.Cookies):
    """A jar that keeps nothing: one visitor's cookies at a provider must never reach another's call."""

    def extract_cookies(self, response: httpx2.Response) -> None:
        """Keep nothing."""


class _Shared(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """The process's pooled transport, which outlives the client that uses it."""

    def __init__(self, io: IO, pool: str) -> None:
        self._io = io
        self._pool = pool

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        transport: Any = self._io.transport(self._pool)
        response: httpx2.Response = transport.handle_request(request)
        return response

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        transport: Any = self._io.transport(self._pool)
        response: httpx2.Response = await transport.handle_async_request(request)
        return response

    def close(self) -> None:
        """The pool stays open for the next visitor."""

    async def aclose(self) -> None:
        """The pool stays open for the next visitor."""


class _Service:
    """What a service client has beside httpx2's own interface."""

    _grant: Grant
    _addresses: Addresses

    @property
    def link(self) -> LinkInfo:
        """The account that this client acts for."""
        return info(self._grant.link)

    @property
    def profile(self) -> Profile:
        """The account's normalised profile, as of the last sign-in or link."""
        return self._grant.link.profile

    @property
    def scope(self) -> tuple[str, ...]:
        """The scope that was granted."""
        return tuple(self._grant.link.scope)

    def _refuse_scheme_relative(self, url: object) -> None:
        # httpx2 would read //host/path as a path of ours; whoever wrote it meant another host.
        if isinstance(url, str) and url.lstrip().startswith(("//", "\\\\", "/\\", "\\/")):
            raise ForeignHost(
                "a URL without a scheme names another host, so the token is not sent there"
            )

    def _span(self, request: httpx2.Request) -> AbstractContextManager[Any]:
        return telemetry.span(
            "oauthgate.call",
            **{
                "provider": self._grant.provider.name,
                "http.request.method": request.method,
                "server.address": request.url.host,
            },
        )


class AsyncService(_Service, httpx2.AsyncClient):
    """An `httpx2.AsyncClient` authorized for one linked account."""

    def __init__(self, grant: Grant, io: IO) -> None:
        self._grant = grant
        auth = LinkAuth(grant)

        async def redirected(request: httpx2.Request) -> None:
            if auth.must_read_again(request):
                await request.aread()
            auth.redirected(request)

        _set_up(self, grant, io, auth, redirected)

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        known = self._addresses.find(self.base_url, url)
        if known is not None:
            return super().build_request(method, known, **options)
        self._refuse_scheme_relative(url)
        request = super().build_request(method, url, **options)
        self._addresses.keep(self.base_url, url, request.url)
        return request

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        if not telemetry.available():
            return await super().send(request, **options)
        with self._span(request) as found:
            response = await super().send(request, **options)
            found.set_attribute("http.response.status_code", response.status_code)
            return response

    async def access_token(self) -> str:
        """A fresh access token, for software that wants the text itself. Handle it as a secret."""
        return (await self._grant.fresh()).token.access_token


class SyncService(_Service, httpx2.Client):
    """An `httpx2.Client` authorized for one linked account."""

    def __init__(self, grant: Grant, io: IO) -> None:
        self._grant = grant
        auth = LinkAuth(grant)

        def redirected(request: httpx2.Request) -> None:
            if auth.must_read_again(request):
                request.read()
            auth.redirected(request)

        _set_up(self, grant, io, auth, redirected)

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        known = self._addresses.find(self.base_url, url)
        if known is not None:
            return super().build_request(method, known, **options)
        self._refuse_scheme_relative(url)
        request = super().build_request(method, url, **options)
        self._addresses.keep(self.base_url, url, request.url)
        return request

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        if not telemetry.available():
            return super().send(request, **options)
        with self._span(request) as found:
            response = super().send(request, **options)
            found.set_attribute("http.response.status_code", response.status_code)
            return response

    def access_token(self) -> str:
        """A fresh access token, for software that wants the text itself. Handle it as a secret."""
        return run(self._grant.fresh()).token.access_token


def _set_up(
    client: AsyncService | SyncService, grant: Grant, io: IO, auth: LinkAuth, hook: object
) -> None:
    set_up(
        client,
        grant.provider,
        auth=auth,
        cookies=_NoCookies(),
        hook=hook,
        transport=_Shared(io, grant.provider.name),
    )
