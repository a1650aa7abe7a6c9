"""The local provider, checked from outside: by HTTP, with oauthlib's signer and with joserfc."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import parse_qs, parse_qsl, quote_plus, urlencode, urlsplit

import httpx2
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OctKey
from oauthlib import oauth1

from oauthgate.testing import (
    Account,
    Callback,
    Client,
    LocalProvider,
    SignInError,
    running,
    serve,
    sign_in,
)

BACK = "http://localhost:8000/_oauth/local/callback"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ODD_SECRET = "s:+%/&= é"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RSA_PRIVATE = RSA_KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
).decode()
RSA_PUBLIC = (
    RSA_KEY.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
ASSERTION_KEY = ECKey.generate_key("P-256", {"kid": "client-key"})
CLIENTS = [
    Client(
        client_id="basic:+id",
        client_secret=ODD_SECRET,
        redirect_uris=[BACK],
        post_logout_redirect_uris=["http://localhost:8000/bye"],
        rsa_public_key=RSA_PUBLIC,
    ),
    Client(
        client_id="post",
        client_secret="post-secret-that-is-32-bytes-long",
        redirect_uris=[BACK + "?keep=1"],
        token_endpoint_auth_method="client_secret_post",
        id_token_signed_response_alg="HS256",
    ),
    Client(client_id="public", redirect_uris=[BACK], token_endpoint_auth_method="none"),
    Client(
        client_id="keyed",
        redirect_uris=[BACK],
        token_endpoint_auth_method="private_key_jwt",
        jwks={"keys": [ASSERTION_KEY.as_dict(private=False)]},
        id_token_signed_response_alg="ES256",
        userinfo_signed_response_alg="ES256",
    ),
]
SETTINGS = (
    *("pkce_required", "rotate_refresh_tokens", "refresh_reuse_grace"),
    *("access_token_lifetime", "remember_consent"),
)


@pytest.fixture(scope="module")
def served() -> Iterator[LocalProvider]:
    provider = LocalProvider(name="local", clients=CLIENTS)
    with running(provider):
        yield provider


@pytest.fixture
def provider(served: LocalProvider) -> Iterator[LocalProvider]:
    before = {name: getattr(served, name) for name in SETTINGS}
    yield served
    served.clear()
    for name, value in before.items():
        setattr(served, name, value)


@pytest.fixture
def http(provider: LocalProvider) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=provider.issuer or "", trust_env=False) as client:
        yield client


class Flow:
    """One OAuth 2 flow, driven the way a client would."""

    def __init__(
        self, provider: LocalProvider, http: httpx2.Client, client_id: str = "basic:+id"
    ) -> None:
        self.provider, self.http, self.client_id = provider, http, client_id
        self.redirect_uri = provider.clients[client_id].redirect_uris[0]
        self.verifier = secrets.token_urlsafe(48)

    def url(self, **changes: str | None) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        params: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid profile email player",
            "state": "the-state",
            "nonce": "the-nonce",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            **changes,
        }
        return "/oauth2/authorize?" + urlencode({k: v for k, v in params.items() if v is not None})

    def ask(self, account: str = "ada", *, deny: bool = False, **changes: Any) -> dict[str, str]:
        callback = sign_in(self.http, self.url(**changes), account, deny=deny)
        assert callback.startswith(self.redirect_uri)
        return dict(parse_qsl(urlsplit(callback).query))

    def authentication(self) -> tuple[dict[str, str], dict[str, str]]:
        client = self.provider.clients[self.client_id]
        secret = client.client_secret or ""
        if client.token_endpoint_auth_method == "client_secret_basic":
            pair = f"{quote_plus(client.client_id)}:{quote_plus(secret)}"
            return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}, {}
        if client.token_endpoint_auth_method == "client_secret_post":
            return {}, {"client_id": client.client_id, "client_secret": secret}
        if client.token_endpoint_auth_method == "none":
            return {}, {"client_id": client.client_id}
        return {}, assertion(f"{self.provider.issuer}/oauth2/token")

    def post(self, path: str = "/oauth2/token", **data: str) -> httpx2.Response:
        headers, fields = self.authentication()
        return self.http.post(path, data={**fields, **data}, headers=headers)

    def redeem(self, code: str, **changes: str) -> httpx2.Response:
        data = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.verifier,
            **changes,
        }
        return self.post(**data)

    def tokens(self, **changes: Any) -> dict[str, Any]:
        response = self.redeem(self.ask(**changes)["code"])
        assert response.status_code == 200, response.text
        return dict(response.json())

    def refresh(self, token: str, **more: str) -> httpx2.Response:
        return self.post(grant_type="refresh_token", refresh_token=token, **more)


def assertion(audience: str, **changes: Any) -> dict[str, str]:
    now = int(time.time())
    claims = {
        "iss": "keyed",
        "sub": "keyed",
        "aud": audience,
        "exp": now + 60,
        "jti": secrets.token_hex(8),
        **changes,
    }
    signed = jwt.encode({"alg": "ES256"}, claims, ASSERTION_KEY)
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    return {"client_assertion": signed, "client_assertion_type": kind}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def claims_of(provider: LocalProvider, http: httpx2.Client, token: str) -> dict[str, Any]:
    keys = KeySet.import_key_set(http.get("/jwks").json())
    return dict(jwt.decode(token, keys, algorithms=["RS256", "ES256"]).claims)


# OAuth 2 and OpenID Connect


@pytest.mark.parametrize("client_id", [client.client_id for client in CLIENTS])
def test_code_flow_with_each_client_authentication(
    provider: LocalProvider, http: httpx2.Client, client_id: str
) -> None:
    flow = Flow(provider, http, client_id)
    answer = flow.ask()
    assert answer["state"] == "the-state" and answer["iss"] == provider.issuer
    assert answer.get("keep") == ("1" if client_id == "post" else None)
    response = flow.redeem(answer["code"])
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    tokens = response.json()
    assert tokens["token_type"] == "Bearer" and tokens["expires_in"] == 3600
    assert tokens["scope"] == "openid profile email player"
    key = OctKey.import_key("post-secret-that-is-32-bytes-long")
    if client_id == "post":
        claims = dict(jwt.decode(tokens["id_token"], key, algorithms=["HS256"]).claims)
    else:
        claims = claims_of(provider, http, tokens["id_token"])
    half = hashlib.sha256(tokens["access_token"].encode()).digest()[:16]
    assert claims["at_hash"] == base64.urlsafe_b64encode(half).rstrip(b"=").decode()
    assert (claims["iss"], claims["aud"]) == (provider.issuer, client_id)
    assert (claims["sub"], claims["nonce"]) == ("1001", "the-nonce")
    assert claims["exp"] > time.time() and "email" not in claims
    assert provider.count["token"] == 1 and provider.received("token")[0].method == "POST"


def test_discovery_names_endpoints_that_answer(provider: LocalProvider, http: httpx2.Client) -> None:
    document = http.get("/.well-known/openid-configuration").json()
    assert document["issuer"] == provider.issuer
    assert document == http.get("/.well-known/oauth-authorization-server").json()
    for name, url in document.items():
        if name.endswith("_endpoint") or name == "jwks_uri":
            assert http.get(url).status_code != 404, name
    assert not any("d" in key for key in http.get("/jwks").json()["keys"])


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "EdDSA"])
def test_each_algorithm_signs_what_joserfc_verifies(alg: str) -> None:
    provider = LocalProvider(clients=CLIENTS[:1], id_token_signed_response_alg=alg)
    token = provider.sign_jwt({"sub": "x"}, client_id="basic:+id")
    keys = KeySet.import_key_set({"keys": provider.public_jwks()["keys"]})
    if alg == "EdDSA":
        with pytest.warns(UserWarning, match="RFC 9864"):
            assert jwt.decode(token, keys, algorithms=[alg]).claims == {"sub": "x"}
    else:
        assert jwt.decode(token, keys, algorithms=[alg]).claims == {"sub": "x"}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "invalid_request"),
        ({"scope": "openid nonsense"}, "invalid_scope"),
        ({"prompt": "none"}, "login_required"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"max_age": "soon"}, "invalid_request"),
        ({"request": "ey.ey.ey"}, "request_not_supported"),
    ],
)
def test_authorization_errors_are_redirected(
    provider: LocalProvider, http: httpx2.Client, changes: dict[str, Any], error: str
) -> None:
    answer = Flow(provider, http).ask(**changes)
    assert answer["error"] == error and answer["state"] == "the-state"
    assert answer["iss"] == provider.issuer and "code" not in answer


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"redirect_uri": BACK + "/"},
        {"redirect_uri": BACK.replace("localhost", "LOCALHOST")},
        {"redirect_uri": None},
    ],
)
def test_nothing_is_redirected_to_an_unregistered_address(
    provider: LocalProvider, http: httpx2.Client, changes: dict[str, str | None]
) -> None:
    response = http.get(Flow(provider, http).url(**changes))
    assert response.status_code == 400 and "location" not in response.headers
    assert "script" not in response.headers["content-security-policy"]


def test_a_repeated_parameter_is_refused(provider: LocalProvider, http: httpx2.Client) -> None:
    callback = sign_in(http, Flow(provider, http).url() + "&state=another")
    assert "error=invalid_request" in callback


def test_denial_and_a_page_that_is_used_up(provider: LocalProvider, http: httpx2.Client) -> None:
    flow = Flow(provider, http)
    assert flow.ask(deny=True)["error"] == "access_denied"
    page = http.get(flow.url()).text
    request = page.split('name="request" value="')[1].split('"')[0]
    first = http.post("/oauth2/authorize", data={"request": request, "account": "1002"})
    again = http.post("/oauth2/authorize", data={"request": request, "account": "1002"})
    assert (first.status_code, again.status_code) == (303, 400)
    with pytest.raises(SignInError, match="no such account"):
        flow.ask("mallory")


def test_a_code_works_once_and_its_reuse_revokes(provider: LocalProvider, http: httpx2.Client) -> None:
    flow = Flow(provider, http)
    code = flow.ask()["code"]
    token = flow.redeem(code).json()["access_token"]
    assert http.get("/api/me", headers=bearer(token)).status_code == 200
    again = flow.redeem(code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert http.get("/api/me", headers=bearer(token)).status_code == 401


@pytest.mark.parametrize("change", ["code_verifier", "redirect_uri", "time", "client"])
def test_a_code_is_bound(provider: LocalProvider, http: httpx2.Client, change: str) -> None:
    flow = Flow(provider, http)
    code, changes = flow.ask()["code"], {}
    if change == "time":
        provider.advance(61)
    elif change == "client":
        flow.client_id = "public"
    else:
        changes = {change: "x" * 43}
    assert flow.redeem(code, **changes).json()["error"] == "invalid_grant"


def test_a_verifier_without_a_challenge_is_refused(provider: LocalProvider, http: httpx2.Client) -> None:
    provider.pkce_required = False
    flow = Flow(provider, http)
    plain: dict[str, Any] = {"code_challenge": None, "code_challenge_method": None}
    assert flow.redeem(flow.ask(**plain)["code"]).json()["error"] == "invalid_grant"
    assert flow.redeem(flow.ask(**plain)["code"], code_verifier="").status_code == 200


def test_a_client_is_held_to_its_registered_method(provider: LocalProvider, http: httpx2.Client) -> None:
    basic, data = Flow(provider, http), {"grant_type": "refresh_token", "refresh_token": "x"}
    header, _ = basic.authentication()
    secret = {"client_id": "basic:+id", "client_secret": ODD_SECRET}
    both = http.post("/oauth2/token", data={**data, **secret}, headers=header)
    assert (both.status_code, both.json()["error"]) == (400, "invalid_request")
    raw = base64.b64encode(f"basic:+id:{ODD_SECRET}".encode()).decode()
    for fields, headers in (
        (secret, {}),  # the right secret in the wrong place
        ({"client_id": "basic:+id"}, {}),
        ({}, {"Authorization": f"Basic {raw}"}),  # not form-encoded first
        ({}, {"Authorization": "Basic !!!"}),
        ({"client_id": "post", "client_secret": "wrong"}, {}),
    ):
        response = http.post("/oauth2/token", data={**data, **fields}, headers=headers)
        assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
        assert response.headers["www-authenticate"].startswith("Basic ")
    as_json = http.post("/oauth2/token", json=data, headers=header)
    assert as_json.status_code == 415
    assert http.post("/oauth2/token?code=x", data=data, headers=header).status_code == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://elsewhere.example"},
        {"exp": 1},
        {"exp": int(time.time()) + 7200},
        {"jti": None},
        {"iss": "basic"},
        {"iat": int(time.time()) + 3600},
    ],
)
def test_client_assertions_are_checked(
    provider: LocalProvider, http: httpx2.Client, changes: dict[str, Any]
) -> None:
    fields = assertion(f"{provider.issuer}/oauth2/token", **changes)
    data = {"grant_type": "refresh_token", "refresh_token": "x", **fields}
    assert http.post("/oauth2/token", data=data).json()["error"] == "invalid_client"


def test_a_client_assertion_works_once(provider: LocalProvider, http: httpx2.Client) -> None:
    fields = assertion(provider.issuer or "")
    data = {"grant_type": "refresh_token", "refresh_token": "x", **fields}
    assert http.post("/oauth2/token", data=data).json()["error"] == "invalid_grant"
    assert http.post("/oauth2/token", data=data).json()["error"] == "invalid_client"


def test_refresh_rotates_and_reuse_ends_the_family(provider: LocalProvider, http: httpx2.Client) -> None:
    flow = Flow(provider, http)
    first = flow.tokens()
    second = flow.refresh(first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    old, new = (claims_of(provider, http, t["id_token"]) for t in (first, second))
    assert new["sub"] == old["sub"] and new["auth_time"] == old["auth_time"]
    assert "nonce" not in new
    assert flow.refresh(first["refresh_token"]).json()["error"] == "invalid_grant"
    assert flow.refresh(second["refresh_token"]).json()["error"] == "invalid_grant"
    assert http.get("/api/me", headers=bearer(second["access_token"])).status_code == 401


def test_refresh_with_grace_and_without_rotation(provider: LocalProvider, http: httpx2.Client) -> None:
    flow = Flow(provider, http)
    provider.refresh_reuse_grace = 10
    token = flow.tokens()["refresh_token"]
    assert [flow.refresh(token).status_code for _ in range(2)] == [200, 200]
    provider.advance(11)
    assert flow.refresh(token).status_code == 400
    provider.rotate_refresh_tokens = False
    token = flow.tokens()["refresh_token"]
    answers = [flow.refresh(token).json() for _ in range(3)]
    assert all("access_token" in answer for answer in answers)
    assert not any("refresh_token" in answer for answer in answers)
    assert flow.refresh(token, scope="openid").json()["scope"] == "openid"
    assert flow.refresh(token, scope="tweets").json()["error"] == "invalid_scope"


def test_scope_that_is_not_granted(provider: LocalProvider, http: httpx2.Client) -> None:
    provider.withheld_scope.add("player")
    tokens = Flow(provider, http).tokens()
    assert tokens["scope"] == "openid profile email"
    refused = http.get("/api/player", headers=bearer(tokens["access_token"]))
    assert refused.status_code == 403
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    assert 'scope="player"' in refused.headers["www-authenticate"]


def test_tokens_expire_and_are_revoked(provider: LocalProvider, http: httpx2.Client) -> None:
    flow = Flow(provider, http)
    provider.access_token_lifetime = 3
    tokens = flow.tokens()
    header = bearer(tokens["access_token"])
    assert flow.post("/oauth2/introspect", token=tokens["access_token"]).json()["active"] is True
    provider.advance(3)
    expired = http.get("/api/me", headers=header)
    assert expired.status_code == 401
    assert 'error="invalid_token"' in expired.headers["www-authenticate"]
    tokens = flow.refresh(tokens["refresh_token"]).json()
    provider.expire_access_tokens()
    assert http.get("/api/me", headers=bearer(tokens["access_token"])).status_code == 401
    tokens = flow.refresh(tokens["refresh_token"]).json()
    other = Flow(provider, http, "public")
    assert other.post("/oauth2/revoke", token=tokens["refresh_token"]).status_code == 400
    assert flow.post("/oauth2/revoke", token=tokens["refresh_token"]).status_code == 200
    assert flow.post("/oauth2/revoke", token="unknown").status_code == 200
    assert http.get("/api/me", headers=bearer(tokens["access_token"])).status_code == 401
    assert flow.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    answer = flow.post("/oauth2/introspect", token=tokens["access_token"]).json()
    assert answer == {"active": False}


def test_userinfo_takes_the_token_in_the_header_only(
    provider: LocalProvider, http: httpx2.Client
) -> None:
    token = Flow(provider, http).tokens()["access_token"]
    for method in ("GET", "POST"):
        claims = http.request(method, "/oauth2/userinfo", headers=bearer(token)).json()
        assert claims["sub"] == "1001" and claims["email"] == "ada@example.com"
    assert http.get(f"/oauth2/userinfo?access_token={token}").status_code == 400
    assert http.get("/oauth2/userinfo").headers.get_list("www-authenticate") == [
        'Bearer realm="local"',
        'OAuth realm="local"',
    ]
    picture = http.get(claims["picture"])
    assert picture.headers["content-type"] == "image/svg+xml" and ">A<" in picture.text


def test_signed_userinfo(provider: LocalProvider, http: httpx2.Client) -> None:
    tokens = Flow(provider, http, "keyed").tokens()
    response = http.get("/oauth2/userinfo", headers=bearer(tokens["access_token"]))
    assert response.headers["content-type"] == "application/jwt"
    assert claims_of(provider, http, response.text)["email_verified"] is True


def test_form_post(provider: LocalProvider, http: httpx2.Client) -> None:
    flow = Flow(provider, http)
    callback = sign_in(http, flow.url(response_mode="form_post"))
    assert callback == BACK and callback.fields is not None
    assert callback.fields["state"] == "the-state"
    assert flow.redeem(callback.fields["code"]).status_code == 200


def test_prompt_max_age_and_login_hint(provider: LocalProvider, http: httpx2.Client) -> None:
    flow = Flow(provider, http)
    id_token = flow.tokens()["id_token"]
    assert "code" in flow.ask(prompt="none")
    assert "code" in flow.ask(prompt="none", id_token_hint=id_token)
    wider = flow.ask(prompt="none", scope="openid tweets")
    assert wider["error"] == "consent_required"
    provider.advance(10)
    assert flow.ask(prompt="none", max_age="5")["error"] == "login_required"
    page = http.get(flow.url(login_hint="grace@example.com")).text
    assert page.index("Grace Hopper") < page.index("Ada Lovelace")
    assert "Continue as Ada" in page
    provider.remember_consent = True
    assert http.get(flow.url()).status_code == 303
    assert http.get(flow.url(prompt="login")).status_code == 200
    flow.ask("grace", prompt="login")
    assert flow.ask(prompt="none", id_token_hint=id_token)["error"] == "login_required"


def test_logout(provider: LocalProvider, http: httpx2.Client) -> None:
    flow = Flow(provider, http)
    hint = flow.tokens()["id_token"]
    target = {"post_logout_redirect_uri": "http://localhost:8000/bye", "state": "a b"}
    assert http.get("/oauth2/logout", params=target).status_code == 400
    elsewhere = {"id_token_hint": hint, "post_logout_redirect_uri": "http://localhost:8000/bye/"}
    assert http.get("/oauth2/logout", params=elsewhere).status_code == 400
    assert "code" in flow.ask(prompt="none")
    provider.advance(7200)  # an expired hint is still a hint
    gone = http.get("/oauth2/logout", params={"id_token_hint": hint, **target})
    assert gone.headers["location"] == "http://localhost:8000/bye?state=a+b"
    assert flow.ask(prompt="none")["error"] == "login_required"
    flow.tokens()
    page = http.get("/oauth2/logout", params={"client_id": "basic:+id", **target}).text
    request = page.split('name="request" value="')[1].split('"')[0]
    assert "code" in flow.ask(prompt="none")
    gone = http.post("/oauth2/logout", data={"request": request, "confirm": "1"})
    assert gone.headers["location"] == "http://localhost:8000/bye?state=a+b"
    assert flow.ask(prompt="none")["error"] == "login_required"


# OAuth 1.0a


def rsa_sha1(base_string: str, client: oauth1.Client) -> str:
    key = serialization.load_pem_private_key(client.rsa_key.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(base_string.encode(), padding.PKCS1v15(), hashes.SHA1())
    return base64.b64encode(signature).decode()


class OAuthlibClient(oauth1.Client):  # type: ignore[misc]
    """oauthlib's client, without the further package it wants for RSA-SHA1."""

    SIGNATURE_METHODS: ClassVar = {**oauth1.Client.SIGNATURE_METHODS, "RSA-SHA1": rsa_sha1}


