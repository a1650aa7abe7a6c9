"""Token answers and other answers of a provider that misbehaves: slow, huge, redirected, ambiguous,
absent.

Every case is a whole flow. The code is sent once whatever comes back, the flow is used up, and nothing
is stored (`Harness.refuses`).
"""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from oauthgate.protocols.tokens import seconds
from oauthgate.testing import LocalProvider
from oauthgate.testing.state import AccessToken, Grant

from .steps import Harness, Json, query_of

Config = dict[str, Any]
Make = Callable[[], Harness]
GOOD: Json = {"access_token": "a" * 43, "token_type": "Bearer", "expires_in": 3600}


def good(**changes: Any) -> str:
    found = {**GOOD, **changes}
    return json.dumps({name: value for name, value in found.items() if value is not ...})


# -- row 86: answers that are not one JSON object

BODIES: dict[str, str | bytes] = {
    "HTML": "<html><body>access_token</body></html>",
    "empty": "",
    "spaces": "  \r\n ",
    "half": good()[:-20],
    "two documents": good() + good(),
    "trailing text": good() + "x",
    "BOM": b"\xef\xbb\xbf" + good().encode(),
    "UTF-16": good().encode("utf-16"),
    "UTF-32": good().encode("utf-32"),
    "Latin-1": '{"access_token":"a","token_type":"Bearer","name":"é"}'.encode("latin-1"),
    "array": f"[{good()}]",
    "string": '"access_token"',
    "number": "1",
    "null": "null",
    "true": "true",
    "name twice": '{"access_token":"a","access_token":"b","token_type":"Bearer"}',
    "name twice inside": '{"access_token":"a","token_type":"Bearer","x":{"a":1,"a":2}}',
    "name twice by an escape": '{"access_token":"a","\\u0061ccess_token":"b","token_type":"Bearer"}',
    "deep arrays": good()[:-1] + ',"x":' + "[" * 50_000 + "]" * 50_000 + "}",
    "deep objects": good()[:-1] + ',"x":' + '{"a":' * 20_000 + "1" + "}" * 20_000 + "}",
    "NaN": good()[:-1] + ',"x":NaN}',
    "Infinity": good()[:-1] + ',"expires_in":Infinity}',
    "10,000 digits": good()[:-1] + ',"x":' + "9" * 10_000 + "}",
    "lone surrogate": good()[:-1] + ',"x":"\\ud800"}',
    "control character": good()[:-1] + ',"x":"\x01"}',
    "single quotes": good().replace('"', "'"),
    "comment": "/* a */" + good(),
    "trailing comma": good()[:-1] + ",}",
    "JSON in a string": json.dumps(good()),
    "NUL after": good() + "\x00",
    "form-encoded": "access_token=aaaa&token_type=Bearer&expires_in=3600",
    "XML": "<access_token>a</access_token>",
    "script": f"callback({good()})",
}


@pytest.mark.parametrize("case", BODIES)
@pytest.mark.parametrize("status", [200, 201])
def test_an_answer_that_is_not_one_object(
    case: str, status: int, harness: Harness, provider: LocalProvider
) -> None:
    """Row 86: 502, and neither flow nor session is any different from one that never came back."""
    provider_body = BODIES[case]
    harness.refuses(
        502,
        name="corp",
        prepare=lambda: provider.faults.set(
            "token", status=status, body=provider_body, content_type="application/json"
        ),
    )


@pytest.mark.parametrize("error", ["invalid_grant", "x", {"code": 1}, ["a"], True, 5])
def test_an_error_with_status_200(error: object, harness: Harness, provider: LocalProvider) -> None:
    """Row 86: an answer with an `error` is one, whatever its status and whatever stands beside it."""
    body = good(error=error, error_description="<script>alert(1)</script>")
    answer = harness.refuses(502, prepare=lambda: provider.faults.set("token", body=body))
    assert "alert" not in answer.text


