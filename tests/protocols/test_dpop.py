"""DPoP's arithmetic: keys, proofs, nonces, challenges (RFC 9449), and what is kept of it."""

from __future__ import annotations

import base64
import time
from typing import Any

import httpx2
import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from oauthgate.config import Config
from oauthgate.errors import ConfigError
from oauthgate.flows import Flow
from oauthgate.protocols.dpop import MAX_KEPT, ProofKey, Proofs, new_key, target, wants_nonce
from oauthgate.records import Token, encode

from .dpop_steps import with_dpop

URL = httpx2.URL("https://api.example/v1/me?secret=1#there")


def public(text: str) -> ECKey:
    """The key of this text, read by joserfc."""
    proof = ProofKey(text).proof("GET", URL)
    head = msgspec.json.decode(base64.urlsafe_b64decode(proof.partition(".")[0] + "=="))
    return ECKey.import_key(head["jwk"])


def test_keys_are_fresh_and_small() -> None:
    """A key is 43 characters, each another one, and its thumbprint is RFC 7638's."""
    texts = {new_key() for _ in range(100)}
    assert len(texts) == 100 and {len(text) for text in texts} == {43}
    for text in list(texts)[:5]:
        assert ProofKey(text).jkt == public(text).thumbprint()


@pytest.mark.parametrize(
    "scalar", [1, 2**200, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632550]
)
def test_keys_with_leading_zeros(scalar: int) -> None:
    """Short numbers keep their length, in the key, in its point and in the signature."""
    text = base64.urlsafe_b64encode(scalar.to_bytes(32, "big")).rstrip(b"=").decode()
    for _ in range(50):
        proof = ProofKey(text).proof("GET", URL)
        assert len(proof.rpartition(".")[2]) == 86
        jwt.decode(proof, public(text), algorithms=["ES256"])


def test_a_proof_is_what_section_4_2_says() -> None:
    """Header and claims, and the RFC's own example of `ath` (section 7.1)."""
    text = new_key()
    token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
    found = jwt.decode(
        ProofKey(text).proof("POST", URL, access_token=token, nonce="n-1"),
        public(text),
        algorithms=["ES256"],
    )
    assert set(found.header) == {"typ", "alg", "jwk"} and found.header["typ"] == "dpop+jwt"
    assert "d" not in found.header["jwk"]
    claims = dict(found.claims)
    assert len(claims.pop("jti")) >= 22
    assert abs(claims.pop("iat") - time.time()) < 5
    assert claims == {
        "htm": "POST",
        "htu": "https://api.example/v1/me",
        "ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo",
        "nonce": "n-1",
    }
    plain = jwt.decode(ProofKey(text).proof("GET", URL), public(text), algorithms=["ES256"]).claims
    assert set(plain) == {"jti", "iat", "htm", "htu"}


@pytest.mark.parametrize(
    ("url", "htu"),
    [
        ("https://api.example", "https://api.example/"),
        ("https://api.example?a=b", "https://api.example/"),
        ("https://api.example:443/x", "https://api.example/x"),
        ("https://api.example:8443/x#y", "https://api.example:8443/x"),
        ("https://API.example/Pfad/é%2F", "https://api.example/Pfad/%C3%A9%2F"),
        ("https://bücher.example/x?q=é", "https://xn--bcher-kva.example/x"),
        ("http://[::1]:80/x", "http://[::1]/x"),
        ("https://u:p@api.example/x", "https://api.example/x"),
    ],
)
def test_htu_is_the_address_as_sent(url: str, htu: str) -> None:
    """Without query, fragment and user name, with the path and the host as they go over the wire."""
    assert target(httpx2.URL(url)) == htu


CHALLENGES = {
    'DPoP error="use_dpop_nonce"': True,
    'dpop error="use_dpop_nonce"': True,
    "DPOP error=use_dpop_nonce": True,
    'DPoP realm="a, b", error="use_dpop_nonce", algs="ES256"': True,
    'Bearer realm="x", error="invalid_token", DPoP algs="ES256", ERROR = "use_dpop_nonce"': True,
    'Negotiate YWJj==, DPoP error="use_dpop_nonce"': True,
    'DPoP error="invalid_token"': False,
    'Bearer error="use_dpop_nonce"': False,
    'DPoP algs="ES256", Bearer error="use_dpop_nonce"': False,
    'DPoP realm="error=use_dpop_nonce"': False,
    'Basic realm="DPoP error=\\"use_dpop_nonce\\""': False,
    'DPoP error_description="use_dpop_nonce"': False,
    "": False,
    "DPoP " + '"' * 5000: False,
}