class Signer:
    """oauthlib's OAuth 1.0a client on httpx2."""

    def __init__(self, http: httpx2.Client, **settings: Any) -> None:
        self.http = http
        self.body: str | None = None
        self.headers: dict[str, str] = {}
        about = {"client_secret": ODD_SECRET, "callback_uri": BACK, **settings}
        self.client = OAuthlibClient("basic:+id", **about)

    def call(
        self,
        path: str,
        method: str = "POST",
        body: str | None = None,
        **headers: str,
    ) -> httpx2.Response:
        base = str(self.http.base_url).rstrip("/")
        more = {**self.headers, **headers} or None
        uri, signed, content = self.client.sign(base + path, method, body or self.body, more)
        return self.http.request(method, uri, headers=signed, content=content)

    def login(self, account: str = "ada", page: str = "authorize") -> dict[str, str]:
        first = self.call("/oauth1/request_token")
        assert first.status_code == 200, first.text
        temporary = dict(parse_qsl(first.text))
        assert temporary["oauth_callback_confirmed"] == "true"
        token = temporary["oauth_token"]
        callback = sign_in(self.http, f"/oauth1/{page}?oauth_token={token}", account)
        answer = {"oauth_token": token, "oauth_verifier": str(callback)}
        if self.client.callback_uri != "oob":
            answer = dict(parse_qsl(urlsplit(callback).query))
        self.client.callback_uri = None
        self.client.resource_owner_key = answer["oauth_token"]
        self.client.resource_owner_secret = temporary["oauth_token_secret"]
        self.client.verifier = answer["oauth_verifier"]
        second = self.call("/oauth1/access_token")
        assert second.status_code == 200, second.text
        assert second.headers["content-type"].startswith("application/x-www-form-urlencoded")
        fields = dict(parse_qsl(second.text))
        self.client.verifier = None
        self.client.resource_owner_key = fields["oauth_token"]
        self.client.resource_owner_secret = fields["oauth_token_secret"]
        return fields


