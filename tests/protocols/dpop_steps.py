"""What the DPoP tests share: a site whose providers have `dpop = true`, and a reader of proofs.

The reader is joserfc's, so that neither the client's own code nor the local provider's judges a proof.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from oauthgate.records import Link
from oauthgate.stepping import run
from oauthgate.testing import LocalProvider, Message
from tests.support import SiteUnderTest

JSON = {"accept": "application/json"}


def with_dpop(config: dict[str, Any]) -> None:
    """Switch DPoP on for both tables that speak OAuth 2."""
    for name in ("spotify", "corp"):
        config["providers"][name]["dpop"] = True


@dataclass
class Proof:
    """A proof as a server reads it: its signature holds, `jkt` is its key's thumbprint."""

    claims: dict[str, Any]
    jkt: str

    @classmethod
    def of(cls, message: Message) -> Proof:
        (text,) = [value for name, value in message.headers if name == "dpop"]
        head = text.partition(".")[0]
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        assert set(header) == {"typ", "alg", "jwk"}
        assert (header["typ"], header["alg"]) == ("dpop+jwt", "ES256")
        assert set(header["jwk"]) == {"kty", "crv", "x", "y"}
        key = ECKey.import_key(header["jwk"])
        found = jwt.decode(text, key, algorithms=["ES256"])
        return cls(dict(found.claims), key.thumbprint())


def proofs(provider: LocalProvider, *endpoints: str) -> list[Proof]:
    """The proofs that these endpoints received, oldest first."""
    return [Proof.of(message) for message in provider.log if message.endpoint in endpoints]


def stored(site: SiteUnderTest, user_id: str, name: str = "spotify") -> Link:
    """The link as it is stored now."""
    found = run(site.gate.vault.user(user_id))  # a read of SQLite suspends under neither adapter
    assert found is not None
    (link,) = found[0].links_of(name)
    return link
