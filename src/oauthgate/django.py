"""Django: `request.state` as in the other frameworks, and the answer for what is not linked.

Wrap the project's application (`asgi.py`, `wsgi.py`) with a gate, and name the middleware:

    application = oauthgate.ASGIGate(get_asgi_application(), "oauthgate.toml")   # asgi.py
    application = oauthgate.WSGIGate(get_wsgi_application(), "oauthgate.toml")   # wsgi.py

    MIDDLEWARE = [..., "oauthgate.django.GateMiddleware"]                        # settings.py, last

A view then finds `request.state.services` and `request.state.oauth`. Django turns an exception of a view
into its own page with status 500 before a gate around it can see it; so the middleware answers it: a
redirect to the page that links the provider, or JSON with status 401. Last in the list it is the first
to see an exception.

In WSGI mode the clients block. In ASGI mode `services["spotify"]` is for async views and
`services.sync["spotify"]` for plain ones; `services.sync` works in both modes. Django's own test client
goes around the gate: there a request has no `state`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpResponse

from .errors import GateError, NotLinked, RefreshFailed
from .services import Services
from .visits import Visitor
from .wsgi import GATE, SERVICES, VISITOR


class State(NamedTuple):
    """`request.state` in Django: the same two names as in Starlette and Flask."""

    services: Services[Any]
    oauth: Visitor


class GateMiddleware:
    """Django middleware, for a project inside an `ASGIGate` or a `WSGIGate`."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            # It hands on what the next one returns, which in ASGI mode is to be awaited.
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:  # noqa: ANN401 - Django's, untyped; or an awaitable of it
        """Give the request its `state`, and pass it on."""
        state = _state(request)
        if state is not None:
            request.state = state
        return self._get_response(request)

    def process_exception(self, request: Any, error: Exception) -> HttpResponse | None:  # noqa: ANN401 - Django's, untyped
        """The answer for an exception of ours that a view let pass; None for any other one."""
        if not isinstance(error, (NotLinked, GateError, RefreshFailed)):
            return None
        scope = getattr(request, "scope", None)
        if scope is not None:
            gate = (scope.get("state") or {}).get("oauthgate")
            found = gate.answer(scope, error) if gate else None
        else:
            gate = request.environ.get(GATE)
            found = gate.answer(request.environ, error) if gate else None
        if found is None:
            return None
        response = HttpResponse(found.body, status=found.status)
        del response["Content-Type"]
        for name, value in found.headers:
            response[name] = value
        return response


def _state(request: Any) -> State | None:  # noqa: ANN401 - Django's, untyped
    """What the gate around has found; None without one, as with Django's own test client."""
    scope = getattr(request, "scope", None)
    if scope is not None:
        held = scope.get("state") or {}
        return State(held["services"], held["oauth"]) if "oauthgate" in held else None
    environ = request.environ
    return State(environ[SERVICES], environ[VISITOR]) if GATE in environ else None
