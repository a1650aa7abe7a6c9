"""Spans and counters for OpenTelemetry, where its API is installed (`pip install oauthgate[otel]`).

Attributes are the provider's name, the purpose, the HTTP method, host and status, and an error's code:
never a URL's path or query, an account, or anything of a token. Without the API every function here does
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

from .errors import GateError, OAuthGateError

#: The counters, by name: what each counts.
COUNTERS = {
    "oauthgate.logins": "completed sign-ins",
    "oauthgate.links": "completed links",
    "oauthgate.refreshes": "refresh requests sent",
    "oauthgate.errors": "flows and refreshes that failed, by error code",
    "oauthgate.refresh.waits": "calls that waited for another one's refresh",
}


@lru_cache(maxsize=1)
def _api() -> tuple[Any, dict[str, Any], Callable[[], bool]] | None:
    try:
        from opentelemetry import metrics, trace
    except ImportError:
        return None
    meter = metrics.get_meter("oauthgate")
    counters = {
        name: meter.create_counter(name, description=description)
        for name, description in COUNTERS.items()
    }
    tracer = trace.get_tracer("oauthgate")
    proxy = isinstance(tracer, trace.ProxyTracer)

    def kept() -> bool:
        # An application may set up its SDK at any time; until then the API drops each span.
        return not (proxy and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider))

    return tracer, counters, kept


def available() -> bool:
    """Whether spans go anywhere: not without the API, nor with the API and no SDK behind it yet."""
    api = _api()
    return api is not None and api[2]()


def span(name: str, **attributes: str) -> AbstractContextManager[Any]:
    """A span around what runs inside; gives the span, or None while spans go nowhere.

    An error of ours marks it with its code. No message is recorded, of ours or of any other exception:
    a library's text may hold what a log must not.
    """
    return _span(_api(), name, attributes) if available() else _NOWHERE


_NOWHERE: AbstractContextManager[Any] = nullcontext()


@contextmanager
def _span(api: Any, name: str, attributes: dict[str, str]) -> Iterator[Any]:  # noqa: ANN401 - `_api()`
    with api[0].start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as found:
        try:
            yield found
        except OAuthGateError as error:
            found.set_attribute("error.type", code_of(error))
            raise
        except Exception as error:  # named on the span and raised again
            found.set_attribute("error.type", type(error).__name__)
            raise


def count(name: str, **attributes: str) -> None:
    """Add one to a counter of `COUNTERS`."""
    api = _api()
    if api is not None:
        api[1][name].add(1, attributes)


def code_of(error: OAuthGateError) -> str:
    """The code of an error of ours, or the name of its kind."""
    return error.code if isinstance(error, GateError) else type(error).__name__
