"""`api_token = "jwt"`: session tokens that another service can check and a logout ends."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from typing import Any

import pytest
from joserfc.jwk import ECKey, KeySet, RSAKey
from joserfc.jwt import JWTClaimsRegistry
from joserfc.jwt import decode as decode_jwt

from oauthgate import ConfigError
from oauthgate.api_tokens import ApiTokens
from oauthgate.config import Config
from oauthgate.protocols import jose
from oauthgate.seal import Keys
from oauthgate.sessions import Ticket
from tests.flows.steps import Clock, counting
from tests.support import BASE, SiteUnderTest, site_under_test

from .steps import FrontEnd, bearer, hand_over, who

SECRETS = ["first-secret-" + "1" * 32, "second-secret-" + "2" * 32]
Json = dict[str, Any]
Make = Callable[[], SiteUnderTest]


def pem(kind: str = "P-256") -> str:
    return ECKey.generate_key(kind).as_pem(private=True).decode()


@pytest.fixture(params=["HS256", "ES256"])
def alg(request: pytest.FixtureRequest, config: Json) -> str:
    """A configuration with JWTs of each algorithm."""
    config["oauthgate"]["secret"] = [SECRETS[0]]
    config["session"] = {"api_token": "jwt"}
    if request.param == "ES256":
        config["session"]["api_token_key"] = pem()
    found: str = request.param
    return found


def parts(token: str) -> tuple[Json, Json, bytes]:
    head, body, signature = (
        base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split(".")
    )
    return json.loads(head), json.loads(body), signature


def compact(head: Json, body: Json, signature: bytes | str = b"") -> str:
    """Any header and claims with any signature."""

    def encoded(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    last = signature if isinstance(signature, str) else encoded(signature)
    return f"{encoded(json.dumps(head).encode())}.{encoded(json.dumps(body).encode())}.{last}"


def signed_in(site: SiteUnderTest, app: FrontEnd, account: str = "ada") -> Json:
    answer = hand_over(site, app.access_token(account))
    assert answer.status_code in (200, 201), answer.text
    shape: Json = answer.json()
    return shape


def test_what_a_token_says(make_site: Make, app: FrontEnd, alg: str) -> None:
    """Header and claims are those of RFC 9068; the session is the user's; 24 hours are the default."""
    site = make_site()
    shape = signed_in(site, app)
    head, claims, _ = parts(shape["session_token"])
    assert sorted(head) == ["alg", "kid", "typ"]
    assert (head["typ"], head["alg"]) == ("at+jwt", alg)
    assert (claims["iss"], claims["aud"], claims["client_id"]) == (BASE, BASE, BASE)
    assert claims["sub"] == shape["user_id"]
    assert claims["jti"] == claims["sid"]
    assert claims["exp"] - claims["iat"] == shape["expires_in"] == 24 * 3600
    assert abs(claims["iat"] - time.time()) < 60
    assert who(site, shape["session_token"]) == shape["user_id"]
    assert len(shape["session_token"]) < 700


def test_refresh_and_logout(make_site: Make, app: FrontEnd, alg: str) -> None:
    """A refreshed token is a new one, and the old one is dead; after the logout so is the new one."""
    site = make_site()
    first = signed_in(site, app)
    answer = site.browser().post("/_oauth/session/refresh", headers=bearer(first["session_token"]))
    assert answer.status_code == 200, answer.text
    second = answer.json()
    assert {**first, **second}.keys() - second.keys() == {"profile"}
    assert second["expires_in"] == 24 * 3600
    assert who(site, first["session_token"]) is None
    assert who(site, second["session_token"]) == first["user_id"]
    out = site.browser().post("/_oauth/logout", headers=bearer(second["session_token"]))
    assert out.json()["logged_out"] is True
    assert who(site, second["session_token"]) is None
    again = site.browser().post("/_oauth/session/refresh", headers=bearer(second["session_token"]))
    assert (again.status_code, again.json()["error"]) == (401, "login_required")


