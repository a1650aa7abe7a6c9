"""The OAuth 2 token, revocation and introspection endpoints.

Owns: RFC 6749 sections 4.1.3, 5 and 6, the code's single use (section 4.1.2: reuse revokes what
it gave), RFC 7636 section 4.6, refresh token rotation with reuse detection (RFC 9700 section
4.14.2), RFC 7009 and RFC 7662.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from starlette.responses import JSONResponse, Response

from .access import active
from .client_auth import authenticate, form_params, invalid_client
from .core import Core
from .dpop import key_of_token_request
from .faults import tampered
from .id_token import id_token
from .jose import b64
from .messages import NO_STORE, Message, Params, Refusal, oauth2_error
from .models import Client
from .state import AccessToken, Grant, RefreshToken

VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


def token(core: Core, message: Message) -> Response:
    params = form_params(message)
    client = authenticate(core, message, params)
    jkt = key_of_token_request(core, message)
    grant_type = params.get("grant_type")
    if grant_type == "authorization_code":
        answer = _redeem(core, message, client, params, jkt)
    elif grant_type == "refresh_token":
        answer = _refresh(core, message, client, params, jkt)
    elif grant_type is None:
        raise oauth2_error("invalid_request", "grant_type is missing")
    else:
        raise oauth2_error("unsupported_grant_type", "only authorization_code and refresh_token")
    answer = tampered(core.faults.tamper_token_response, answer)
    return JSONResponse(answer, headers=NO_STORE)


def _invalid_grant(description: str) -> Refusal:
    return oauth2_error("invalid_grant", description)


def _redeem(
    core: Core, message: Message, client: Client, params: Params, jkt: str | None
) -> dict[str, Any]:
    if not params.get("code"):
        raise oauth2_error("invalid_request", "code is missing")
    if not params.get("redirect_uri"):
        raise oauth2_error("invalid_request", "redirect_uri is missing")
    code = core.codes.get(params.get("code"))
    if code is None or code.grant.client_id != client.client_id:
        raise _invalid_grant("the code is unknown or was issued to another client")
    if code.used:
        code.grant.revoked = True
        raise _invalid_grant("the code was used before; its tokens are revoked")
    code.used = True
    if code.expires_at <= core.now() or code.grant.revoked:
        raise _invalid_grant("the code has expired")
    if code.redirect_uri != params.get("redirect_uri"):
        raise _invalid_grant("redirect_uri differs from the authorization request's")
    _check_verifier(code.code_challenge, params.get("code_verifier"))
    if code.jkt not in (None, jkt):
        raise _invalid_grant("the proof is of another key than dpop_jkt said")
    grant = code.grant
    answer = _access(core, grant, grant.scope, jkt)
    offline = core.refresh_tokens == "offline_access" and "offline_access" in grant.scope
    if core.refresh_tokens == "always" or offline:
        answer["refresh_token"] = _new_refresh(core, grant, client, jkt)
    if "openid" in grant.scope:
        access = answer["access_token"]
        answer["id_token"] = id_token(core, message, client, grant, access, first=True)
    return answer


def _check_verifier(challenge: str | None, verifier: str | None) -> None:
    if challenge is None:
        if verifier is not None:
            # RFC 9700 section 4.8.2: the challenge may have been stripped on the way.
            raise _invalid_grant("code_verifier without a code_challenge")
        return
    if verifier is None:
        raise _invalid_grant("code_verifier is missing")
    if not VERIFIER.fullmatch(verifier):
        raise _invalid_grant("code_verifier is malformed")
    if b64(hashlib.sha256(verifier.encode()).digest()) != challenge:
        raise _invalid_grant("code_verifier does not fit the code_challenge")


def _access(core: Core, grant: Grant, scope: tuple[str, ...], jkt: str | None) -> dict[str, Any]:
    value, now = core.new_token(), core.now()
    end = now + core.access_token_lifetime
    core.access_tokens.put(value, AccessToken(grant, scope, now, end, jkt=jkt))
    answer: dict[str, Any] = {
        "access_token": value,
        "token_type": "DPoP" if jkt else "Bearer",
        "expires_in": core.access_token_lifetime,
    }
    if scope:
        answer["scope"] = " ".join(scope)
    return answer


def _new_refresh(core: Core, grant: Grant, client: Client, jkt: str | None) -> str:
    value, lifetime = core.new_token(), core.refresh_token_lifetime
    expires_at = core.now() + lifetime if lifetime else None
    # RFC 9449 section 5: only a public client's; another one is known by its credentials.
    bound = jkt if client.token_endpoint_auth_method == "none" else None  # noqa: S105 (a method's name)
    core.refresh_store.put(value, RefreshToken(grant, expires_at, jkt=bound))
    return value


def _refresh(
    core: Core, message: Message, client: Client, params: Params, jkt: str | None
) -> dict[str, Any]:
    if not params.get("refresh_token"):
        raise oauth2_error("invalid_request", "refresh_token is missing")
    held, now = core.refresh_store.get(params.get("refresh_token")), core.now()
    if held is None or held.grant.client_id != client.client_id:
        raise _invalid_grant("the refresh token is unknown or was issued to another client")
    grant = held.grant
    if grant.revoked or (held.expires_at is not None and held.expires_at <= now):
        raise _invalid_grant("the refresh token is revoked or has expired")
    if held.jkt not in (None, jkt):
        raise _invalid_grant("the refresh token is bound to another key")
    if held.used_at is not None and now - held.used_at >= core.refresh_reuse_grace:
        # Two holders of one token cannot be told apart, so both lose it.
        if core.reuse_revokes_family:
            grant.revoked = True
        raise _invalid_grant("the refresh token was used before")
    asked = tuple(dict.fromkeys((params.get("scope") or "").split())) or grant.scope
    if any(name not in grant.scope for name in asked):
        raise oauth2_error("invalid_scope", "more scope than was granted")
    answer = _access(core, grant, asked, jkt)
    if core.rotate_refresh_tokens:
        if held.used_at is None:
            held.used_at = now
        answer["refresh_token"] = _new_refresh(core, grant, client, jkt)
    if "openid" in asked:
        access = answer["access_token"]
        answer["id_token"] = id_token(core, message, client, grant, access, first=False)
    return answer


def revoke(core: Core, message: Message) -> Response:
    params = form_params(message)
    client = authenticate(core, message, params)
    value = params.get("token")
    if not value:
        raise oauth2_error("invalid_request", "token is missing")
    access, refresh = core.access_tokens.get(value), core.refresh_store.get(value)
    for held in (access, refresh):
        if held is not None and held.grant.client_id != client.client_id:
            raise oauth2_error("unauthorized_client", "the token was issued to another client")
    if access is not None:
        access.revoked = True
    if refresh is not None:
        refresh.grant.revoked = True  # section 2.1: the access tokens go with it
    return Response(status_code=200, headers=NO_STORE)


def introspect(core: Core, message: Message) -> Response:
    params = form_params(message)
    client = authenticate(core, message, params)
    if client.token_endpoint_auth_method == "none":  # noqa: S105 (a method's name)
        raise invalid_client(core, "a public client may not introspect")
    value = params.get("token")
    if not value:
        raise oauth2_error("invalid_request", "token is missing")
    answer: dict[str, Any] = {"active": False}
    access, refresh = active(core, value), core.refresh_store.get(value)
    if access is not None and (core.introspect_any or access.grant.client_id == client.client_id):
        answer = _described(core, message, access.grant, access.scope)
        answer |= {"token_type": "DPoP" if access.jkt else "Bearer", "iat": int(access.issued_at)}
        answer["exp"] = int(access.expires_at)
        if access.jkt:
            answer["cnf"] = {"jkt": access.jkt}
    elif refresh is not None and refresh.grant.client_id == client.client_id:
        expired = refresh.expires_at is not None and refresh.expires_at <= core.now()
        if not (refresh.grant.revoked or expired or refresh.used_at is not None):
            answer = _described(core, message, refresh.grant, refresh.grant.scope)
    return JSONResponse(tampered(core.faults.tamper_token_info, answer), headers=NO_STORE)


def _described(core: Core, message: Message, grant: Grant, scope: tuple[str, ...]) -> dict[str, Any]:
    account = core.accounts[grant.account_id]
    return {
        "active": True,
        "client_id": grant.client_id,
        "sub": grant.account_id,
        "username": account.username,
        "scope": " ".join(scope),
        "iss": core.base(message),
    }
