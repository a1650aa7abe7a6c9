"""The only import of joserfc, loaded with the first signed token: it brings X.509 and all key types."""

from __future__ import annotations

from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey, import_key

__all__ = [
    "ECKey",
    "JoseError",
    "Key",
    "OKPKey",
    "OctKey",
    "RSAKey",
    "Registry",
    "import_key",
    "jws",
    "jwt",
]


class Registry(jws.JWSRegistry):
    """One algorithm, and headers as RFC 7515 section 4 says: members that nobody knows are ignored.

    joserfc warns of the name EdDSA, which RFC 9864 deprecates and providers sign with; the choice is
    the configuration's, and a warning is no place to make it.
    """

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[algorithm], strict_check_header=False)

    def get_alg(self, name: str) -> Any:  # noqa: ANN401 - joserfc does not export the type
        if name not in (self.allowed or ()) or name not in self.algorithms:
            raise UnsupportedAlgorithmError("not the configured algorithm")
        return self.algorithms[name]