def test_everywhere(make_site: Make, app: FrontEnd, alg: str) -> None:
    """Signing out everywhere on the site ends the tokens of API clients as well."""
    site = make_site()
    browser = site.browser()
    site.login(browser, "corp")
    token = signed_in(site, app)["session_token"]
    assert who(site, token) == browser.get("/who").json()["user_id"]
    site.post(browser, "/logout", everywhere="1")
    assert who(site, token) is None


def test_the_route_of_the_session(make_site: Make, app: FrontEnd, alg: str) -> None:
    """`GET /session` and the changing routes know the token, and want no CSRF token beside it."""
    site = make_site()
    shape = signed_in(site, app)
    headers = bearer(shape["session_token"])
    assert site.browser().get("/_oauth/session", headers=headers).json()["user_id"] == shape["user_id"]
    assert site.browser().get("/_oauth/check", headers=headers).status_code == 204
    answer = site.browser().post("/_oauth/corp/unlink", headers=headers)
    assert answer.json() == {"unlinked": True, "revoked": True}


def test_one_read(make_site: Make, app: FrontEnd, alg: str) -> None:
    """A request with a JWT reads the store once, the next one not at all, and none writes."""
    site = make_site()
    shape = signed_in(site, app)
    store = counting(site.gate)
    for _ in range(3):
        assert who(site, shape["session_token"]) == shape["user_id"]
    assert dict(store.count) == {"get": 1}


def test_its_end(make_site: Make, config: Json, app: FrontEnd, alg: str, clock: Clock) -> None:
    """Past `exp` a token is dead at once, believed a moment ago or not, while its session lives."""
    config["session"]["api_token_lifetime"] = "60s"
    site = make_site()
    shape = signed_in(site, app)
    assert shape["expires_in"] == 60
    clock.advance(58.5, site.gate)
    assert who(site, shape["session_token"]) == shape["user_id"]
    clock.advance(1.6, site.gate)
    store = counting(site.gate)
    assert who(site, shape["session_token"]) is None
    assert not store.count, "an expired token is no reason to look"


@pytest.mark.parametrize("timeout", ["absolute_timeout", "idle_timeout"])
def test_no_longer_than_the_session(
    make_site: Make, config: Json, app: FrontEnd, alg: str, timeout: str
) -> None:
    """A token does not promise more than its session: who checks it without us believes its `exp`."""
    config["session"][timeout] = "1h"
    shape = signed_in(make_site(), app)
    assert 3590 <= shape["expires_in"] <= 3600


# -- forgeries


def forgeries(token: str) -> list[str]:
    """Tokens that were made of a good one by somebody without the key."""
    head, claims, signature = parts(token)
    signed = token.rpartition(".")[0]
    last = token.rpartition(".")[2]
    other = {**claims, "sub": "A" * 22}
    stranger = secrets.token_bytes(32)
    mac = hmac.digest(stranger, signed.encode(), hashlib.sha256)
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    return [
        compact(head, other, signature),
        compact(head, {**claims, "exp": claims["exp"] + 1}, signature),
        compact(head, {**claims, "sid": "A" * 12}, signature),
        compact(head, claims, b""),
        compact(head, claims, flipped),
        compact(head, claims, mac),
        *(compact({**head, "alg": alg}, claims, last) for alg in ("none", "None", "HS512", "RS256", "")),
        compact({**head, "alg": "none"}, claims, ""),
        compact({"alg": head["alg"]}, claims, last),
        compact({**head, "kid": "other"}, claims, last),
        compact({**head, "typ": "JWT"}, claims, last),
        compact({**head, "jku": "https://evil.example/keys"}, claims, last),
        compact({**head, "x5u": "https://evil.example/cert"}, claims, last),
        compact({**head, "jwk": {"kty": "oct", "k": "AAAA"}}, claims, mac),
        compact({**head, "crit": ["b64"], "b64": False}, claims, last),
        f"{token}.", f".{token}", f"{token}x", token[:-4], token.replace(".", "..", 1),
        "..", "a.b.c", f"{signed}.", f"{token}.{last}", "x" * 100_000, f"{'x' * 3000}.y.z",
    ]  # fmt: skip


