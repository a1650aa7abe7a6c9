"""The relying-party modules of the OpenID conformance suite, each through a whole flow.

The ids are the modules' names. A negative module asserts what the suite judges by: after the bad answer
no call to the user information; and besides, that nothing is stored and no session comes or goes. The
modules of the Basic plan also run as the Form Post plan.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from oauthgate.protocols import discovery
from oauthgate.testing import LocalProvider
from oauthgate.testing.jose import new_key
from tests.support import PAGE

from .steps import SITE, Harness, Json, query_of, set_cookie_names, with_query

Config = dict[str, Any]
Make = Callable[[], Harness]


def corp_client(provider: LocalProvider, **changes: Any) -> None:
    """Register the client of the table `corp` anew."""
    fields = {name: getattr(provider.clients["corp-client"], name) for name in CLIENT_FIELDS}
    provider.add_client(type(provider.clients["corp-client"])(**{**fields, **changes}))


CLIENT_FIELDS = (
    "client_id", "client_secret", "redirect_uris", "token_endpoint_auth_method", "jwks",
    "post_logout_redirect_uris", "id_token_signed_response_alg", "userinfo_signed_response_alg",
)  # fmt: skip


def claims(**changes: Any) -> Callable[[Json, Json], None]:
    """A hook that sets claims of the ID token, or with `...` removes them."""

    def hook(found: Json, header: Json) -> None:
        for name, value in changes.items():
            if value is ...:
                del found[name]
            else:
                found[name] = value(found[name]) if callable(value) else value

    return hook


def broken_signature(answer: Json) -> None:
    """Change one bit in the middle of the ID token's signature."""
    head, _, tail = answer["id_token"].rpartition(".")
    middle = len(tail) // 2
    answer["id_token"] = (
        f"{head}.{tail[:middle]}{'A' if tail[middle] != 'A' else 'B'}{tail[middle + 1 :]}"
    )


@pytest.fixture(params=["query", "form_post"])
def mode(request: pytest.FixtureRequest, config: Config) -> str:
    """The Basic plan, and the Form Post Basic plan."""
    config["providers"]["corp"]["response_mode"] = request.param
    return str(request.param)


# -- modules that must succeed

Prepare = Callable[[LocalProvider, Config], object]


def _one_key_without_kid(provider: LocalProvider, config: Config) -> None:
    provider.rotate_keys()
    provider.faults.omit_kid = True


def _several_keys_without_kid(provider: LocalProvider, config: Config) -> None:
    provider.rotate_keys(keep_old=True)
    provider.faults.omit_kid = True


def _only_rs256(provider: LocalProvider, config: Config) -> None:
    provider.faults.tamper_discovery = lambda found: {
        **found,
        "id_token_signing_alg_values_supported": ["RS256"],
    }


ACCEPTED: dict[str, Prepare] = {
    "oidcc-client-test": lambda provider, config: None,
    "oidcc-client-test-kid-absent-single-jwks": _one_key_without_kid,
    "oidcc-client-test-kid-absent-multiple-jwks": _several_keys_without_kid,
    "oidcc-client-test-idtoken-sig-rs256": _only_rs256,
}


