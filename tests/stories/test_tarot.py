"""Story D: a single-page app behind Cognito's hosted sign-in, settings in SSM, sessions in DynamoDB.

What the page's script does in a real browser is in tests/browser/test_spa.py; here it is every route
that the old system had by hand, over HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import httpx2
import pytest

from oauthgate.stores.dynamodb_table import create
from oauthgate.testing import running
from tests.flows.steps import JSON, Clock, location
from tests.servers.aws import AWS, aws
from tests.servers.dynamodb import REGION
from tests.stores.dynamodb_places import credentials
from tests.support import BASE, PAGE, Kind, SiteUnderTest, site_under_test

from .cognito import Cognito, user_pool

Fault = Literal["other_key", "none", "hs256_public_key"]
DAY = 86400
FRONT = "http://localhost:5173"


@pytest.fixture(scope="module")
def amazon() -> Iterator[AWS]:
    with aws() as found:
        yield found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def cognito(amazon: AWS, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cognito]:
    """A user pool, and its settings under one path of the parameter store, the secret ones encrypted."""
    credentials(monkeypatch)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL", amazon.endpoint)
    with amazon.client("cognito-idp") as client:
        pool, client_id, client_secret = user_pool(client)
    provider = Cognito(client_id, client_secret, BASE)
    with running(provider):
        url = provider.issuer
        provider.issuer = f"https://cognito-idp.{REGION}.amazonaws.com/{pool}"
        store = f"dynamodb://tarot-{pool.rpartition('_')[2]}?region={REGION}&endpoint={amazon.endpoint}"
        create(store)
        values = {
            "pages": url,
            "pool": pool,
            "client_id": client_id,
            "client_secret": client_secret,
            "secret": "k" * 32,
            "store": store,
            "jwks": f"{amazon.endpoint}/{pool}/.well-known/jwks.json",
        }
        with amazon.client("ssm") as ssm:
            for name, value in values.items():
                ssm.put_parameter(
                    Name=f"/tarot/prod/{name}", Value=str(value), Type="SecureString", Overwrite=True
                )
        yield provider


@pytest.fixture
def make_site(kind: Kind, cognito: Cognito, amazon: AWS) -> Iterator[Callable[[], SiteUnderTest]]:
    """The site as it is configured: the preset, and nothing but references."""
    with amazon.client("ssm") as ssm:
        pages = ssm.get_parameter(Name="/tarot/prod/pages", WithDecryption=True)["Parameter"]["Value"]
    config = {
        "oauthgate": {
            "base_url": BASE,
            "secret": ["ssm:/tarot/prod/secret"],
            "store": "ssm:/tarot/prod/store",
            "allowed_origins": [FRONT],
        },
        "session": {"idle_timeout": "5d", "absolute_timeout": "5d"},
        "providers": {
            "cognito": {
                "domain": "login.tarot.example",
                "region": REGION,
                "user_pool_id": "ssm:/tarot/prod/pool",
                "client_id": "ssm:/tarot/prod/client_id",
                "client_secret": "ssm:/tarot/prod/client_secret",
                # Where the stand-in is; at Amazon's the preset knows.
                "authorization_endpoint": f"{pages}/oauth2/authorize",
                "token_endpoint": f"{pages}/oauth2/token",
                "userinfo_endpoint": f"{pages}/oauth2/userinfo",
                "end_session_endpoint": f"{pages}/logout",
                "jwks_uri": "ssm:/tarot/prod/jwks",
                "api_base_url": f"{pages}/oauth2",
            }
        },
    }
    sites = []

    def make() -> SiteUnderTest:
        manager = site_under_test(kind, config)
        sites.append(manager)
        return manager.__enter__()

    yield make
    for manager in reversed(sites):
        manager.__exit__(None, None, None)


@pytest.fixture
def site(make_site: Callable[[], SiteUnderTest]) -> SiteUnderTest:
    return make_site()


def script(browser: httpx2.Client, method: str, route: str, **fields: str) -> httpx2.Response:
    """A request as the page's script makes it."""
    headers = {**JSON, "origin": BASE}
    if method == "POST":
        token = browser.get("/_oauth/session", headers=headers).json()["csrf_token"]
        headers["x-csrf-token"] = token or ""
        return browser.post(f"/_oauth{route}", headers=headers, json=fields)
    return browser.get(f"/_oauth{route}", headers=headers)


