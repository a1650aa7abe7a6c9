"""ID tokens and user information that must not be believed, beyond the modules of the conformance suite.

Every refusal is a whole flow: see `Harness.refuses` for what it must leave untouched.
"""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, RSAKey

from oauthgate.protocols import jose as ours
from oauthgate.testing import Account, LocalProvider, jose
from tests.support import SCOPE

from .steps import Harness, Json
from .test_oidc_conformance import claims, corp_client

Config = dict[str, Any]
Make = Callable[[], Harness]


def b64(document: object) -> str:
    return jose.b64(json.dumps(document).encode())


def rewritten(change: Callable[[Json, Json], str]) -> Callable[[Json], None]:
    """A hook on the token answer: a new ID token made from the genuine one's header and claims."""

    def hook(answer: Json) -> None:
        if "id_token" in answer:
            header, body = jose.peek(answer["id_token"])
            answer["id_token"] = change(header, body)

    return hook


def set_token(provider: LocalProvider, change: Callable[[Json, Json], str]) -> Callable[[], None]:
    def prepare() -> None:
        provider.faults.tamper_token_response = rewritten(change)

    return prepare


def set_claims(provider: LocalProvider, **changes: Any) -> Callable[[], None]:
    def prepare() -> None:
        provider.faults.tamper_id_token = claims(**changes)

    return prepare


def set_header(provider: LocalProvider, **changes: object) -> Callable[[], None]:
    def hook(found: Json, header: Json) -> None:
        header.update(changes)

    def prepare() -> None:
        provider.faults.tamper_id_token = hook

    return prepare


# -- rows 33 and 34: algorithms

ALG_TWICE = b'"alg":"RS256","alg":"none"'


def unsigned(alg: str) -> Callable[[Json, Json], str]:
    return lambda header, body: f"{b64({'alg': alg})}.{b64(body)}."


UNSIGNED: dict[str, Callable[[Json, Json], str]] = {
    **{
        f"alg {alg}": unsigned(alg)
        for alg in ("none", "None", "NONE", "nOnE", " none", "none ", "none\x00", "", "null")
    },
    "alg null": lambda header, body: f"{b64({'alg': None})}.{b64(body)}.",
    "alg missing": lambda header, body: f"{b64({'kid': header['kid']})}.{b64(body)}.AAAA",
    "alg a list": lambda header, body: f"{b64({'alg': ['RS256', 'none']})}.{b64(body)}.AAAA",
    "alg twice": lambda header, body: f"{jose.b64(b'{' + ALG_TWICE + b'}')}.{b64(body)}.AAAA",
    "RS256 with no signature": lambda header, body: f"{b64(header)}.{b64(body)}.",
    "none with a signature": lambda header, body: f"{b64({'alg': 'none'})}.{b64(body)}.AAAA",
    "two parts": lambda header, body: f"{b64(header)}.{b64(body)}",
    "four parts": lambda header, body: f"{b64(header)}.{b64(body)}.AAAA.AAAA",
    "five parts, as an encrypted token": lambda header, body: ".".join(
        [b64(header), "A", "A", "A", "A"]
    ),
    "only claims": lambda header, body: b64(body),
    "JSON": lambda header, body: json.dumps(body),
    "JSON serialization": lambda header, body: json.dumps(
        {"payload": b64(body), "protected": b64({"alg": "none"}), "signature": ""}
    ),
    "empty": lambda header, body: "",
    "padded base64": lambda header, body: f"{b64(header)}==.{b64(body)}.AAAA",
    "a space": lambda header, body: f"{b64(header)}. {b64(body)}.AAAA",
    "a header that is a list": lambda header, body: f"{b64([header])}.{b64(body)}.AAAA",
    "a header that is no JSON": lambda header, body: f"AAAA.{b64(body)}.AAAA",
}


@pytest.mark.parametrize("case", UNSIGNED)
def test_unsigned_and_malformed_tokens_are_refused(
    case: str, harness: Harness, provider: LocalProvider
) -> None:
    """Row 33: an unsigned ID token is refused in every spelling, though it came over the back
    channel."""
    harness.refuses(502, prepare=set_token(provider, UNSIGNED[case]))
    assert provider.count["jwks"] == 0, "a malformed token must not cause requests"