def test_ok_false_is_an_error(harness: Harness, provider: LocalProvider) -> None:
    """Row 86: Slack's way of saying no with status 200."""
    harness.refuses(502, prepare=lambda: provider.faults.set("token", body=good(ok=False)))


@pytest.mark.parametrize("body_format", ["form", "any"])
def test_form_encoded_answers_where_the_provider_says_so(
    body_format: str, make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Row 86: a form is accepted only under `token_response_format`, and then as strictly."""
    config["providers"]["spotify"]["token_response_format"] = body_format
    harness = make_harness()
    callback_browser = harness.browser()
    callback = harness.authorize(harness.start(callback_browser, "spotify"))
    genuine = _genuine_token(provider)
    body = f"access_token={genuine}&token_type=bearer&scope=player%20tweets&expires_in=3600"
    provider.faults.set("token", body=body, content_type="text/plain")
    assert harness.deliver(callback_browser, callback).status_code == 303
    assert callback_browser.get("/call/spotify/me").json()["id"] == "1001"
    for bad in (
        body + "&access_token=b",
        "access_token",
        "<html>",
        "",
        "a=%FF&access_token=b",
        body + "&x",
    ):
        provider.faults.set("token", body=bad, content_type="application/x-www-form-urlencoded")
        browser = harness.browser()
        callback = harness.authorize(harness.start(browser, "spotify"))
        assert harness.deliver(browser, callback).status_code == 502, bad


def _genuine_token(provider: LocalProvider) -> str:
    """An access token that the API accepts."""
    grant = Grant("spotify-client", "1001", ("player", "tweets"), 0, "sid")
    value = provider.new_token()
    provider.access_tokens.put(
        value, AccessToken(grant, grant.scope, provider.now(), provider.now() + 3600)
    )
    return value


# -- row 87: expires_in

LIFETIMES: dict[str, tuple[str, bool]] = {
    "missing": ("", False),
    "null": ("null", False),
    "number": ("3600", True),
    "float": ("3600.5", True),
    "text": ('"3600"', True),
    "text with an exponent": ('"3.6e3"', True),
    "zero": ("0", False),
    "negative": ("-5", False),
    "text of no number": ('"soon"', False),
    "text NaN": ('"nan"', False),
    "text infinity": ('"inf"', False),
    "empty text": ('""', False),
    "true": ("true", False),
    "false": ("false", False),
    "list": ("[3600]", False),
    "object": ('{"seconds":3600}', False),
    "a thousand years": (str(1000 * 366 * 86400), False),
    "60 digits": ("9" * 60, False),
    "1e300": ("1e300", False),
    "digits of another script": ('"\u0663\u0666\u0660\u0660"', True),
}


@pytest.mark.parametrize("case", LIFETIMES)
def test_expires_in_of_any_type(case: str, harness: Harness, provider: LocalProvider) -> None:
    """Row 87: what reads as a number of seconds is one; anything else is an unknown lifetime, no
    error."""
    text, known = LIFETIMES[case]
    genuine = _genuine_token(provider)
    body = (
        good(access_token=genuine, expires_in=...)[:-1] + (f',"expires_in":{text}' if text else "") + "}"
    )
    browser = harness.browser()
    callback = harness.authorize(harness.start(browser, "spotify"))
    provider.faults.set("token", body=body, content_type="application/json")
    assert harness.deliver(browser, callback).status_code == 303
    assert browser.get("/call/spotify/me").json()["id"] == "1001"
    assert provider.count["token"] == 1, "an unknown lifetime must not cause a refresh"
    assert (_lifetime(json.loads(body).get("expires_in")) is not None) == known


def _lifetime(value: object) -> float | None:
    found = seconds(value)
    assert found is None or (isinstance(found, float) and 3600 <= found <= 3601)
    return found


# -- rows 88 and 89: token_type and access_token

REFUSED_FIELDS: dict[str, Json] = {
    "token_type missing": {"token_type": ...},
    "token_type null": {"token_type": None},
    "token_type empty": {"token_type": ""},
    "token_type mac": {"token_type": "mac"},
    "token_type DPoP": {"token_type": "DPoP"},
    "token_type N_A": {"token_type": "N_A"},
    "token_type list": {"token_type": ["Bearer"]},
    "token_type padded": {"token_type": "Bearer "},
    "token_type with CR": {"token_type": "Bearer\r\nX: y"},
    "access_token missing": {"access_token": ...},
    "access_token null": {"access_token": None},
    "access_token empty": {"access_token": ""},
    "access_token number": {"access_token": 12345},
    "access_token bool": {"access_token": True},
    "access_token list": {"access_token": ["a"]},
    "access_token object": {"access_token": {"value": "a"}},
    "access_token 900 KB": {"access_token": "a" * 900_000},
    "access_token CRLF": {"access_token": "a\r\nX-Evil: 1"},
    "access_token LF": {"access_token": "a\n"},
    "access_token NUL": {"access_token": "a\x00"},
    "access_token non-ASCII": {"access_token": "é"},
    "access_token DEL": {"access_token": "a\x7f"},
}


@pytest.mark.parametrize("case", REFUSED_FIELDS)
def test_fields_that_cannot_be_used(case: str, harness: Harness, provider: LocalProvider) -> None:
    """Rows 88 and 89: refused when the answer is read, before a token can reach a header or the
    store."""
    body = good(**REFUSED_FIELDS[case])
    browser = harness.browser()
    callback = harness.authorize(harness.start(browser, "spotify"))
    before = harness.records()
    provider.faults.set("token", body=body, content_type="application/json")
    provider.count.clear()
    assert harness.deliver(browser, callback).status_code == 502
    assert (provider.count["token"], provider.count["me"]) == (1, 0)
    assert harness.records() == before


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_token_type_has_no_case(token_type: str, harness: Harness, provider: LocalProvider) -> None:
    """Row 88: RFC 6749 section 5.1."""
    provider.faults.tamper_token_response = lambda answer: {**answer, "token_type": token_type}
    harness.succeeds("spotify")


@pytest.mark.parametrize("value", ["", None, 5, "a\r\nb", ["r"], "x" * 40_000])
def test_a_refresh_token_that_cannot_be_used_is_none(
    value: object, make_harness: Make, provider: LocalProvider
) -> None:
    """Row 95: an unusable refresh token does not fail the sign-in, and is never sent."""
    provider.faults.tamper_token_response = lambda answer: {**answer, "refresh_token": value}
    browser = make_harness().succeeds("spotify")
    assert browser.get("/call/spotify/me").status_code == 200
    provider.expire_access_tokens()
    assert browser.get("/call/spotify/me", headers={"accept": "application/json"}).status_code == 401
    assert provider.count["token"] == 1


# -- row 90: scope

SCOPES: dict[str, tuple[object, list[str]]] = {
    "as asked, unsaid": (..., ["player", "tweets"]),
    "as asked, null": (None, ["player", "tweets"]),
    "narrower": ("player", ["player"]),
    "wider": ("player tweets admin", ["player", "tweets", "admin"]),
    "empty": ("", []),
    "spaces": ("  ", []),
    "comma-separated": ("player,tweets", ["player", "tweets"]),
    "comma and space": ("player, tweets", ["player", "tweets"]),
    "array": (["player"], ["player"]),
    "empty array": ([], []),
    "number": (5, []),
    "array of numbers": ([1], []),
    "object": ({"player": True}, []),
}


@pytest.mark.parametrize("case", SCOPES)
def test_the_stored_scope_is_what_was_granted(
    case: str, harness: Harness, provider: LocalProvider
) -> None:
    """Row 90: never more than the answer says; nothing said means as asked; empty never means all."""
    value, expected = SCOPES[case]

    def hook(answer: Json) -> Json:
        changed = {**answer, "scope": value}
        return {name: item for name, item in changed.items() if item is not ...}

    provider.faults.tamper_token_response = hook
    browser = harness.succeeds("spotify")
    (link,) = browser.get("/_oauth/session").json()["links"]
    assert link["scope"] == expected
    wanted = {"scope": ["player", "tweets"]}
    answer = browser.get("/require", params=wanted, headers={"accept": "application/json"})
    granted = {"player", "tweets"} <= set(expected)
    assert answer.status_code == (200 if granted else 401)
    if not granted:
        assert set(answer.json()["scope"]) == {"player", "tweets"} - set(expected)


# -- row 91: errors during the exchange

STATUSES = {
    400: 502,
    401: 502,
    403: 502,
    404: 502,
    418: 502,
    429: 503,
    500: 503,
    502: 503,
    503: 503,
    504: 503,
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("body", ["", '{"error":"invalid_grant"}', "<html>"])
@pytest.mark.parametrize("name", ["corp", "twitter"])
def test_an_error_of_the_token_endpoint(
    status: int, body: str, name: str, harness: Harness, provider: LocalProvider
) -> None:
    """Row 91: the code is sent once, the flow is used up, and the page offers to try again."""
    endpoint = "access_token" if name == "twitter" else "token"
    browser = harness.browser()
    callback = harness.authorize(harness.start(browser, name))
    before = harness.records()
    provider.faults.set(endpoint, status=status, body=body, content_type="application/json")
    provider.count.clear()
    answer = harness.deliver(browser, callback)
    assert answer.status_code == STATUSES[status]
    assert f"/_oauth/{name}/link" in answer.text
    assert ("retry-after" in answer.headers) == (STATUSES[status] == 503)
    provider.faults.clear(endpoint)
    assert harness.deliver(browser, callback).status_code == 400
    assert provider.count[endpoint] == 1
    assert harness.records() == before


@pytest.mark.parametrize("endpoint", ["token", "userinfo", "jwks"])
def test_a_connection_that_breaks(endpoint: str, make_harness: Make, provider: LocalProvider) -> None:
    """Row 91: half an answer is none; the code is not sent a second time to make up for it."""
    harness = make_harness()
    harness.refuses(
        503 if endpoint == "jwks" else 502,
        userinfo_requests=int(endpoint == "userinfo"),
        prepare=lambda: provider.faults.set(endpoint, truncate=True),
    )


@pytest.mark.parametrize("where", ["token_endpoint", "userinfo_endpoint"])
def test_nobody_listens(where: str, make_harness: Make, config: Config, provider: LocalProvider) -> None:
    """Row 91: a provider that cannot be reached is 502 after a single attempt."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    config["providers"]["spotify"][where] = f"http://127.0.0.1:{port}/gone"
    harness = make_harness()
    browser = harness.browser()
    answer = harness.login(browser, "spotify")
    assert answer.status_code == 502
    assert not browser.cookies.get("__Host-oauthgate")


# -- rows 80, 84, 85: redirects, slowness, size


@pytest.fixture
def trap() -> Iterator[tuple[str, socket.socket]]:
    """An address where any connection would be noticed."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/", listener


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "endpoint", ["token", "userinfo", "jwks", "discovery", "me", "request_token", "access_token"]
)
def test_a_redirect_is_never_followed(
    status: int,
    endpoint: str,
    make_harness: Make,
    provider: LocalProvider,
    trap: tuple[str, socket.socket],
) -> None:
    """Row 80: 502, and neither the secret nor anything else is posted to where it points."""
    url, listener = trap
    provider.faults.set(endpoint, status=status, headers={"location": url}, body="")
    names = {"me": "spotify", "request_token": "twitter", "access_token": "twitter"}
    harness = make_harness()
    browser, name = harness.browser(), names.get(endpoint, "corp")
    answer = harness.start(browser, name)
    if answer.status_code == 303:
        answer = harness.deliver(browser, harness.authorize(answer))
    assert answer.status_code == 502, answer.text
    assert provider.count[endpoint] == 1
    assert not browser.cookies.get("__Host-oauthgate")
    with pytest.raises(BlockingIOError):
        listener.accept()


SLOW: dict[str, Json] = {
    "no answer": {"delay": 30.0},
    "byte by byte": {"drip": 0.02, "body": " " * 2_000},
    "headers, then nothing": {"drip": 30.0, "body": "{}"},
}


@pytest.mark.parametrize("case", SLOW)
@pytest.mark.parametrize("endpoint", ["token", "userinfo"])
def test_slowness_ends_at_the_deadline(
    case: str, endpoint: str, make_harness: Make, provider: LocalProvider, config: Config
) -> None:
    """Row 84: the total deadline counts, not the time between two bytes: 504."""
    config["providers"]["corp"]["timeout"] = 0.4
    make_harness().refuses(
        504,
        userinfo_requests=int(endpoint == "userinfo"),
        prepare=lambda: provider.faults.set(endpoint, **SLOW[case]),
    )


HUGE: dict[str, Json] = {
    "2 MB": {"body": " " * (2 * 1024 * 1024) + "{}"},
    "gzip bomb": {
        "body": gzip.compress(b" " * (30 * 1024 * 1024) + b"{}"),
        "headers": {"content-encoding": "gzip"},
    },
    "deflate bomb in gzip": {
        "body": gzip.compress(gzip.compress(b" " * (30 * 1024 * 1024))),
        "headers": {"content-encoding": "gzip, gzip"},
    },
    "unknown coding": {"body": b"\x8b\x00", "headers": {"content-encoding": "br"}},
    "broken gzip": {"body": b"not gzip at all", "headers": {"content-encoding": "gzip"}},
    "endless headers": {"body": "{}", "headers": {f"x-{number}": "a" * 1000 for number in range(300)}},
}


@pytest.mark.parametrize("case", HUGE)
@pytest.mark.parametrize("endpoint", ["token", "userinfo"])
def test_size_is_cut(case: str, endpoint: str, harness: Harness, provider: LocalProvider) -> None:
    """Row 85: more than 1 MB once decoded, or a coding that was not asked for, is 502."""
    harness.refuses(
        502,
        userinfo_requests=int(endpoint == "userinfo"),
        prepare=lambda: provider.faults.set(endpoint, **HUGE[case]),
    )


def test_a_gzipped_answer_is_read(harness: Harness, provider: LocalProvider) -> None:
    """Row 85: a provider that compresses although nobody asked is understood."""
    body = gzip.compress(json.dumps({"id": "1001", "username": "ada"}).encode())
    provider.faults.set(
        "me", body=body, headers={"content-encoding": "gzip"}, content_type="application/json"
    )
    harness.succeeds("spotify")


# -- row 92: metadata


def test_discovery_down_at_start(
    make_harness: Make, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 92: the app starts, the other providers work, that one is 503, and recovers without a
    restart."""
    provider.faults.set("discovery", status=500)
    harness = make_harness()
    for _ in range(3):
        answer = harness.start(harness.browser())
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
    assert provider.count["discovery"] == 1, "a provider that is down is not asked for every visitor"
    harness.succeeds("spotify")
    harness.succeeds("twitter")
    provider.faults.clear("discovery")
    monkeypatch.setattr("oauthgate.protocols.discovery.RETRY", 0.0)
    harness.succeeds()


DOCUMENTS: dict[str, Callable[[Json], object]] = {
    "not an object": lambda found: [found],
    "no authorization_endpoint": lambda found: _without(found, "authorization_endpoint"),
    "no token_endpoint": lambda found: _without(found, "token_endpoint"),
    "token_endpoint a number": lambda found: {**found, "token_endpoint": 5},
    "token_endpoint over http": lambda found: {**found, "token_endpoint": "http://op.example/token"},
    "authorization_endpoint a script": lambda found: {
        **found,
        "authorization_endpoint": "javascript:alert(1)",
    },
    "authorization_endpoint relative": lambda found: {**found, "authorization_endpoint": "/authorize"},
    "authorization_endpoint with a user": lambda found: {
        **found,
        "authorization_endpoint": "https://op.example@evil.example/authorize",
    },
    "jwks_uri a file": lambda found: {**found, "jwks_uri": "file:///etc/passwd"},
    "jwks_uri with a fragment": lambda found: {**found, "jwks_uri": "https://op.example/jwks#a"},
    "token_endpoint unparsable": lambda found: {**found, "token_endpoint": "https://["},
    "token_endpoint with a wrong port": lambda found: {
        **found,
        "token_endpoint": "https://a.example:99999/",
    },
}


def _without(found: Json, name: str) -> Json:
    return {key: value for key, value in found.items() if key != name}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_metadata_that_cannot_be_used(case: str, make_harness: Make, provider: LocalProvider) -> None:
    """Rows 81, 82, 92: invalid metadata makes the provider unavailable, and sends no browser
    anywhere."""

    def hook(found: Json) -> Any:
        return DOCUMENTS[case](found)

    provider.faults.tamper_discovery = hook
    harness = make_harness()
    answer = harness.start(harness.browser())
    assert answer.status_code == 503
    assert "location" not in answer.headers
    harness.succeeds("spotify")


@pytest.mark.parametrize("body", ["", "<html>", "{", '{"issuer":1,"issuer":2}', "[" * 100_000])
def test_metadata_that_cannot_be_read(body: str, make_harness: Make, provider: LocalProvider) -> None:
    """Row 92: unreadable metadata is 503 as well."""
    provider.faults.set("discovery", body=body, content_type="application/json")
    harness = make_harness()
    assert harness.start(harness.browser()).status_code == 503


@pytest.mark.parametrize(
    "host", ["localhost", "foo.localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"]
)
@pytest.mark.parametrize("endpoint", ["jwks_uri", "userinfo_endpoint", "token_endpoint"])
def test_published_endpoints_on_private_addresses(
    host: str, endpoint: str, make_harness: Make, provider: LocalProvider
) -> None:
    """Row 81: an endpoint that only the metadata names may not lead to a private address: no
    connection."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        provider.faults.tamper_discovery = lambda found: {**found, endpoint: f"https://{host}:{port}/x"}
        harness = make_harness()
        answer = harness.login(harness.browser())
        assert answer.status_code in (502, 503)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_the_other_endpoints_are_optional(make_harness: Make, provider: LocalProvider) -> None:
    """Row 92: without user information, revocation or logout the sign-in works on the ID token alone."""
    optional = (
        "userinfo_endpoint",
        "revocation_endpoint",
        "introspection_endpoint",
        "end_session_endpoint",
    )
    provider.faults.tamper_discovery = lambda found: {
        name: value for name, value in found.items() if name not in optional
    }
    make_harness().succeeds()
    assert provider.count["userinfo"] == 0


def test_nothing_of_a_callback_is_a_token(harness: Harness, provider: LocalProvider) -> None:
    """Row 24: tokens in the callback's query are ignored: the code is redeemed and its token used."""
    browser = harness.browser()
    callback = str(harness.authorize(harness.start(browser, "spotify")))
    more = "&access_token=evil&id_token=evil&token_type=Bearer&expires_in=1&refresh_token=evil"
    assert harness.deliver(browser, callback + more).status_code == 303
    assert browser.get("/call/spotify/me").json()["id"] == "1001"
    assert "evil" not in " ".join(str(message.headers) for message in provider.log)
    assert query_of(harness.authorization_url)["response_type"] == "code"
