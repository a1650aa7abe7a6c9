"""Flows that were used: the same callback again, by a double click, a reload or the back button.

A flow's code is sent once, whatever comes. What comes again is answered by the marker of the first
delivery, so that two at once both end well and a later one does no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import time

from ..answers import redirect
from ..errors import GateError
from ..flows import LIFETIME, Flow
from ..messages import Response
from ..records import UsedFlow
from ..seal import spelt
from ..vault import Change
from .context import Context

#: Seconds that a second delivery of a callback waits for the first one.
WAIT = 20.0


def marker_of(state: str) -> str:
    """The key of a flow's marker. Its hash is of no secret's making: a state is random, and processes
    that have the secrets in another order must not send one code twice."""
    return "flow-used/" + spelt(hashlib.sha256(state.encode("utf-8", "surrogatepass")).digest())


def done(marker: str, *, user_id: str = "", account_id: str = "", target: str = "") -> Change:
    """The marker's record once the flow has come to its end, written together with what it came to."""
    record = UsedFlow(done=True, user_id=user_id, account_id=account_id, target=target)
    return Change(marker, record, expires_at=time.time() + LIFETIME)


async def give_up(context: Context, marker: str) -> None:
    """Tell a second delivery that the first one came to nothing."""
    with contextlib.suppress(GateError):
        await context.gate.vault.put_all([done(marker)])


async def second_delivery(context: Context, flow: Flow, marker: str) -> Response:
    """The same callback again. While the first is running, both end alike; afterwards it is a replay.

    Of two deliveries at once (a double click) the browser may drop the answer that came first, so the
    second one must bring a session too.
    """
    until = time.monotonic() + WAIT
    waited = False
    while time.monotonic() < until:
        found = await context.gate.vault.get(UsedFlow, marker)
        if found is None:
            break
        if not found[0].done:
            waited = True
            await context.gate.io.sleep(0.05)
            continue
        used = found[0]
        if not waited or not used.user_id or flow.purpose != "login":
            return await _replay(context, used)
        ticket = await context.gate.accounts.another_session(
            used.user_id, flow.provider, used.account_id
        )
        if ticket is None:
            return await _replay(context, used)
        return redirect(used.target, [context.session_cookie(ticket)])
    raise GateError("flow_used", "this sign-in was finished or given up already; start again")


async def without_flow(context: Context, state: str | None) -> Response:
    """No flow of this browser: a reload or the back button after success, or something made up."""
    ticket, _ = context.ticket()
    if state and len(state) <= 2048 and ticket is not None:
        found = await context.gate.vault.get(UsedFlow, marker_of(state))
        if found is not None and found[0].done:
            return await _replay(context, found[0])
    raise GateError(
        "flow_not_found",
        "this sign-in was not started in this browser, is finished, or its cookie was blocked",
    )


async def _replay(context: Context, used: UsedFlow) -> Response:
    visit = await context.visit()
    if visit is not None and visit.user.id == used.user_id:
        return redirect(used.target or context.site.home)
    raise GateError("flow_used", "this sign-in was finished already; start again")
