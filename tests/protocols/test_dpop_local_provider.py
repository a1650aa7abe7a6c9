"""The local provider is strict about proofs, or the other DPoP tests would show nothing (RFC 9449 4.3).

Proofs are made with joserfc here, so that they can be wrong in one point at a time.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from oauthgate.testing import Client, LocalProvider, running, sign_in

from .steps import query_of

BACK = "http://localhost/cb"
VERIFIER = "v" * 43
KEY, OTHER = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
LARGE = ECKey.generate_key("P-384")


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[LocalProvider, str]]:
    """A provider with a confidential and a public client, which approves by itself."""
    provider = LocalProvider(
        clients=[
            Client(client_id="app", client_secret="secret", redirect_uris=[BACK]),
            Client(client_id="public", redirect_uris=[BACK], token_endpoint_auth_method="none"),
        ],
        auto_approve="ada",
    )
    with running(provider) as url:
        yield provider, url


@pytest.fixture
def provider(served: tuple[LocalProvider, str]) -> Iterator[LocalProvider]:
    """That provider, without nonces and not insisting on proofs."""
    yield served[0]
    served[0].dpop_nonce_required, served[0].dpop_required, served[0].dpop = (), False, True
    served[0].clear()


@pytest.fixture
def url(served: tuple[LocalProvider, str]) -> str:
    return served[1]


def proof(
    url: str,
    method: str = "POST",
    *,
    key: ECKey = KEY,
    signed_by: ECKey | None = None,
    header: dict[str, Any] | None = None,
    private: bool = False,
    **changes: Any,
) -> dict[str, str]:
    """A header with a proof; `...` leaves a claim out."""
    claims = {"jti": secrets.token_urlsafe(16), "htm": method, "htu": url, "iat": int(time.time())}
    claims |= changes
    head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.as_dict(private=private), **(header or {})}
    text = jwt.encode(
        {name: value for name, value in head.items() if value is not ...},
        {name: value for name, value in claims.items() if value is not ...},
        signed_by or key,
        algorithms=["ES256", "ES384"],
    )
    return {"dpop": text}


def code(url: str, client: str = "app", **more: str) -> str:
    """A code, from the authorization endpoint."""
    query = {
        "response_type": "code",
        "client_id": client,
        "redirect_uri": BACK,
        "code_challenge": b64(hashlib.sha256(VERIFIER.encode()).digest()),
        "code_challenge_method": "S256",
        **more,
    }
    with httpx2.Client() as browser:
        answer = sign_in(browser, str(httpx2.URL(f"{url}/oauth2/authorize", params=query)))
    return query_of(str(answer))["code"]


def token_request(
    url: str, headers: dict[str, str], client: str = "app", **form: str
) -> httpx2.Response:
    if form.get("grant_type") != "refresh_token":
        form = {
            "grant_type": "authorization_code",
            "redirect_uri": BACK,
            "code_verifier": VERIFIER,
            **form,
        }
    if client == "public":
        return httpx2.post(f"{url}/oauth2/token", data={"client_id": client, **form}, headers=headers)
    return httpx2.post(f"{url}/oauth2/token", data=form, headers=headers, auth=(client, "secret"))


def bound(url: str, client: str = "app") -> dict[str, Any]:
    """The answer to a token request with a proof."""
    answer = token_request(url, proof(f"{url}/oauth2/token"), client, code=code(url, client))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["token_type"] == "DPoP"
    return found


def ath(token: str) -> str:
    return b64(hashlib.sha256(token.encode()).digest())


NOW = int(time.time())
WRONG: dict[str, dict[str, Any]] = {
    "typ missing": {"header": {"typ": ...}},
    "typ JWT": {"header": {"typ": "JWT"}},
    "no jwk": {"header": {"jwk": ...}},
    "private jwk": {"private": True},
    "another key in the header": {"header": {"jwk": OTHER.as_dict(private=False)}},
    "signed by another key": {"signed_by": OTHER},
    "a larger curve": {"key": LARGE, "header": {"alg": "ES384"}},
    "method": {"htm": "GET"},
    "method in small letters": {"htm": "post"},
    "no method": {"htm": ...},
    "address": {"htu": "https://elsewhere.example/oauth2/token"},
    "no address": {"htu": ...},
    "old": {"iat": NOW - 3600},
    "from the future": {"iat": NOW + 3600},
    "no time": {"iat": ...},
    "time as text": {"iat": "now"},
    "no jti": {"jti": ...},
    "jti too short": {"jti": "1"},
    "ath without a token": {"ath": "x"},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_proof_at_the_token_endpoint(case: str, provider: LocalProvider, url: str) -> None:
    """400 `invalid_dpop_proof`, and the code is not used up by it."""
    fresh = code(url)
    headers = proof(f"{url}/oauth2/token", **WRONG[case])
    answer = token_request(url, headers, code=fresh)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
    assert token_request(url, proof(f"{url}/oauth2/token"), code=fresh).status_code == 200


@pytest.mark.parametrize("headers", [[], ["x"], ["a.b.c"], ["", ""], ["twice", "twice"]])
def test_what_is_no_proof(headers: list[str], provider: LocalProvider, url: str) -> None:
    """Not one header, or not one that is a proof."""
    provider.dpop_required = True
    good = proof(f"{url}/oauth2/token")["dpop"]
    sent = [("dpop", good if text == "twice" else text) for text in headers]
    form = {"grant_type": "authorization_code", "code": "x", "redirect_uri": BACK}
    answer = httpx2.post(f"{url}/oauth2/token", data=form, headers=sent, auth=("app", "secret"))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")


def test_a_proof_is_good_once(provider: LocalProvider, url: str) -> None:
    """The same proof again is a replay (section 11.1)."""
    headers = proof(f"{url}/oauth2/token")
    assert token_request(url, headers, code=code(url)).status_code == 200
    again = token_request(url, headers, code=code(url))
    assert (again.status_code, again.json()["error"]) == (400, "invalid_dpop_proof")


CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "good": ({}, ""),
    "no ath": ({"ath": ...}, "invalid_dpop_proof"),
    "ath of another token": ({"ath": ath("another")}, "invalid_dpop_proof"),
    "another key": ({"key": OTHER}, "invalid_token"),
    "another method": ({"htm": "POST"}, "invalid_dpop_proof"),
    "with its query": ({"htu": "{url}/api/me?a=b"}, "invalid_dpop_proof"),
}


@pytest.mark.parametrize("case", CALLS)
def test_calls_with_a_bound_token(case: str, provider: LocalProvider, url: str) -> None:
    """`ath`, the key of `cnf.jkt`, and the address without its query are what counts."""
    changes, error = CALLS[case]
    token = bound(url)["access_token"]
    claims: dict[str, Any] = {"ath": ath(token), **changes}
    if "htu" in changes:
        claims["htu"] = changes["htu"].replace("{url}", url)
    headers = proof(f"{url}/api/me", "GET", **claims)
    answer = httpx2.get(f"{url}/api/me?a=b", headers={**headers, "authorization": f"DPoP {token}"})
    assert answer.status_code == (401 if error else 200)
    if error:
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith("DPoP ") and f'error="{error}"' in challenge


def test_bearers_and_bound_tokens_do_not_mix(provider: LocalProvider, url: str) -> None:
    """A bound token is no bearer token, and the other way round (section 7.2)."""
    token = bound(url)["access_token"]
    plain = token_request(url, {}, code=code(url)).json()
    assert plain["token_type"] == "Bearer"
    for value, scheme in ((token, "Bearer"), (plain["access_token"], "DPoP")):
        headers = proof(f"{url}/api/me", "GET", ath=ath(value))
        answer = httpx2.get(f"{url}/api/me", headers={**headers, "authorization": f"{scheme} {value}"})
        assert answer.status_code == 401
    no_proof = httpx2.get(f"{url}/api/me", headers={"authorization": f"DPoP {token}"})
    assert no_proof.status_code == 401
    described = httpx2.post(
        f"{url}/oauth2/introspect", data={"token": token}, auth=("app", "secret")
    ).json()
    assert (described["token_type"], described["cnf"]) == ("DPoP", {"jkt": KEY.thumbprint()})


def test_a_code_is_bound_by_dpop_jkt(provider: LocalProvider, url: str) -> None:
    """A code that was asked for with a key is for that key alone, verifier or not (section 10)."""
    jkt = KEY.thumbprint()
    for headers in ({}, proof(f"{url}/oauth2/token", key=OTHER)):
        answer = token_request(url, headers, code=code(url, dpop_jkt=jkt))
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    answer = token_request(url, proof(f"{url}/oauth2/token"), code=code(url, dpop_jkt=jkt))
    assert answer.status_code == 200


@pytest.mark.parametrize(("client", "status"), [("app", 200), ("public", 400)])
def test_whose_refresh_tokens_are_bound(
    client: str, status: int, provider: LocalProvider, url: str
) -> None:
    """A public client's are (section 5); another client proves itself otherwise."""
    token = bound(url, client)["refresh_token"]
    headers = proof(f"{url}/oauth2/token", key=OTHER)
    answer = token_request(url, headers, client, grant_type="refresh_token", refresh_token=token)
    assert answer.status_code == status