@pytest.mark.parametrize("module", ACCEPTED)
def test_accepted(
    module: str, mode: str, make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Rows 42 and section 2: an odd but right answer signs the visitor in, user information included."""
    ACCEPTED[module](provider, config)
    make_harness().succeeds()
    assert provider.count["userinfo"] == 1
    assert provider.count["token"] == 1


# -- modules that must stop at the ID token


def _hook(**changes: Any) -> Prepare:
    return lambda provider, config: setattr(provider.faults, "tamper_id_token", claims(**changes))


def _sign_with(how: Any) -> Prepare:
    return lambda provider, config: setattr(provider.faults, "sign_with", how)


def _broken(alg: str) -> Prepare:
    def prepare(provider: LocalProvider, config: Config) -> None:
        corp_client(provider, id_token_signed_response_alg=alg)
        config["providers"]["corp"]["id_token_signed_response_alg"] = alg
        provider.faults.tamper_token_response = lambda answer: (
            broken_signature(answer) if "id_token" in answer else None
        )

    return prepare


def _another_algorithm(provider: LocalProvider, config: Config) -> None:
    corp_client(provider, id_token_signed_response_alg="PS256")


REFUSED: dict[str, Prepare] = {
    "oidcc-client-test-invalid-iss": _hook(iss=lambda value: value + "1"),
    "oidcc-client-test-missing-sub": _hook(sub=...),
    "oidcc-client-test-invalid-aud": _hook(aud=lambda value: value + "1"),
    "oidcc-client-test-missing-aud": _hook(aud=...),
    "oidcc-client-test-missing-iat": _hook(iat=...),
    "oidcc-client-test-idtoken-sig-none": _sign_with("none"),
    "oidcc-client-test-invalid-sig-rs256": _broken("RS256"),
    "oidcc-client-test-invalid-sig-hs256": _broken("HS256"),
    "oidcc-client-test-invalid-sig-es256": _broken("ES256"),
    "oidcc-client-test-nonce-invalid": _hook(nonce=lambda value: value + "1"),
    "oidcc-client-test-invalid-athash": _hook(at_hash=lambda value: value + "1"),
    "fapi2-client-test-invalid-missing-iss": _hook(iss=...),
    "fapi2-client-test-invalid-missing-aud": _hook(aud=...),
    "fapi2-client-test-invalid-missing-exp": _hook(exp=...),
    "fapi2-client-test-invalid-expired-exp": _hook(exp=lambda value: value - 3600 - 360),
    "fapi2-client-test-invalid-missing-nonce": _hook(nonce=...),
    "fapi2-client-test-invalid-nonce": _hook(nonce="a nonce of another sign-in"),
    "fapi2-client-test-invalid-null-alg": _sign_with("none"),
    "fapi2-client-test-invalid-alternate-alg": _another_algorithm,
    "fapi2-client-test-invalid-secondary-aud": _hook(aud=lambda value: [value, "another-client"]),
}


@pytest.mark.parametrize("module", REFUSED)
def test_refused(
    module: str, mode: str, make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Rows 23, 33 to 39: the code was redeemed, and nothing at all is done with what came back."""
    REFUSED[module](provider, config)
    make_harness().refuses(502)


def test_userinfo_invalid_sub(mode: str, make_harness: Make, provider: LocalProvider) -> None:
    """Row 41, oidcc-client-test-userinfo-invalid-sub: the user information is discarded with the
    login."""
    provider.faults.tamper_userinfo = lambda found: {**found, "sub": found["sub"] + "invalid"}
    make_harness().refuses(502, userinfo_requests=1)


# -- what the requests must look like


def test_requests(mode: str, make_harness: Make, provider: LocalProvider) -> None:
    """oidcc-client-test-nonce-unless-code-flow, -scope-userinfo-claims, -client-secret-basic,
    -userinfo-bearer-header: nonce, scope and PKCE are sent, Basic at the token endpoint, and the access
    token in the header and nowhere else."""
    harness = make_harness()
    harness.succeeds()
    sent = query_of(harness.authorization_url)
    assert sent["response_type"] == "code"
    assert set(sent["scope"].split()) >= {"openid", "profile", "email"}
    assert sent["code_challenge_method"] == "S256"
    assert len({sent["state"], sent["nonce"], sent["code_challenge"]}) == 3
    assert all(len(sent[name]) >= 43 for name in ("state", "nonce", "code_challenge"))
    assert sent.get("response_mode", "query") == mode
    (token,) = provider.received("token")
    assert str(token.header("authorization")).startswith("Basic ")
    assert "client_secret" not in token.params
    (userinfo,) = provider.received("userinfo")
    assert userinfo.method == "GET"
    assert str(userinfo.header("authorization")).startswith("Bearer ")
    assert userinfo.query == () and userinfo.body == b""


def test_scope_userinfo_claims(make_harness: Make, provider: LocalProvider) -> None:
    """oidcc-client-test-scope-userinfo-claims: the claims of the scopes arrive in the profile."""
    profile = make_harness().succeeds().get("/who").json()["profile"]
    assert profile["id"] == "1001"
    assert (profile["username"], profile["name"]) == ("ada", "Ada Lovelace")
    assert (profile["email"], profile["email_verified"]) == ("ada@example.com", True)


# -- discovery and keys


def test_discovery_openid_config(make_harness: Make, provider: LocalProvider) -> None:
    """oidcc-client-test-discovery-openid-config: fetched once, and its endpoints are used."""
    harness = make_harness()
    harness.succeeds()
    harness.succeeds()
    assert provider.count["discovery"] == 1
    assert provider.count["jwks"] == 1


def test_discovery_jwks_uri_keys(make_harness: Make, provider: LocalProvider, provider_url: str) -> None:
    """oidcc-client-test-discovery-jwks-uri-keys: the keys are fetched from wherever the metadata
    says."""
    run = secrets.token_hex(8)
    provider.faults.tamper_discovery = lambda found: {
        **found,
        "jwks_uri": f"{provider_url}/jwks?run={run}",
    }
    make_harness().succeeds()
    (fetched,) = provider.received("jwks")
    assert fetched.params == {"run": run}


@pytest.mark.parametrize(
    "module",
    ["oidcc-client-test-discovery-issuer-mismatch", "fapi2-client-test-discovery-issuer-mismatch"],
)
@pytest.mark.parametrize("issuer", ["{}INVALID", "{}/", "https://evil.example", "", None, 5])
def test_discovery_issuer_mismatch(
    module: str, issuer: object, make_harness: Make, provider: LocalProvider, provider_url: str
) -> None:
    """Row 32: metadata of another issuer is not used: 503, and no browser is sent anywhere."""
    wrong = issuer.format(provider_url) if isinstance(issuer, str) else issuer
    provider.faults.tamper_discovery = lambda found: {**found, "issuer": wrong}
    harness = make_harness()
    answer = harness.start(harness.browser())
    assert answer.status_code == 503
    assert "location" not in answer.headers and "set-cookie" not in answer.headers
    assert answer.headers["retry-after"]
    assert harness.login(harness.browser(), "spotify").status_code == 303


def test_signing_key_rotation(make_harness: Make, provider: LocalProvider) -> None:
    """Row 42, oidcc-client-test-signing-key-rotation: new keys between two sign-ins are fetched."""
    harness = make_harness()
    harness.succeeds()
    provider.rotate_keys()
    harness.succeeds()
    assert provider.count["jwks"] == 2


def test_signing_key_rotation_just_before_signing(make_harness: Make, provider: LocalProvider) -> None:
    """Row 42, oidcc-client-test-signing-key-rotation-just-before-signing: the set that was fetched a
    moment ago is fetched again for the key that it does not have."""
    harness = make_harness()
    harness.succeeds()
    browser = harness.browser()
    callback = harness.authorize(harness.start(browser))
    provider.rotate_keys()
    assert harness.deliver(browser, callback).status_code == 303


def test_userinfo_signed(make_harness: Make, provider: LocalProvider, config: Config) -> None:
    """oidcc-client-test-userinfo-signed: a signed answer is verified and used."""
    corp_client(provider, userinfo_signed_response_alg="RS256")
    config["providers"]["corp"]["userinfo_signed_response_alg"] = "RS256"
    browser = make_harness().succeeds()
    assert browser.get("/who").json()["profile"]["name"] == "Ada Lovelace"


@pytest.mark.parametrize("kind_of_claims", ["aggregated", "distributed"])
def test_claims_from_elsewhere(
    kind_of_claims: str, make_harness: Make, provider: LocalProvider, provider_url: str
) -> None:
    """Row 81, oidcc-client-test-aggregated-claims and -distributed-claims: the sign-in is accepted, and
    no address that came in a claim is called."""
    source = {"JWT": "eyJhbGciOiJub25lIn0.e30."}
    if kind_of_claims == "distributed":
        source = {"endpoint": f"{provider_url}/api/echo", "access_token": "a"}
    provider.faults.tamper_userinfo = lambda found: {
        **found,
        "_claim_names": {"phone_number": "src1", "email": "src1"},
        "_claim_sources": {"src1": source},
    }
    make_harness().succeeds()
    assert provider.count["echo"] == 0


# -- answers to the authorization request

ANSWERS: dict[str, Callable[[str], str]] = {
    "fapi2-client-test-ensure-authorization-response-with-invalid-state-fails": lambda url: with_query(
        url, state=query_of(url)["state"] + "1"
    ),
    "fapi2-client-test-ensure-authorization-response-with-invalid-missing-state-fails": lambda url: (
        with_query(url, state=None)
    ),
    "fapi2-client-test-invalid-authorization-response-iss": lambda url: with_query(
        url, iss=query_of(url)["iss"] + "1"
    ),
    "fapi2-client-test-remove-authorization-response-iss": lambda url: with_query(url, iss=None),
    "iss-with-a-slash": lambda url: with_query(url, iss=query_of(url)["iss"] + "/"),
    "iss-in-another-case": lambda url: with_query(url, iss=query_of(url)["iss"].upper()),
    "iss-of-another-issuer": lambda url: with_query(url, iss="https://evil.example"),
    "iss-empty": lambda url: with_query(url, iss=""),
    "iss-twice": lambda url: f"{url}&iss={query_of(url)['iss']}",
    "iss-wrong-on-an-error": lambda url: with_query(url, iss="https://e.example", error="access_denied"),
    "iss-missing-on-an-error": lambda url: with_query(url, iss=None, error="access_denied", code=None),
}


@pytest.mark.parametrize("module", ANSWERS)
def test_authorization_response(module: str, harness: Harness) -> None:
    """Rows 9, 13, 30, 31: refused before any token request, and the flow can still be finished."""
    harness.refuses(400, token_requests=0, change=lambda url: ANSWERS[module](str(url)))


def test_a_refused_iss_uses_no_flow_up(harness: Harness) -> None:
    """Row 30: after an answer with a wrong iss, the right one still finishes the flow."""
    browser = harness.browser()
    callback = str(harness.authorize(harness.start(browser)))
    for url in (with_query(callback, iss="https://evil.example"), with_query(callback, state="made-up")):
        assert harness.deliver(browser, url).status_code == 400
    assert harness.deliver(browser, callback).status_code == 303


def test_iss_that_was_not_advertised_is_compared_anyway(
    make_harness: Make, provider: LocalProvider
) -> None:
    """Row 31: present without being advertised, iss must still be the issuer."""
    provider.faults.tamper_discovery = lambda found: {
        **found,
        "authorization_response_iss_parameter_supported": False,
    }
    harness = make_harness()
    harness.succeeds()
    harness.refuses(
        400, token_requests=0, change=lambda url: with_query(url, iss="https://evil.example")
    )


def test_form_post_error(make_harness: Make, provider: LocalProvider, config: Config) -> None:
    """oidcc-client-test-form-post-error: `login_required` in a posted answer is an error page without
    a session, and the flow is over."""
    config["providers"]["corp"] |= {"response_mode": "form_post", "max_age": 0}
    harness = make_harness()
    browser = harness.browser()
    callback = harness.authorize(harness.start(browser, prompt="none"))
    assert callback.fields is not None and callback.fields["error"] == "login_required"
    answer = harness.deliver(browser, callback)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/html")
    assert not any(name == "__Host-oauthgate" for name in set_cookie_names(answer))
    assert provider.count["token"] == 0
    assert browser.get("/who").json()["user_id"] is None
    assert harness.deliver(browser, callback).status_code == 400


# -- token answers that are odd but right

TOKEN_ANSWERS: dict[str, Callable[[Json], Json]] = {
    "fapi2-client-test-token-endpoint-response-without-expires_in": lambda answer: {
        name: value for name, value in answer.items() if name != "expires_in"
    },
    "fapi2-client-test-token-type-case-insensitivity": lambda answer: {**answer, "token_type": "bEARER"},
}


@pytest.mark.parametrize("module", TOKEN_ANSWERS)
def test_token_answer_accepted(module: str, harness: Harness, provider: LocalProvider) -> None:
    """Rows 87 and 88: no lifetime means an unknown one; the token type has no case."""
    provider.faults.tamper_token_response = TOKEN_ANSWERS[module]
    browser = harness.succeeds()
    assert browser.get("/call/corp/me").json()["id"] == "1001"


@pytest.mark.parametrize(
    "module", ["fapi2-client-test-valid-aud-as-array", "oidcc-client-test-missing-athash"]
)
def test_id_token_accepted(module: str, harness: Harness, provider: LocalProvider) -> None:
    """Rows 37 and 39: an audience of one in a list is this client; at_hash may be absent in a code
    flow."""
    hook = claims(aud=lambda value: [value]) if "aud" in module else claims(at_hash=...)
    provider.faults.tamper_id_token = hook
    harness.succeeds()


# -- refresh


@pytest.mark.parametrize(
    "module", ["oidcc-client-test-refresh-token", "fapi2-client-test-client-refresh-token-test"]
)
def test_refresh_token(module: str, harness: Harness, provider: LocalProvider) -> None:
    """An expired token is refreshed, and the API is called with the new one."""
    browser = harness.succeeds()
    provider.expire_access_tokens()
    assert browser.get("/call/corp/me").json()["id"] == "1001"
    assert provider.count["token"] == 2
    tokens = {message.header("authorization") for message in provider.received("me")}
    assert len(tokens) == 2


@pytest.mark.parametrize(
    ("module", "hook"),
    [
        ("oidcc-client-test-refresh-token-invalid-issuer", claims(iss=lambda value: value + "1")),
        ("oidcc-client-test-refresh-token-invalid-sub", claims(sub=lambda value: value + "1")),
        ("aud-of-another-client", claims(aud="another-client")),
        ("signed-by-a-stranger", None),
    ],
)
def test_refresh_token_refused(
    module: str,
    hook: Callable[[Json, Json], None] | None,
    harness: Harness,
    provider: LocalProvider,
) -> None:
    """Row 98: a refreshed ID token of another account ends the link, and its access token is not
    used."""
    browser = harness.succeeds()
    provider.faults.tamper_id_token = hook
    if hook is None:
        provider.faults.sign_with = new_key("RS256")
    provider.expire_access_tokens()
    provider.count.clear()
    answer = browser.get("/call/corp/me", headers={"accept": "application/json"})
    assert answer.status_code == 401
    assert answer.json()["reason"] == "reauth_required"
    assert (provider.count["token"], provider.count["userinfo"], provider.count["me"]) == (1, 0, 1)
    (link,) = browser.get("/_oauth/session").json()["links"]
    assert link["state"] == "reauth_required"


# -- sign in from elsewhere, sign out


def test_third_party_init_login(harness: Harness, provider_url: str) -> None:
    """Row 28, oidcc-client-test-3rd-party-init-login: the provider sends the browser to the login route
    with `iss`, and the flow that starts is finished."""
    harness.succeeds(iss=provider_url, login_hint="ada")
    assert query_of(harness.authorization_url)["login_hint"] == "ada"


@pytest.mark.parametrize(
    "module",
    [
        "oidcc-client-test-rp-init-logout",
        "oidcc-client-test-rp-init-logout-other-state",
        "oidcc-client-test-rp-init-logout-no-state",
    ],
)
def test_rp_init_logout(
    module: str, harness: Harness, provider: LocalProvider, provider_url: str
) -> None:
    """Row 111: the hint is the ID token that was given, the return address the registered one; with a
    right, a wrong or no state the browser lands on this site, signed out."""
    given: list[str] = []
    provider.faults.tamper_token_response = lambda answer: given.append(answer["id_token"])
    browser = harness.succeeds()
    answer = harness.site.post(browser, "/logout")
    assert answer.status_code == 303
    location = answer.headers["location"]
    assert location.startswith(f"{provider_url}/oauth2/logout?")
    sent = query_of(location)
    assert sent["id_token_hint"] == given[0]
    assert sent["post_logout_redirect_uri"] == f"{SITE}/"
    with httpx2.Client() as client:
        back = client.get(location)
    assert back.status_code in (302, 303)
    landing = back.headers["location"]
    if module.endswith("other-state"):
        landing = f"{SITE}/?state=made-up"
    assert landing.split("?")[0] == f"{SITE}/"
    landed = browser.get(landing, headers=PAGE)
    assert landed.status_code == 200
    assert landed.json()["user_id"] is None


def test_no_value_of_a_flow_is_used_again(harness: Harness) -> None:
    """Rows 22 and 23: the flows of one browser have different states, nonces and verifiers."""
    browser = harness.browser()
    seen: list[dict[str, str]] = []
    for _ in range(3):
        seen.append(query_of(harness.start(browser).headers["location"]))
    for name in ("state", "nonce", "code_challenge"):
        assert len({sent[name] for sent in seen}) == 3


def test_key_fetches_are_bounded_under_unknown_kids(make_harness: Make, provider: LocalProvider) -> None:
    """Rows 42 and 109: tokens with made-up key ids cause at most two fetches of the keys a minute, and
    none is believed."""
    harness = make_harness()
    for number in range(6):

        def hook(found: Json, header: Json, number: int = number) -> None:
            header["kid"] = f"unknown-{number}"

        harness.refuses(502, prepare=lambda hook=hook: setattr(provider.faults, "tamper_id_token", hook))  # type: ignore[misc]
        provider.faults.tamper_id_token = None
    fetched = [message for message in provider.log if message.endpoint == "jwks"]
    assert len(fetched) == discovery.MAX_KEY_FETCHES_PER_MINUTE == 2


def test_the_modules_named_here_are_distinct() -> None:
    """No module is listed twice under two outcomes."""
    names = [*ACCEPTED, *REFUSED, *ANSWERS, *TOKEN_ANSWERS]
    assert len(names) == len(set(names))
