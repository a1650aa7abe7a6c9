"""The OAuth 1.0a endpoints.

Owns: RFC 5849 section 2: temporary credentials (2.1, `oauth_callback` required, registered or
`oob`), the owner's authorization (2.2, denial answers `denied`), token credentials (2.3, with
`user_id` and `screen_name` as extra fields). Answers are form-encoded.
"""

from __future__ import annotations

import secrets
from urllib.parse import urlencode

from starlette.responses import Response

from . import pages
from .core import PAGE_LIFETIME, Core
from .faults import tampered
from .messages import FORM_TYPE, NO_STORE, Message, Params, Refusal
from .models import Account, Client
from .oauth2 import set_session, start_session
from .signature1 import OAuth1Problem, Signed, check
from .state import OAuth1Token, Pending, RequestToken

ATTEMPTS = 5  # wrong verifiers before a request token dies: a PIN has only seven digits


def _answer(core: Core, fields: dict[str, str]) -> Response:
    fields = tampered(core.faults.tamper_oauth1_response, fields)
    return Response(urlencode(fields), media_type=FORM_TYPE, headers=NO_STORE)


def _refused(core: Core, problem: OAuth1Problem) -> Refusal:
    body = urlencode({"oauth_problem": problem.problem, "oauth_problem_advice": problem.advice})
    headers = {**NO_STORE, "WWW-Authenticate": f'OAuth realm="{core.name}"'}
    return Refusal(Response(body, problem.status, headers, FORM_TYPE))


def request_token(core: Core, message: Message) -> Response:
    try:
        # No token exists yet, so one in the request is a mistake (section 2.1).
        signed = check(core, message, lambda client, token: "" if token is None else None)
        callback = _callback(signed)
    except OAuth1Problem as problem:
        raise _refused(core, problem) from problem
    key, secret = core.new_token(), core.new_token()
    expires_at = core.now() + PAGE_LIFETIME
    core.request_tokens.put(key, RequestToken(secret, signed.client.client_id, callback, expires_at))
    return _answer(
        core,
        {
            "oauth_token": key,
            "oauth_token_secret": secret,
            "oauth_callback_confirmed": "true",
        },
    )


def _callback(signed: Signed) -> str:
    callback = signed.params.get("oauth_callback")
    if not callback:
        raise OAuth1Problem("parameter_absent", "oauth_callback", 400)
    if callback != "oob" and callback not in signed.client.redirect_uris:
        raise OAuth1Problem("callback_rejected", "oauth_callback is not registered")
    return callback


def authorize(core: Core, message: Message) -> Response:
    """Show the sign-in page for a request token, or take the decision made on it."""
    sent = Params.of(message.form if message.method == "POST" else message.query)
    if message.method == "POST":
        return _decide(core, message, sent)
    value = sent.get("oauth_token")
    held = core.request_tokens.get(value)
    if value is None or sent.repeated or held is None or held.expires_at <= core.now():
        raise Refusal(pages.problem(core, "The request token is missing, unknown or expired."))
    if held.verifier is not None:
        raise Refusal(pages.problem(core, "This request token was answered already."))
    if core.auto_approve is not None:
        account = core.account(core.auto_approve)
        if account is None:
            raise Refusal(pages.problem(core, "The setting auto_approve names no account."))
        return _approve(core, message, value, held, account)
    key = core.new_token()
    core.pending.put(
        key,
        Pending("oauth1", held.client_id, {"oauth_token": value}, core.now() + PAGE_LIFETIME),
    )
    current = core.sessions.get(message.cookie(core.session_cookie))
    return pages.sign_in(
        core,
        request=key,
        client_id=held.client_id,
        scope=(),
        hint=core.account(sent.get("screen_name")),
        signed_in=core.account(current.account_id if current else None),
    )


def _decide(core: Core, message: Message, sent: Params) -> Response:
    pending = core.pending.get(sent.get("request"))
    value = pending.params.get("oauth_token") if pending and pending.kind == "oauth1" else None
    held = core.request_tokens.get(value)
    if (
        (pending is None or value is None or held is None)
        or min(held.expires_at, pending.expires_at) <= core.now()
        or held.verifier is not None
    ):
        raise Refusal(pages.problem(core, "This page was used already or is too old."))
    account = core.account(sent.get("account"))
    if "deny" in dict(message.form):
        core.pending.pop(sent.get("request"))
        core.request_tokens.pop(value)
        return _send_back(core, message, held.callback, {"denied": value})
    if account is None:
        raise Refusal(pages.problem(core, "There is no such account here."))
    core.pending.pop(sent.get("request"))
    return _approve(core, message, value, held, account)


def _approve(core: Core, message: Message, value: str, held: RequestToken, account: Account) -> Response:
    held.account_id = account.id
    if held.callback == "oob":
        held.verifier = f"{secrets.randbelow(10**7):07d}"
        response = pages.pin(core, held.verifier)
    else:
        held.verifier = core.new_token(24)
        fields = {"oauth_token": value, "oauth_verifier": held.verifier}
        response = _send_back(core, message, held.callback, fields)
    key, _ = start_session(core, account)
    set_session(core, message, response, key)
    return response


def _send_back(core: Core, message: Message, callback: str, fields: dict[str, str]) -> Response:
    fields = tampered(core.faults.tamper_authorization_response, fields)
    if callback == "oob":
        return pages.note(core, "Not allowed", "You can close this page.")
    return pages.redirect(callback, fields)


def access_token(core: Core, message: Message) -> Response:
    try:
        signed = check(core, message, lambda client, token: _usable(core, client, token))
        key = signed.params["oauth_token"]
        account = _verified(core, signed, key)
    except OAuth1Problem as problem:
        raise _refused(core, problem) from problem
    core.request_tokens.pop(key)
    value, secret = core.new_token(), core.new_token()
    core.oauth1_tokens.put(value, OAuth1Token(secret, signed.client.client_id, account.id))
    return _answer(
        core,
        {
            "oauth_token": value,
            "oauth_token_secret": secret,
            "user_id": account.id,
            "screen_name": account.username,
        },
    )


def _usable(core: Core, client: Client, token: str | None) -> str | None:
    held = core.request_tokens.get(token)
    if held is None or held.client_id != client.client_id or held.expires_at <= core.now():
        return None
    return held.secret


def _verified(core: Core, signed: Signed, key: str) -> Account:
    """Check the verifier: it ties the browser that said yes to the client that asks (2.3)."""
    held = core.request_tokens.get(key)
    given = signed.params.get("oauth_verifier")
    if not given:
        raise OAuth1Problem("parameter_absent", "oauth_verifier", 400)
    if held is None or held.verifier is None:
        raise OAuth1Problem("permission_unknown", "nobody has allowed this yet")
    if not secrets.compare_digest(given.encode(), held.verifier.encode()):
        held.attempts += 1
        if held.attempts >= ATTEMPTS:
            core.request_tokens.pop(key)
        raise OAuth1Problem("verifier_invalid", "oauth_verifier is wrong")
    account = core.account(held.account_id)
    if account is None:
        raise OAuth1Problem("permission_unknown", "the account is gone")
    return account