def test_story(site: SiteUnderTest, cognito: Cognito) -> None:
    """Configuration, sign-in, the user's claims, a call, sign-out here and at Cognito: and no token or
    secret in any answer."""
    browser = site.browser()
    answers = [script(browser, "GET", "/providers")]
    (shown,) = answers[0].json()["providers"]
    assert shown["title"] == "Amazon Cognito"
    answers.append(browser.get(shown["login_url"], params={"next": "/chat"}, headers=PAGE))
    answers.append(browser.get(site.authorize(location(answers[-1])), headers=PAGE))
    assert location(answers[-1]) == f"{BASE}/chat"
    answers.append(script(browser, "GET", "/session"))
    session = answers[-1].json()
    (link,) = session["links"]
    profile = link["profile"]
    assert (profile["id"], profile["username"]) == ("1001", "ada")
    assert (profile["email"], profile["email_verified"]) == ("ada@example.com", True)
    answers.append(browser.get("/call/cognito/userinfo"))
    assert answers[-1].json()["sub"] == "1001"
    assert len(cognito.sessions) == 1
    answers.append(script(browser, "POST", "/logout"))
    # Cognito's own way: client_id and logout_uri, from the preset.
    answers.append(browser.get(answers[-1].json()["end_session_url"], headers=PAGE))
    url = httpx2.URL(location(answers[-1]))
    assert dict(url.params) == {"client_id": next(iter(cognito.clients)), "logout_uri": f"{BASE}/"}
    with httpx2.Client() as person:
        assert person.get(url).headers["location"] == f"{BASE}/"
    assert cognito.count["logout"] == 1
    answers.append(script(browser, "GET", "/session"))
    assert answers[-1].status_code == 401
    text = "".join(f"{answer.headers}{answer.text}" for answer in answers)
    hidden = [*cognito.access_tokens._items, *cognito.refresh_store._items, "k" * 32]
    hidden += [str(client.client_secret) for client in cognito.clients.values()]
    assert len(hidden) == 4 and [secret for secret in hidden if secret in text] == []
    assert "eyJ" not in text, "no JWT either"


@pytest.mark.parametrize("fault", ["other_key", "none", "hs256_public_key"])
def test_the_id_token_is_verified(site: SiteUnderTest, cognito: Cognito, fault: Fault) -> None:
    """An ID token that the pool's published key did not sign signs nobody in, with a body to say so."""
    cognito.faults.sign_with = fault
    browser = site.browser()
    started = browser.get("/_oauth/cognito/login", headers=PAGE)
    refused = browser.get(site.authorize(location(started)), headers=JSON)
    assert (refused.status_code, refused.json()["error"]) == (502, "provider_misbehaved")
    assert script(browser, "GET", "/session").status_code == 401
    assert cognito.count["userinfo"] == 0


def test_refresh_before_a_call_and_after_a_401(
    site: SiteUnderTest, cognito: Cognito, clock: Clock
) -> None:
    """A token that ends is renewed before the call; one that Cognito refuses, after it. The refresh
    token is kept when no new one comes."""
    browser = site.browser()
    site.login(browser, "cognito")
    before = cognito.count["userinfo"]
    cognito.expire_access_tokens()
    assert browser.get("/call/cognito/userinfo").status_code == 200
    assert (cognito.count["token"], cognito.count["userinfo"] - before) == (2, 2)
    clock.advance(3600)
    cognito.advance(3600)
    assert browser.get("/call/cognito/userinfo").status_code == 200
    assert (cognito.count["token"], cognito.count["userinfo"] - before) == (3, 3)
    assert len(cognito.refresh_store) == 1


def test_sessions_of_five_days(make_site: Callable[[], SiteUnderTest], clock: Clock) -> None:
    """A session is good for five days, on every instance of the function, and no longer."""
    first, second = make_site(), make_site()
    browser = first.browser()
    first.login(browser, "cognito")
    cookies = {"cookie": "; ".join(f"{item.name}={item.value}" for item in browser.cookies.jar)}
    other = second.browser()
    session = other.get("/_oauth/session", headers=cookies).json()
    assert session["links"][0]["profile"]["username"] == "ada"
    clock.advance(5 * DAY - 60)
    assert other.get("/_oauth/session", headers=cookies).status_code == 200
    clock.advance(120)
    for site in (first, second):
        assert site.browser().get("/_oauth/session", headers=cookies).status_code == 401


def test_one_origin_and_no_other(site: SiteUnderTest) -> None:
    """The front end of the one configured origin reads with credentials; any other gets an answer that
    its browser keeps from it."""
    for origin, allowed in ((FRONT, FRONT), ("https://evil.example", None), ("null", None)):
        answer = site.browser().get("/_oauth/session", headers={**JSON, "origin": origin})
        assert answer.headers.get("access-control-allow-origin") == allowed
        assert answer.json()["error"] == "login_required", "errors have a body"


def test_nothing_is_stored_in_the_clear(site: SiteUnderTest, cognito: Cognito, amazon: AWS) -> None:
    """What DynamoDB holds is sealed: no token, name or address of a person can be read there."""
    site.login(site.browser(), "cognito")
    table = str(site.config["oauthgate"]["store"])
    with amazon.client("ssm") as ssm, amazon.client("dynamodb") as dynamodb:
        url = ssm.get_parameter(Name=table.removeprefix("ssm:"), WithDecryption=True)
        name = url["Parameter"]["Value"].removeprefix("dynamodb://").partition("?")[0]
        items = dynamodb.scan(TableName=name)["Items"]
    assert len(items) >= 3
    text = json.dumps(items, default=repr)
    for word in (*cognito.access_tokens._items, *cognito.refresh_store._items, "ada@example.com", "Ada"):
        assert word not in text


def test_the_example_is_this_short() -> None:
    """The server's side of the single-page example says nothing of the protocol."""
    code = Path(__file__).parents[2].joinpath("examples/spa/spa.py").read_text("utf-8")
    code = code.partition('"""\n\n')[2]
    for word in ("access_token", "authlib", "redirect_uri", "callback", "code_", "jwt"):
        assert word not in code.lower()
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