def public_forms(key: Any) -> dict[str, bytes]:
    """What an attacker may take for the HMAC key: the public key in each of its published forms."""
    pem = key.as_pem(private=False)
    jwk = key.as_dict(private=False)
    return {
        "pem": pem,
        "pem without its last newline": pem.rstrip(b"\n"),
        "der": key.as_der(private=False),
        "jwk": json.dumps(jwk).encode(),
        "jwk compact": json.dumps(jwk, separators=(",", ":")).encode(),
        "modulus": base64.urlsafe_b64decode(jwk["n"] + "=="),
        "modulus as text": jwk["n"].encode(),
        "empty": b"",
        "client id": b"corp-client",
    }


@pytest.mark.parametrize("form", public_forms(jose.new_key("RS256")))
@pytest.mark.parametrize("kid", [True, False])
def test_hmac_with_the_public_key_is_refused(
    form: str, kid: bool, harness: Harness, provider: LocalProvider
) -> None:
    """Row 34: HS256 keyed with something public is refused, with and without the key's id."""
    public = provider.keys.signing("RS256")

    def forged(header: Json, body: Json) -> str:
        about = {"alg": "HS256", "typ": "JWT", **({"kid": header["kid"]} if kid else {})}
        return jose.compact(about, body, public_forms(public)[form])

    harness.refuses(502, prepare=set_token(provider, forged))


