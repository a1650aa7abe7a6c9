"""OAuth 2: the authorization code grant with PKCE, refresh, revocation (RFC 6749, 7636, 7009, 9700)."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

import httpx2

from ..errors import GateError
from ..io import Heartbeat
from ..outbound import Outbound, build
from ..providers import Provider, fill, origin
from ..records import Token
from . import client_auth, dpop
from .authlib_facade import authorization_url as build_authorization_url
from .authlib_facade import code_challenge
from .tokens import TokenAnswer, TokenError, read_token

#: Seconds that a visitor waits at most for a revocation, which is best effort.
REVOCATION_DEADLINE = 3.0


def authorization_url(
    provider: Provider,
    *,
    redirect_uri: str,
    state: str,
    code_verifier: str,
    scope: list[str],
    nonce: str = "",
    dpop_jkt: str = "",
    extra: dict[str, str] | None = None,
) -> str:
    """The authorization request (RFC 6749 section 4.1.1) with its PKCE challenge, always S256.

    `dpop_jkt` binds the code to a key as well (RFC 9449 section 10), so that who has code and verifier
    still cannot redeem it. `extra` holds parameters of this one request; neither they nor the
    provider's own can take the place of a protocol parameter.
    """
    parameters = {**provider.authorization_params, **(extra or {})}
    parameters.update(code_challenge=code_challenge(code_verifier), code_challenge_method="S256")
    if scope:
        parameters["scope"] = provider.scope_delimiter.join(scope)
    if nonce:
        parameters["nonce"] = nonce
    if dpop_jkt:
        parameters["dpop_jkt"] = dpop_jkt
    if provider.max_age is not None:
        parameters["max_age"] = str(provider.max_age)
    if provider.response_mode != "query":
        parameters["response_mode"] = provider.response_mode
    protocol = {
        "client_id": provider.client_id,
        "redirect_uri": redirect_uri,
        "state": state,
    }
    url = build_authorization_url(provider.authorization_endpoint, **protocol, **parameters)
    return _rename(url, provider) if provider.parameter_names else url


def _rename(url: str, provider: Provider) -> str:
    """Give parameters the provider's own names for them."""
    from urllib.parse import parse_qsl, urlencode

    base, _, query = url.partition("?")
    pairs = [
        (provider.parameter_names.get(name, name), value)
        for name, value in parse_qsl(query, keep_blank_values=True)
    ]
    return f"{base}?{urlencode(pairs)}"


def check_issuer(provider: Provider, iss: str | None) -> None:
    """The `iss` of an authorization response (RFC 9207 section 2.4): compared as a plain string.

    Raises `GateError`. Where no issuer is known, the answer must at least name the host that the
    browser was sent to; a response of another server is a mix-up.
    """
    if iss is None:
        if provider.authorization_response_iss_parameter_supported:
            raise _mix_up(provider, "has no iss, which this provider always sends")
        return
    if provider.issuer:
        if iss != provider.issuer and iss not in provider.issuer_aliases:
            if not (provider.issuer_template and _same_host(iss, provider.issuer)):
                raise _mix_up(provider, "names another issuer")
    elif not _same_host(iss, provider.authorization_endpoint):
        raise _mix_up(provider, "names an issuer on another host")


def _same_host(one: str, other: str) -> bool:
    try:
        return origin(one) == origin(other)
    except ValueError:
        return False


def _mix_up(provider: Provider, what: str) -> GateError:
    return GateError("invalid_request", f"the answer of {provider.title} {what}", provider=provider.name)


