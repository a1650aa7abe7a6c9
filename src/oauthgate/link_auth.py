"""Authorizing a call: the link's token on every request, kept fresh, to the provider's hosts only."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING

import httpx2

from .api_hosts import host_allowed
from .errors import ForeignHost, NotLinked
from .protocols import oauth1
from .protocols.dpop import Proofs, wants_nonce
from .providers import Provider
from .records import Link, User
from .stepping import run

if TYPE_CHECKING:
    from .refresh import Refresher

#: Bytes of a streamed upload that are kept in memory, so that it can be sent again after a 401.
MAX_REPLAY = 1024 * 1024
#: The request extension that says for which address a request was authorized.
_SIGNED = "oauthgate.authorized_for"

#: The user of a session that may have ended since, as the store has it now; None once it has.
CurrentUser = Callable[[], Awaitable[User | None]]


class Grant:
    """The link behind one client: its token, kept fresh for as long as the client is used."""

    def __init__(
        self,
        refresher: Refresher,
        provider: Provider,
        user_id: str,
        link: Link,
        current: CurrentUser | None = None,
    ) -> None:
        self._refresher = refresher
        self._current = current
        self.provider = provider
        self.user_id = user_id
        self.link = link

    def __repr__(self) -> str:
        return f"Grant({self.provider.name!r})"

    async def fresh(self, *, rejected: bool = False) -> Link:
        """The link with a token that can be sent now. Raises `NotLinked`, `RefreshFailed`."""
        if self._current is not None:
            user = await self._current()
            link = user.link(self.link.provider, self.link.account_id) if user else None
            if link is None:
                raise NotLinked(self.provider.name)
            if link.state != "active":
                raise NotLinked(self.provider.name, reason="reauth_required")
            if not rejected:  # what was refused is the token that was sent, not the store's
                self.link = link
        self.link = await self._refresher.fresh(
            self.provider, self.user_id, self.link, rejected=rejected
        )
        return self.link

    @property
    def proofs(self) -> Proofs:
        """What proves a token that is bound to a key (RFC 9449)."""
        return self._refresher.proofs

    def note_useless(self) -> None:
        """A token that was just refreshed was refused too."""
        self._refresher.note_useless(self.provider, self.user_id, self.link)

    def check_host(self, url: httpx2.URL) -> None:
        """Raise `ForeignHost` unless the URL is on one of the provider's hosts (RFC 9700 4.9.1)."""
        if not host_allowed(self.provider, url):
            raise ForeignHost(
                f"{url.scheme}://{url.netloc.decode('ascii', 'replace')} is not a host of "
                f"{self.provider.title}, so its token is not sent there; add it to api_hosts in "
                f"[providers.{self.provider.name}], or pass auth=None"
            )


