"""What the tests of the hand-over share: a front end that signs people in, and the site's records."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from base64 import urlsafe_b64encode
from contextlib import closing
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2

from oauthgate.testing import LocalProvider, sign_in
from tests.support import SiteUnderTest

#: Where the front end's own flows return: not an address of the site's.
APP = "com.example.app:/signed-in"
#: Records that a refused hand-over may leave: a single-use marker, and the check of the keys.
_PASSING = ("flow-used/", "meta/")


class FrontEnd:
    """An application with a client of its own at the provider, or with the site's."""

    def __init__(self, provider: LocalProvider, url: str, client_id: str, secret: str) -> None:
        self.provider, self.url, self.client_id, self.secret = provider, url, client_id, secret

    def code(
        self, account: str = "ada", scope: str = "openid profile email", **more: str
    ) -> dict[str, str]:
        """Sign somebody in up to the code: the members of the third form."""
        verifier = secrets.token_urlsafe(32)
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": APP,
            "scope": scope,
            "state": "state",
            "code_challenge": urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            **more,
        }
        with httpx2.Client(trust_env=False) as person:
            back = sign_in(person, f"{self.url}/oauth2/authorize?{urlencode(query)}", account)
        code = parse_qs(urlsplit(back).query)["code"][0]
        return {"code": code, "code_verifier": verifier, "redirect_uri": APP}

    def tokens(self, account: str = "ada", **more: str) -> dict[str, Any]:
        """Sign somebody in to the end: the provider's token answer."""
        form = {"grant_type": "authorization_code", **self.code(account, **more)}
        with httpx2.Client(trust_env=False, auth=(self.client_id, self.secret)) as client:
            answer = client.post(f"{self.url}/oauth2/token", data=form)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def access_token(self, account: str = "ada", **more: str) -> dict[str, str]:
        """The first form."""
        return {"access_token": self.tokens(account, **more)["access_token"]}

    def id_token(self, account: str = "ada", nonce: str = "") -> dict[str, str]:
        """The second form, with a nonce of its own."""
        nonce = nonce or secrets.token_urlsafe(16)
        return {"id_token": self.tokens(account, nonce=nonce)["id_token"], "nonce": nonce}


def records(site: SiteUnderTest) -> dict[str, tuple[int, bytes]]:
    """What the site keeps, but for what passes: each record with its version."""
    path = site.config["oauthgate"]["store"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
            return {}
        rows = connection.execute("SELECT key, version, value FROM oauthgate").fetchall()
    return {key: (version, value) for key, version, value in rows if not key.startswith(_PASSING)}


def hand_over(
    site: SiteUnderTest, body: object, provider: str = "corp", **headers: str
) -> httpx2.Response:
    """Post a body to the provider's route as a native application does: no header of a browser's."""
    return site.browser().post(f"/_oauth/{provider}/token", json=body, headers=headers)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def who(site: SiteUnderTest, token: str) -> str | None:
    """Whom the application sees behind a session token."""
    found: str | None = site.browser().get("/who", headers=bearer(token)).json()["user_id"]
    return found
