"""`WSGIGate`: the gate around a WSGI application.

The same core as under ASGI, run to its end on the calling thread (`stepping.py`): no event loop, no
extra thread. The application finds `oauthgate.services` and `oauthgate.user` in its environ.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from types import GeneratorType, TracebackType
from typing import Any

from .clients import SyncService
from .config import Config
from .cookies import find
from .errors import GateError, NotLinked, RefreshFailed
from .gate import Gate
from .hooks import Hook
from .io_blocking import BlockingIO
from .messages import Request, Response
from .router import handle
from .services import Services
from .sessions import parse_ticket
from .stepping import run
from .visits import Visit, Visitor

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

SERVICES = "oauthgate.services"
VISITOR = "oauthgate.user"
GATE = "oauthgate.gate"


class WSGIGate:
    """Middleware: `app = WSGIGate(app, "oauthgate.toml")`.

    `config` is the path of a TOML file, a dict of the same shape, or a `Config`; `hooks` maps the
    names of `hooks.py` to functions. Raises `ConfigError`.
    """

    def __init__(
        self,
        app: WSGIApp,
        config: Config | str | Path | Mapping[str, Any],
        hooks: Mapping[str, Hook] | None = None,
    ) -> None:
        self.app = app
        self.gate = Gate(Config.load(config), BlockingIO(), hooks=hooks)
        self._prefix = self.gate.config.prefix
        self._below = self._prefix + "/"
        self._marker = self.gate.config.cookie + "="
        self._cookies = {scheme: self.gate.cookie_name(scheme) for scheme in ("http", "https")}
        self._plain_cookie = self._cookies["http"]
        self._place = self.gate.place
        self._source = self.gate.source(SyncService)
        self._anonymous = Services(self._source)
        self._protected = self.gate.config.access.protected

    def __repr__(self) -> str:
        return f"WSGIGate({self.gate!r})"

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO") or "/"
        if self._prefix in path and (path == self._prefix or path.startswith(self._below)):
            request = make_request(environ, path[len(self._prefix) :] or "/")
            return send_response(run(handle(self.gate, request, _mount(environ))), start_response)
        # From here to the application's call is what every request pays: see docs/performance.md.
        visit = None
        if "HTTP_COOKIE" in environ or "HTTP_AUTHORIZATION" in environ:
            try:
                visit = self._visit(environ)
            except GateError as error:
                return send_response(self.answer(environ, error), start_response)
        environ[SERVICES] = self._anonymous if visit is None else Services(self._source, visit.user)
        environ[VISITOR] = Visitor(
            self._place,
            visit,
            environ.get("SCRIPT_NAME", ""),
            path if path.isascii() else _decoded(path),
            environ.get("QUERY_STRING", ""),
        )
        environ[GATE] = self
        try:
            if self._protected is not None:
                self._protected.check(visit.user if visit else None, _decoded(path))
            result = self.app(environ, start_response)
            if type(result) is GeneratorType:
                # A generator's code runs when it is first asked, which must happen in here.
                return _begun(result)
            return result
        except (NotLinked, GateError, RefreshFailed) as error:
            return send_response(self.answer(environ, error), start_response, error.__traceback__)

    def _visit(self, environ: Environ) -> Visit | None:
        """Who a request comes from; None, and nothing read, when it carries nothing of ours."""
        gate = self.gate
        authorization: str | None = environ.get("HTTP_AUTHORIZATION")
        if authorization is not None:
            kind, _, token = authorization.partition(" ")
            if kind.lower() == "bearer":
                token = token.strip()
                visit = gate.recall(token, True)
                if visit is not None:
                    return visit
                ticket = gate.api_tokens.read(token)
                if ticket is not None:
                    return run(gate.visit(ticket, True))
        cookies: str | None = environ.get("HTTP_COOKIE")
        if cookies is None or self._marker not in cookies:
            return None
        scheme = environ.get("wsgi.url_scheme", "http")
        text = find([cookies], self._cookies.get(scheme, self._plain_cookie))
        if text is not None and not (gate.vault.near and gate.after_change in cookies):
            visit = gate.recall(text, False)
            if visit is not None:
                return visit
        ticket = parse_ticket(text)
        return run(gate.visit(ticket, False)) if ticket is not None else None

    def answer(self, environ: Environ, error: NotLinked | GateError | RefreshFailed) -> Response:
        """The answer for an exception of ours that came out of the application."""
        request = make_request(environ, _decoded(environ.get("PATH_INFO") or "/"))
        return self.gate.answer_for(request, _mount(environ), error)

    def close(self) -> None:
        """Close connections of this process. They are opened again when needed."""
        run(self.gate.close())


class _Begun:
    """A generator of which the first item was taken already."""

    def __init__(self, first: list[bytes], rest: Generator[bytes, Any, Any]) -> None:
        self._first = first
        self._rest = rest

    def __iter__(self) -> Iterator[bytes]:
        yield from self._first
        yield from self._rest

    def close(self) -> None:
        self._rest.close()


def _begun(result: Generator[bytes, Any, Any]) -> Iterable[bytes]:
    try:
        return _Begun([next(result)], result)
    except StopIteration:
        return _Begun([], result)


def _mount(environ: Environ) -> str:
    mount: str = environ.get("SCRIPT_NAME", "")
    return mount.rstrip("/")


def _decoded(path: str) -> str:
    """The path as text: WSGI hands bytes over disguised as Latin-1 (PEP 3333)."""
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


_OF_THE_BODY = ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH")


def make_request(environ: Environ, path: str) -> Request:
    """A `Request` of the core from an environ."""

    async def read(limit: int) -> bytes:
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
        except ValueError:
            raise GateError("invalid_request", "Content-Length is not a number") from None
        if length > limit:
            raise GateError("request_too_large", f"at most {limit} bytes are accepted")
        stream = environ["wsgi.input"]
        if length <= 0 and not environ.get("wsgi.input_terminated"):
            return b""
        body: bytes = stream.read(length if length > 0 else limit + 1)
        if len(body) > limit:
            raise GateError("request_too_large", f"at most {limit} bytes are accepted")
        return body

    headers = [
        (key[5:].replace("_", "-").lower(), value)
        for key, value in environ.items()
        # The body's type is in CONTENT_TYPE; some servers have it a second time under this name.
        if key.startswith("HTTP_") and key not in _OF_THE_BODY and isinstance(value, str)
    ]
    if environ.get("CONTENT_TYPE"):
        headers.append(("content-type", environ["CONTENT_TYPE"]))
    return Request(
        method=environ["REQUEST_METHOD"],
        path=path,
        query=environ.get("QUERY_STRING", ""),
        headers=headers,
        read=read,
        scheme=environ.get("wsgi.url_scheme", "http"),
        client=environ.get("REMOTE_ADDR"),
    )


def send_response(
    response: Response, start_response: StartResponse, traceback: TracebackType | None = None
) -> Iterable[bytes]:
    """Write an answer of the core; with a traceback it takes the place of one that was begun."""
    status = f"{response.status} {_phrase(response.status)}"
    # For a 204 too, although RFC 9110 section 8.6 would leave it out: Werkzeug's lint insists on it.
    headers = list(response.headers)
    if response.status != 304:
        headers.append(("Content-Length", str(len(response.body))))
    try:
        start_response(status, headers)
    except AssertionError:
        # Only an answer that was begun may be replaced by way of an exception (PEP 3333), and only
        # the server knows whether one was.
        if traceback is None:
            raise
        error = NotLinked("application")
        start_response(status, headers, (type(error), error, traceback))
    return [response.body]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Answer"
