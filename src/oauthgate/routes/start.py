"""Starting a flow: sign in, link, and the page with the button that links."""

from __future__ import annotations

import re
import time
from functools import partial

from .. import telemetry
from ..answers import json_answer, redirect
from ..asks import open_ask
from ..errors import GateError
from ..flows import LIFETIME, Flow, new_nonce, random_value
from ..messages import Response, parse_parameters, single
from ..protocols import dpop, oauth1, oauth2
from ..providers import Provider
from ..targets import safe_target
from ..visits import Visit
from .context import Context
from .popup import popup_target

#: Parameters of the authorization request that a visitor's request may set (OpenID Connect Core
#: 3.1.2.1); every other one is the configuration's.
_PROMPTS = ("none", "login", "consent", "select_account")
#: Providers that one sign-in may chain.
MAX_CHAIN = 10


async def login(context: Context, name: str) -> Response:
    """`GET,POST /{provider}/login`: send the browser to the provider."""
    context.refuse_prefetch()
    provider = context.provider(name)
    parameters = parse_parameters(context.request.query)
    if context.request.method == "POST" and context.request.header("content-type"):
        for key, values in (await context.request.form_parameters()).items():
            parameters.setdefault(key, []).extend(values)
    # A sign-in that another party begins names the issuer it wants (OpenID Connect Core section 4): this
    # route begins no other one than its provider's.
    issuer = single(parameters, "iss")
    if issuer is not None and issuer != provider.issuer:
        raise GateError("invalid_request", "iss names another issuer than this provider's")
    visit = await context.visit()
    return await begin(
        context,
        provider,
        purpose="login",
        target=popup_target(context, partial(single, parameters)) or _target(context, parameters),
        visit=visit,
        then=_chain(context, single(parameters, "then")),
        carry=_carried(provider, parameters),
        extra=_passed_on(parameters),
    )


def _target(context: Context, parameters: dict[str, list[str]]) -> str:
    """Where to return: `next`, or the `target_link_uri` of a sign-in that another party began."""
    site = context.site
    target = single(parameters, "next")
    wanted = single(parameters, "target_link_uri")
    if target is None and wanted is not None:
        base = f"{site.origin}{site.path}"
        target = wanted.removeprefix(base) if wanted.startswith(f"{base}/") else None
    return safe_target(target, site.prefix)


async def link_page(context: Context, name: str) -> Response:
    """`GET /{provider}/link`: a page with one button. It starts nothing by itself."""
    provider = context.provider(name)
    target = safe_target(context.query("next"), context.site.prefix)
    reason = context.query("reason") or "not_linked"
    ask = context.query("ask") or ""
    missing = open_ask(context.gate.keys, name, ask)
    visit = await context.visit()
    # Browsers apply form-action to every redirect that follows a form's submission, and a provider
    # may send its visitors on, so its scheme is allowed instead of its one origin.
    return context.page(
        "link",
        form_action=_form_targets(provider),
        provider_title=provider.title,
        link_url=context.site.url(f"/{name}/link"),
        login_url=context.site.url(f"/{name}/login"),
        next=target,
        cancel_url=context.site.home,
        reason=reason if reason in ("not_linked", "reauth_required", "scope") else "not_linked",
        scope=missing or provider.scope,
        ask=ask,
        anonymous=visit is None,
        csrf_token=context.gate.csrf_token(visit) if visit else "",
    )


def _form_targets(provider: Provider) -> list[str]:
    if provider.authorization_endpoint.startswith("http:") or provider.issuer.startswith("http:"):
        return ["https:", "http:"]
    return ["https:"]


async def link(context: Context, name: str) -> Response:
    """`POST /{provider}/link`: link an account to the signed-in user."""
    provider = context.provider(name)
    visit, fields = await context.changing()
    return await begin(
        context,
        provider,
        purpose="link",
        target=popup_target(context, fields.get) or safe_target(fields.get("next"), context.site.prefix),
        visit=visit,
        then=_chain(context, fields.get("then")),
        carry=_carried(provider, {key: [value] for key, value in fields.items()}),
        missing=open_ask(context.gate.keys, name, fields.get("ask")),
    )