@pytest.mark.parametrize("challenge", CHALLENGES, ids=range(len(CHALLENGES)))
def test_challenges(challenge: str) -> None:
    """`use_dpop_nonce` of the scheme DPoP, in whatever case, beside whichever other challenges."""
    headers = httpx2.Headers({"www-authenticate": challenge})
    assert wants_nonce(401, headers) is CHALLENGES[challenge]
    assert not wants_nonce(400, headers)
    assert not wants_nonce(401, httpx2.Headers())


def nonce_sent(kept: Proofs, url: str, server: Any = "resource") -> object:
    request = httpx2.Request("GET", url)
    kept.prove(request, KEY, server)
    claims = msgspec.json.decode(base64.urlsafe_b64decode(request.headers["dpop"].split(".")[1] + "=="))
    return claims.get("nonce")


KEY = new_key()


def test_nonces_belong_to_one_server() -> None:
    """A nonce goes back to the origin and the kind of server it is from, the last one only."""
    kept = Proofs()
    for nonce in ("first", "second"):
        assert kept.note("resource", URL, httpx2.Headers({"DPoP-Nonce": nonce}))
    assert nonce_sent(kept, "https://api.example/other") == "second"
    for other in ("https://api.example:8443/", "http://api.example/", "https://www.api.example/"):
        assert nonce_sent(kept, other) is None
    assert nonce_sent(kept, "https://api.example/", "authorization") is None
    assert nonce_sent(Proofs(), "https://api.example/") is None, "nothing is global"


@pytest.mark.parametrize("nonce", ["", " ", "a b", 'a"b', "a\\b", "a\x7f", "é", "x" * 1025, "one, two"])
def test_a_nonce_that_is_none(nonce: str) -> None:
    """What is no nonce (section 8.1), or is of an absurd length, is not taken up."""
    kept = Proofs()
    headers = httpx2.Headers([(b"dpop-nonce", nonce.encode())])
    assert not kept.note("resource", URL, headers)
    assert nonce_sent(kept, "https://api.example/") is None


def test_what_is_kept_is_bounded() -> None:
    """Neither many links nor many servers fill the memory."""
    kept = Proofs()
    for number in range(MAX_KEPT + 10):
        url = httpx2.URL(f"https://a{number}.example/")
        kept.note("resource", url, httpx2.Headers({"DPoP-Nonce": "n"}))
    assert len(kept._nonces) == 10
    assert kept.key(KEY) is kept.key(KEY)


def test_records_without_a_key_are_unchanged() -> None:
    """A token without a key is the same bytes as before there were keys; with one, nothing shows it."""
    old = msgspec.msgpack.encode({"access_token": "a", "expires_at": 5.0})
    assert encode(Token(access_token="a", expires_at=5.0)) == old
    assert msgspec.msgpack.decode(old, type=Token).dpop_key == ""
    bound = Token(access_token="a", dpop_key=KEY)
    assert msgspec.msgpack.decode(encode(bound), type=Token).dpop_key == KEY
    flow = Flow(
        provider="x",
        identity="x",
        state="s",
        expires_at=1,
        purpose="login",
        redirect_uri="u",
        dpop_key=KEY,
    )
    kept = Proofs()
    for item in (bound, flow, kept, kept.key(KEY)):
        assert KEY not in f"{item!r} {item}"


REFUSED = {
    "oauth1": ("twitter", {"dpop": True}, "dpop: OAuth 1.0a"),
    "header": ("spotify", {"dpop": True, "token_header": "X-Token"}, "token_header: cannot"),
    "scheme": ("spotify", {"dpop": True, "token_scheme": ""}, "token_scheme: cannot"),
    "type": ("spotify", {"dpop": True, "token_type_check": False}, "token_type_check: cannot"),
    "not a boolean": ("spotify", {"dpop": "yes"}, "dpop"),
    "parameter": ("spotify", {"authorization_params": {"dpop_jkt": "x"}}, "dpop_jkt"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tables_that_cannot_work(case: str, config: dict[str, Any]) -> None:
    """What DPoP cannot be combined with is refused at start, naming table and key."""
    name, changes, message = REFUSED[case]
    config["providers"][name].update(changes)
    with pytest.raises(ConfigError, match=rf"\[providers.{name}\].*{message}"):
        Config.load(config)


def test_it_is_off_by_default(config: dict[str, Any]) -> None:
    """Only the tables that say so have it."""
    assert [table.dpop for table in Config.load(config).providers.values()] == [False, False, False]
    with_dpop(config)
    assert [table.dpop for table in Config.load(config).providers.values()] == [False, True, True]
