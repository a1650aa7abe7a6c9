"""Story D once more, with hosted pages by other hands: oidc-provider signs in, renews and signs out.

Settings are in SSM and sessions in DynamoDB as in `test_tarot.py`; what differs between Cognito and a
provider that follows the standards is the preset's, and not the application's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx2
import pytest

from oauthgate.stores.dynamodb_table import create
from tests.flows.steps import location
from tests.real.conftest import started
from tests.servers import end_session_oidc_provider, login_oidc_provider, oidc_provider
from tests.servers.aws import AWS, aws
from tests.servers.dynamodb import REGION
from tests.stores.dynamodb_places import address, credentials
from tests.support import BASE, PAGE, Kind, SiteUnderTest, site_under_test

from .test_tarot import script

SECRET = "c" * 40
ADA = {"sub": "ada", "name": "Ada Lovelace", "email": "ada@example.com", "email_verified": True}
#: Seconds that an access token lives.
SHORT = 2


@pytest.fixture(scope="module")
def amazon() -> Iterator[AWS]:
    with aws() as found:
        yield found


@pytest.fixture(scope="module")
def pages() -> Iterator[str]:
    config = {
        "accounts": [ADA],
        "clients": [
            {
                "client_id": "tarot",
                "client_secret": SECRET,
                "redirect_uris": [f"{BASE}/_oauth/tarot/callback"],
                "post_logout_redirect_uris": [f"{BASE}/"],
                "grant_types": ["authorization_code", "refresh_token"],
            }
        ],
        "ttl": {"AccessToken": SHORT},
    }
    with started(oidc_provider(config)) as url:
        yield url


@pytest.fixture
def site(
    kind: Kind, pages: str, amazon: AWS, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SiteUnderTest]:
    credentials(monkeypatch)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL", amazon.endpoint)
    store = address(amazon.endpoint, f"tarot-{kind}")
    create(store)
    values = {"issuer": pages, "id": "tarot", "client": SECRET, "seal": "k" * 32, "store": store}
    with amazon.client("ssm") as ssm:
        for name, value in values.items():
            ssm.put_parameter(Name=f"/hosted/{name}", Value=value, Type="SecureString", Overwrite=True)
    config = {
        "oauthgate": {
            "base_url": BASE,
            "secret": ["ssm:/hosted/seal"],
            "store": "ssm:/hosted/store",
        },
        "session": {"idle_timeout": "5d", "absolute_timeout": "5d"},
        "providers": {
            "tarot": {
                "issuer": "ssm:/hosted/issuer",
                "client_id": "ssm:/hosted/id",
                "client_secret": "ssm:/hosted/client",
                "scope": ["profile", "email", "offline_access"],
                "authorization_params": {"prompt": "consent"},
                "api_base_url": "ssm:/hosted/issuer",
            },
            # The application of `tests.support` names it; nothing is asked of it.
            "spotify": {"client_id": "unused", "client_secret": "unused"},
        },
    }
    with site_under_test(kind, config) as found:
        yield found


def test_sign_in_call_renew_and_sign_out(site: SiteUnderTest) -> None:
    """The whole story, at the provider as well: afterwards it asks for the password again."""
    browser = site.browser()
    with httpx2.Client() as person:
        begun = browser.get("/_oauth/tarot/login", params={"next": "/chat"}, headers=PAGE)
        callback = login_oidc_provider(person, location(begun))
        answers = [callback.send(browser)]
        assert location(answers[0]) == f"{BASE}/chat"
        answers.append(script(browser, "GET", "/session"))
        (link,) = answers[-1].json()["links"]
        assert (link["account_id"], link["profile"]["email"]) == ("ada", "ada@example.com")
        # Each token lives for two seconds and each refresh token is good for once.
        for _ in range(3):
            reply = browser.get("/call/tarot/me")
            assert (reply.status_code, reply.json()["sub"]) == (200, "ada")
            expire()
        answers.append(script(browser, "POST", "/logout"))
        away = browser.get(answers[-1].json()["end_session_url"], headers=PAGE)
        assert end_session_oidc_provider(person, location(away)).startswith(f"{BASE}/")
        answers.append(script(browser, "GET", "/session"))
        assert answers[-1].status_code == 401
        assert browser.get("/call/tarot/me").status_code == 401
        text = "".join(f"{answer.headers}{answer.text}" for answer in answers)
        assert "eyJ" not in text and SECRET not in text
        begun = browser.get("/_oauth/tarot/login", headers=PAGE)
        page = person.get(location(begun), follow_redirects=True)
        assert 'name="password"' in page.text or 'name="login"' in page.text


def expire() -> None:
    """Outlive an access token, by the provider's clock, which nobody here can move."""
    time.sleep(SHORT + 0.2)