async def redeem_code(
    outbound: Outbound,
    provider: Provider,
    *,
    code: str,
    code_verifier: str,
    redirect_uri: str,
    state: str,
    now: float,
    dpop_key: str = "",
) -> TokenAnswer:
    """The token request for a code (RFC 6749 section 4.1.3). Sent once, whatever comes back, but for a
    server that first wants its nonce in the proof of `dpop_key`."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": code_verifier,
    }
    values = {"state": state, "code": code, "redirect_uri": redirect_uri}
    form.update({name: fill(value, values) for name, value in provider.token_params.items()})
    key = dpop_key or (dpop.new_key() if provider.dpop else "")  # a flow from before dpop was set
    return await _token_request(outbound, provider, provider.token_endpoint, form, now, key)


async def refresh(
    outbound: Outbound,
    provider: Provider,
    token: Token,
    now: float,
    heartbeat: Heartbeat | None = None,
) -> TokenAnswer:
    """The token request for a refresh token (RFC 6749 section 6). Raises `TokenError`, `GateError`."""
    form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
    form.update(provider.refresh_params)
    endpoint = provider.refresh_endpoint or provider.token_endpoint
    return await _token_request(outbound, provider, endpoint, form, now, token.dpop_key, heartbeat)


async def _token_request(
    outbound: Outbound,
    provider: Provider,
    endpoint: str,
    form: dict[str, str],
    now: float,
    dpop_key: str,
    heartbeat: Heartbeat | None = None,
) -> TokenAnswer:
    def request() -> httpx2.Request:
        return _build_token_request(provider, endpoint, form)

    if dpop_key:
        answer = await dpop.exchange(
            outbound, provider, request, key=dpop_key, server="authorization", heartbeat=heartbeat
        )
    else:
        answer = await outbound.send(provider, request(), heartbeat=heartbeat)
    return read_token(provider, answer, now, dpop_key)


def _build_token_request(provider: Provider, endpoint: str, form: dict[str, str]) -> httpx2.Request:
    form, headers = dict(form), dict[str, str]()
    client_auth.apply(provider, form, headers, provider.issuer or endpoint)
    renamed = {provider.parameter_names.get(name, name): value for name, value in form.items()}
    if provider.token_method == "GET":  # noqa: S105 - an HTTP method
        return build("GET", endpoint, params=renamed, headers=headers)
    if provider.token_body == "json":  # noqa: S105 - a media type
        return build("POST", endpoint, json=renamed, headers=headers)
    return build("POST", endpoint, form=renamed, headers=headers)


def can_revoke(provider: Provider) -> bool:
    """Whether there is a way to revoke a token at the provider."""
    return bool(provider.revocation_endpoint)


async def revoke(outbound: Outbound, provider: Provider, token: Token) -> bool:
    """Revoke a link's tokens (RFC 7009), the refresh token first; true when the provider agreed.

    Best effort within `REVOCATION_DEADLINE` seconds a request: it never raises.
    """
    from .oauth1 import authorize

    way = provider.revocation
    kinds = [("refresh_token", token.refresh_token), ("access_token", token.access_token)]
    if way.params or way.auth == "token":
        kinds = kinds[1:]  # one request of the provider's own shape ends the whole grant
    done = True
    for kind, value in kinds:
        if not value:
            continue
        form = {"token": value, "token_type_hint": kind}
        if way.params or way.auth == "token":
            values = {"access_token": token.access_token, "refresh_token": token.refresh_token}
            form = {name: fill(text, values) for name, text in way.params.items()}
        headers: dict[str, str] = {}
        if way.auth == "client":
            client_auth.apply(provider, form, headers, provider.issuer or provider.token_endpoint)
        elif way.auth == "basic":
            headers["Authorization"] = client_auth.basic(provider)
        body = {way.body: form} if way.method != "GET" else {"params": form}
        make = partial(build, way.method, provider.revocation_endpoint, headers=headers, **body)  # type: ignore[arg-type] # keyed by a checked Literal
        try:
            if way.auth == "token" and provider.protocol != "oauth1":
                answer = await dpop.call(outbound, provider, make, token, REVOCATION_DEADLINE)
                done = done and answer.ok
                continue
            request = make()
            if provider.protocol == "oauth1":
                authorize(provider, request, token=token.access_token, token_secret=token.token_secret)
            answer = await outbound.send(provider, request, deadline=REVOCATION_DEADLINE)
        except (GateError, TokenError):
            done = False
            continue
        done = done and answer.ok
    return done


def authorization_origin(provider: Provider) -> str:
    """The origin that a form which ends in a redirect to the provider must be allowed to reach."""
    parts = urlsplit(provider.authorization_endpoint)
    return f"{parts.scheme}://{parts.netloc}"