async def begin(
    context: Context,
    provider: Provider,
    *,
    purpose: str,
    target: str,
    visit: Visit | None,
    then: list[str],
    carry: dict[str, str] | None = None,
    extra: dict[str, str] | None = None,
    missing: list[str] | None = None,
    cookies: list[str] | None = None,
) -> Response:
    """A new flow: its cookie, and the way to the provider.

    A JSON client gets the URL instead of a redirect, because following one by script would meet the
    provider's cross-origin refusal.
    """
    with telemetry.span("oauthgate.start", provider=provider.name, purpose=purpose):
        location, flow, complete = await _prepare(
            context, provider, purpose, target, visit, then, carry, extra, missing
        )
    set_cookies = context.flow_cookies.start(
        flow,
        context.cookie_headers,
        cross_site_post=complete.response_mode == "form_post",
    )
    every = [*(cookies or []), *set_cookies]
    # A GET is a browser on its way: a sign-in, or a callback that goes on to the next of a chain.
    if context.navigation or context.request.method == "GET" or cookies is not None:
        return redirect(location, every)
    return json_answer(
        200, {"authorization_url": location}, [("Set-Cookie", cookie) for cookie in every]
    )


async def _prepare(
    context: Context,
    provider: Provider,
    purpose: str,
    target: str,
    visit: Visit | None,
    then: list[str],
    carry: dict[str, str] | None,
    extra: dict[str, str] | None,
    missing: list[str] | None,
) -> tuple[str, Flow, Provider]:
    """The authorization request's URL, the flow to remember, and the provider with its endpoints."""
    gate, site = context.gate, context.site
    redirect_uri = site.redirect_uri(provider.name)
    complete = await gate.directory.complete(provider)
    scope = _scope(complete, missing or [], visit)
    state, secret, nonce = random_value(), random_value(), ""
    dpop_key = dpop.new_key() if complete.dpop else ""
    if complete.protocol == "oauth1":
        credentials = await oauth1.temporary_credentials(gate.outbound, complete, redirect_uri)
        state, secret = credentials.token, credentials.secret
        location = oauth1.authorization_url(complete, credentials, {})
    else:
        if complete.protocol == "oidc":
            nonce = new_nonce(gate.keys)
        location = oauth2.authorization_url(
            complete,
            redirect_uri=redirect_uri,
            state=state,
            code_verifier=secret,
            scope=scope,
            nonce=nonce,
            dpop_jkt=dpop.ProofKey(dpop_key).jkt if dpop_key else "",
            extra=extra,
        )
    flow = Flow(
        provider=provider.name,
        identity=complete.identity,
        state=state,
        expires_at=int(time.time()) + LIFETIME,
        purpose="link" if purpose == "link" else "login",
        redirect_uri=redirect_uri,
        secret=secret,
        nonce=nonce,
        target=target,
        user_id=visit.user.id if visit else "",
        session_id=visit.session.id if visit else "",
        scope=scope,
        then=then,
        carry=carry or {},
        dpop_key=dpop_key,
    )
    return location, flow, complete


def _scope(provider: Provider, missing: list[str], visit: Visit | None) -> list[str]:
    """What to ask for: the configured scope, or what a handler found missing.

    A provider with incremental consent keeps what was granted before; any other one forgets what is
    not asked for again, so there the whole is asked for.
    """
    wanted = list(provider.scope)
    if missing:
        held = visit.user.links_of(provider.name) if visit else []
        before = [] if provider.incremental_scope or not held else held[0].scope
        wanted = [*before, *missing]
    if provider.protocol == "oidc":
        wanted = ["openid", *wanted]
    return list(dict.fromkeys(wanted))


def _chain(context: Context, value: str | None) -> list[str]:
    """The providers of `then=a,b`: each configured, none twice."""
    names = [name for name in re.split(r"[,\s]+", value or "") if name]
    for name in names:
        context.provider(name)
    if len(names) > MAX_CHAIN or len(set(names)) != len(names):
        raise GateError("invalid_request", f"then: up to {MAX_CHAIN} different providers")
    return names


def _carried(provider: Provider, parameters: dict[str, list[str]]) -> dict[str, str]:
    """The declared carry fields of a request. Raises `GateError` for one that breaks its rule."""
    carried: dict[str, str] = {}
    for name, rule in provider.carry_fields().items():
        value = single(parameters, name)
        if value is None:
            continue
        # Without a bound on the length, matching a pattern could take a long time.
        if len(value) > rule.max_length or not value.isprintable():
            raise GateError(
                "invalid_request", f"{name} may have at most {rule.max_length} printable characters"
            )
        if rule.pattern and not re.fullmatch(rule.pattern, value):
            raise GateError("invalid_request", f"{name} is not of the expected form")
        carried[name] = value
    return carried


def _passed_on(parameters: dict[str, list[str]]) -> dict[str, str]:
    passed: dict[str, str] = {}
    prompt = single(parameters, "prompt")
    if prompt in _PROMPTS:
        passed["prompt"] = str(prompt)
    hint = single(parameters, "login_hint")
    if hint and len(hint) <= 200 and hint.isprintable():
        passed["login_hint"] = hint
    return passed