@pytest.mark.parametrize("alg", ["PS256", "ES256", "EdDSA", "HS256"])
def test_an_algorithm_that_is_not_configured_is_refused(
    alg: str, make_harness: Make, provider: LocalProvider
) -> None:
    """Row 34: also the provider's own right signature is refused when it was made in another way."""
    corp_client(provider, id_token_signed_response_alg=alg)
    make_harness().refuses(502)


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "EdDSA", "HS256"])
def test_each_configured_algorithm_works(
    alg: str, make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Row 34: the algorithm comes from the configuration, and each of them verifies."""
    corp_client(provider, id_token_signed_response_alg=alg)
    config["providers"]["corp"]["id_token_signed_response_alg"] = alg
    make_harness().succeeds()


# -- rows 35 and 36: headers


@pytest.fixture
def trap() -> Iterator[tuple[str, socket.socket]]:
    """An address where any connection would be noticed."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/keys", listener


@pytest.mark.parametrize(
    "member", ["jwk", "jku", "x5u", "x5c", "kid as a URL", "kid as a path", "jku and kid"]
)
def test_keys_named_by_the_token_are_never_used(
    member: str, harness: Harness, provider: LocalProvider, trap: tuple[str, socket.socket]
) -> None:
    """Row 35: a token signed with the key that its own header brings or points to is refused, and no
    address in it is called."""
    url, listener = trap
    stranger = jose.new_key("RS256")
    members: dict[str, Json] = {
        "jwk": {"jwk": dict(stranger.as_dict(private=False))},
        "jku": {"jku": url},
        "x5u": {"x5u": url},
        "x5c": {"x5c": [base64.b64encode(stranger.as_der(private=False)).decode()]},
        "kid as a URL": {"kid": url},
        "kid as a path": {"kid": "../../../../dev/null"},
        "jku and kid": {"jku": url, "kid": stranger.kid},
    }

    def forged(header: Json, body: Json) -> str:
        return jose.compact({**header, **members[member]}, body, stranger)

    harness.refuses(502, prepare=set_token(provider, forged))
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize(
    "members",
    [
        {"crit": ["exp"]},
        {"crit": ["http://example.com/unknown"], "http://example.com/unknown": True},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
        {"zip": "DEF"},
        {"kid": 5},
        {"kid": ["a"]},
        {"kid": {"a": "b"}},
    ],
    ids=str,
)
def test_headers_that_change_the_meaning_are_refused(
    members: Json, harness: Harness, provider: LocalProvider
) -> None:
    """Row 36: `crit`, `b64` and `zip` are refused even under a right signature; so is an odd `kid`."""
    harness.refuses(502, prepare=set_header(provider, **members))


def test_a_header_that_nobody_knows_is_ignored(harness: Harness, provider: LocalProvider) -> None:
    """Row 36: unknown header members that are not critical change nothing (RFC 7515 section 4)."""
    set_header(provider, x5t="AAAA", ver="1.0", **{"http://example.com/odd": {"a": [1]}})()
    harness.succeeds()


# -- rows 37 and 38: claims

BAD_CLAIMS: dict[str, Json] = {
    "iss prefix": {"iss": lambda value: value[:-1]},
    "iss with a slash": {"iss": lambda value: value + "/"},
    "iss upper case": {"iss": lambda value: value.upper()},
    "iss empty": {"iss": ""},
    "iss null": {"iss": None},
    "iss list": {"iss": lambda value: [value]},
    "iss number": {"iss": 5},
    "aud empty": {"aud": ""},
    "aud empty list": {"aud": []},
    "aud null": {"aud": None},
    "aud number": {"aud": 1},
    "aud object": {"aud": lambda value: {value: True}},
    "aud twice": {"aud": lambda value: [value, value]},
    "aud untrusted first": {"aud": lambda value: ["evil", value]},
    "aud with azp": {"aud": lambda value: [value, "evil"], "azp": "corp-client"},
    "aud prefix": {"aud": lambda value: value[:-1]},
    "aud nested": {"aud": lambda value: [[value]]},
    "azp other": {"azp": "evil"},
    "azp empty": {"azp": ""},
    "azp null": {"azp": None},
    "azp list": {"azp": ["corp-client"]},
    "sub empty": {"sub": ""},
    "sub null": {"sub": None},
    "sub number": {"sub": 1001},
    "sub bool": {"sub": True},
    "sub list": {"sub": ["1001"]},
    "sub object": {"sub": {"id": "1001"}},
    "sub too long": {"sub": "1" * 256},
    "sub with NUL": {"sub": "1001\x00"},
    "sub with a lone surrogate": {"sub": "1001\ud800"},
    "logout token": {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
    "nonce list": {"nonce": lambda value: [value]},
    "nonce number": {"nonce": 1},
    "nonce null": {"nonce": None},
    "nonce empty": {"nonce": ""},
    "nonce prefix": {"nonce": lambda value: value[:-1]},
    "nonce with a lone surrogate": {"nonce": "\ud800"},
    "at_hash empty": {"at_hash": ""},
    "at_hash null and list": {"at_hash": ["a"]},
    "at_hash number": {"at_hash": 1},
    "at_hash of the whole": {"at_hash": "A" * 43},
}
TIMES: dict[str, Any] = {
    "missing": ...,
    "null": None,
    "string": "1700000000",
    "bool": True,
    "list": [1700000000],
    "object": {},
    "negative": -1,
    "huge float": 1e300,
    "huge integer": 10**30,
    "past": lambda value: 1,
}


@pytest.mark.parametrize("case", BAD_CLAIMS)
def test_claims_of_a_wrong_value_or_type_are_refused(
    case: str, harness: Harness, provider: LocalProvider
) -> None:
    """Rows 23, 37, 38, 39, 43: compared exactly, typed strictly, and never an error of ours."""
    harness.refuses(502, prepare=set_claims(provider, **BAD_CLAIMS[case]))


@pytest.mark.parametrize("case", TIMES)
@pytest.mark.parametrize("claim", ["exp", "iat"])
def test_times_of_a_wrong_type_or_range_are_refused(
    claim: str, case: str, harness: Harness, provider: LocalProvider
) -> None:
    """Row 38: `exp` and `iat` must be numbers that can be times."""
    harness.refuses(502, prepare=set_claims(provider, **{claim: TIMES[case]}))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": lambda value: int(time.time()) - 121},
        {"iat": lambda value: int(time.time()) + 121, "exp": lambda value: int(time.time()) + 4000},
        {"iat": lambda value: value + 10 * 365 * 86400, "exp": lambda value: value + 11 * 365 * 86400},
        {"exp": lambda value: value + 20 * 365 * 86400},
        {"exp": 2**53},
        {"iat": lambda value: value - 86400},
        {"nbf": lambda value: 0},
        {"nbf": "soon"},
    ],
    ids=["expired", "from the future", "far future", "for ever", "2^53", "stale", "nbf", "nbf text"],
)
def test_times_out_of_range_are_refused(
    changes: Json, harness: Harness, provider: LocalProvider
) -> None:
    """Row 38: expired by more than the skew, issued in the future or long ago, valid for ever."""

    def hook(found: Json, header: Json) -> None:
        for name, value in changes.items():
            if name == "nbf":
                found["nbf"] = int(time.time()) + 1000 if callable(value) else value
            else:
                found[name] = value(found[name]) if callable(value) else value

    harness.refuses(502, prepare=lambda: setattr(provider.faults, "tamper_id_token", hook))