def test_forged_tokens(make_site: Make, app: FrontEnd, alg: str) -> None:
    """Rows 33 to 36: nothing but a token of ours, as we made it, is anybody."""
    site = make_site()
    token = signed_in(site, app)["session_token"]
    for forged in forgeries(token):
        assert forged != token
        answer = site.browser().get("/who", headers=bearer(forged))
        assert (answer.status_code, answer.json()["user_id"]) == (200, None), forged
    assert who(site, token) is not None


def test_the_public_key_signs_nothing(make_site: Make, config: Json, app: FrontEnd) -> None:
    """Row 34: HS256 keyed with the published key, in every spelling of it, under its own kid."""
    config["session"] = {"api_token": "jwt", "api_token_key": pem()}
    site = make_site()
    head, claims, _ = parts(signed_in(site, app)["session_token"])
    published = site.browser().get("/_oauth/jwks.json").json()["keys"][0]
    public = ECKey.import_key(published)
    for key in (
        public.as_pem(private=False), public.as_der(private=False), json.dumps(published).encode(),
        published["x"].encode(),
    ):  # fmt: skip
        unsigned = compact({**head, "alg": "HS256"}, claims)
        mac = hmac.digest(key, unsigned.rpartition(".")[0].encode(), hashlib.sha256)
        forged = compact({**head, "alg": "HS256"}, claims, mac)
        assert who(site, forged) is None


def test_a_session_of_another_user(make_site: Make, app: FrontEnd, alg: str) -> None:
    """A token names user and session; one of our own making that mixes two is nobody's."""
    site = make_site()
    ada, grace = (parts(signed_in(site, app, name)["session_token"])[1] for name in ("ada", "grace"))
    by = site.gate.api_tokens._signers[0]
    for claims in (
        {**ada, "sid": grace["sid"]}, {**ada, "sub": grace["sub"]}, {**ada, "iss": "https://other.example"},
        {**ada, "aud": "https://other.example"}, {**ada, "aud": [BASE]}, {**ada, "exp": "never"},
        {**ada, "exp": None}, {**ada, "exp": True}, {**ada, "sub": "../user"}, {**ada, "sid": ""},
        {**ada, "sid": 1}, {},
    ):  # fmt: skip
        token = jose.sign(claims, by.key or by.secret, by.algorithm, by.kid, "at+jwt")
        assert who(site, token) is None, claims
    good = jose.sign(ada, by.key or by.secret, by.algorithm, by.kid, "at+jwt")
    assert who(site, good) == ada["sub"]


def test_only_in_its_own_place(make_site: Make, app: FrontEnd, alg: str) -> None:
    """Row 66: not as a cookie, not in the address, not with another scheme, and not twice."""
    site = make_site()
    token = signed_in(site, app)["session_token"]
    tries: list[dict[str, Any]] = [
        {"headers": {"cookie": f"oauthgate={token}"}}, {"params": {"access_token": token}},
        {"headers": {"authorization": token}}, {"headers": {"authorization": f"Basic {token}"}},
        {"headers": {"authorization": f"DPoP {token}"}},
        {"headers": {"x-authorization": f"Bearer {token}"}},
    ]  # fmt: skip
    for given in tries:
        assert site.browser().get("/who", **given).json()["user_id"] is None, given
    assert who(site, token) is not None
    assert site.browser().get("/who", headers={"authorization": f"bearer  {token} "}).json()["user_id"]


