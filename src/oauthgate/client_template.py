"""Making one more client of a provider's: what nobody can change is shared, the rest is each one's own.

A client is made for each visitor's request, and httpx2's constructor takes a tenth of a call. So it runs
once for each provider. What must be the visitor's own is made anew. Should a later httpx2 keep anything
that is not known here, its constructor runs every time: state of one visitor must never be another's.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

import httpx2

from .api_hosts import api_base
from .providers import Provider

#: Seconds that a call waits for a free connection.
POOL_TIMEOUT = 60.0

#: Each client's own.
_OWN = {"_auth", "_cookies", "_event_hooks", "_headers", "_mounts", "_timeout", "_transport"}
#: Types that nobody can change.
_CONSTANT = (type(None), Enum, bool, int, float, str, httpx2.URL, httpx2.QueryParams)


#: Addresses that are remembered for each provider.
_ADDRESSES = 256


class Addresses:
    """Where the paths that handlers ask for lead, for as many of them as are worth remembering.

    httpx2 parses such a path three times for each call. With a query it is another one each time, and
    may hold what is better forgotten.
    """

    __slots__ = ("_base", "_known")

    def __init__(self, base: httpx2.URL) -> None:
        self._base = base
        self._known: dict[str, httpx2.URL] = {}

    def find(self, base: httpx2.URL, path: object) -> httpx2.URL | None:
        """The whole address, if it is known. A handler may have given its client another `base`."""
        if base is not self._base or not isinstance(path, str):
            return None
        return self._known.get(path)

    def keep(self, base: httpx2.URL, path: object, found: httpx2.URL) -> None:
        """Remember the address of a path, unless it has a query or a password."""
        if base is not self._base or not isinstance(path, str):
            return
        if not found.query and not found.userinfo and len(path) <= 200:
            if len(self._known) >= _ADDRESSES:
                self._known.clear()
            self._known[path] = found


class _Template(NamedTuple):
    shared: dict[str, Any]
    headers: httpx2.Headers
    timeout: httpx2.Timeout
    addresses: Addresses


def set_up(
    client: Any,  # noqa: ANN401 - an httpx2 client of either colour, as are the hook and the transport
    provider: Provider,
    *,
    auth: httpx2.Auth,
    cookies: httpx2.Cookies,
    hook: Any,  # noqa: ANN401 - of the client's colour
    transport: Any,  # noqa: ANN401 - of the client's colour
) -> None:
    """Do what `client.__init__` does, with a hook that sees each request before it is sent."""
    kind = httpx2.Client if isinstance(client, httpx2.Client) else httpx2.AsyncClient
    base, headers = api_base(provider), provider.headers
    made = template(kind, base, provider.timeout, tuple(headers.items()))
    if made is None:
        options = _options(base, provider.timeout, headers)
        hooks = {"request": [hook]}
        kind.__init__(client, **{**options, "auth": auth, "event_hooks": hooks, "transport": transport})
        client._addresses = Addresses(client.base_url)
    else:
        own = vars(client)
        own.update(made.shared)
        own["_auth"] = auth
        own["_event_hooks"] = {"request": [hook], "response": []}
        own["_headers"] = made.headers.copy()
        own["_mounts"] = {}
        own["_timeout"] = httpx2.Timeout(made.timeout)
        own["_transport"] = transport
        own["_addresses"] = made.addresses
    client._cookies = cookies


@lru_cache(maxsize=256)
def template(
    kind: type[httpx2.Client] | type[httpx2.AsyncClient],
    base: str,
    timeout: float,
    headers: tuple[tuple[str, str], ...],
) -> _Template | None:
    """What clients of a provider have in common, or None when httpx2 is not the one known here."""
    made = kind(**_options(base, timeout, dict(headers)))
    state = vars(made)
    shared = {name: value for name, value in state.items() if name not in _OWN}
    if not state.keys() >= _OWN:
        return None
    if not all(isinstance(value, _CONSTANT) for value in shared.values()):
        return None
    return _Template(shared, state["_headers"], state["_timeout"], Addresses(made.base_url))


def _options(base: str, timeout: float, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "base_url": base,
        "timeout": httpx2.Timeout(timeout, pool=POOL_TIMEOUT),
        "headers": headers,
        "transport": _Nowhere(),
        "trust_env": False,
    }


class _Nowhere(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Stands in while a client is made: httpx2 would build a pool and a TLS context of its own."""
