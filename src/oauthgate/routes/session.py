"""The session itself: what it is, a new token for it, its end; and what a front end may know."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from .. import sessions
from ..answers import json_answer, redirect
from ..errors import GateError
from ..guard import check_origin
from ..messages import Response
from ..protocols import oidc
from ..records import Link, Profile, Session, User
from ..sessions import Ticket
from ..visits import Visit
from .context import Context
from .end_session import covered


async def show(context: Context) -> Response:
    """`GET /session`: who is signed in and what is linked, without a token."""
    visit = await context.visit()
    if visit is None:
        error = GateError("login_required", "nobody is signed in")
        return json_answer(
            401,
            {"error": error.code, "error_description": error.description, "csrf_token": None},
        )
    policy = context.gate.policy
    return json_answer(
        200,
        {
            "user_id": visit.user.id,
            "expires_at": policy.expires_at(visit.session),
            "csrf_token": context.gate.csrf_token(visit),
            "links": [link_shape(link) for link in visit.user.links],
        },
    )


def link_shape(link: Link) -> dict[str, Any]:
    """A link in JSON: everything but its token."""
    return {
        "provider": link.provider,
        "account_id": link.account_id,
        "label": link.label,
        "profile": profile_shape(link.profile),
        "scope": list(link.scope),
        "state": link.state,
    }


def profile_shape(profile: Profile) -> dict[str, Any]:
    """A profile in JSON, with every field."""
    return {name: getattr(profile, name) for name in profile.__struct_fields__}


async def refresh(context: Context) -> Response:
    """`POST /session/refresh`: an API client swaps its session token for a new one."""
    visit, _ = await context.changing()
    if not visit.bearer:
        raise GateError(
            "invalid_request", "browsers keep their session cookie: this route is for API clients"
        )
    gate, now = context.gate, time.time()
    old = visit.session
    ticket, session = sessions.issue(
        gate.keys,
        visit.user.id,
        now=now,
        provider=old.provider,
        account_id=old.account_id,
        sid=old.sid,
    )
    # The absolute timeout counts from the sign-in, whatever is refreshed since.
    session = msgspec.structs.replace(session, created=old.created)

    def change(user: User) -> User | None:
        if not any(held.id == old.id for held in user.sessions):
            return None
        return sessions.with_session(sessions.without_session(user, old.id), session, gate.policy, now)

    if await gate.accounts.update(visit.user.id, change) is None:
        raise GateError("login_required", "this session has ended; sign in again")
    return json_answer(200, token_shape(context, visit.user.id, ticket, session, now))


def token_shape(
    context: Context, user_id: str, ticket: Ticket, session: Session, now: float
) -> dict[str, Any]:
    """A new session token in JSON, in the words of a token answer (RFC 6749 section 5.1)."""
    token, expires_in = context.gate.api_tokens.issue(ticket, session, now)
    return {
        "session_token": token,
        "token_type": "Bearer",
        "expires_in": expires_in,
        "user_id": user_id,
    }


async def jwks(context: Context) -> Response:
    """`GET /jwks.json`: the public keys of our own JWTs, for other services that check them."""
    keys = context.gate.api_tokens.jwks()
    if keys is None:
        raise GateError("not_found", "no session token here is signed with a key that has a public half")
    return json_answer(200, keys)


async def logout(context: Context) -> Response:
    """`POST /logout`: end this session, another one (`session=ID`), or all (`everywhere=1`)."""
    ticket, bearer = context.ticket()
    if ticket is None or await context.visit() is None:
        if bearer:
            raise GateError("login_required", "this session has ended already")
        return await _already_out(context, ticket)
    visit, fields = await context.changing()
    chosen = fields.get("session")
    if chosen and chosen != visit.session.id:
        count = await context.gate.accounts.end_sessions(visit.user.id, lambda held: held.id == chosen)
        if not count:
            raise GateError("not_found", "there is no such session of yours")
        if context.navigation:
            return redirect(f"{context.site.url('/')}?message=session_revoked")
        return json_answer(200, {"ended": count})
    everywhere = fields.get("everywhere", "") not in ("", "0")
    await context.gate.accounts.end_session(ticket, everywhere=everywhere)
    at_provider = (
        None if fields.get("provider_logout") == "0" else await _provider_logout(context, visit)
    )
    cookies = [] if bearer else [context.end_session_cookie()]
    if context.navigation:
        if at_provider is not None:
            return redirect(at_provider, cookies)
        answer = context.page(
            "message",
            key="signed_out_everywhere" if everywhere else "signed_out",
        )
        answer.headers.extend(("Set-Cookie", cookie) for cookie in cookies)
        return answer
    end_session_url = None
    if at_provider is not None:
        # The address may hold the ID token, which is not for a script to see.
        end_session_url, more = covered(context, at_provider, by_cookie=not bearer)
        cookies += more
    return json_answer(
        200,
        {"logged_out": True, "end_session_url": end_session_url},
        [("Set-Cookie", cookie) for cookie in cookies],
    )


async def _already_out(context: Context, ticket: Ticket | None) -> Response:
    """Signing out twice is no error; a cookie that means nothing any more may go."""
    check_origin(context.request, context.site, context.gate.config)
    if ticket is not None:
        # A session that `[access]` does not admit at present is there, and ends all the same.
        await context.gate.accounts.end_session(ticket)
    cookie = ("Set-Cookie", context.end_session_cookie())
    if context.navigation:
        page = context.page("message", key="signed_out")
        return page.with_header(*cookie)
    return json_answer(200, {"logged_out": True, "end_session_url": None}, [cookie])


async def _provider_logout(context: Context, visit: Visit) -> str | None:
    """Where the browser ends its session at the provider it signed in with, if there is such a place."""
    provider = context.gate.config.providers.get(visit.session.provider)
    link = visit.user.link(visit.session.provider, visit.session.account_id)
    if provider is None or provider.protocol != "oidc" or link is None:
        return None
    try:
        complete = await context.gate.directory.complete(provider)
    except GateError:
        return None  # the session here has ended, which is what was asked for first
    return oidc.end_session_url(
        complete,
        id_token=link.token.id_token,
        post_logout_redirect_uri=context.site.home,
        state="",
    )


async def providers(context: Context) -> Response:
    """`GET /providers`: what a front end needs to draw its buttons."""
    return json_answer(
        200,
        {
            "providers": [
                {
                    "name": name,
                    "title": provider.title,
                    "login_url": context.site.url(f"/{name}/login"),
                    "link_url": context.site.url(f"/{name}/link"),
                }
                for name, provider in context.gate.config.providers.items()
            ],
            "session_url": context.site.url("/session"),
            "logout_url": context.site.url("/logout"),
        },
    )
