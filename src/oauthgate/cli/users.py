"""`users`, `user`, `sessions`: who is there, what is linked, who is signed in."""

from __future__ import annotations

import time
from argparse import Namespace

from ..gate import Gate
from ..records import Link, User
from .opening import gate, load
from .output import Output, Problem, when
from .walking import Walk, session_fields


async def users(args: Namespace, out: Output) -> int:
    """List the users, as the store gives them."""
    async with gate(load(args.config, out)) as opened:
        walk, shown = Walk(opened.vault, out), 0
        async for user in walk.users():
            if args.limit is not None and shown >= args.limit:
                break
            shown += 1
            live = _live(opened, user)
            links = [f"{link.provider}:{link.account_id}{_state(link)}" for link in user.links]
            out.say(
                f"{user.id}  {when(user.created)}  {len(live)} session{'s' * (len(live) != 1)}  "
                f"{' '.join(links) or 'no links'}"
            )
            out.document(
                {
                    "user_id": user.id,
                    "created": user.created,
                    "links": [_short(link) for link in user.links],
                    "sessions": len(live),
                }
            )
        return walk.status


async def user(args: Namespace, out: Output) -> int:
    """Everything about one user but what is secret."""
    async with gate(load(args.config, out)) as opened:
        found = await _find(opened, args.user)
        live = _live(opened, found)
        out.document(
            {
                "user_id": found.id,
                "created": found.created,
                "links": [_long(link) for link in found.links],
                "sessions": live,
            }
        )
        out.say(f"user     {found.id}")
        out.say(f"created  {when(found.created)}")
        for link in found.links:
            out.say(f"link     {link.provider}:{link.account_id}{_state(link)}")
            profile = link.profile
            who = [profile.name, profile.username and f"@{profile.username}", profile.email]
            _detail(out, "label", link.label)
            _detail(out, "who", ", ".join(filter(None, who)))
            _detail(out, "linked", when(link.linked_at))
            _detail(out, "scope", " ".join(link.scope))
            _detail(out, "token", _token(link))
        for session in live:
            out.say(f"session  {_line(session)}")
        return 0


async def sessions(args: Namespace, out: Output) -> int:
    """List who is signed in: everybody, or one user."""
    async with gate(load(args.config, out)) as opened:
        if args.user:
            for session in _live(opened, await _find(opened, args.user)):
                _show(out, session)
            return 0
        walk = Walk(opened.vault, out)
        async for user in walk.users():
            for session in _live(opened, user):
                _show(out, session)
        return walk.status


async def _find(opened: Gate, user_id: str) -> User:
    found = await opened.vault.user(user_id)
    if found is None:
        raise Problem(f"there is no user {user_id}; list them with: oauthgate users")
    return found[0]


def _live(opened: Gate, user: User) -> list[dict[str, object]]:
    now = time.time()
    return [
        session_fields(user.id, session, opened.policy.expires_at(session))
        for session in user.sessions
        if opened.policy.live(session, now)
    ]


def _state(link: Link) -> str:
    return "" if link.state == "active" else f" ({link.state})"


def _short(link: Link) -> dict[str, object]:
    return {
        "provider": link.provider,
        "account_id": link.account_id,
        "label": link.label,
        "state": link.state,
    }


def _long(link: Link) -> dict[str, object]:
    token = link.token
    return {
        **_short(link),
        "default": link.default,
        "name": link.profile.name,
        "username": link.profile.username,
        "email": link.profile.email,
        "email_verified": link.profile.email_verified,
        "scope": list(link.scope),
        "linked_at": link.linked_at,
        "token_expires_at": token.expires_at,
        "refreshable": bool(token.refresh_token),
        "dpop": bool(token.dpop_key),
    }


def _token(link: Link) -> str:
    token = link.token
    until = "does not expire" if token.expires_at is None else f"until {when(token.expires_at)}"
    refresh = ", refreshed by itself" if token.refresh_token else ""
    return f"{until}{refresh}{', bound to a key (DPoP)' if token.dpop_key else ''}"


def _detail(out: Output, name: str, value: str) -> None:
    if value:
        out.say(f"           {name:<7}{value}")


def _show(out: Output, session: dict[str, object]) -> None:
    out.document(session)
    out.say(f"{session['user_id']}  {_line(session)}")


def _line(session: dict[str, object]) -> str:
    by = f"{session['provider']}:{session['account_id']}" if session["provider"] else "-"
    moments = (when(float(str(session[name]))) for name in ("created", "last_seen", "expires_at"))
    created, seen, until = moments
    return f"{session['session_id']}  by {by}  since {created}  seen {seen}  until {until}"
