"""Flask: the visitor and the services by name, and decorators that see to what a view needs.

    from oauthgate.flask import current_user, login_required, requires, services

    @app.get("/now")
    @login_required
    def now():
        return services["spotify"].get("me/player").json()

What is missing becomes the answer that gets it: a page to sign in or to link for a browser's navigation,
a 401 in JSON for everything else. `oauthgate.install` must have wrapped the application. In an
`async def` view the clients block all the same: Flask runs each such view in an event loop of its own.

Flask is not a dependency of oauthgate: nothing but an application of its own imports this module.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, cast

try:
    from flask import current_app, request
    from werkzeug.local import LocalProxy
except ImportError as error:
    raise ImportError(
        "oauthgate.flask needs Flask, which is not installed: pip install flask"
    ) from error

from .clients import SyncService
from .errors import GateError
from .services import Services
from .visits import Visitor
from .wsgi import SERVICES, VISITOR

__all__ = ["current_user", "login_required", "requires", "services"]

P = ParamSpec("P")
R = TypeVar("R")


def _environ(name: str) -> Any:  # noqa: ANN401 - either of two, which the proxies below name
    try:
        return request.environ[name]
    except KeyError:
        raise RuntimeError(
            "no gate is around this application: call oauthgate.install(app, config)"
        ) from None


#: The linked services of the request's visitor: `request.state.services`.
services = cast("Services[SyncService]", LocalProxy(lambda: _environ(SERVICES)))
#: The request's visitor: `request.state.oauth`. Anonymous when `user_id` is None.
current_user = cast(Visitor, LocalProxy(lambda: _environ(VISITOR)))


def login_required(view: Callable[P, R]) -> Callable[P, R]:
    """A view for those who are signed in; others are asked to sign in. Below `@app.route`."""

    @functools.wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if current_user.user_id is None:
            raise GateError("login_required", "sign in first")
        return _call(view, *args, **kwargs)

    return guarded


def requires(name: str, *, scope: Sequence[str] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A view for those who have linked a service and granted all of `scope`; others are asked to.

    `name` is a provider's, or `provider:label` for one of several accounts. Below `@app.route`.
    """

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            services.require(name, scope=tuple(scope))
            return _call(view, *args, **kwargs)

        return guarded

    return decorate


def _call(view: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a view of either kind; Flask itself sees a plain function only."""
    result: R = current_app.ensure_sync(view)(*args, **kwargs)
    return result
