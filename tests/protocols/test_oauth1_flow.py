"""OAuth 1.0a flows at a provider or with a callback that is not as it should be (RFC 5849 section 2)."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from oauthgate.testing import Client, LocalProvider

from .steps import SITE, Harness, Json, query_of, set_cookie_names, with_query
from .test_oauth1_signature import fields

Config = dict[str, Any]
Make = Callable[[], Harness]

CALLBACKS: dict[str, Callable[[str], str]] = {
    "another oauth_token": lambda url: with_query(url, oauth_token="made-up"),
    "oauth_token missing": lambda url: with_query(url, oauth_token=None),
    "oauth_token empty": lambda url: with_query(url, oauth_token=""),
    "oauth_token longer": lambda url: with_query(url, oauth_token=query_of(url)["oauth_token"] + "1"),
    "oauth_token twice": lambda url: f"{url}&oauth_token={query_of(url)['oauth_token']}",
    "oauth_verifier twice": lambda url: f"{url}&oauth_verifier=a",
    "state in its place": lambda url: with_query(
        url, state=query_of(url)["oauth_token"], oauth_token=None
    ),
}


@pytest.mark.parametrize("case", CALLBACKS)
def test_a_callback_that_is_not_of_this_flow(
    case: str, harness: Harness, provider: LocalProvider
) -> None:
    """Row 46: refused without a call to the access token endpoint, and the flow can still be
    finished."""
    browser = harness.browser()
    callback = str(harness.authorize(harness.start(browser, "twitter")))
    answer = harness.deliver(browser, CALLBACKS[case](callback))
    assert answer.status_code == 400
    assert set_cookie_names(answer) == []
    assert provider.count["access_token"] == 0
    assert harness.deliver(browser, callback).status_code == 303


@pytest.mark.parametrize("verifier", [None, "", "a" * 1001])
def test_a_callback_without_a_usable_verifier(
    verifier: str | None, harness: Harness, provider: LocalProvider
) -> None:
    """Row 46: without the verifier nothing shows that the owner came back: no token request."""
    browser = harness.browser()
    callback = str(harness.authorize(harness.start(browser, "twitter")))
    answer = harness.deliver(browser, with_query(callback, oauth_verifier=verifier))
    assert answer.status_code == 400
    assert provider.count["access_token"] == 0
    assert "__Host-oauthgate" not in set_cookie_names(answer)


def test_a_wrong_verifier_uses_the_flow_up(harness: Harness, provider: LocalProvider) -> None:
    """Row 46: one guess a flow."""
    browser = harness.browser()
    callback = str(harness.authorize(harness.start(browser, "twitter")))
    assert harness.deliver(browser, with_query(callback, oauth_verifier="guess")).status_code == 502
    assert harness.deliver(browser, callback).status_code == 400
    assert provider.count["access_token"] == 1


def test_a_request_token_works_once_and_in_its_browser(
    harness: Harness, provider: LocalProvider
) -> None:
    """Row 46: delivered in another browser, or a second time, it is refused without a token request."""
    browser, other = harness.browser(), harness.browser()
    callback = str(harness.authorize(harness.start(browser, "twitter")))
    harness.start(other, "twitter")
    assert harness.deliver(other, callback).status_code == 400
    assert provider.count["access_token"] == 0
    assert harness.deliver(browser, callback).status_code == 303
    again = harness.deliver(browser, callback)
    assert (again.status_code, again.headers["location"]) == (303, f"{SITE}/who")
    assert harness.deliver(other, callback).status_code == 400
    assert provider.count["access_token"] == 1


def test_an_expired_request_token(harness: Harness, provider: LocalProvider) -> None:
    """Row 46: what the provider has forgotten is an error page and no session."""
    browser = harness.browser()
    callback = str(harness.authorize(harness.start(browser, "twitter")))
    provider.advance(3600)
    provider.request_tokens.clear()
    answer = harness.deliver(browser, callback)
    assert answer.status_code == 502
    assert "__Host-oauthgate" not in set_cookie_names(answer)


def test_denial(harness: Harness, provider: LocalProvider) -> None:
    """Row 47: `denied=` with the flow's own token ends the flow with a page; with another it is
    refused."""
    browser = harness.browser()
    started = harness.start(browser, "twitter")
    callback = harness.site.authorize(started.headers["location"], deny=True)
    assert "denied" in query_of(callback)
    assert harness.deliver(browser, with_query(callback, denied="made-up")).status_code == 400
    answer = harness.deliver(browser, callback)
    assert answer.status_code == 400
    assert "access_denied" in answer.text
    assert provider.count["access_token"] == 0


REQUEST_TOKENS: dict[str, Json | str] = {
    "unconfirmed": {"oauth_token": "t", "oauth_token_secret": "s"},
    "confirmed false": {
        "oauth_token": "t",
        "oauth_token_secret": "s",
        "oauth_callback_confirmed": "false",
    },
    "confirmed True": {
        "oauth_token": "t",
        "oauth_token_secret": "s",
        "oauth_callback_confirmed": "True",
    },
    "no secret": {"oauth_token": "t", "oauth_callback_confirmed": "true"},
    "empty secret": {"oauth_token": "t", "oauth_token_secret": "", "oauth_callback_confirmed": "true"},
    "no token": {"oauth_token_secret": "s", "oauth_callback_confirmed": "true"},
    "empty token": {"oauth_token": "", "oauth_token_secret": "s", "oauth_callback_confirmed": "true"},
    "HTML": "<html>oauth_token=t&oauth_token_secret=s&oauth_callback_confirmed=true</html>",
    "empty": "",
    "JSON": '{"oauth_token":"t","oauth_token_secret":"s","oauth_callback_confirmed":"true"}',
    "token twice": "oauth_token=a&oauth_token=b&oauth_token_secret=s&oauth_callback_confirmed=true",
    "token with CRLF": "oauth_token=a%0D%0AX:b&oauth_token_secret=s&oauth_callback_confirmed=true",
    "not UTF-8": "oauth_token=%FF&oauth_token_secret=s&oauth_callback_confirmed=true",
    "error with 200": "oauth_problem=parameter_rejected",
}


@pytest.mark.parametrize("case", REQUEST_TOKENS)
def test_a_request_token_answer_that_cannot_be_used(
    case: str, harness: Harness, provider: LocalProvider
) -> None:
    """Row 47: 502, no redirect to the provider, no flow cookie."""
    found = REQUEST_TOKENS[case]
    body = (
        found if isinstance(found, str) else "&".join(f"{name}={value}" for name, value in found.items())
    )
    provider.faults.set("request_token", body=body, content_type="application/x-www-form-urlencoded")
    answer = harness.start(harness.browser(), "twitter")
    assert answer.status_code == 502
    assert "location" not in answer.headers and "set-cookie" not in answer.headers


@pytest.mark.parametrize("status", [400, 401, 403, 500, 503])
def test_a_request_token_that_is_refused(status: int, harness: Harness, provider: LocalProvider) -> None:
    """Row 49: a refusal, such as of our clock, is an error at once: one request, no loop."""
    problem = "oauth_problem=timestamp_refused&oauth_acceptable_timestamps=1-2"
    provider.faults.set("request_token", status=status, body=problem)
    answer = harness.start(harness.browser(), "twitter")
    assert answer.status_code == (503 if status >= 500 else 502)
    assert provider.count["request_token"] == 1


ACCESS_TOKENS: dict[str, Callable[[Json], Json]] = {
    "no token": lambda found: {"oauth_token_secret": "s"},
    "no secret": lambda found: {"oauth_token": "t"},
    "empty secret": lambda found: {**found, "oauth_token_secret": ""},
    "empty token": lambda found: {**found, "oauth_token": ""},
    "token with CRLF": lambda found: {**found, "oauth_token": "a\r\nX: b"},
    "token of 40 KB": lambda found: {**found, "oauth_token": "a" * 40_000},
}


@pytest.mark.parametrize("case", ACCESS_TOKENS)
def test_an_access_token_answer_that_cannot_be_used(
    case: str, harness: Harness, provider: LocalProvider
) -> None:
    """Rows 47 and 89: 502, nothing stored, no call to the API."""
    browser = harness.browser()
    callback = harness.authorize(harness.start(browser, "twitter"))
    before = harness.records()
    provider.faults.tamper_oauth1_response = lambda found: ACCESS_TOKENS[case](found)
    answer = harness.deliver(browser, callback)
    assert answer.status_code == 502
    assert "__Host-oauthgate" not in set_cookie_names(answer)
    assert provider.count["me"] == 0
    assert harness.records() == before


def test_a_wrong_clock_is_an_error_and_no_loop(harness: Harness, provider: LocalProvider) -> None:
    """Row 49: when the provider refuses the timestamp, the sign-in fails after one request."""
    provider.advance(86400)
    answer = harness.start(harness.browser(), "twitter")
    assert answer.status_code == 502
    assert provider.count["request_token"] == 1


@pytest.mark.parametrize("signature_method", ["HMAC-SHA1", "HMAC-SHA256", "RSA-SHA1", "PLAINTEXT"])
def test_each_signature_method_signs_in_and_calls(
    signature_method: str, make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Row 48: a whole flow and API calls with bodies, at a server that checks every signature."""
    config["providers"]["twitter"]["signature_method"] = signature_method
    if signature_method == "RSA-SHA1":
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        config["providers"]["twitter"]["private_key"] = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        provider.add_client(
            Client(
                client_id="twitter-client",
                client_secret=f"twitter-secret-{'s' * 24}",
                redirect_uris=[f"{SITE}/_oauth/twitter/callback"],
                rsa_public_key=public.decode(),
            )
        )
    browser = make_harness().succeeds("twitter")
    path = "/call/twitter/echo"
    for query in ("", "?a=1&a=&b=%20+~%2B%C3%A9", "?c=%2526"):
        assert browser.get(path + query).json()["account"] == "1001"
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert browser.post(path, content=b"x=1&x=%20&y=+", headers=form).json()["account"] == "1001"
    answer = browser.post(path, content=b'{"x":1}', headers={"content-type": "application/json"}).json()
    assert (answer["account"], answer["body_length"]) == ("1001", 7)
    signed = [fields(str(message.header("authorization"))) for message in provider.received("echo")]
    assert {found["oauth_signature_method"] for found in signed} == {signature_method}