def test_nonces_of_the_two_servers(provider: LocalProvider, url: str) -> None:
    """Each server wants its own nonce, gives it with every answer, and takes no other."""
    provider.dpop_nonce_required = ("authorization", "resource")
    at = f"{url}/oauth2/token"
    first = token_request(url, proof(at), code=(fresh := code(url)))
    assert (first.status_code, first.json()["error"]) == (400, "use_dpop_nonce")
    nonce = first.headers["dpop-nonce"]
    good = token_request(url, proof(at, nonce=nonce), code=fresh)
    assert (good.status_code, good.headers["dpop-nonce"]) == (200, nonce)
    token = good.json()["access_token"]

    def call(given: object) -> httpx2.Response:
        headers = proof(f"{url}/api/me", "GET", ath=ath(token), nonce=given)
        return httpx2.get(f"{url}/api/me", headers={**headers, "authorization": f"DPoP {token}"})

    for wrong in (..., nonce, 5):
        answer = call(wrong)
        assert answer.status_code == 401
        assert 'error="use_dpop_nonce"' in answer.headers["www-authenticate"]
    own = answer.headers["dpop-nonce"]
    assert own != nonce and call(own).status_code == 200
    provider.rotate_dpop_nonces(keep_old=True)
    newer = call(own)
    assert newer.status_code == 200 and newer.headers["dpop-nonce"] != own
    provider.rotate_dpop_nonces()
    assert call(newer.headers["dpop-nonce"]).status_code == 401


def test_a_provider_without_dpop(provider: LocalProvider, url: str) -> None:
    """It ignores proofs, as servers do that know nothing of them; discovery does not speak of it."""
    metadata = f"{url}/.well-known/openid-configuration"
    assert httpx2.get(metadata).json()["dpop_signing_alg_values_supported"] == ["ES256"]
    provider.dpop = False
    assert "dpop_signing_alg_values_supported" not in httpx2.get(metadata).json()
    answer = token_request(url, proof(f"{url}/oauth2/token"), code=code(url, dpop_jkt="nonsense"))
    assert (answer.status_code, answer.json()["token_type"]) == (200, "Bearer")