@pytest.mark.parametrize("place", ["AUTH_HEADER", "QUERY", "BODY"])
@pytest.mark.parametrize("method", ["HMAC-SHA1", "HMAC-SHA256", "RSA-SHA1", "PLAINTEXT"])
def test_oauth1_flow_with_each_method_and_placement(
    provider: LocalProvider, http: httpx2.Client, method: str, place: str
) -> None:
    settings: dict[str, Any] = {"signature_method": method, "signature_type": place}
    if method == "RSA-SHA1":
        settings["rsa_key"] = RSA_PRIVATE
    signer = Signer(http, **settings)
    if place == "BODY":  # oauthlib signs in the body only what is a form already
        signer.body, signer.headers = "a=%20b+c", FORM
    fields = signer.login("grace", "authenticate")
    assert (fields["user_id"], fields["screen_name"]) == ("1002", "grace")
    response = signer.call("/api/echo?b5=%3D%253D&a3=a&c%40=&a2=r%20b&a3=2+q")
    assert response.status_code == 200, response.text
    assert response.json()["account"] == "1002"


def test_oauth1_signs_form_bodies_and_refuses_tampering(
    provider: LocalProvider, http: httpx2.Client
) -> None:
    signer = Signer(http)
    signer.login()
    posted = signer.call("/api/tweets", "POST", "status=Hello+%C3%A9%26", **FORM)
    assert (posted.status_code, posted.json()["text"]) == (201, "Hello é&")
    _, headers, body = signer.client.sign(f"{provider.issuer}/api/tweets", "POST", "status=Hello", FORM)
    forged = http.post("/api/tweets", content=body.replace("Hello", "Evil"), headers=headers)
    assert (forged.status_code, forged.json()["errors"][0]["code"]) == (401, "signature_invalid")
    assert http.post("/api/tweets", content=body, headers=headers).status_code == 201
    replayed = http.post("/api/tweets", content=body, headers=headers)
    assert (replayed.status_code, replayed.json()["errors"][0]["code"]) == (401, "nonce_used")
    shown = signer.call("/api/tweets", "GET").json()["tweets"]
    assert [tweet["text"] for tweet in shown] == ["Hello", "Hello é&"]
    assert shown[0]["username"] == "ada"


