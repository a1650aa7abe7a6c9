"""A stand-in for Amazon Cognito: moto's user pool with the hosted pages that moto does not have.

The pool, its app client and its key set are moto's. The hosted pages are the local provider's, which
signs here with the key that moto publishes, as Cognito's two halves share one; its `/logout` takes
`client_id` and `logout_uri`, which is Cognito's own way and not RP-Initiated Logout
(https://docs.aws.amazon.com/cognito/latest/developerguide/logout-endpoint.html).
"""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from typing import Any

from joserfc.jwk import RSAKey
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from oauthgate.testing import Client, LocalProvider

_PRIVATE_KEY = files("moto.cognitoidp").joinpath("resources/jwks-private.json.gz")


class Cognito(LocalProvider):
    """The hosted pages of a pool, for one app client with one sign-out URL."""

    def __init__(self, client_id: str, client_secret: str, base: str) -> None:
        super().__init__(
            name="cognito",
            clients=[
                Client(
                    client_id=client_id,
                    client_secret=client_secret,
                    redirect_uris=[f"{base}/_oauth/cognito/callback"],
                )
            ],
            rotate_refresh_tokens=False,  # Cognito's default: no new one comes
            iss_parameter=False,
        )
        self.sign_out = {client_id: f"{base}/"}
        # The private half of what moto publishes for every pool.
        key = RSAKey.import_key(json.loads(gzip.decompress(_PRIVATE_KEY.read_bytes())))
        self.keys._by_alg["RS256"] = [key]
        # As Cognito's userInfo has them: a username of its own name, booleans as text.
        self.faults.tamper_userinfo = lambda claims: {
            **claims,
            "username": claims["preferred_username"],
            "email_verified": str(claims["email_verified"]).lower(),
        }
        self.app.router.routes.append(Route("/logout", self._logout))

    async def _logout(self, request: Request) -> Response:
        sent = request.query_params
        with self.lock:
            self.count["logout"] += 1
            target = self.sign_out.get(sent.get("client_id", ""))
            if target is None or sent.get("logout_uri") != target or len(sent) != 2:
                return PlainTextResponse("Required parameters missing or not registered", 400)
            self.sessions.pop(request.cookies.get(self.session_cookie))
        return RedirectResponse(target, 302)


def user_pool(client: Any) -> tuple[str, str, str]:
    """A pool with an app client at moto's Cognito: its id, the client's id and secret."""
    pool = client.create_user_pool(PoolName="tarot")["UserPool"]["Id"]
    made = client.create_user_pool_client(UserPoolId=pool, ClientName="tarot", GenerateSecret=True)
    app = made["UserPoolClient"]
    return pool, app["ClientId"], app["ClientSecret"]