class LinkAuth(httpx2.Auth):
    """Puts the link's token on a request: bearer, bound to a key (DPoP), or an OAuth 1.0a signature.

    Refreshes before the token ends and once more on a 401, when the body can be sent again.
    """

    def __init__(self, grant: Grant) -> None:
        self._grant = grant

    def __repr__(self) -> str:
        return f"LinkAuth({self._grant.provider.name!r})"

    def sync_auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        self._grant.check_host(request.url)
        if self._must_read(request):
            request.read()
        link = run(self._grant.fresh())
        self._authorize(request, link)
        response = yield request
        if link.token.dpop_key and self._proves_again(request, response, link):
            response = yield request
            self._take_up(response)
        if self._can_retry(request, response):
            refused = self._grant.link.token.access_token
            link = run(self._grant.fresh(rejected=True))
            if link.token.access_token != refused:
                self._authorize(request, link)
                response = yield request
                if link.token.dpop_key and self._proves_again(request, response, link):
                    response = yield request
                    self._take_up(response)
                self._judge(response)

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        self._grant.check_host(request.url)
        if self._must_read(request):
            await request.aread()
        link = await self._grant.fresh()
        self._authorize(request, link)
        response = yield request
        if link.token.dpop_key and self._proves_again(request, response, link):
            response = yield request
            self._take_up(response)
        if self._can_retry(request, response):
            refused = self._grant.link.token.access_token
            link = await self._grant.fresh(rejected=True)
            if link.token.access_token != refused:
                self._authorize(request, link)
                response = yield request
                if link.token.dpop_key and self._proves_again(request, response, link):
                    response = yield request
                    self._take_up(response)
                self._judge(response)

    def _take_up(self, response: httpx2.Response) -> bool:
        """Take up the API's nonce; whether it refused the call for want of it (RFC 9449 section 9)."""
        if not host_allowed(self._grant.provider, response.request.url):
            return False
        return self._grant.proofs.take_up(response)

    def _proves_again(self, request: httpx2.Request, response: httpx2.Response, link: Link) -> bool:
        """Put the proof with the API's nonce on a request that is to be sent again because of it."""
        if not self._take_up(response) or not isinstance(request.stream, httpx2.ByteStream):
            return False
        self._authorize(request, link)
        return True

    def _judge(self, second: httpx2.Response) -> None:
        if second.status_code == 401:
            self._grant.note_useless()

    def _must_read(self, request: httpx2.Request) -> bool:
        """Whether the body must be in memory: to be signed, or to be sent again after a 401."""
        if isinstance(request.stream, httpx2.ByteStream):
            return False
        if self._grant.provider.protocol == "oauth1":
            return self._must_sign_body(request)
        length = str(request.headers.get("content-length", ""))
        return length.isdecimal() and len(length) < 10 and int(length) <= MAX_REPLAY

    def _must_sign_body(self, request: httpx2.Request) -> bool:
        if self._grant.provider.protocol != "oauth1":
            return False
        content_type = str(request.headers.get("content-type", ""))
        return content_type.partition(";")[0].strip().lower() == oauth1.FORM

    def _authorize(self, request: httpx2.Request, link: Link) -> None:
        provider = self._grant.provider
        request.extensions = {**request.extensions, _SIGNED: request.url}
        if provider.protocol == "oauth1":
            oauth1.authorize(
                provider,
                request,
                token=link.token.access_token,
                token_secret=link.token.token_secret,
            )
        elif link.token.dpop_key:
            self._grant.proofs.authorize(request, link.token)
        else:
            value = f"{provider.token_scheme} {link.token.access_token}".strip()
            request.headers[provider.token_header] = value

    def _can_retry(self, request: httpx2.Request, response: httpx2.Response) -> bool:
        if response.status_code != 401 or self._grant.provider.protocol == "oauth1":
            return False
        if not host_allowed(self._grant.provider, response.request.url):
            return False  # another host's answer to a request that went there without the token
        token = self._grant.link.token
        if token.dpop_key and wants_nonce(response.status_code, response.headers):
            return False  # about the proof, and no fault of the token's
        if not token.refresh_token and token.expires_at is None:
            return False  # nothing newer can be had; the answer is the handler's to read
        # A stream that was consumed cannot be sent again.
        return isinstance(request.stream, httpx2.ByteStream)

    def redirected(self, request: httpx2.Request) -> None:
        """Put right what httpx2 copies along with a redirect, just before it is sent.

        To another host the token does not go, whatever header it stands in; on the same host an OAuth
        1.0a signature and a DPoP proof are made anew, because they cover the address and are good for
        one request.
        """
        signed = request.extensions.get(_SIGNED)
        # The very object: a redirect to the same address is another request all the same.
        if signed is None or signed is request.url:
            return
        provider, link = self._grant.provider, self._grant.link
        if not host_allowed(provider, request.url):
            request.headers.pop(provider.token_header, None)
            request.headers.pop("Authorization", None)
            request.headers.pop("DPoP", None)
        elif "Authorization" not in request.headers:
            request.headers.pop("DPoP", None)  # another origin: httpx2 took the token away
        elif provider.protocol == "oauth1" or link.token.dpop_key:
            self._authorize(request, link)

    def must_read_again(self, request: httpx2.Request) -> bool:
        """Whether a redirected request's body must be in memory before it is signed anew."""
        return _SIGNED in request.extensions and self._must_sign_body(request)
