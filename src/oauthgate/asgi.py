"""`ASGIGate`: the gate around an ASGI application.

A request under the prefix is answered here; every other one goes to the application with `services`
and `oauth` in `scope["state"]`. Without a cookie or token of ours that costs a look at the headers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from .clients import AsyncService, SyncService
from .config import Config
from .cookies import find, find_one
from .errors import GateError, NotLinked, RefreshFailed
from .gate import Gate
from .hooks import Hook
from .io_async import AsyncIO
from .messages import Request, Response
from .records import Session, User
from .router import handle
from .services import Services
from .sessions import parse_ticket
from .stepping import run
from .stores import make_store
from .visits import Visit, Visitor

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: The headers that may say who somebody is.
_CREDENTIALS = frozenset((b"cookie", b"authorization"))
#: WebSocket close codes: try again later (RFC 6455 section 7.4.1), and a private one for "sign in, or
#: link, first".
_TRY_AGAIN = 1013
_LINK_REQUIRED = 4401


class ASGIGate:
    """Middleware: `app = ASGIGate(app, "oauthgate.toml")`, or `add_middleware(ASGIGate, config=…)`.

    `config` is the path of a TOML file, a dict of the same shape, or a `Config`; `hooks` maps the
    names of `hooks.py` to functions. Raises `ConfigError`.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: Config | str | Path | Mapping[str, Any],
        hooks: Mapping[str, Hook] | None = None,
    ) -> None:
        self.app = app
        self._hooks = hooks
        loaded = Config.load(config)
        self.gate = Gate(loaded, AsyncIO(loaded.transport), hooks=hooks)
        self._blocking: Gate | None = None
        self._prefix = self.gate.config.prefix
        self._below = self._prefix + "/"
        self._marker = self.gate.config.cookie.encode() + b"="
        self._cookies = {
            scheme: self.gate.cookie_name(scheme).encode() + b"="
            for scheme in ("http", "https", "ws", "wss")
        }
        self._plain_cookie = self._cookies["http"]
        self._after_change = self.gate.after_change.encode()
        self._place = self.gate.place
        self._source = self.gate.source(AsyncService, self._twin)
        self._anonymous = Services(self._source)
        self._protected = self.gate.config.access.protected

    def __repr__(self) -> str:
        return f"ASGIGate({self.gate!r})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        # From here to the application's call is what every request pays: see docs/performance.md.
        path, mount = scope["path"], ""
        if scope.get("root_path"):
            path, mount = _split(scope)
        # `in` first: it says no for half the price of calling `startswith`.
        if self._prefix in path and (path == self._prefix or path.startswith(self._below)):
            request = make_request(scope, receive, path[len(self._prefix) :] or "/")
            await send_response(await handle(self.gate, request, mount), send)
            return
        try:
            visit, cookie, plain = None, None, True
            for name, value in scope["headers"]:
                if name in _CREDENTIALS:
                    if name == b"authorization":
                        cookie, plain = cookie or b"", False
                    elif self._marker in value:
                        cookie, plain = value, cookie is None and plain
                    elif self._after_change in value:  # HTTP/2 may send each cookie by itself
                        plain = False
            if cookie is not None:
                visit = (self._recall(scope, cookie) if plain else None) or await self._visit(scope)
            services = self._anonymous if visit is None else Services(self._source, visit.user)
            visitor = Visitor(self._place, visit, mount, path, scope.get("query_string", b""))
            if "state" in scope and scope["state"] is not None:
                state = scope["state"]
                state["services"], state["oauth"], state["oauthgate"] = services, visitor, self
            else:
                scope["state"] = {"services": services, "oauth": visitor, "oauthgate": self}
            if self._protected is not None:
                self._protected.check(visit.user if visit else None, path, scope["path"])
            await self.app(scope, receive, send)
        except (NotLinked, GateError, RefreshFailed) as error:
            answer = self._answer(scope, receive, path, mount, error)
            try:
                await send_response(answer, send)
            except RuntimeError:
                # The application had begun its own answer; there is no second one.
                raise error from None

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    # -- requests to the application

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, mount = _split(scope)
        try:
            # Browsers let any page open a socket with our cookies: only our own pages get an identity.
            origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
            hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            host = hosts[0] if len(hosts) == 1 else None
            scheme = scope.get("scheme", "ws")
            own = all(self.gate.own_origin(origin, scheme, host) for origin in origins)
            visit = await self._visit(scope) if own else None
            state = scope.setdefault("state", {})
            # A socket may outlive the session: its clients look whether that still stands.
            state["services"] = (
                Services(self._source, visit.user, visit.session) if visit else self._anonymous
            )
            state["oauth"] = Visitor(self._place, visit, mount, path, scope.get("query_string", b""))
            state["oauthgate"] = self
        except GateError:
            await send({"type": "websocket.close", "code": _TRY_AGAIN})
            return
        try:
            if self._protected is not None:
                self._protected.check(visit.user if visit else None, path, scope["path"])
            await self.app(scope, receive, send)
        except NotLinked:
            await send({"type": "websocket.close", "code": _LINK_REQUIRED})
        except (GateError, RefreshFailed) as error:
            if isinstance(error, GateError) and error.status == 401:
                await send({"type": "websocket.close", "code": _LINK_REQUIRED})
                return
            await send({"type": "websocket.close", "code": _TRY_AGAIN})

    def _recall(self, scope: Scope, cookie: bytes) -> Visit | None:
        """The visit of a request whose only credential is one plain cookie seen a moment ago."""
        gate = self.gate
        if gate.vault.near and self._after_change in cookie:
            return None
        text = find_one(cookie, self._cookies.get(scope.get("scheme", "http"), self._plain_cookie))
        return gate.recall(text, False) if text is not None else None

    async def _visit(self, scope: Scope) -> Visit | None:
        """Who a request comes from; None, and nothing read, when it carries nothing of ours."""
        gate = self.gate
        cookies: list[bytes] = []
        authorization: list[bytes] = []
        for name, value in scope["headers"]:
            if name == b"cookie":
                if self._marker in value:
                    cookies.append(value)
            elif name == b"authorization":
                authorization.append(value)
        if len(authorization) == 1:
            kind, _, token = authorization[0].decode("latin-1").partition(" ")
            if kind.lower() == "bearer":
                token = token.strip()
                visit = gate.recall(token, True)
                if visit is not None:
                    return visit
                ticket = gate.api_tokens.read(token)
                if ticket is not None:
                    return await gate.visit(ticket, True)
        if not cookies:
            return None
        name = gate.cookie_name(scope.get("scheme", "http"))
        ticket = parse_ticket(find([value.decode("latin-1") for value in cookies], name))
        return await gate.visit(ticket, False) if ticket is not None else None

    def _twin(self, user: User | None, session: Session | None) -> Services[SyncService]:
        return Services(self.blocking_gate().source(SyncService), user, session)

    def blocking_gate(self) -> Gate:
        """The same gate over blocking IO, for `services.sync` in a thread pool."""
        if self._blocking is None:
            from .io_blocking import BlockingIO  # most asynchronous applications never ask for it

            # A store in this process's memory is one and the same for both; any other is opened again
            # for blocking use.
            shared = getattr(self.gate.store, "in_process", False)
            store = self.gate.store if shared else make_store(self.gate.config.store, blocking=True)
            self._blocking = Gate(
                self.gate.config, BlockingIO(), hooks=self._hooks, store=store, keys=self.gate.keys
            )
        return self._blocking

    def _answer(
        self,
        scope: Scope,
        receive: Receive,
        path: str,
        mount: str,
        error: NotLinked | GateError | RefreshFailed,
    ) -> Response:
        return self.gate.answer_for(make_request(scope, receive, path), mount, error)

    def answer(self, scope: Scope, error: NotLinked | GateError | RefreshFailed) -> Response:
        """The answer for an exception of ours that a framework caught before we could."""
        # Not by the scope's own path: a framework may have mounted the handler below a path of its own.
        seen: Visitor = scope["state"]["oauth"]
        return self._answer(scope, _nothing, seen._path, seen._mount, error)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watching(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                await self.close()
            await send(message)

        await self.app(scope, receive, watching)

    async def close(self) -> None:
        """Finish what is under way and close connections. Called by itself at the server's shutdown."""
        await self.gate.close()
        if self._blocking is not None:
            blocking, self._blocking = self._blocking, None
            run(blocking.close())


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _split(scope: Scope) -> tuple[str, str]:
    """The path that the application routes, and the path it is mounted below."""
    path: str = scope["path"]
    mount: str = (scope.get("root_path") or "").rstrip("/")
    # Servers differ in whether the path still holds the mount point; a longer name is another path.
    if mount and path.startswith(mount) and path[len(mount) : len(mount) + 1] in ("/", ""):
        path = path[len(mount) :] or "/"
    return path, mount


def make_request(scope: Scope, receive: Receive, path: str) -> Request:
    """A `Request` of the core from an HTTP scope."""

    async def read(limit: int) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise GateError("invalid_request", "the client went away")
            body += message.get("body", b"")
            if len(body) > limit:
                raise GateError("request_too_large", f"at most {limit} bytes are accepted")
            if not message.get("more_body", False):
                return bytes(body)

    client = scope.get("client")
    return Request(
        method=scope.get("method", "GET"),
        path=path,
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=[
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]
        ],
        read=read,
        scheme=scope.get("scheme", "http"),
        client=client[0] if client else None,
    )


async def send_response(response: Response, send: Send) -> None:
    """Write an answer of the core."""
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers
    ]
    if response.status not in (204, 304):  # RFC 9110 section 8.6
        headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