def test_a_dead_token_beside_a_cookie(make_site: Make, app: FrontEnd, alg: str) -> None:
    """Row 59: a bearer token of ours counts alone, also when it counts for nothing."""
    site = make_site()
    token = signed_in(site, app)["session_token"]
    browser = site.browser()
    site.login(browser, "corp", "grace")
    grace = browser.get("/who").json()["user_id"]
    assert browser.get("/who", headers=bearer(token)).json()["user_id"] != grace
    site.browser().post("/_oauth/logout", headers=bearer(token))
    assert browser.get("/who", headers=bearer(token)).json()["user_id"] is None
    assert browser.get("/who").json()["user_id"] == grace


def test_tokens_of_the_application(make_site: Make, app: FrontEnd, alg: str) -> None:
    """Row 66: the application's own bearer tokens, JWTs among them, pass untouched and cost no read."""
    site = make_site()
    own = compact({"alg": "HS256", "typ": "JWT", "kid": "app"}, {"sub": "x"}, b"y" * 32)
    store = counting(site.gate)
    for token in (own, "opaque-of-the-app", f"{'A' * 22}.{'B' * 42}"):
        assert who(site, token) is None
    assert not store.count
    browser = site.browser()
    site.login(browser, "corp")
    answer = browser.get("/who", headers=bearer(own))
    assert answer.json()["user_id"] is not None, "the cookie beside it counts"


# -- kinds of tokens, and keys


def test_both_kinds_are_accepted(make_site: Make, config: Json, app: FrontEnd) -> None:
    """After a change to JWT the opaque tokens go on working; they become JWTs by a refresh."""
    config["oauthgate"]["secret"] = [SECRETS[0]]
    opaque = signed_in(make_site(), app)
    assert "." in opaque["session_token"] and opaque["session_token"].count(".") == 1
    config["session"] = {"api_token": "jwt"}
    site = make_site()
    assert who(site, opaque["session_token"]) == opaque["user_id"]
    answer = site.browser().post("/_oauth/session/refresh", headers=bearer(opaque["session_token"]))
    assert answer.json()["session_token"].count(".") == 2
    assert who(site, answer.json()["session_token"]) == opaque["user_id"]
    config["session"] = {}
    assert who(make_site(), answer.json()["session_token"]) is None, "a JWT is nothing to who makes none"


def test_opaque_refresh_has_the_same_shape(site: SiteUnderTest, app: FrontEnd) -> None:
    """`POST /session/refresh` answers as the hand-over does, without the profile."""
    first = signed_in(site, app)
    answer = (
        site.browser().post("/_oauth/session/refresh", headers=bearer(first["session_token"])).json()
    )
    assert first.keys() - answer.keys() == {"profile"} and not answer.keys() - first.keys()
    assert answer["user_id"] == first["user_id"]
    assert who(site, first["session_token"]) is None
    assert who(site, answer["session_token"]) == first["user_id"]


def test_new_secrets(make_site: Make, config: Json, app: FrontEnd) -> None:
    """The first secret signs, all verify: a token lives behind a new secret, and dies with its own."""
    config["oauthgate"]["secret"] = [SECRETS[0]]
    config["session"] = {"api_token": "jwt"}
    old = signed_in(make_site(), app)
    config["oauthgate"]["secret"] = [SECRETS[1], SECRETS[0]]
    site = make_site()
    new = signed_in(site, app)
    assert who(site, old["session_token"]) == who(site, new["session_token"]) == old["user_id"]
    assert parts(old["session_token"])[0]["kid"] != parts(new["session_token"])[0]["kid"]
    left = ApiTokens(site.gate.config, Keys([SECRETS[1].encode()]), site.gate.policy)
    assert left.read(old["session_token"]) is None
    found = left.read(new["session_token"])
    assert isinstance(found, Ticket) and found.user_id == new["user_id"]


