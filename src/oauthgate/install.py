"""`install(app, config)`: wrap an application of a known framework in place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import GateError, NotLinked, RefreshFailed

if TYPE_CHECKING:
    # Each framework, and each half of the gate, is imported for an application of its own only.
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection
    from starlette.responses import Response as StarletteResponse
    from werkzeug.wrappers import Response as WerkzeugResponse

    from .asgi import ASGIApp, ASGIGate
    from .clients import SyncService
    from .config import Config
    from .hooks import Hook
    from .services import Services
    from .visits import Visitor

_ANSWERED = (NotLinked, GateError, RefreshFailed)


def install(
    app: Any,  # noqa: ANN401 - of any framework; what it is decides
    config: Config | str | Path | Mapping[str, Any],
    *,
    hooks: Mapping[str, Hook] | None = None,
) -> None:
    """Wrap a Flask, FastAPI or Starlette application in place.

    Decorators, test clients and `flask run` go on working, because `app` stays the same object. Call
    it once, before the first request. `hooks` maps the names of `hooks.py` to functions.

    Raises `ConfigError` for a configuration that cannot work and
    `TypeError` for an application of another kind, which `ASGIGate` or `WSGIGate` wraps instead.
    """
    starlette = sys.modules.get("starlette.applications")
    if starlette is not None and isinstance(app, starlette.Starlette):
        _install_starlette(app, config, hooks)
    elif hasattr(app, "wsgi_app") and hasattr(app, "request_class"):
        _install_flask(app, config, hooks)
    else:
        raise TypeError(
            f"install knows Flask, FastAPI and Starlette applications, not {type(app).__name__}; wrap "
            "any other one: app = oauthgate.ASGIGate(app, config) or oauthgate.WSGIGate(app, config)"
        )


def _install_starlette(
    app: Starlette, config: Config | str | Path | Mapping[str, Any], hooks: Mapping[str, Hook] | None
) -> None:
    from starlette.responses import Response as StarletteResponse

    from .asgi import ASGIGate
    from .config import Config

    loaded = Config.load(config)

    def gate_around(inner: ASGIApp) -> ASGIApp:
        # Made with the first request, when everything has been mounted.
        _answer_in_mounted(app.routes, answer)
        # The method and not the object, whose type Python would ask for it with each request.
        return ASGIGate(inner, loaded, hooks).__call__

    async def answer(connection: HTTPConnection, error: Exception) -> StarletteResponse | None:
        gate: ASGIGate = connection.scope["state"]["oauthgate"]
        if connection.scope["type"] == "websocket" or not isinstance(error, _ANSWERED):
            raise error
        found = gate.answer(connection.scope, error)
        response = StarletteResponse(found.body, found.status)
        response.raw_headers[:] = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in [*found.headers, ("Content-Length", str(len(found.body)))]
        ]
        return response

    app.add_middleware(gate_around)
    # Registered by name, so that an application's own handler for KeyError or Exception does not
    # swallow what becomes an answer by itself.
    for kind in _ANSWERED:
        app.add_exception_handler(kind, answer)  # type: ignore[arg-type] # Starlette types handlers by request only


def _answer_in_mounted(routes: Iterable[object], answer: Callable[..., Any]) -> None:
    """Have the applications that are mounted in one answer too: each turns what it does not know into a
    500. One with a gate of its own has its answers."""
    from starlette.applications import Starlette

    for route in routes:
        mounted = getattr(route, "app", None)
        if isinstance(mounted, Starlette):
            if NotLinked in mounted.exception_handlers:
                continue
            mounted.exception_handlers.update(dict.fromkeys(_ANSWERED, answer))
        _answer_in_mounted(getattr(route, "routes", None) or (), answer)


class State(NamedTuple):
    """`request.state` in Flask: the same two names as in Starlette."""

    services: Services[SyncService]
    oauth: Visitor


def _install_flask(
    app: Any,  # noqa: ANN401 - of any framework; what it is decides
    config: Config | str | Path | Mapping[str, Any],
    hooks: Mapping[str, Hook] | None,
) -> None:
    from flask import request
    from werkzeug.wrappers import Response as WerkzeugResponse

    from .wsgi import GATE, SERVICES, VISITOR, WSGIGate

    gate = WSGIGate(app.wsgi_app, config, hooks)
    app.wsgi_app = gate

    def state(this: Any) -> State:  # noqa: ANN401 - a request of the application's own class
        return State(this.environ[SERVICES], this.environ[VISITOR])

    app.request_class = type("Request", (app.request_class,), {"state": property(state)})

    def answer(error: Exception) -> WerkzeugResponse:
        if not isinstance(error, _ANSWERED):
            raise error
        found = request.environ[GATE].answer(request.environ, error)
        return WerkzeugResponse(found.body, found.status, found.headers)

    for kind in _ANSWERED:
        app.register_error_handler(kind, answer)
