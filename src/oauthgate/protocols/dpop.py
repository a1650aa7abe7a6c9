"""DPoP: tokens that are good only together with a key (RFC 9449), and a proof of it on every request.

Owns the key of a link, the proof (section 4.2), the servers' nonces (sections 8 and 9) and the one
repetition that a server may ask for. A key is made for each flow, so that two links have nothing in
common by which they could be told to be of one client's making.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar

import httpx2
import msgspec

from ..providers import Provider
from ..records import Token
from ..strict_json import StrictJSONError

if TYPE_CHECKING:
    from ..io import Heartbeat
    from ..outbound import Answer, Outbound

K = TypeVar("K")
V = TypeVar("V")

#: Which server a nonce is of: one address may be both, and each gives out its own (section 9).
Server = Literal["authorization", "resource"]

#: Parsed keys, and nonces, that are kept in this process.
MAX_KEPT = 2048
#: Characters of a header that is looked at for challenges.
_MAX_CHALLENGES = 4096
#: Seconds that the repetition of a request has at least.
_LEAST = 1.0
_NONCE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,1024}")
#: A scheme, or a parameter of the scheme before it (RFC 9110 section 11.6.1).
_CHALLENGE = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s*=\s*(\"(?:[^\"\\]|\\.)*\"|[^\s,]*))?")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def new_key() -> str:
    """A fresh P-256 private key, as text of 43 characters. It is a secret."""
    from cryptography.hazmat.primitives.asymmetric import ec

    made = ec.generate_private_key(ec.SECP256R1())
    return _b64(made.private_numbers().private_value.to_bytes(32, "big"))


class ProofKey:
    """A parsed key, with all that does not change from proof to proof."""

    def __init__(self, text: str) -> None:
        # Loaded here, as few sites use DPoP.
        from cryptography.hazmat.primitives.asymmetric import ec, utils
        from cryptography.hazmat.primitives.hashes import SHA256

        value = int.from_bytes(base64.urlsafe_b64decode(text + "="), "big")
        self._private = ec.derive_private_key(value, ec.SECP256R1())
        self._es256 = ec.ECDSA(SHA256())
        self._halves = utils.decode_dss_signature
        point = self._private.public_key().public_numbers()
        x, y = (_b64(part.to_bytes(32, "big")) for part in (point.x, point.y))
        # Members in the order of RFC 7638 section 3.1, so that the same text makes the thumbprint.
        jwk = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'
        #: The thumbprint: `dpop_jkt` of the authorization request, `cnf.jkt` of the tokens.
        self.jkt = _b64(hashlib.sha256(jwk.encode()).digest())
        self._header = _b64(f'{{"typ":"dpop+jwt","alg":"ES256","jwk":{jwk}}}'.encode())

    def __repr__(self) -> str:
        return "ProofKey()"

    def proof(self, method: str, url: httpx2.URL, *, access_token: str = "", nonce: str = "") -> str:
        """The proof for one request (section 4.2). It has a `jti` of its own: never send it twice."""
        claims = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": target(url),
            "iat": int(time.time()),
        }
        if access_token:
            claims["ath"] = _b64(hashlib.sha256(access_token.encode()).digest())
        if nonce:
            claims["nonce"] = nonce
        signed = f"{self._header}.{_b64(msgspec.json.encode(claims))}"
        r, s = self._halves(self._private.sign(signed.encode(), self._es256))
        return f"{signed}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def target(url: httpx2.URL) -> str:
    """`htu`: the address as it is sent, without query and fragment (section 4.2)."""
    # Not str(url): that leaves out the path when it is empty, and the percent-encoding.
    path = url.raw_path.partition(b"?")[0]
    return f"{url.scheme}://{(url.netloc + path).decode('ascii')}"


class Proofs:
    """The proofs of one gate: parsed keys, and the nonces that servers gave, in this process."""

    def __init__(self) -> None:
        self._keys: dict[str, ProofKey] = {}
        self._nonces: dict[tuple[Server, str, bytes], str] = {}

    def __repr__(self) -> str:
        return "Proofs()"

    def key(self, text: str) -> ProofKey:
        """The parsed key: parsing one takes as long as signing with it."""
        found = self._keys.get(text)
        if found is None:
            found = ProofKey(text)
            _keep(self._keys, text, found)
        return found

    def prove(
        self, request: httpx2.Request, key: str, server: Server, *, access_token: str = ""
    ) -> None:
        """Put a proof on a request, in place of one that is on it, with the server's last nonce."""
        nonce = self._nonces.get((server, request.url.scheme, request.url.netloc), "")
        request.headers["DPoP"] = self.key(key).proof(
            request.method, request.url, access_token=access_token, nonce=nonce
        )

    def authorize(self, request: httpx2.Request, token: Token) -> None:
        """Put a bound token and its proof on a request to a resource server (section 7.1)."""
        request.headers["Authorization"] = f"DPoP {token.access_token}"
        self.prove(request, token.dpop_key, "resource", access_token=token.access_token)

    def note(self, server: Server, url: httpx2.URL, headers: httpx2.Headers) -> bool:
        """Take up the nonce of any answer (section 8.2); whether there is one that can be sent."""
        nonce = headers.get("dpop-nonce")
        if nonce is None or not _NONCE.fullmatch(nonce):
            return False
        _keep(self._nonces, (server, url.scheme, url.netloc), nonce)
        return True

    def take_up(self, response: httpx2.Response) -> bool:
        """Take up the nonces of a resource server's answer, and of the redirects before it.

        True when the request was refused for want of the nonce (section 9), so that the same request
        with a new proof may be sent once more.
        """
        for one in response.history:
            self.note("resource", one.request.url, one.headers)
        came = self.note("resource", response.request.url, response.headers)
        return came and wants_nonce(response.status_code, response.headers)