def test_new_keys(make_site: Make, config: Json, app: FrontEnd) -> None:
    """The first key signs, all verify and are published, which is enough for another service."""
    one, two = pem(), pem()
    config["oauthgate"]["secret"] = [SECRETS[0]]
    config["session"] = {"api_token": "jwt", "api_token_key": one, "api_token_audience": "orders"}
    old = signed_in(make_site(), app)
    config["session"]["api_token_key"] = [two, one]
    site = make_site()
    new = signed_in(site, app)
    answer = site.browser().get("/_oauth/jwks.json")
    assert answer.headers["content-type"] == "application/json"
    published = answer.json()
    assert [sorted(key) for key in published["keys"]] == [
        ["alg", "crv", "kid", "kty", "use", "x", "y"]
    ] * 2
    for shape in (old, new):
        token = decode_jwt(
            shape["session_token"], KeySet.import_key_set(published), algorithms=["ES256"]
        )
        JWTClaimsRegistry(aud={"essential": True, "value": "orders"}).validate(token.claims)
        assert token.claims["sub"] == shape["user_id"]
        assert who(site, shape["session_token"]) == shape["user_id"]
    config["session"]["api_token_key"] = two
    site = make_site()
    assert who(site, old["session_token"]) is None
    assert who(site, new["session_token"]) == new["user_id"]


def test_no_keys_are_published(make_site: Make, config: Json) -> None:
    """An opaque token, and one with a MAC, have no public half: 404."""
    for session in ({}, {"api_token": "jwt"}):
        config["session"] = session
        answer = make_site().browser().get("/_oauth/jwks.json")
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


REFUSED: list[tuple[Json, str]] = [
    ({"api_token": "jwe"}, "api_token"),
    ({"api_token_key": pem()}, "api_token_key"),
    ({"api_token": "jwt", "api_token_key": "not a key"}, "P-256"),
    ({"api_token": "jwt", "api_token_key": pem("P-384")}, "P-256"),
    ({"api_token": "jwt", "api_token_key": RSAKey.generate_key(2048).as_pem(True).decode()}, "P-256"),
    ({"api_token": "jwt", "api_token_key": [pem(),
    ECKey.generate_key("P-256").as_pem(False).decode()]}, "P-256"),
    ({"api_token": "jwt", "api_token_lifetime": "1s"}, "api_token_lifetime"),
]  # fmt: skip


@pytest.mark.parametrize(("session", "word"), REFUSED)
def test_refused_at_start(session: Json, word: str) -> None:
    """What cannot work is refused with the key's name, and never with the key."""
    document = {"oauthgate": {"base_url": BASE}, "session": session, "providers": {}}
    with pytest.raises(ConfigError, match=word) as refusal:
        Config.load(document)
    assert "BEGIN" not in str(refusal.value)


def test_a_jwt_needs_an_issuer() -> None:
    """Without `base_url` a token could not say who made it."""
    with pytest.raises(ConfigError, match="base_url"):
        Config.load({"session": {"api_token": "jwt"}, "providers": {}})


def test_no_repr_shows_a_key(make_site: Make, app: FrontEnd, alg: str) -> None:
    """Row 76: neither the configuration nor what signs shows a key or a token."""
    site = make_site()
    token = signed_in(site, app)["session_token"]
    ticket = site.gate.api_tokens.read(token)
    shown = repr(
        [site.gate, site.gate.config, site.gate.api_tokens, site.gate.api_tokens._signers, ticket]
    )
    assert "BEGIN" not in shown and token not in shown
    assert all(signer.secret not in shown for signer in site.gate.api_tokens._signers if signer.secret)


def test_websocket(config: Json, app: FrontEnd, alg: str) -> None:
    """The handshake of an API client's WebSocket brings its identity in the same header."""
    with site_under_test("asgi", config) as site:
        shape = signed_in(site, app)
        headers = [(b"authorization", f"Bearer {shape['session_token']}".encode())]
        scope = {"type": "websocket", "scheme": "ws", "path": "/ws", "headers": headers}
        client: Any = site.browser()
        visit = client.portal.call(site.asgi._visit, scope)
        assert visit.bearer and visit.user.id == shape["user_id"]
