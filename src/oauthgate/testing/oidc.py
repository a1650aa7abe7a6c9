"""The OpenID Connect side: discovery, keys, userinfo, logout.

Owns: RFC 8414 and OpenID Connect Discovery metadata, the JWK Set, the userinfo endpoint
(OpenID Connect Core section 5.3) and RP-Initiated Logout 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response

from . import access, dpop, jose, pages
from .core import PAGE_LIFETIME, Core
from .faults import tampered
from .id_token import claims_for, hint_claims, sign
from .messages import NO_STORE, Message, Params, Refusal
from .models import AUTH_METHODS
from .state import Pending


def discovery(core: Core, message: Message) -> Response:
    base = core.base(message)
    document = {
        "issuer": base,
        "authorization_endpoint": f"{base}/oauth2/authorize",
        "token_endpoint": f"{base}/oauth2/token",
        "userinfo_endpoint": f"{base}/oauth2/userinfo",
        "jwks_uri": f"{base}/jwks",
        "revocation_endpoint": f"{base}/oauth2/revoke",
        "introspection_endpoint": f"{base}/oauth2/introspect",
        "end_session_endpoint": f"{base}/oauth2/logout",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": core.id_token_algorithms(),
        "token_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "token_endpoint_auth_signing_alg_values_supported": list(jose.ASYMMETRIC),
        "revocation_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "introspection_endpoint_auth_methods_supported": [m for m in AUTH_METHODS if m != "none"],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": list(core.scopes_supported),
        "claims_supported": [
            *("sub", "iss", "aud", "exp", "iat", "auth_time", "nonce", "sid"),
            *("name", "preferred_username", "picture", "email", "email_verified"),
        ],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "authorization_response_iss_parameter_supported": core.iss_parameter,
        "claims_parameter_supported": False,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }
    if core.dpop:
        document["dpop_signing_alg_values_supported"] = list(dpop.ALGORITHMS)
    return JSONResponse(tampered(core.faults.tamper_discovery, document))


def jwks(core: Core, message: Message) -> Response:
    published = core.keys.published(core.id_token_algorithms())
    if core.faults.omit_kid:
        for key in published["keys"]:
            del key["kid"]
    return JSONResponse(tampered(core.faults.tamper_jwks, published))


def userinfo(core: Core, message: Message) -> Response:
    held = access.bearer(core, message, "openid")
    account = core.accounts[held.grant.account_id]
    claims = tampered(core.faults.tamper_userinfo, claims_for(core, message, account, held.scope))
    client = core.clients[held.grant.client_id]
    alg = client.userinfo_signed_response_alg
    if alg is None:
        return JSONResponse(claims, headers=NO_STORE)
    about = {"iss": core.base(message), "aud": client.client_id}
    signed = sign(core, {**claims, **about}, client, alg=alg)
    return Response(signed, media_type="application/jwt", headers=NO_STORE)


def logout(core: Core, message: Message) -> Response:
    """End the browser's session here, asking first unless a valid hint names its account."""
    sent = Params.of(message.form if message.method == "POST" else message.query)
    cookie = message.cookie(core.session_cookie)
    session = core.sessions.get(cookie)
    if message.method == "POST" and (sent.get("confirm") or "deny" in dict(message.form)):
        pending = core.pending.pop(sent.get("request"))
        if pending is None or pending.kind != "logout" or pending.expires_at <= core.now():
            raise Refusal(pages.problem(core, "This page was used already or is too old."))
        if "deny" in dict(message.form):
            return pages.note(core, "Still signed in", "You did not sign out.")
        return _signed_out(core, message, cookie, pending.params)
    values = _logout_values(core, message, sent)
    asked_for = values.pop("sub", None)
    if session is None or asked_for == session.account_id:
        return _signed_out(core, message, cookie, values)
    key = core.new_token()
    core.pending.put(key, Pending("logout", None, values, core.now() + PAGE_LIFETIME))
    return pages.confirm_logout(core, key, core.account(session.account_id))


def _logout_values(core: Core, message: Message, sent: Params) -> dict[str, str]:
    if sent.repeated:
        raise Refusal(pages.problem(core, "A parameter came more than once."))
    values: dict[str, str] = {}
    hint, client_id = sent.get("id_token_hint"), sent.get("client_id")
    if hint is not None:
        claims = hint_claims(core, message, hint)
        if not claims:
            raise Refusal(pages.problem(core, "The id_token_hint was not issued here."))
        if client_id not in (None, claims["aud"]):
            raise Refusal(pages.problem(core, "The client_id differs from the id_token_hint's."))
        client_id, values["sub"] = str(claims["aud"]), str(claims["sub"])
    target = sent.get("post_logout_redirect_uri")
    if target is not None:
        client = core.clients.get(client_id or "")
        if client is None or target not in client.post_logout_redirect_uris:
            text = "The post_logout_redirect_uri is not one the client registered."
            raise Refusal(pages.problem(core, text))
        values["target"] = target
        if sent.get("state"):
            values["state"] = sent.values["state"]
    return values


def _signed_out(core: Core, message: Message, cookie: str | None, values: Mapping[str, str]) -> Response:
    core.sessions.pop(cookie)
    response = pages.note(core, "Signed out", f"You are signed out of {core.title}.")
    if "target" in values:
        state = {"state": values["state"]} if "state" in values else {}
        response = pages.redirect(values["target"], state)
    response.delete_cookie(core.session_cookie, path=message.root_path or "/")
    return response
