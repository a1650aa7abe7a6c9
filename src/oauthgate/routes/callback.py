"""The callback: where the provider returns. The order of the steps is the defence.

Method, single-valued parameters, flow cookie, expiry, provider, issuer, binding to the session, store,
single use, token request (once), validation of everything, the writes, a new session id, 303.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from ..answers import redirect
from ..cookies import delete_cookie, find, set_cookie
from ..errors import Conflict, GateError, SealError
from ..flows import LIFETIME, Flow
from ..identities import Identified, identify
from ..messages import Parameters, Response, parse_parameters, single
from ..protocols import oauth1, oauth2
from ..providers import Provider
from ..records import UsedFlow
from ..stores import ABSENT
from ..telemetry import count, span
from ..vault import Change
from ..visits import Visit
from .context import Context
from .popup import failed_popup
from .provider_logout import remembered_sid
from .start import begin
from .used_flows import done, give_up, marker_of, second_delivery, without_flow

#: Parameters of a callback; a request that splits or repeats them is refused.
_PARAMETERS = (
    "state", "code", "error", "error_description", "error_uri", "iss", "user",
    "oauth_token", "oauth_verifier", "denied", "oauth_problem",
)  # fmt: skip


async def callback(context: Context, name: str) -> Response:
    """`GET,POST /{provider}/callback`."""
    context.refuse_prefetch()
    provider = context.provider(name)
    values = await _values(context, provider)
    if context.request.method == "POST":
        return await _posted(context, provider, values)
    answer = await _finish(context, provider, values)
    if provider.response_mode == "form_post":
        ended = delete_cookie(_answer_cookie(context), secure=context.site.secure)
        answer.headers.append(("Set-Cookie", ended))
    return answer


async def _values(context: Context, provider: Provider) -> dict[str, str]:
    """The callback's parameters, each at most once (RFC 6749 section 3.1). Raises `GateError`."""
    query = parse_parameters(context.request.query)
    parameters: Parameters = query
    posts = provider.response_mode == "form_post"
    names = [*_PARAMETERS, *filter(None, [provider.callback_profile])]
    if context.request.method == "POST":
        if not posts:
            raise GateError("method_not_allowed", "this provider's answer comes as a GET")
        if any(name in query for name in names):
            raise GateError("invalid_request", "parameters both in the address and in the body")
        parameters = await context.request.form_parameters()
    elif posts:
        return _resumed(context, query)
    return _singles(parameters, names)