@pytest.mark.parametrize(
    ("settings", "status", "problem"),
    [
        ({"client_secret": "wrong"}, 401, "signature_invalid"),
        ({"timestamp": "1"}, 401, "timestamp_refused"),
        ({"callback_uri": None}, 400, "parameter_absent"),
        ({"callback_uri": BACK + "/"}, 401, "callback_rejected"),
        ({"resource_owner_key": "x"}, 401, "token_rejected"),
        ({"signature_method": "HMAC-SHA512"}, 400, "signature_method_rejected"),
    ],
)
def test_oauth1_refusals(
    provider: LocalProvider,
    http: httpx2.Client,
    settings: dict[str, Any],
    status: int,
    problem: str,
) -> None:
    response = Signer(http, **settings).call("/oauth1/request_token")
    assert response.status_code == status
    assert parse_qs(response.text)["oauth_problem"] == [problem]
    assert response.headers["www-authenticate"].startswith("OAuth ")


def test_oauth1_denial_and_out_of_band(provider: LocalProvider, http: httpx2.Client) -> None:
    token = dict(parse_qsl(Signer(http).call("/oauth1/request_token").text))["oauth_token"]
    callback = sign_in(http, f"/oauth1/authorize?oauth_token={token}", deny=True)
    assert callback == f"{BACK}?denied={token}"
    with pytest.raises(SignInError, match="unknown or expired"):
        sign_in(http, f"/oauth1/authorize?oauth_token={token}")
    assert Signer(http, callback_uri="oob").login()["screen_name"] == "ada"