def test_the_secret_is_in_no_url_and_no_request(harness: Harness, provider: LocalProvider) -> None:
    """Row 50: signatures travel in the header; the client secret and the token's secret do not
    travel."""
    given: list[str] = []
    provider.faults.tamper_oauth1_response = lambda found: given.append(found["oauth_token_secret"])
    browser = harness.succeeds("twitter")
    browser.get("/call/twitter/me")
    secret = harness.site.config["providers"]["twitter"]["client_secret"]
    assert len(given) == 2
    for message in provider.log:
        assert not any(name == "oauth_signature" for name, _ in message.query)
        everything = repr((message.raw_path, message.query, message.headers, message.body))
        assert not any(hidden in everything for hidden in (secret, *given))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_signed_request_follows_no_redirect_to_another_host(
    status: int, harness: Harness, provider: LocalProvider
) -> None:
    """Row 50: a signature is for one URL: an API's redirect to a foreign host gets neither it nor a
    token."""
    browser = harness.succeeds("twitter")
    provider.faults.set("me", status=status, headers={"location": "http://evil.example/steal"}, body="")
    answer = browser.get("/call/twitter/me", headers={"accept": "application/json"})
    assert answer.status_code in (status, 502)
    assert provider.count["me"] == 2


def test_nonces_of_parallel_requests_never_repeat(harness: Harness, provider: LocalProvider) -> None:
    """Row 49: what the provider received from many threads at once has no nonce twice."""
    browser = harness.succeeds("twitter")
    cookies = {"cookie": "; ".join(f"{item.name}={item.value}" for item in browser.cookies.jar)}

    def call(_: int) -> int:
        found: int = harness.browser().get("/call/twitter/me", headers=cookies).status_code
        return found

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(call, range(64))) == {200}
    sent = [fields(str(message.header("authorization"))) for message in provider.received("me")]
    assert len(sent) == 65
    assert len({found["oauth_nonce"] for found in sent}) == len(sent)
    assert all(abs(int(found["oauth_timestamp"]) - time.time()) < 60 for found in sent)
