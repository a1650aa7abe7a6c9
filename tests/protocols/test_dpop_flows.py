"""DPoP through whole flows, over both adapters, at a provider that checks every proof (RFC 9449).

Row 88 of the threat list. The names of the FAPI 2 client tests are used where a test is one of them.
"""

from __future__ import annotations

import asyncio
import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from joserfc.jwk import ECKey

import oauthgate
from oauthgate import refresh
from oauthgate.protocols import dpop
from oauthgate.testing import Client, LocalProvider, running
from tests.flows.steps import Clock, cookie_header
from tests.support import PAGE, Kind

from .dpop_steps import JSON, Proof, proofs, stored, with_dpop
from .steps import SITE, Harness, query_of

Config = dict[str, Any]
Make = Callable[[], Harness]
TOKEN_ENDPOINT = "/oauth2/token"


@pytest.fixture
def config(config: Config) -> Config:
    """Both OAuth 2 tables with `dpop = true`."""
    with_dpop(config)
    return config


@pytest.fixture
def dpop_harness(make_harness: Make) -> Harness:
    return make_harness()


def user_of(browser: httpx2.Client) -> str:
    return str(browser.get("/who").json()["user_id"])


def ath(token: str) -> str:
    return urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


def at_once(harness: Harness, browser: httpx2.Client, count: int = 20) -> list[int]:
    """The same page asked for by many requests of one visitor at once; their statuses."""
    cookies = cookie_header(browser)
    clients = [harness.browser() for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        answers = pool.map(lambda client: client.get("/call/spotify/me", headers=cookies), clients)
        return [answer.status_code for answer in answers]


# -- the whole way


@pytest.mark.parametrize("name", ["spotify", "corp"])
def test_happy_path_no_dpop_nonce(
    name: str, dpop_harness: Harness, provider: LocalProvider, provider_url: str
) -> None:
    """Sign-in, calls and refresh of a server without nonces: one key for the link, a proof for each
    request, nothing sent twice; PKCE stays."""
    browser = dpop_harness.succeeds(name)
    asked = query_of(dpop_harness.authorization_url)
    assert asked["code_challenge_method"] == "S256"
    calls = {"player": 200} if name == "spotify" else {}
    for path, status in {"me?secret=1": 200, **calls}.items():
        assert browser.get(f"/call/{name}/{path}").status_code == status
        assert browser.get(f"/sync/{name}/{path}").status_code == status
    provider.expire_access_tokens()
    assert browser.get(f"/call/{name}/me").status_code == 200
    assert (provider.count["token"], provider.count["introspect"]) == (2, 0)

    every = proofs(provider, "token", "me", "player", "userinfo")
    assert len(every) == sum(provider.count[found] for found in ("token", "me", "player", "userinfo"))
    link = stored(dpop_harness.site, user_of(browser), name)
    jkt = dpop.ProofKey(link.token.dpop_key).jkt
    assert {proof.jkt for proof in every} == {jkt} == {asked["dpop_jkt"]}
    assert len({proof.claims["jti"] for proof in every}) == len(every)
    assert not [proof for proof in every if "nonce" in proof.claims]
    for message in provider.received("me"):
        claims = Proof.of(message).claims
        scheme, _, token = (message.header("authorization") or "").partition(" ")
        assert (scheme, claims["ath"]) == ("DPoP", ath(token))
        assert (claims["htm"], claims["htu"]) == ("GET", f"{provider_url}/api/me")
    for message in provider.received("token"):
        claims = Proof.of(message).claims
        assert (claims["htm"], claims["htu"]) == ("POST", f"{provider_url}{TOKEN_ENDPOINT}")
        assert "ath" not in claims


def test_every_link_has_a_key_of_its_own(dpop_harness: Harness, provider: LocalProvider) -> None:
    """Two people, and one person who links again, are not tied together by a key."""
    first = dpop_harness.succeeds("spotify")
    again = dpop_harness.succeeds("spotify")
    assert user_of(first) == user_of(again)
    other = dpop_harness.browser()
    callback = dpop_harness.authorize(dpop_harness.start(other, "spotify"), "grace")
    assert dpop_harness.deliver(other, callback).status_code == 303
    assert len({proof.jkt for proof in proofs(provider, "token")}) == 3
    # The older of two sessions goes on with the newer key: it is the link's.
    for browser in (first, again, other):
        assert browser.get("/call/spotify/me").status_code == 200


@pytest.mark.parametrize("token_type", ["dpop", "DPOP", "dPoP"])
def test_token_type_case_insensitivity(
    token_type: str, dpop_harness: Harness, provider: LocalProvider
) -> None:
    """RFC 6749 section 5.1: the type has no case, at the code and at a refresh."""
    provider.faults.tamper_token_response = lambda answer: {**answer, "token_type": token_type}
    browser = dpop_harness.succeeds("spotify")
    provider.expire_access_tokens()
    assert browser.get("/call/spotify/me").status_code == 200
    assert provider.count["token"] == 2


@pytest.mark.parametrize("scheme", ["dpop", "DPOP", "dPoP"])
def test_rs_dpop_auth_scheme_case_insensitivity(
    scheme: str, dpop_harness: Harness, provider: LocalProvider
) -> None:
    """RFC 9110 section 11.1: the challenge's scheme has no case."""
    provider.dpop_scheme = scheme
    browser = dpop_harness.succeeds("spotify")
    provider.dpop_nonce_required = ("resource",)
    provider.count.clear()
    assert browser.get("/call/spotify/me").status_code == 200
    assert provider.count["me"] == 2


# -- downgrade (section 5)

WRONG_TYPES: dict[str, object] = {
    "Bearer": "Bearer", "bearer": "bearer", "missing": ..., "null": None, "empty": "", "mac": "mac",
    "padded": "DPoP ", "list": ["DPoP"], "DPoP+": "DPoP+",
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_a_wrong_token_type_is_refused(
    case: str, dpop_harness: Harness, provider: LocalProvider
) -> None:
    """A token that is not bound is not accepted in place of one that is."""
    value = WRONG_TYPES[case]

    def hook(answer: dict[str, Any]) -> dict[str, Any]:
        changed = {**answer, "token_type": value}
        return {name: item for name, item in changed.items() if item is not ...}

    def prepare() -> None:
        provider.faults.tamper_token_response = hook

    dpop_harness.refuses(502, prepare=prepare)


def test_a_server_that_ignores_proofs_is_refused(make_harness: Make, provider: LocalProvider) -> None:
    """A server without DPoP gives a bearer token, which is what an attacker on the way would make of
    it."""
    harness = make_harness()
    harness.signed_in()
    provider.dpop = False
    browser = harness.browser()
    assert harness.login(browser).status_code == 502
    assert browser.get("/who").json()["user_id"] is None
    assert provider.count["userinfo"] == 0, "the token is not even tried"


def test_a_downgrade_at_a_refresh(dpop_harness: Harness, provider: LocalProvider) -> None:
    """A refresh that answers with a bearer token is discarded; it is never sent."""
    browser = dpop_harness.succeeds("spotify")
    before = stored(dpop_harness.site, user_of(browser))
    provider.expire_access_tokens()
    provider.faults.tamper_token_response = lambda answer: {**answer, "token_type": "Bearer"}
    provider.count.clear()
    answer = browser.get("/call/spotify/me", headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (503, "provider_unavailable")
    assert (provider.count["token"], provider.count["me"]) == (1, 1)
    assert stored(dpop_harness.site, user_of(browser)) == before


@pytest.mark.parametrize("checked", [True, False])
def test_a_bound_token_that_was_not_asked_for(
    checked: bool, make_harness: Make, config: Config, provider: LocalProvider
) -> None:
    """Without DPoP a token of the type DPoP is refused, even where types are not checked: there is no
    key to use it with."""
    config["providers"]["corp"] |= {"dpop": False, "token_type_check": checked}
    harness = make_harness()

    def prepare() -> None:
        provider.faults.tamper_token_response = lambda answer: {**answer, "token_type": "DPoP"}

    harness.refuses(502, prepare=prepare)


# -- the authorization server's nonce (section 8)


@pytest.mark.parametrize("name", ["spotify", "corp"])
def test_a_nonce_for_the_code(
    name: str, dpop_harness: Harness, provider: LocalProvider, config: Config
) -> None:
    """The code is sent once more, with the nonce, and is good; the next sign-in knows the nonce."""
    provider.dpop_nonce_required = ("authorization",)
    dpop_harness.succeeds(name)
    first, second = provider.received("token")
    assert first.params["code"] == second.params["code"]
    found = [Proof.of(message).claims for message in (first, second)]
    assert "nonce" not in found[0] and found[1]["nonce"] == provider.dpop_nonces["authorization"][-1]
    assert found[0]["jti"] != found[1]["jti"]
    provider.count.clear()
    dpop_harness.succeeds(name)
    assert provider.count["token"] == 1


def test_a_nonce_and_a_client_assertion(
    make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """With `private_key_jwt` the repeated request has a new assertion too: one is good for one use."""
    key = ECKey.generate_key("P-256", {"kid": "k"})
    table = config["providers"]["spotify"]
    del table["client_secret"]
    table["token_endpoint_auth_method"] = "private_key_jwt"
    table["private_key"] = key.as_pem(private=True).decode()
    table["issuer"] = f"{table['token_endpoint'].removesuffix(TOKEN_ENDPOINT)}"
    del config["providers"]["corp"]
    provider.add_client(
        Client(
            client_id="spotify-client",
            token_endpoint_auth_method="private_key_jwt",
            jwks={"keys": [key.as_dict(private=False)]},
            redirect_uris=[f"{SITE}/_oauth/spotify/callback"],
        )
    )
    provider.dpop_nonce_required = ("authorization",)
    make_harness().succeeds("spotify")
    sent = [message.params["client_assertion"] for message in provider.received("token")]
    assert len(sent) == len(set(sent)) == 2


def test_a_token_endpoint_that_takes_no_nonce(dpop_harness: Harness, provider: LocalProvider) -> None:
    """Asked for a nonce again and again, it is sent one once; the error says what is the matter."""

    def prepare() -> None:
        provider.dpop_nonce_required = ("authorization",)
        provider.faults.endless_dpop_nonce = frozenset({"authorization"})

    answer = dpop_harness.refuses(502, prepare=prepare, token_requests=2)
    assert "use_dpop_nonce" not in answer.text, "the page is for people"
    assert len({message.params["code"] for message in provider.received("token")[-2:]}) == 1


@pytest.mark.parametrize("nonce", [None, "a b", "x" * 2000])
def test_a_token_endpoint_that_gives_no_nonce(
    nonce: str | None, dpop_harness: Harness, provider: LocalProvider
) -> None:
    """Without a nonce that can be sent there is nothing to repeat."""

    def prepare() -> None:
        provider.faults.set(
            "token",
            status=400,
            body='{"error": "use_dpop_nonce"}',
            content_type="application/json",
            headers={} if nonce is None else {"DPoP-Nonce": nonce},
        )

    dpop_harness.refuses(502, prepare=prepare, token_requests=1)


def test_a_nonce_at_a_refresh(dpop_harness: Harness, provider: LocalProvider, clock: Clock) -> None:
    """The refresh token is sent once more with the nonce, and once only when that is known."""
    browser = dpop_harness.succeeds("spotify")
    provider.dpop_nonce_required = ("authorization",)
    provider.count.clear()
    for wanted in (2, 1):
        clock.advance(3601)
        provider.advance(3601)
        provider.count.clear()
        assert browser.get("/call/spotify/me").status_code == 200
        assert (provider.count["token"], provider.count["me"]) == (wanted, 1)
    one, two = provider.received("token")[-3:-1]
    assert one.params["refresh_token"] == two.params["refresh_token"]


def test_a_refresh_that_takes_no_nonce(
    dpop_harness: Harness, provider: LocalProvider, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refresh fails, the link stays, and it recovers by itself: the refresh token was not used."""
    browser = dpop_harness.succeeds("spotify")
    provider.dpop_nonce_required = ("authorization",)
    provider.faults.endless_dpop_nonce = frozenset({"authorization"})
    clock.advance(3601)
    provider.advance(3601)
    provider.count.clear()
    answer = browser.get("/call/spotify/me", headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (503, "provider_unavailable")
    assert (provider.count["token"], provider.count["me"]) == (2, 0)
    provider.faults.clear()
    monkeypatch.setattr(refresh, "BACK_OFF", 0.0)
    assert browser.get("/call/spotify/me").status_code == 200


# -- the API's nonce (section 9)


def test_a_nonce_for_the_api(dpop_harness: Harness, provider: LocalProvider) -> None:
    """Each call is repeated once at most, with its body; the nonce of any answer is taken up."""
    provider.dpop_nonce_required = ("resource",)
    browser = dpop_harness.succeeds("spotify")
    assert provider.count["me"] == 2, "the profile is read with a nonce too"
    provider.count.clear()
    assert browser.get("/call/spotify/me").status_code == 200
    assert provider.count["me"] == 1
    provider.rotate_dpop_nonces()
    answer = browser.post("/call/spotify/tweets", json={"text": "hello"})
    assert (answer.status_code, answer.json()["text"]) == (201, "hello")
    assert [message.body for message in provider.received("tweets")] == [b'{"text":"hello"}'] * 2
    provider.rotate_dpop_nonces(keep_old=True)
    assert browser.get("/call/spotify/me").status_code == 200  # with the old one, and is told the new
    provider.dpop_nonces["resource"].pop(0)
    assert browser.get("/call/spotify/me").status_code == 200
    assert (provider.count["me"], provider.count["token"]) == (3, 0)
    assert browser.get("/sync/spotify/me").status_code == 200


def test_a_nonce_for_the_user_information(dpop_harness: Harness, provider: LocalProvider) -> None:
    """OpenID Connect's userinfo is an API too, although it is at the authorization server."""
    provider.dpop_nonce_required = ("authorization", "resource")
    dpop_harness.succeeds("corp")
    assert (provider.count["token"], provider.count["userinfo"]) == (2, 2)
    sent = [proof.claims.get("nonce") for proof in proofs(provider, "token", "userinfo")]
    known = {name: nonces[-1] for name, nonces in provider.dpop_nonces.items()}
    assert sent == [None, known["authorization"], None, known["resource"]]


def test_the_nonce_of_a_repeated_request(
    make_harness: Make, provider: LocalProvider, provider_url: str, config: Config
) -> None:
    """The answer to the repetition may have a newer nonce, which is the one for next time."""
    config["providers"]["corp"]["api_base_url"] = f"{provider_url}/oauth2"
    harness = make_harness()
    provider.dpop_nonce_required = ("authorization", "resource")

    def rotate(answer: dict[str, Any]) -> dict[str, Any]:
        provider.rotate_dpop_nonces()
        return answer

    provider.faults.tamper_token_response = rotate
    harness.succeeds("corp")
    assert provider.count["token"] == 2
    provider.faults.clear()
    provider.count.clear()
    harness.succeeds("corp")
    assert provider.count["token"] == 1

    browser = harness.succeeds("corp")
    provider.rotate_dpop_nonces()
    provider.faults.tamper_userinfo = rotate
    provider.count.clear()
    assert browser.get("/call/corp/userinfo").status_code == 200
    provider.faults.clear()
    assert browser.get("/call/corp/userinfo").status_code == 200
    assert provider.count["userinfo"] == 3


def test_an_api_that_takes_no_nonce(dpop_harness: Harness, provider: LocalProvider) -> None:
    """The handler gets the 401 after one repetition; the token is not refreshed for it."""
    browser = dpop_harness.succeeds("spotify")
    provider.dpop_nonce_required = ("resource",)
    provider.faults.endless_dpop_nonce = frozenset({"resource"})
    provider.count.clear()
    answer = browser.get("/call/spotify/me")
    assert (answer.status_code, answer.json()["error"]) == (401, "use_dpop_nonce")
    assert (provider.count["me"], provider.count["token"]) == (2, 0)
    provider.faults.clear()
    assert browser.get("/call/spotify/me").status_code == 200


@pytest.mark.parametrize(("early", "calls"), [(True, 2), (False, 3)])
def test_an_expired_token_and_an_unknown_nonce(
    early: bool, calls: int, dpop_harness: Harness, provider: LocalProvider
) -> None:
    """Both at once: refused, refreshed, refused for the nonce unless it came with the first refusal, and
    then good."""
    browser = dpop_harness.succeeds("spotify")
    provider.dpop_nonce_required = ("authorization", "resource")
    if early:
        provider.expire_access_tokens()
    else:
        provider.faults.set("me", status=401, times=1)  # says neither what is wrong nor a nonce
    provider.count.clear()
    assert browser.get("/call/spotify/me").status_code == 200
    assert (provider.count["me"], provider.count["token"]) == (calls, 2)


def test_an_upload_that_cannot_be_sent_again(
    dpop_harness: Harness, provider: LocalProvider, config: Config, kind: Kind
) -> None:
    """A stream is sent once: the 401 is the handler's, and the next call has the nonce."""
    user_id = user_of(dpop_harness.succeeds("spotify"))
    provider.dpop_nonce_required = ("resource",)
    provider.count.clear()
    statuses = []
    if kind == "wsgi":
        with oauthgate.open(config) as gate:
            spotify = gate.services(user_id)["spotify"]
            for _ in range(2):
                body = iter([b'{"text":', b'"hello"}'])
                statuses.append(spotify.post("tweets", content=body).status_code)
    else:

        async def work() -> None:
            async with oauthgate.open(config) as gate:
                client = (await gate.services(user_id))["spotify"]
                for _ in range(2):

                    async def body() -> Any:
                        yield b'{"text":"hello"}'

                    statuses.append((await client.post("tweets", content=body())).status_code)

        asyncio.run(work())
    assert (statuses, provider.count["tweets"]) == ([401, 201], 2)


# -- many at once


def test_twenty_callers_one_refresh(
    dpop_harness: Harness, provider: LocalProvider, clock: Clock
) -> None:
    """20 callers with an expired token: one refresh, and a proof of its own for each call."""
    browser = dpop_harness.succeeds("spotify")
    clock.advance(3601)
    provider.advance(3601)
    provider.faults.set("token", delay=0.2)
    provider.count.clear()
    assert at_once(dpop_harness, browser) == [200] * 20
    assert (provider.count["token"], provider.count["me"]) == (1, 20)
    every = proofs(provider, "token", "me")
    assert len({proof.claims["jti"] for proof in every}) == len(every)
    assert len({proof.jkt for proof in every}) == 1


def test_twenty_callers_after_a_401_and_with_nonces(
    dpop_harness: Harness, provider: LocalProvider
) -> None:
    """A token refused before its time and no nonce known: still one refresh, every call repeated."""
    browser = dpop_harness.succeeds("spotify")
    provider.dpop_nonce_required = ("resource",)
    provider.expire_access_tokens()
    provider.faults.set("token", delay=0.2)
    provider.count.clear()
    assert at_once(dpop_harness, browser) == [200] * 20
    assert provider.count["token"] == 1
    every = proofs(provider, "token", "me")
    assert len({proof.claims["jti"] for proof in every}) == len(every)


# -- redirects, other clients, other hosts


def answers_of(
    kind: Kind, config: Config, user_id: str, path: str, method: str = "GET"
) -> list[httpx2.Response]:
    """One call that follows redirects; the answers on its way."""
    if kind == "wsgi":
        with oauthgate.open(config) as gate:
            client = gate.services(user_id)["spotify"]
            answer = client.request(method, path, follow_redirects=True)
            return [*answer.history, answer]

    async def work() -> list[httpx2.Response]:
        async with oauthgate.open(config) as gate:
            client = (await gate.services(user_id))["spotify"]
            answer = await client.request(method, path, follow_redirects=True)
            return [*answer.history, answer]

    return asyncio.run(work())


@pytest.mark.parametrize("nonces", [(), ("resource",)])
def test_a_redirect_on_the_same_host_has_a_new_proof(
    nonces: tuple[str, ...],
    dpop_harness: Harness,
    provider: LocalProvider,
    config: Config,
    kind: Kind,
    provider_url: str,
) -> None:
    """Another address and another method want another proof; so does the same address again."""
    user_id = user_of(dpop_harness.succeeds("spotify"))
    provider.dpop_nonce_required = nonces
    ways = [("tweets", "POST", "me"), ("me", "GET", "me")]
    if not nonces:
        ways.append(("tweets", "POST", "tweets"))
    for path, method, target in ways:
        headers = {"location": f"{provider_url}/api/{target}", "dpop-nonce": "of-the-redirect"}
        provider.faults.set(
            path, status=303, headers=headers, times=2 if nonces and path != target else 1
        )
        found = answers_of(kind, config, user_id, path, method)
        assert found[-1].status_code == 200, found[-1].text
        assert found[-1].request.headers["dpop"] != found[0].request.headers["dpop"]
        provider.faults.clear()


def test_neither_token_nor_proof_goes_to_another_host(
    dpop_harness: Harness, provider: LocalProvider, config: Config, kind: Kind
) -> None:
    """A redirect elsewhere is followed with nothing of ours, and what it answers is not believed."""
    user_id = user_of(dpop_harness.succeeds("spotify"))
    with running(LocalProvider(name="other", dpop_nonce_required=["resource"])) as elsewhere:
        other = f"{elsewhere}/api/me"
        provider.faults.set("me", status=307, headers={"location": other, "dpop-nonce": "x"})
        provider.count.clear()
        answer = answers_of(kind, config, user_id, "me")[-1]
    assert (answer.status_code, str(answer.request.url)) == (401, other)
    assert not {"authorization", "dpop"} & set(answer.request.headers)
    assert (provider.count["me"], provider.count["token"]) == (1, 0)


def test_neither_goes_to_another_origin_of_the_provider(
    dpop_harness: Harness, provider: LocalProvider, config: Config, kind: Kind
) -> None:
    """httpx2 takes the token off a redirect to another origin; the proof does not stay behind."""
    user_id = user_of(dpop_harness.succeeds("spotify"))
    with running(LocalProvider(name="other")) as elsewhere:
        config["providers"]["spotify"]["api_hosts"] = [elsewhere]
        provider.faults.set("me", status=307, headers={"location": f"{elsewhere}/api/me"})
        answer = answers_of(kind, config, user_id, "me")[-1]
    assert not {"authorization", "dpop"} & set(answer.request.headers)


def test_the_auth_of_a_service_in_another_client(
    dpop_harness: Harness, provider: LocalProvider, config: Config, kind: Kind, provider_url: str
) -> None:
    """`services["spotify"].auth` signs for any httpx2 client; the bare token is worth nothing."""
    user_id = user_of(dpop_harness.succeeds("spotify"))
    provider.dpop_nonce_required = ("resource",)
    url = f"{provider_url}/api/me"
    if kind == "wsgi":
        with oauthgate.open(config) as gate, httpx2.Client() as client:
            spotify = gate.services(user_id)["spotify"]
            assert client.get(url, auth=spotify.auth).json()["id"] == "1001"
            token = spotify.access_token()
    else:

        async def work() -> str:
            async with oauthgate.open(config) as gate, httpx2.AsyncClient() as client:
                spotify = (await gate.services(user_id))["spotify"]
                assert (await client.get(url, auth=spotify.auth)).json()["id"] == "1001"
                return await spotify.access_token()

        token = asyncio.run(work())
    for scheme in ("Bearer", "DPoP"):
        answer = httpx2.get(url, headers={"authorization": f"{scheme} {token}"})
        assert answer.status_code == 401


# -- links, clients and the switch


def test_a_public_client_keeps_its_refresh_tokens(
    make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """A public client's refresh tokens are bound to the key as well (section 5)."""
    del config["providers"]["spotify"]["client_secret"]
    config["providers"]["spotify"]["token_endpoint_auth_method"] = "none"
    provider.add_client(
        Client(
            client_id="spotify-client",
            token_endpoint_auth_method="none",
            redirect_uris=[f"{SITE}/_oauth/spotify/callback"],
        )
    )
    browser = make_harness().succeeds("spotify")
    for _ in range(2):
        provider.expire_access_tokens()
        assert browser.get("/call/spotify/me").status_code == 200
    assert {held.jkt is None for held in provider.refresh_store.values()} == {False}


def test_a_link_from_before_dpop(make_harness: Make, provider: LocalProvider, config: Config) -> None:
    """Its token could be used by anybody who reads it: the person is asked to link again, once."""
    config["providers"]["spotify"]["dpop"] = False
    browser = make_harness().succeeds("spotify")
    assert browser.get("/call/spotify/me").status_code == 200
    cookies = cookie_header(browser)

    config["providers"]["spotify"]["dpop"] = True
    harness = make_harness()
    browser = harness.browser()
    provider.count.clear()
    for _ in range(2):
        answer = browser.get("/call/spotify/me", headers={**cookies, **JSON})
        assert (answer.status_code, answer.json()["reason"]) == (401, "reauth_required")
    page = browser.get("/call/spotify/me", headers={**cookies, **PAGE})
    assert page.status_code == 303 and "/_oauth/spotify/link" in page.headers["location"]
    (link,) = browser.get("/_oauth/session", headers=cookies).json()["links"]
    assert link["state"] == "reauth_required"
    assert provider.count["me"] == provider.count["token"] == 0, "the old token is not sent"
    assert harness.succeeds("spotify").get("/call/spotify/me").status_code == 200


def test_a_bound_link_outlives_the_switch(
    make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Switched off, new links are bearers; a bound one goes on with its key, refreshes included."""
    browser = make_harness().succeeds("spotify")
    cookies = cookie_header(browser)
    jkt = proofs(provider, "token")[0].jkt

    config["providers"]["spotify"]["dpop"] = False
    harness = make_harness()
    browser = harness.browser()
    provider.expire_access_tokens()
    assert browser.get("/call/spotify/me", headers=cookies).status_code == 200
    assert {proof.jkt for proof in proofs(provider, "token", "me")} == {jkt}
    harness.succeeds("spotify")
    assert provider.received("token")[-1].header("dpop") is None
    assert browser.get("/call/spotify/me", headers=cookies).status_code == 200
    assert provider.received("me")[-1].header("dpop") is None


def test_a_flow_from_before_dpop(make_harness: Make, provider: LocalProvider, config: Config) -> None:
    """A sign-in that was under way when DPoP was switched on ends with a bound token all the same."""
    config["providers"]["spotify"]["dpop"] = False
    before = make_harness()
    browser = before.browser()
    callback = before.authorize(before.start(browser, "spotify"))
    assert "dpop_jkt" not in query_of(before.authorization_url)
    config["providers"]["spotify"]["dpop"] = True
    harness = make_harness()
    other = harness.browser()
    answer = other.get(str(callback), headers={**PAGE, **cookie_header(browser)})
    assert answer.status_code == 303, answer.text
    assert other.get("/call/spotify/me").status_code == 200
    assert len({proof.jkt for proof in proofs(provider, "token", "me")}) == 1


def test_unlinking_needs_no_proof(dpop_harness: Harness, provider: LocalProvider) -> None:
    """Revocation is the client's, not the key's (RFC 7009); it works as ever."""
    browser = dpop_harness.succeeds("spotify")
    answer = dpop_harness.site.post(browser, "/spotify/unlink", account_id="1001")
    assert answer.status_code in (200, 303)
    assert provider.count["revoke"] == 2
    assert {message.header("dpop") for message in provider.received("revoke")} == {None}
    assert not browser.get("/who").json()["links"]


def test_a_flow_fits_into_its_cookie(make_harness: Make, config: Config) -> None:
    """The key adds less than 70 bytes to a flow's cookie, sealed."""

    def size(on: bool) -> int:
        config["providers"]["corp"]["dpop"] = on
        harness = make_harness()
        started = harness.start(harness.browser(), "corp")
        (cookie,) = started.headers.get_list("set-cookie")
        return len(cookie)

    bare, bound = size(False), size(True)
    assert 0 < bound - bare < 70


def test_a_bearer_link_where_the_api_also_takes_dpop(
    make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """An API that offers both names both in its challenge; a bearer token is refreshed as ever."""
    config["providers"]["spotify"]["dpop"] = False
    browser = make_harness().succeeds("spotify")
    challenge = 'Bearer error="invalid_token", DPoP error="use_dpop_nonce", algs="ES256"'
    provider.faults.set(
        "me", status=401, headers={"www-authenticate": challenge, "dpop-nonce": "n"}, times=1
    )
    provider.count.clear()
    assert browser.get("/call/spotify/me").status_code == 200
    assert (provider.count["me"], provider.count["token"]) == (2, 1)
    assert {message.header("dpop") for message in provider.log} == {None}