def _singles(parameters: Parameters, names: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name in names:
        value = single(parameters, name)
        if value is not None:
            values[name] = value
    return values


async def _posted(context: Context, provider: Provider, values: dict[str, str]) -> Response:
    """A cross-site POST comes without the session cookie, which a link flow must see.

    So the answer is put into a sealed cookie and the browser sent to the same address by a GET, on
    which the Lax session cookie comes along; nothing of the answer stands in a URL.
    """
    flow = _flow(context, values.get("state"))
    ticket, _ = context.ticket()
    if flow is None or flow.purpose != "link" or ticket is not None:
        return await _finish(context, provider, values)
    name = _answer_cookie(context)
    sealed = context.gate.keys.seal(f"answer/{flow.state}", msgspec.msgpack.encode(values)).hex()
    if len(sealed) > 3500:
        raise GateError("provider_misbehaved", "the provider's answer is too long to be kept")
    cookie = set_cookie(name, sealed, secure=context.site.secure, max_age=60)
    location = f"{context.site.redirect_uri(provider.name)}?resume={flow.state}"
    return redirect(location, [cookie])


def _answer_cookie(context: Context) -> str:
    return f"{context.site.cookie_name}-answer"


def _resumed(context: Context, query: Parameters) -> dict[str, str]:
    state = single(query, "resume")
    sealed = find(context.cookie_headers, _answer_cookie(context))
    if not state or not sealed:
        raise GateError("method_not_allowed", "this provider's answer comes as a POST")
    try:
        raw = context.gate.keys.open(f"answer/{state}", bytes.fromhex(sealed))
    except (ValueError, SealError):
        raise GateError("flow_not_found", "the answer was not given to this browser") from None
    values = msgspec.msgpack.decode(raw, type=dict[str, str])
    return values


def _flow(context: Context, state: str | None) -> Flow | None:
    if not state or len(state) > 2048:
        return None
    return context.flow_cookies.find(state, context.cookie_headers, time.time())


async def _finish(context: Context, provider: Provider, values: dict[str, str]) -> Response:
    state = _state(provider, values)
    flow = _flow(context, state)
    if flow is None:
        if state is None:
            # Some OAuth 1.0a servers refuse without naming the request token. Nothing hangs on
            # believing them, and whoever pressed "no" is told so.
            _check_refusal(provider, values)
        return await without_flow(context, state)
    if flow.provider != provider.name or flow.identity != provider.identity:
        raise GateError("flow_not_found", "the sign-in was started with another provider")
    complete = await context.gate.directory.complete(provider)
    if complete.protocol != "oauth1":
        oauth2.check_issuer(complete, values.get("iss"))
    visit = await context.visit()
    _check_binding(flow, visit)
    marker = marker_of(flow.state)
    try:
        await context.gate.vault.put(
            marker, UsedFlow(), expect=ABSENT, expires_at=time.time() + LIFETIME
        )
    except Conflict:
        return await second_delivery(context, flow, marker)
    # From here on the flow is used up: whatever happens, its code is never sent again.
    try:
        with span("oauthgate.callback", provider=provider.name, purpose=flow.purpose):
            return await context.gate.io.shield(
                _to_its_end(context, complete, flow, values, visit, marker)
            )
    except GateError as error:
        count("oauthgate.errors", provider=provider.name, code=error.code)
        error.provider = error.provider or provider.name
        error.target = flow.target
        answer = failed_popup(context, flow, error) or context.error(error)
        return answer.with_header("Set-Cookie", _end_cookie(context, complete, flow))


def _state(provider: Provider, values: dict[str, str]) -> str | None:
    if provider.protocol == "oauth1":
        return values.get("oauth_token") or values.get("denied")
    return values.get("state")


def _check_binding(flow: Flow, visit: Visit | None) -> None:
    """A link flow ends in the session that began it, and in no other (RFC 6749 section 10.12)."""
    if flow.purpose == "link" and (
        visit is None or visit.user.id != flow.user_id or visit.session.id != flow.session_id
    ):
        raise GateError(
            "session_mismatch", "the account was being linked from a session that is not this one"
        )


async def _to_its_end(
    context: Context,
    provider: Provider,
    flow: Flow,
    values: dict[str, str],
    visit: Visit | None,
    marker: str,
) -> Response:
    try:
        return await _complete(context, provider, flow, values, visit, marker)
    except GateError:
        # A second delivery that waits for this one need not wait any longer; nor where the browser has
        # gone, which is why this is in here.
        await give_up(context, marker)
        raise


async def _complete(
    context: Context,
    provider: Provider,
    flow: Flow,
    values: dict[str, str],
    visit: Visit | None,
    marker: str,
) -> Response:
    _check_refusal(provider, values)
    found = await _redeem(context, provider, flow, values)
    gate = context.gate
    link = found.link
    if flow.carry:
        link = msgspec.structs.replace(link, extra=dict(flow.carry))
    cookies = [_end_cookie(context, provider, flow)]
    target = context.site.target(flow.target)

    def beside(user_id: str) -> list[Change]:
        ended = done(marker, user_id=user_id, account_id=link.account_id, target=target)
        if found.sid and flow.purpose == "login":
            return [remembered_sid(context, provider, found.sid, user_id), ended]
        return [ended]

    if flow.purpose == "link":
        await gate.accounts.attach(flow.user_id, flow.session_id, link, beside(flow.user_id))
        count("oauthgate.links", provider=provider.name)
        ticket = None
    else:
        old = context.ticket()[0]
        ticket, _, _ = await gate.accounts.login(link, sid=found.sid, old=old, beside=beside)
        if old is None and flow.user_id:
            # The old session's cookie did not come along (a cross-site POST): it ends all the same.
            await gate.accounts.end_sessions(flow.user_id, lambda held: held.id == flow.session_id)
        count("oauthgate.logins", provider=provider.name)
        cookies.insert(0, context.session_cookie(ticket))
    await gate.vault.tidy()
    if flow.then:
        after = visit if ticket is None else await gate.visit(ticket, bearer=False)
        if after is not None:
            return await _next_link(context, flow, after, cookies)
    return redirect(target, cookies)


def _check_refusal(provider: Provider, values: dict[str, str]) -> None:
    """An answer that says no (RFC 6749 section 4.1.2.1); a code beside it is not redeemed."""
    if provider.protocol == "oauth1":
        refused = "denied" in values or "oauth_problem" in values
        code = "access_denied"
    else:
        refused = "error" in values
        code = "access_denied" if values.get("error") == "access_denied" else "provider_error"
    if refused:
        raise GateError(
            code,
            f"{provider.title} was not allowed to sign you in"
            if code == "access_denied"
            else f"{provider.title} answered the sign-in with an error",
            provider=provider.name,
        )


async def _redeem(
    context: Context, provider: Provider, flow: Flow, values: dict[str, str]
) -> Identified:
    gate, now = context.gate, time.time()
    posted: dict[str, Any] = {}
    if provider.protocol == "oauth1":
        verifier = oauth1.required_verifier(provider, values.get("oauth_verifier"))
        answer = await oauth1.token_credentials(
            gate.outbound,
            provider,
            oauth1.TemporaryCredentials(flow.state, flow.secret),
            verifier,
            now,
        )
    else:
        code = values.get("code")
        if not code or len(code) > 8192:
            raise GateError("invalid_request", "the callback has no usable code", provider=provider.name)
        answer = await oauth2.redeem_code(
            gate.outbound,
            provider,
            code=code,
            code_verifier=flow.secret,
            redirect_uri=flow.redirect_uri,
            state=flow.state,
            now=now,
            dpop_key=flow.dpop_key,
        )
        if provider.callback_profile and provider.callback_profile in values:
            posted = {"raw": values[provider.callback_profile]}
    return await identify(
        gate.outbound, gate.directory, provider, answer, flow=flow, posted=posted, now=now
    )


async def _next_link(context: Context, flow: Flow, visit: Visit, cookies: list[str]) -> Response:
    """The next provider of a chain; when it cannot be asked, what is linked so far stays."""
    try:
        return await begin(
            context,
            context.provider(flow.then[0]),
            purpose="link",
            target=flow.target,
            visit=visit,
            then=flow.then[1:],
            cookies=cookies,
        )
    except GateError as error:
        answer = context.error(error)
        answer.headers.extend(("Set-Cookie", cookie) for cookie in cookies)
        return answer


def _end_cookie(context: Context, provider: Provider, flow: Flow) -> str:
    return context.flow_cookies.end(flow, cross_site_post=provider.response_mode == "form_post")