def _keep(kept: dict[K, V], key: K, value: V) -> None:
    if len(kept) >= MAX_KEPT and key not in kept:
        # Threads share it: emptying it cannot fail, and looking for the oldest could.
        kept.clear()
    kept[key] = value


def wants_nonce(status: int, headers: httpx2.Headers) -> bool:
    """Whether a resource server refused a request for want of its nonce (section 9)."""
    if status != 401:
        return False
    scheme = ""
    for name, value in _CHALLENGE.findall(headers.get("www-authenticate", "")[:_MAX_CHALLENGES]):
        if not value:
            scheme = name.lower()  # schemes have no case (RFC 9110 section 11.1)
        elif scheme == "dpop" and name.lower() == "error" and value.strip('"') == "use_dpop_nonce":
            return True
    return False


def _token_endpoint_wants_nonce(answer: Answer) -> bool:
    """The same of a token endpoint, which says it in the body (section 8)."""
    if not 400 <= answer.status < 500:
        return False
    try:
        return answer.json_object().get("error") == "use_dpop_nonce"
    except StrictJSONError:
        return False


async def exchange(
    outbound: Outbound,
    provider: Provider,
    build: Callable[[], httpx2.Request],
    *,
    key: str,
    server: Server,
    access_token: str = "",
    deadline: float | None = None,
    heartbeat: Heartbeat | None = None,
) -> Answer:
    """Send a request of the gate's own with a proof; once more when the server asks for its nonce.

    `build` makes the request, each time anew: a client assertion is good for one request as well. A
    request that is refused for its nonce was not looked at, so neither code nor refresh token is used
    up by it (section 8). Raises `GateError` as `Outbound.send` does; both together take no longer than
    one call may.
    """
    proofs = outbound.proofs
    until = time.monotonic() + (deadline or provider.timeout)
    request = build()
    proofs.prove(request, key, server, access_token=access_token)
    answer = await outbound.send(provider, request, deadline=deadline, heartbeat=heartbeat)
    came = proofs.note(server, request.url, answer.headers)
    refused = (
        _token_endpoint_wants_nonce(answer)
        if server == "authorization"
        else wants_nonce(answer.status, answer.headers)
    )
    if not (came and refused):
        return answer
    request = build()
    proofs.prove(request, key, server, access_token=access_token)
    left = round(max(_LEAST, until - time.monotonic()), 1)
    answer = await outbound.send(provider, request, deadline=left, heartbeat=heartbeat)
    proofs.note(server, request.url, answer.headers)
    return answer


async def call(
    outbound: Outbound,
    provider: Provider,
    build: Callable[[], httpx2.Request],
    token: Token,
    deadline: float | None = None,
) -> Answer:
    """Call the provider's API for the gate itself: with a proof where the token is bound, else as a
    bearer of it. Raises `GateError`."""

    def authorized() -> httpx2.Request:
        request = build()
        if token.dpop_key:
            request.headers["Authorization"] = f"DPoP {token.access_token}"
        else:
            value = f"{provider.token_scheme} {token.access_token}".strip()
            request.headers[provider.token_header] = value
        return request

    if not token.dpop_key:
        return await outbound.send(provider, authorized(), deadline=deadline)
    return await exchange(
        outbound,
        provider,
        authorized,
        key=token.dpop_key,
        server="resource",
        access_token=token.access_token,
        deadline=deadline,
    )
