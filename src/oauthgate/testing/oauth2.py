"""The OAuth 2 authorization endpoint.

Owns: RFC 6749 section 4.1.1 and 4.1.2 with PKCE S256 (RFC 7636), `iss` in the answer (RFC 9207),
the form_post response mode, and OpenID Connect's `prompt`, `max_age`, `login_hint` and
`id_token_hint` (Core section 3.1.2.1). Only an exactly registered `redirect_uri` ever gets an
answer; everything before it is checked ends on a page (section 4.1.2.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.responses import Response

from . import pages
from .core import PAGE_LIFETIME, Core
from .faults import tampered
from .id_token import hint_claims
from .messages import Message, Params, Refusal
from .models import Account, Client
from .state import Code, Grant, Pending, Session

CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
PROMPTS = ("none", "login", "consent", "select_account")
RESPONSE_MODES = ("query", "form_post")


class _Denied(Exception):
    """An error that is told to the client by redirect."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(error)
        self.error, self.description = error, description


def authorize(core: Core, message: Message) -> Response:
    """Show the sign-in page, or take the decision made on it."""
    sent = Params.of(message.form if message.method == "POST" else message.query)
    if message.method == "POST" and (sent.get("account") or "deny" in dict(message.form)):
        return _decide(core, message, sent)
    client, redirect_uri = _redirection(core, sent)
    values = {**sent.values, "redirect_uri": redirect_uri}
    try:
        scope = _check(core, sent, client)
        account, session = _without_page(core, message, values, client, scope)
    except _Denied as denied:
        return _send_error(core, message, values, denied)
    if account is not None:
        return _grant(core, message, values, account, session)
    key = core.new_token()
    core.pending.put(key, Pending("oauth2", client.client_id, values, core.now() + PAGE_LIFETIME))
    current = core.sessions.get(message.cookie(core.session_cookie))
    return pages.sign_in(
        core,
        request=key,
        client_id=client.client_id,
        scope=scope,
        hint=core.account(values.get("login_hint")),
        signed_in=core.account(current.account_id if current else None),
    )


def _redirection(core: Core, sent: Params) -> tuple[Client, str]:
    """Find the client and the address to answer to; without both nothing may be redirected."""
    client = core.clients.get(sent.get("client_id") or "")
    if client is None or "client_id" in sent.repeated:
        raise Refusal(pages.problem(core, "The application is not registered here (client_id)."))
    redirect_uri = sent.get("redirect_uri")
    if redirect_uri is None or "redirect_uri" in sent.repeated:
        raise Refusal(pages.problem(core, "The parameter redirect_uri is missing or repeated."))
    if redirect_uri not in client.redirect_uris:
        raise Refusal(pages.problem(core, "The redirect_uri is not one the client registered."))
    return client, redirect_uri


def _check(core: Core, sent: Params, client: Client) -> tuple[str, ...]:
    if sent.repeated:
        raise _Denied("invalid_request", "a parameter came more than once")
    if sent.get("request"):
        raise _Denied("request_not_supported", "no request objects here")
    if sent.get("request_uri"):
        raise _Denied("request_uri_not_supported", "no request objects here")
    if not sent.get("response_type"):
        raise _Denied("invalid_request", "response_type is missing")
    if sent.get("response_type") != "code":
        raise _Denied("unsupported_response_type", "only the response type code")
    if sent.get("response_mode") not in (None, *RESPONSE_MODES):
        raise _Denied("invalid_request", "response_mode is neither query nor form_post")
    challenge = sent.get("code_challenge")
    if challenge is None and (core.pkce_required or sent.get("code_challenge_method")):
        raise _Denied("invalid_request", "code_challenge is missing")
    if challenge is not None:
        # A missing method means plain (RFC 7636 section 4.3), which protects nothing.
        if sent.get("code_challenge_method") != "S256":
            raise _Denied("invalid_request", "code_challenge_method is not S256")
        if not CHALLENGE.fullmatch(challenge):
            raise _Denied("invalid_request", "code_challenge is not an S256 challenge")
    jkt = sent.get("dpop_jkt")
    if core.dpop and jkt is not None and not CHALLENGE.fullmatch(jkt):
        raise _Denied("invalid_request", "dpop_jkt is not a SHA-256 thumbprint")
    prompts = (sent.get("prompt") or "").split()
    if any(prompt not in PROMPTS for prompt in prompts):
        raise _Denied("invalid_request", "unknown prompt")
    if "none" in prompts and len(prompts) > 1:
        raise _Denied("invalid_request", "prompt none does not go with another one")
    max_age = sent.get("max_age")
    if max_age is not None and not (max_age.isascii() and max_age.isdigit()):
        raise _Denied("invalid_request", "max_age is not a number of seconds")
    scope = tuple(dict.fromkeys((sent.get("scope") or "").split())) or core.default_scope
    allowed = core.scopes_supported if client.scope is None else client.scope
    if any(name not in allowed or name not in core.scopes_supported for name in scope):
        raise _Denied("invalid_scope", "a scope is unknown or not open to this client")
    return scope