def test_a_small_skew_is_tolerated(harness: Harness, provider: LocalProvider) -> None:
    """Row 38: clocks that differ by half a minute do not lock anybody out."""
    provider.faults.tamper_id_token = claims(iat=lambda value: value + 30)
    harness.succeeds()
    provider.faults.tamper_id_token = claims(exp=lambda value: int(time.time()) - 30)
    harness.succeeds()


@pytest.mark.parametrize("unreadable", ["[]", "null", '"text"', "5", "{", "", "{}", '{"a":1,"a":2}'])
def test_claims_that_are_no_object_are_refused(
    unreadable: str, harness: Harness, provider: LocalProvider
) -> None:
    """Row 38: a right signature over something that is not a set of claims."""
    key = provider.keys.signing("RS256")

    def signed(header: Json, body: Json) -> str:
        return sign_raw(header, unreadable.encode(), key)

    harness.refuses(502, prepare=set_token(provider, signed))


def sign_raw(header: Json, payload: bytes, key: Any) -> str:
    """A right signature over any payload."""
    return jws.serialize_compact(header, payload, key, algorithms=["RS256"])


# -- row 40: auth_time

AUTH_TIMES: dict[str, Any] = {
    "missing": ...,
    "string": "now",
    "null": None,
    "bool": True,
    "too old": lambda value: value - 1000,
}


