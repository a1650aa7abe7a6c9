"""`revoke` and `purge`: ending sessions and links, and freeing what expired."""

from __future__ import annotations

import time
from argparse import Namespace

from ..gate import Gate
from ..records import User
from ..revoking import revoke as revoke_token
from .opening import gate, load
from .output import Output, Problem
from .progress import Progress
from .walking import Walk


async def revoke(args: Namespace, out: Output) -> int:
    """End a session, all of a user's sessions, or every link of a provider."""
    async with gate(load(args.config, out), hooks=True, writes=True) as opened:
        if args.session:
            return await _session(opened, args.session, out)
        if args.user:
            return await _user(opened, args.user, out)
        return await _provider(opened, args.provider, out)


async def _session(opened: Gate, session_id: str, out: Output) -> int:
    walk, ended = Walk(opened.vault, out), 0
    async for user in walk.users():
        if any(held.id == session_id for held in user.sessions):
            ended += await opened.accounts.end_sessions(user.id, lambda held: held.id == session_id)
    if not ended:
        raise Problem(f"there is no session {session_id}; list them with: oauthgate sessions")
    out.document({"sessions_ended": ended})
    out.say(f"ended session {session_id}")
    return walk.status


async def _user(opened: Gate, user_id: str, out: Output) -> int:
    if await opened.vault.user(user_id) is None:
        raise Problem(f"there is no user {user_id}; list them with: oauthgate users")
    ended = await opened.accounts.end_sessions(user_id, lambda held: True)
    out.document({"sessions_ended": ended})
    out.say(f"signed the user {user_id} out everywhere: {ended} session{'s' * (ended != 1)} ended")
    return 0


async def _provider(opened: Gate, name: str, out: Output) -> int:
    """Remove a provider's links from all users; the provider may be out of the configuration already."""
    provider = opened.config.providers.get(name)
    if provider is None:
        out.note(f"[providers.{name}] is not configured, so no token can be revoked at the provider")
    walk = Walk(opened.vault, out)
    removed = ended = 0
    answers = {True: 0, False: 0, None: 0}
    with Progress(f"unlinking {name}") as progress:
        async for user in walk.users():
            for account_id in _accounts(user, name):
                # Deleted first: a provider that is slow or down must not keep a link alive here.
                link = await opened.accounts.detach(user.id, name, account_id)
                if link is None:
                    continue
                removed += 1
                progress(removed)
                answer = (
                    None
                    if provider is None
                    else await revoke_token(opened.outbound, opened.directory, provider, link)
                )
                answers[answer] += 1
            if any(held.provider == name for held in user.sessions):
                ended += await opened.accounts.end_sessions(user.id, lambda held: held.provider == name)
    out.document(
        {
            "links_removed": removed,
            "sessions_ended": ended,
            "tokens_revoked": answers[True],
            "revocation_failed": answers[False],
            "revocation_not_offered": answers[None],
        }
    )
    out.say(f"removed {removed} link{'s' * (removed != 1)} of {name}")
    out.say(f"ended {ended} session{'s' * (ended != 1)} that signed in with it")
    out.say(
        f"tokens at the provider: {answers[True]} revoked, {answers[False]} could not be revoked, "
        f"{answers[None]} without a way to revoke"
    )
    if answers[False]:
        out.note(
            f"{answers[False]} tokens may still be good at {name}: they are gone from here, so revoke "
            "them in the provider's own console"
        )
    return 1 if answers[False] else walk.status


def _accounts(user: User, name: str) -> list[str]:
    return [link.account_id for link in user.links if link.provider == name]


async def purge(args: Namespace, out: Output) -> int:
    """Drop expired records."""
    async with gate(load(args.config, out), writes=True) as opened:
        await opened.store.open()
        dropped = await opened.store.purge(time.time())
        out.document({"dropped": dropped})
        out.say(f"dropped {dropped} expired record{'s' * (dropped != 1)}")
        return 0