def _without_page(
    core: Core, message: Message, values: Mapping[str, str], client: Client, scope: tuple[str, ...]
) -> tuple[Account | None, Session | None]:
    """Return who is to be answered for at once, if the request needs no page."""
    if core.auto_approve is not None:
        account = core.account(core.auto_approve)
        if account is None:
            raise _Denied("server_error", "auto_approve names no account")
        return account, None
    prompts = (values.get("prompt") or "").split()
    session = core.sessions.get(message.cookie(core.session_cookie))
    hint = values.get("id_token_hint")
    hinted = hint_claims(core, message, hint).get("sub") if hint else None
    fresh = session is not None and not (
        "max_age" in values and core.now() - session.auth_time >= int(values["max_age"])
    )
    fits = session is not None and (not hint or hinted == session.account_id)
    known = session.account_id if session else ""
    consented = set(scope) <= core.consents.get((client.client_id, known), set())
    consented = consented and (client.client_id, known) in core.consents
    if "none" in prompts:
        if not (fresh and fits):
            raise _Denied("login_required", "nobody suitable is signed in")
        if not consented:
            raise _Denied("consent_required", "the account has not allowed this yet")
        return core.account(known), session
    if core.remember_consent and not prompts and fresh and fits and consented:
        return core.account(known), session
    return None, None


def _decide(core: Core, message: Message, sent: Params) -> Response:
    pending = core.pending.get(sent.get("request"))
    if pending is None or pending.kind != "oauth2" or pending.expires_at <= core.now():
        raise Refusal(pages.problem(core, "This page was used already or is too old."))
    account = core.account(sent.get("account"))
    if "deny" not in dict(message.form) and account is None:
        raise Refusal(pages.problem(core, "There is no such account here."))
    core.pending.pop(sent.get("request"))
    if "deny" in dict(message.form) or account is None:
        denied = _Denied("access_denied", "the account's owner said no")
        return _send_error(core, message, pending.params, denied)
    return _grant(core, message, pending.params, account, None)


def _grant(
    core: Core,
    message: Message,
    values: Mapping[str, str],
    account: Account,
    session: Session | None,
) -> Response:
    client_id, now = values["client_id"], core.now()
    key = None
    if session is None:
        key, session = start_session(core, account)
    asked = tuple((values.get("scope") or "").split()) or core.default_scope
    scope = tuple(s for s in dict.fromkeys(asked) if s not in core.withheld_scope)
    core.consents.setdefault((client_id, account.id), set()).update(scope)
    grant = Grant(client_id, account.id, scope, session.auth_time, session.sid, values.get("nonce"))
    code = core.new_token()
    core.codes.put(
        code,
        Code(
            grant,
            values["redirect_uri"],
            values.get("code_challenge"),
            now + core.code_lifetime,
            jkt=values.get("dpop_jkt") if core.dpop else None,
        ),
    )
    response = _send(core, message, values, {"code": code})
    if key is not None:
        set_session(core, message, response, key)
    return response


def start_session(core: Core, account: Account) -> tuple[str, Session]:
    """Sign the account in at the provider; return the cookie's value and the session."""
    key = core.new_token()
    session = Session(core.new_token(16), account.id, int(core.now()))
    core.sessions.put(key, session)
    return key, session


def set_session(core: Core, message: Message, response: Response, key: str) -> None:
    response.set_cookie(
        core.session_cookie,
        key,
        path=message.root_path or "/",
        httponly=True,
        samesite="lax",
        secure=message.scheme == "https",
    )


def _send_error(core: Core, message: Message, values: Mapping[str, str], denied: _Denied) -> Response:
    answer = {"error": denied.error, "error_description": denied.description}
    return _send(core, message, values, answer)


def _send(core: Core, message: Message, values: Mapping[str, str], answer: dict[str, str]) -> Response:
    if "state" in values:
        answer["state"] = values["state"]
    if core.iss_parameter:
        answer["iss"] = core.base(message)
    fields = tampered(core.faults.tamper_authorization_response, answer)
    redirect_uri = values["redirect_uri"]
    if values.get("response_mode") == "form_post":
        return pages.form_post(core, redirect_uri, fields)
    return pages.redirect(redirect_uri, fields)