@pytest.mark.parametrize("case", AUTH_TIMES)
def test_auth_time_is_checked_when_max_age_was_sent(
    case: str, make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Row 40: with `max_age` the ID token must say when the person signed in, and that recently."""
    config["providers"]["corp"]["max_age"] = 300
    harness = make_harness()
    harness.succeeds()
    harness.refuses(502, prepare=set_claims(provider, auth_time=AUTH_TIMES[case]))


# -- row 41: user information

USERINFO: dict[str, tuple[Any, str]] = {
    "array": ('[{"sub":"1001"}]', "application/json"),
    "string": ('"1001"', "application/json"),
    "null": ("null", "application/json"),
    "empty": ("", "application/json"),
    "HTML": ("<html>1001</html>", "text/html"),
    "no sub": ('{"name":"Ada"}', "application/json"),
    "sub number": ('{"sub":1001}', "application/json"),
    "sub list": ('{"sub":["1001"]}', "application/json"),
    "sub padded": ('{"sub":" 1001"}', "application/json"),
    "sub in another case": ('{"sub":"1001A"}', "application/json"),
    "sub twice": ('{"sub":"1001","sub":"1002"}', "application/json"),
    "not UTF-8": (b'{"sub":"1001","name":"\xff"}', "application/json"),
    "UTF-16": ('{"sub":"1001"}'.encode("utf-16"), "application/json"),
    "BOM": (b'\xef\xbb\xbf{"sub":"1001"}', "application/json"),
    "NaN": ('{"sub":"1001","age":NaN}', "application/json"),
    "deep": ('{"sub":"1001","a":' + "[" * 5000 + "]" * 5000 + "}", "application/json"),
    "unsigned JWT": (f"{b64({'alg': 'none'})}.{b64({'sub': '1001'})}.", "application/jwt"),
    "plain JSON said to be a JWT": ('{"sub":"1001"}', "application/jwt"),
}


@pytest.mark.parametrize("case", USERINFO)
def test_user_information_that_cannot_be_believed(
    case: str, harness: Harness, provider: LocalProvider
) -> None:
    """Row 41: anything but one object about the subject of the ID token fails the sign-in."""
    body, content_type = USERINFO[case]
    harness.refuses(
        502,
        userinfo_requests=1,
        prepare=lambda: provider.faults.set("userinfo", body=body, content_type=content_type),
    )


SIGNED_USERINFO: dict[str, Callable[[Json], None]] = {
    "iss wrong": lambda found: found.update(iss="https://evil.example"),
    "iss missing": lambda found: found.pop("iss"),
    "aud wrong": lambda found: found.update(aud="evil"),
    "aud missing": lambda found: found.pop("aud"),
    "aud two": lambda found: found.update(aud=["corp-client", "evil"]),
    "sub wrong": lambda found: found.update(sub="1002"),
}


@pytest.mark.parametrize("case", [*SIGNED_USERINFO, "other key", "unsigned", "public key as HMAC key"])
def test_signed_user_information_is_verified(
    case: str, make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Row 41: signature, issuer, audience and subject of a signed answer are checked."""
    corp_client(provider, userinfo_signed_response_alg="RS256")
    config["providers"]["corp"]["userinfo_signed_response_alg"] = "RS256"
    harness = make_harness()
    harness.succeeds()
    key, stranger = provider.keys.signing("RS256"), jose.new_key("RS256")

    def prepare() -> None:
        about = {"iss": provider.issuer, "aud": "corp-client", "sub": "1001", "name": "Ada"}
        header: Json = {"alg": "RS256", "kid": key.kid}
        signer: Any = key
        if case in SIGNED_USERINFO:
            SIGNED_USERINFO[case](about)
        elif case == "other key":
            signer = stranger
        elif case == "unsigned":
            header, signer = {"alg": "none"}, b""
        else:
            header, signer = {"alg": "HS256"}, key.as_pem(private=False)
        body = jose.compact(header, about, signer)
        provider.faults.set("userinfo", body=body, content_type="application/jwt")

    harness.refuses(502, userinfo_requests=1, prepare=prepare)


def test_unsigned_user_information_where_a_signed_one_is_configured(
    make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Row 41: no downgrade: where signed answers are agreed on, a plain one is refused."""
    config["providers"]["corp"]["userinfo_signed_response_alg"] = "RS256"
    make_harness().refuses(502, userinfo_requests=1)


# -- row 42: keys

BAD_KEYS: dict[str, Callable[[Json], Json]] = {
    "encryption key": lambda key: {**key, "use": "enc"},
    "only for encrypting": lambda key: {**key, "key_ops": ["encrypt"]},
    "of another algorithm": lambda key: {**key, "alg": "PS256"},
    "symmetric": lambda key: {"kty": "oct", "k": "AAAA", "kid": key["kid"], "alg": "RS256"},
    "unknown type": lambda key: {**key, "kty": "XYZ"},
    "without modulus": lambda key: {name: key[name] for name in key if name != "n"},
    "another id": lambda key: {**key, "kid": "another"},
}


@pytest.mark.parametrize("case", BAD_KEYS)
def test_keys_that_are_not_for_this_are_not_used(
    case: str, make_harness: Make, provider: LocalProvider
) -> None:
    """Row 42: a key for encryption, of another algorithm, symmetric or broken verifies nothing."""
    provider.faults.tamper_jwks = lambda found: {"keys": [BAD_KEYS[case](key) for key in found["keys"]]}
    make_harness().refuses(502)
    assert provider.count["jwks"] <= 2


def test_a_short_rsa_key_is_not_used(make_harness: Make, provider: LocalProvider) -> None:
    """Row 42: an RSA key under 2048 bits can be broken, so it verifies nothing."""
    with pytest.warns(SecurityWarning):
        weak = RSAKey.generate_key(1024, {"kid": "weak", "use": "sig", "alg": "RS256"}, auto_kid=False)
    provider.faults.tamper_jwks = lambda found: {"keys": [weak.as_dict(private=False)]}
    provider.faults.sign_with = weak
    provider.faults.tamper_id_token = lambda found, header: (found, {**header, "kid": "weak"})
    make_harness().refuses(502)


def test_an_hs256_token_with_a_symmetric_key_of_the_key_set(
    make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Rows 34 and 42: where HS256 is configured, the key is the client secret and nothing published."""
    corp_client(provider, id_token_signed_response_alg="HS256")
    config["providers"]["corp"]["id_token_signed_response_alg"] = "HS256"
    key = OctKey.generate_key(256)
    provider.faults.tamper_jwks = lambda found: {"keys": [key.as_dict()]}

    def forged(header: Json, body: Json) -> str:
        return jose.compact({"alg": "HS256"}, body, key.raw_value)

    make_harness().refuses(502, prepare=set_token(provider, forged))


def test_an_odd_key_beside_the_right_one_harms_nobody(
    make_harness: Make, provider: LocalProvider
) -> None:
    """Row 42: a key set with entries that nobody understands still serves the others."""
    other = ECKey.generate_key("P-384", {"kid": "other"}).as_dict(private=False)
    odd: list[Any] = [None, 5, "key", {}, {"kty": "RSA"}, {"kty": "oct", "k": "AAAA"}, other]
    provider.faults.tamper_jwks = lambda found: {"keys": [*odd, *found["keys"]]}
    make_harness().succeeds()


def test_several_keys_without_kid_need_a_real_signature(
    make_harness: Make, provider: LocalProvider
) -> None:
    """Row 42: with several keys and no key id the token must verify with one of them."""
    provider.rotate_keys(keep_old=True)
    provider.faults.omit_kid = True
    make_harness().refuses(
        502, prepare=lambda: setattr(provider.faults, "sign_with", jose.new_key("RS256"))
    )


@pytest.mark.parametrize("body", ['{"keys":5}', '{"keys":{}}', "[]", "{}", "", "<html>"])
def test_a_key_set_that_is_none(body: str, make_harness: Make, provider: LocalProvider) -> None:
    """Rows 42 and 92: without keys nothing is believed: the provider is unavailable, not the check
    off."""
    make_harness().refuses(503, prepare=lambda: provider.faults.set("jwks", body=body))


def test_old_keys_serve_while_the_provider_is_down(
    make_harness: Make, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 92: known keys go on serving when new ones cannot be had, within a bound."""
    harness = make_harness()
    harness.succeeds()
    monkeypatch.setattr("oauthgate.protocols.discovery.FRESH", -1.0)
    provider.faults.set("jwks", status=500)
    provider.faults.set("discovery", status=500)
    harness.succeeds()
    monkeypatch.setattr("oauthgate.protocols.discovery.STALE", -1.0)
    monkeypatch.setattr("oauthgate.protocols.discovery.RETRY", 0.0)
    assert harness.start(harness.browser()).status_code == 503


# -- rows 43, 44


def test_a_token_of_another_kind_is_no_id_token(harness: Harness, provider: LocalProvider) -> None:
    """Row 43: a logout token and a client assertion, rightly signed, are refused as ID tokens."""
    key = provider.keys.signing("RS256")
    now = int(time.time())
    common = {"iat": now, "exp": now + 60, "jti": "j"}
    event: Json = {"http://schemas.openid.net/event/backchannel-logout": {}}
    others = [
        {**common, "iss": provider.issuer, "aud": "corp-client", "sub": "1001", "events": event},
        {**common, "iss": "corp-client", "sub": "corp-client", "aud": provider.issuer},
        {**common, "iss": provider.issuer, "aud": f"{provider.issuer}/api", "sub": "1001", "scope": "a"},
    ]
    for other in others:

        def forged(header: Json, body: Json, other: Json = other) -> str:
            return jose.compact(header, {**other, "nonce": body["nonce"]}, key)

        harness.refuses(502, prepare=set_token(provider, forged))
        provider.faults.tamper_token_response = None


DEEP = b'{"alg":' + b"[" * 10_000
BOMBS: dict[str, Callable[[Json, Json], str]] = {
    "a segment of 700 KB": lambda header, body: f"{b64(header)}.{'A' * 700_000}.AAAA",
    "a header of 700 KB": lambda header, body: f"{b64({**header, 'x': 'A' * 500_000})}.{b64(body)}.AAAA",
    "a signature of 700 KB": lambda header, body: f"{b64(header)}.{b64(body)}.{'A' * 700_000}",
    "700,000 dots": lambda header, body: "." * 700_000,
    "a compressed encrypted token": lambda header, body: (
        f"{b64({'alg': 'dir', 'enc': 'A256GCM', 'zip': 'DEF'})}..{'A' * 16}.{'A' * 400_000}.{'A' * 22}"
    ),
    "claims 10^4 deep": lambda header, body: f"{b64(header)}.{jose.b64(b'[' * 10_000)}.AAAA",
    "a header 10^4 deep": lambda header, body: ".".join([jose.b64(DEEP), b64(body), "AAAA"]),
}


@pytest.mark.parametrize("case", BOMBS)
def test_bombs_are_refused_unread(case: str, harness: Harness, provider: LocalProvider) -> None:
    """Row 44: what is too large or too deep is refused by its size, and fetches no keys."""
    harness.refuses(502, prepare=set_token(provider, BOMBS[case]))
    if "deep" not in case:
        assert provider.count["jwks"] == 0


def test_deep_claims_under_a_right_signature(harness: Harness, provider: LocalProvider) -> None:
    """Row 44: a provider's own token with claims 10^4 deep is refused, without a RecursionError."""
    key = provider.keys.signing("RS256")

    def signed(header: Json, body: Json) -> str:
        deep = json.dumps(body)[:-1].encode() + b',"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
        return sign_raw(header, deep, key)

    harness.refuses(502, prepare=set_token(provider, signed))


# -- row 45: who somebody is


def test_the_email_is_never_the_identity(make_harness: Make, provider: LocalProvider) -> None:
    """Row 45: two subjects with one e-mail address are two users; one subject with a new address
    stays."""
    provider.accounts["9"] = Account(id="9", username="mallory", email="ada@example.com")
    harness = make_harness()
    ada = harness.succeeds().get("/who").json()
    mallory = harness.browser()
    callback = harness.authorize(harness.start(mallory), "mallory")
    assert harness.deliver(mallory, callback).status_code == 303
    assert mallory.get("/who").json()["user_id"] != ada["user_id"]
    provider.faults.tamper_userinfo = lambda found: {**found, "email": "new@example.com"}
    again = harness.succeeds().get("/who").json()
    assert again["user_id"] == ada["user_id"]
    assert again["profile"]["email"] == "new@example.com"


SUBJECTS = [
    "1",
    "01",
    "1 ",
    " 1",
    "１",
    "1a",
    "1A",
    "İ",
    "i̇",
    "ﬁ",
    "fi",
    "e\u0301",
    "é",
    "a@b.c",
    "A@b.c",
]


def test_subjects_that_look_alike_are_different_people(
    make_harness: Make, provider: LocalProvider
) -> None:
    """Row 45: the subject is an exact string: no trimming, folding or normalising joins two people."""
    harness = make_harness()
    seen: dict[str, str] = {}
    for subject in SUBJECTS:
        provider.faults.tamper_id_token = claims(sub=subject)
        provider.faults.tamper_userinfo = lambda found, subject=subject: {**found, "sub": subject}
        who = harness.succeeds().get("/who").json()
        assert who["links"] == [f"corp:{subject}"]
        seen[subject] = who["user_id"]
    assert len(set(seen.values())) == len(SUBJECTS)


def test_a_number_and_its_digits_are_one_account_of_oauth_2(
    make_harness: Make, provider: LocalProvider
) -> None:
    """Row 45: a provider that sends its id as a number one day and as text the next means one person."""
    harness = make_harness()
    found = set()
    for identifier in ("1001", 1001):
        provider.faults.set("me", body=json.dumps({"id": identifier}), content_type="application/json")
        found.add(harness.succeeds("spotify").get("/who").json()["user_id"])
    assert len(found) == 1
    provider.faults.clear("me")


@pytest.mark.parametrize(
    "identifier", [None, "", True, 1.5, [], {}, ["1001"], "x" * 256, "a\x00b", "\ud800"]
)
def test_ids_that_cannot_be_one(identifier: object, harness: Harness, provider: LocalProvider) -> None:
    """Rows 45 and 93: a profile without a usable id signs nobody in."""
    body = json.dumps({"id": identifier, "username": "ada", "email": "ada@example.com"})
    browser = harness.browser()
    callback = harness.authorize(harness.start(browser, "spotify"))
    before = harness.records()
    provider.faults.set("me", body=body, content_type="application/json")
    assert harness.deliver(browser, callback).status_code == 502
    assert harness.records() == before
    assert set(SCOPE) <= set(provider.scopes_supported)


@pytest.mark.parametrize("value", ["false", "true", "yes", 1, 0, None, [], {}, [True], "True"])
def test_only_true_is_a_verified_address(
    value: object, harness: Harness, provider: LocalProvider
) -> None:
    """Row 45: an address is verified only where the provider says true, and not `"true"`."""
    provider.faults.tamper_userinfo = lambda found: {**found, "email_verified": value}
    assert harness.succeeds().get("/who").json()["profile"].get("email_verified", False) is False


def test_the_words_true_and_false_of_a_provider_that_writes_them(
    make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Row 45: where the table says that the provider writes its booleans as text, "true" is true."""
    config["providers"]["corp"]["boolean_strings"] = True
    harness = make_harness()
    for value, expected in [("true", True), ("false", False), (True, True), (1, False), ("TRUE", False)]:
        provider.faults.tamper_userinfo = lambda found, value=value: {**found, "email_verified": value}
        profile = harness.succeeds().get("/who").json()["profile"]
        assert profile.get("email_verified", False) is expected


# -- row 37: one configuration for many tenants


def _tenant_site(provider: LocalProvider, config: Config, url: str, **more: object) -> None:
    config["providers"]["corp"] |= {"issuer_template": f"{url}/{{tid}}/v2.0", **more}


@pytest.mark.parametrize(
    ("tenant", "issuer", "accepted"),
    [
        ("11-aa", "{}/11-aa/v2.0", True),
        ("11-aa", "{}/22-bb/v2.0", False),
        ("11-aa", "{}/{{tid}}/v2.0", False),
        ("{tid}", "{}/{{tid}}/v2.0", False),
        ("a/b", "{}/a/b/v2.0", False),
        ("", "{}//v2.0", False),
        (None, "{}/None/v2.0", False),
        (["11-aa"], "{}/11-aa/v2.0", False),
        ("33-cc", "{}/33-cc/v2.0", False),
    ],
)
def test_the_tenant_must_match_the_issuer(
    tenant: object,
    issuer: str,
    accepted: bool,
    make_harness: Make,
    provider: LocalProvider,
    provider_url: str,
    config: Config,
) -> None:
    """Row 37: with an issuer template the token's tenant and issuer must fit, and the tenant be
    allowed."""
    _tenant_site(
        provider, config, provider_url, required_claims={"tid": ["11-aa", "22-bb", "{tid}", "a/b"]}
    )
    hook = claims(iss=issuer.format(provider_url))
    provider.faults.tamper_id_token = lambda found, header: (
        hook(found, header),
        found.update(tid=tenant),
    )[0]
    harness = make_harness()
    if accepted:
        harness.succeeds()
    else:
        harness.refuses(502)


def test_two_tenants_with_one_subject_are_two_people(
    make_harness: Make, provider: LocalProvider, provider_url: str, config: Config
) -> None:
    """Rows 37 and 45: the identity is the pair of issuer and subject, the tenant's own issuer
    included."""
    _tenant_site(provider, config, provider_url)
    harness = make_harness()
    users = set()
    for tenant in ("11-aa", "22-bb"):

        def hook(found: Json, header: Json, tenant: str = tenant) -> None:
            found.update(iss=f"{provider_url}/{tenant}/v2.0", tid=tenant)

        provider.faults.tamper_id_token = hook
        users.add(harness.succeeds().get("/who").json()["user_id"])
    assert len(users) == 2


# -- the pure part


@pytest.mark.parametrize("alg", sorted(ours.ALGORITHMS))
def test_every_algorithm_has_a_hash_for_at_hash(alg: str) -> None:
    """Row 39: the half hash of each algorithm, of the length that its hash says."""
    length = {"256": 16, "384": 24, "512": 32}.get(alg[-3:], 32)
    if alg == "Ed25519":
        length = 32
    assert len(base64.urlsafe_b64decode((ours.half_hash("token", alg) or "") + "==")) == length


def test_an_algorithm_without_a_known_hash_has_none() -> None:
    """Row 39: `at_hash` under an unknown algorithm fails closed instead of being skipped."""
    for alg in ("none", "XX999", "", "RS1", "ES256K"):
        assert ours.half_hash("token", alg) is None