def test_oauth1_tokens_are_single_use_and_bound_to_the_verifier(
    provider: LocalProvider, http: httpx2.Client
) -> None:
    signer = Signer(http)
    temporary = dict(parse_qsl(signer.call("/oauth1/request_token").text))
    signer.client.callback_uri = None
    signer.client.resource_owner_key = temporary["oauth_token"]
    signer.client.resource_owner_secret = temporary["oauth_token_secret"]
    signer.client.verifier = "guess"
    early = signer.call("/oauth1/access_token")
    assert (early.status_code, "permission_unknown" in early.text) == (401, True)
    callback = sign_in(http, f"/oauth1/authorize?oauth_token={temporary['oauth_token']}")
    wrong = signer.call("/oauth1/access_token")
    assert (wrong.status_code, "verifier_invalid" in wrong.text) == (401, True)
    signer.client.verifier = parse_qs(urlsplit(callback).query)["oauth_verifier"][0]
    assert signer.call("/oauth1/access_token").status_code == 200
    assert signer.call("/oauth1/access_token").status_code == 401
    other = Signer(http)
    other.login()
    assert other.call("/api/me", "GET").json()["username"] == "ada"
    provider.revoke_all()
    assert other.call("/api/me", "GET").status_code == 401


# The API


def test_echo_tells_what_came(provider: LocalProvider, http: httpx2.Client) -> None:
    token = Flow(provider, http).tokens()["access_token"]
    body = secrets.token_bytes(1_000_000)
    response = http.request(
        "PROPFIND",
        "/api/echo?b=2&a=&b=1",
        content=body,
        headers={**bearer(token), "Content-Type": "application/octet-stream", "Cookie": "x=y"},
    )
    told = response.json()
    assert told["method"] == "PROPFIND" and told["query"] == [["b", "2"], ["a", ""], ["b", "1"]]
    assert told["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert told["body_length"] == len(body) and "x=y" in told["cookie"]
    assert response.cookies["provider_cookie"] == "1001"
    info = http.get("/api/token_info", headers=bearer(token)).json()
    assert info["client_id"] == "basic:+id"


def test_player_follows_the_clock() -> None:
    provider = LocalProvider(clients=CLIENTS, clock=lambda: 1_000_000.0, auto_approve="grace")
    with running(provider) as url, httpx2.Client(base_url=url, trust_env=False) as http:
        token = Flow(provider, http, "public").tokens()["access_token"]
        playing = []
        for _ in range(5):
            reply = http.get("/api/player", headers=bearer(token)).json()
            playing.append(reply["item"]["name"])
            provider.advance(40)
        assert len(set(playing)) >= 4
        provider.clear()
        token = Flow(provider, http, "public").tokens()["access_token"]
        reply = http.get("/api/me/player", headers=bearer(token)).json()
        assert reply["item"]["name"] == playing[0]
    assert provider.issuer is None


def test_tweets_are_checked(provider: LocalProvider, http: httpx2.Client) -> None:
    header = bearer(Flow(provider, http).tokens(scope="tweets")["access_token"])
    assert http.post("/api/tweets", json={"text": "Now"}, headers=header).status_code == 201
    for bad in ({"text": ""}, {"text": "x" * 281}, {"text": 5}, ["text"]):
        assert http.post("/api/tweets", json=bad, headers=header).status_code == 400
    assert http.post("/api/tweets", content=b"{", headers=header).status_code == 400


# Failures on request


def test_faults_replace_delay_and_count_off(provider: LocalProvider, http: httpx2.Client) -> None:
    flow = Flow(provider, http)
    token = flow.tokens()["refresh_token"]
    provider.faults.set("token", status=503, headers={"Retry-After": "7"}, times=1)
    broken = flow.refresh(token)
    assert (broken.status_code, broken.headers["retry-after"]) == (503, "7")
    provider.faults.set("token", body="access_token=x", content_type="text/html", times=1)
    assert flow.refresh(token).text == "access_token=x"
    token = flow.refresh(token).json()["refresh_token"]  # still unused: the fault came first
    provider.faults.set("token", status=502, after=True, times=1)
    assert flow.refresh(token).status_code == 502
    assert flow.refresh(token).json()["error"] == "invalid_grant"  # used, its answer lost
    assert provider.count["token"] == 6
    provider.faults.set("jwks", delay=0.05)
    started = time.monotonic()
    assert http.get("/jwks").status_code == 200
    assert time.monotonic() - started >= 0.05
    with pytest.raises(KeyError, match="no endpoint 'tokn'"):
        provider.faults.set("tokn", status=500)


def test_an_answer_that_comes_too_late(provider: LocalProvider, http: httpx2.Client) -> None:
    flow = Flow(provider, http)
    token = flow.tokens()["refresh_token"]
    provider.faults.set("token", delay=5, times=1)
    http.timeout = httpx2.Timeout(0.1)
    with pytest.raises(httpx2.ReadTimeout):
        flow.refresh(token)
    http.timeout = httpx2.Timeout(5)
    token = flow.refresh(token).json()["refresh_token"]  # nobody waited, so nothing was done
    provider.faults.set("token", delay=0.3, after=True, times=1)
    http.timeout = httpx2.Timeout(0.1)
    with pytest.raises(httpx2.ReadTimeout):
        flow.refresh(token)
    http.timeout = httpx2.Timeout(5)
    assert flow.refresh(token).json()["error"] == "invalid_grant"


def test_faults_truncate_and_drip(provider: LocalProvider, http: httpx2.Client) -> None:
    provider.faults.set("jwks", truncate=True, times=1)
    with pytest.raises(httpx2.TransportError):
        http.get("/jwks")
    provider.faults.set("jwks", body="slow", drip=0.01, times=1)
    started = time.monotonic()
    assert http.get("/jwks").text == "slow"
    assert time.monotonic() - started >= 0.03


def test_tampering(provider: LocalProvider, http: httpx2.Client) -> None:
    flow = Flow(provider, http)
    faults = provider.faults
    faults.tamper_authorization_response = lambda params: {**params, "iss": "https://evil.example"}
    faults.tamper_token_response = lambda answer: {**answer, "token_type": "mac"}
    faults.tamper_id_token = lambda claims, header: ({**claims, "aud": "x"}, header)
    faults.tamper_userinfo = lambda claims: {**claims, "sub": "other"}
    faults.tamper_discovery = lambda document: {**document, "issuer": "https://evil.example"}
    answer = flow.ask()
    assert answer["iss"] == "https://evil.example"
    tokens = flow.redeem(answer["code"]).json()
    assert tokens["token_type"] == "mac"
    assert claims_of(provider, http, tokens["id_token"])["aud"] == "x"
    header = bearer(tokens["access_token"])
    assert http.get("/oauth2/userinfo", headers=header).json()["sub"] == "other"
    document = http.get("/.well-known/openid-configuration").json()
    assert document["issuer"] == "https://evil.example"


def test_wrong_signatures_and_key_rotation(provider: LocalProvider, http: httpx2.Client) -> None:
    flow = Flow(provider, http)
    for wrong in ("none", "hs256_public_key", "other_key"):
        provider.faults.sign_with = wrong
        with pytest.raises(JoseError):
            claims_of(provider, http, flow.tokens()["id_token"])
    provider.faults.sign_with = None
    before = http.get("/jwks").json()["keys"]
    old = flow.tokens()["id_token"]
    provider.rotate_keys()
    after = http.get("/jwks").json()["keys"]
    assert not {key["kid"] for key in before} & {key["kid"] for key in after}
    with pytest.raises((JoseError, ValueError)):
        claims_of(provider, http, old)
    claims_of(provider, http, flow.tokens()["id_token"])
    provider.rotate_keys(keep_old=True)
    assert len(http.get("/jwks").json()["keys"]) == 2 * len(after)
    provider.faults.omit_kid = True
    head = flow.tokens()["id_token"].split(".")[0]
    assert "kid" not in json.loads(base64.urlsafe_b64decode(head + "=="))
    assert not any("kid" in key for key in http.get("/jwks").json()["keys"])
    provider.rotate_keys()


def test_secrets_are_not_in_representations(provider: LocalProvider, http: httpx2.Client) -> None:
    flow = Flow(provider, http, "post")
    tokens = flow.tokens()
    assert isinstance(sign_in(http, flow.url()), Callback)
    shown = repr(provider) + repr(provider.log) + repr(CLIENTS)
    for secret in (ODD_SECRET, "post-secret", flow.verifier, *map(str, tokens.values())):
        assert secret in ("Bearer", "3600", tokens["scope"]) or secret not in shown
    assert provider.received("token")[0].params["code_verifier"] == flow.verifier


def test_many_clients_at_once(provider: LocalProvider) -> None:
    """A refresh token sent by eight threads at once is accepted exactly once."""
    with httpx2.Client(base_url=provider.issuer or "", trust_env=False) as http:
        flow = Flow(provider, http)
        token, statuses = flow.tokens()["refresh_token"], []
        threads = [
            threading.Thread(target=lambda: statuses.append(flow.refresh(token).status_code))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(statuses) == [200] + [400] * 7
    assert provider.count["token"] == 9


def test_serving_several_and_refusing_nonsense() -> None:
    one, two = LocalProvider(name="one"), LocalProvider(name="two", issuer="https://two.example/")
    with running(one, two) as urls:
        found = [httpx2.get(f"{url}/.well-known/openid-configuration").json() for url in urls]
        assert [document["issuer"] for document in found] == [urls[0], "https://two.example"]
    with serve(one) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            serve(two, port=port)
    with pytest.raises(ValueError, match="needs a client_secret"):
        Client(client_id="x")
    with pytest.raises(ValueError, match="without a fragment"):
        Client(client_id="x", client_secret="y", redirect_uris=["/relative"])
    with pytest.raises(ValueError, match="expected one of"):
        Client(client_id="x", token_endpoint_auth_method="magic")
    assert Account(id="1", username="x").email is None
