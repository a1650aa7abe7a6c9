"""The configuration: what is refused at start, in which words, and what is accepted in which meaning."""

from __future__ import annotations

import copy
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from oauthgate.config import Config
from oauthgate.config_providers import read_preset
from oauthgate.errors import ConfigError
from oauthgate.gate import Gate
from oauthgate.io_blocking import BlockingIO

SECRET = "very-secret-value-" + "x" * 32
BASE: dict[str, Any] = {
    "oauthgate": {"base_url": "https://app.example.com", "secret": [SECRET], "store": "memory:"},
    "session": {},
    "providers": {
        "github": {"client_id": "id", "client_secret": SECRET},
        "corp": {
            "issuer": "https://login.example.com/realms/main",
            "client_id": "id",
            "client_secret": SECRET,
        },
        "old": {
            "protocol": "oauth1",
            "request_token_url": "https://old.example.com/request",
            "authorization_endpoint": "https://old.example.com/authorize",
            "token_endpoint": "https://old.example.com/token",
            "client_id": "id",
            "client_secret": SECRET,
            "profile": {"id": "id"},
        },
    },
}


def document(**changes: Any) -> dict[str, Any]:
    """The good configuration with values set (or with `...` removed) at dotted places (`__` for a
    dot)."""
    found = copy.deepcopy(BASE)
    for path, value in changes.items():
        *tables, key = path.split("__")
        table = found
        for name in tables:
            table = table.setdefault(name, {})
        if value is ...:
            del table[key]
        else:
            table[key] = value
    return found


def refusal(**changes: Any) -> str:
    """The message with which a configuration is refused; the secret is never in it."""
    with pytest.raises(ConfigError) as refused:
        Config.load(document(**changes))
    message = str(refused.value)
    assert SECRET not in message
    assert SECRET not in repr(refused.value)
    return message


def test_the_good_configuration_loads() -> None:
    """What the other tests spoil one key at a time is accepted, and shows no secret."""
    config = Config.load(document())
    assert sorted(config.providers) == ["corp", "github", "old"]
    assert [config.providers[name].protocol for name in ("github", "corp", "old")] == [
        "oauth2",
        "oidc",
        "oauth1",
    ]
    shown = repr(config) + str(config) + repr(config.providers) + str(config.providers["corp"])
    assert SECRET not in shown


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    # unknown names, with the nearest right one
    "unknown table": ({"oauthgates": {}}, ["[oauthgates]", "unknown table", '"oauthgate"']),
    "unknown table far": ({"database": {}}, ["[database]", "expected one of", "providers"]),
    "unknown gate key": ({"oauthgate__base_uri": "x"}, ["[oauthgate] base_uri", '"base_url"']),
    "unknown session key": ({"session__idle_timout": "1d"}, ["[session] idle_timout", '"idle_timeout"']),
    "unknown provider key": (
        {"providers__corp__client_secrt": SECRET},
        ["[providers.corp] client_secrt", '"client_secret"'],
    ),
    "unknown profile field": (
        {"providers__corp__profile": {"mail": "m"}},
        ["[providers.corp] profile", "mail"],
    ),
    "unknown preset": (
        {"providers__x": {"preset": "gitub", "client_id": "a"}},
        ["preset", "'gitub'", '"github"'],
    ),
    "unknown preset by name": (
        {"providers__goggle": {"client_id": "a"}},
        ["[providers.goggle]", '"google"'],
    ),
    # types
    "gate not a table": ({"oauthgate": 5}, ["[oauthgate]", "expected a table", "int"]),
    "providers not a table": ({"providers": []}, ["[providers]", "expected tables"]),
    "provider not a table": ({"providers__x": "github"}, ["[providers.x]", "expected a table", "str"]),
    "number for text": ({"oauthgate__base_url": 5}, ["[oauthgate] base_url", "str", "5"]),
    "text for a list": ({"providers__corp__scope": "openid"}, ["[providers.corp] scope", "'openid'"]),
    "number in a list": ({"providers__corp__scope": ["a", 5]}, ["[providers.corp] scope", "int"]),
    "number as secret": (
        {"providers__corp__client_secret": 12345678},
        ["[providers.corp] client_secret", "int"],
    ),
    "unknown protocol": ({"providers__corp__protocol": "saml"}, ["[providers.corp] protocol", "saml"]),
    "unknown auth method": (
        {"providers__corp__token_endpoint_auth_method": "basic"},
        ["[providers.corp] token_endpoint_auth_method", "basic"],
    ),
    "unknown signature method": (
        {"providers__old__signature_method": "MD5"},
        ["signature_method", "MD5"],
    ),
    "implicit response mode": (
        {"providers__corp__response_mode": "fragment"},
        ["response_mode", "fragment"],
    ),
    "unknown key in a table": (
        {"providers__corp__revocation": {"methd": "POST"}},
        ["[providers.corp] revocation", "methd"],
    ),
    # what is missing
    "no client_id": ({"providers__corp__client_id": ...}, ["[providers.corp] client_id", "missing"]),
    "no token_endpoint": (
        {"providers__x": {"authorization_endpoint": "https://x.example/a", "client_id": "a"}},
        ["[providers.x] token_endpoint", "missing"],
    ),
    "oauth1 without its first step": (
        {"providers__old__request_token_url": ...},
        ["[providers.old] request_token_url", "missing"],
    ),
    "oauth1 without secret": (
        {"providers__old__client_secret": ...},
        ["[providers.old] client_secret", "missing"],
    ),
    "RSA without key": (
        {"providers__old__signature_method": "RSA-SHA1"},
        ["[providers.old] private_key"],
    ),
    "no profile id": ({"providers__old__profile": ...}, ["[providers.old] profile.id", "missing"]),
    "oidc without issuer": (
        {
            "providers__x": {
                "protocol": "oidc",
                "authorization_endpoint": "https://x.example/a",
                "token_endpoint": "https://x.example/t",
                "client_id": "a",
            }
        },
        ["[providers.x] issuer", "missing"],
    ),
    "private_key_jwt without key": (
        {"providers__corp__token_endpoint_auth_method": "private_key_jwt"},
        ["[providers.corp] private_key"],
    ),
    "basic without secret": (
        {
            "providers__corp__client_secret": ...,
            "providers__corp__token_endpoint_auth_method": "client_secret_basic",
        },
        ["[providers.corp] client_secret", "missing", '"none"'],
    ),
    # row 32 and row 82
    "two providers with one issuer": (
        {"providers__second": {"issuer": "https://login.example.com/realms/main", "client_id": "b"}},
        ["[providers.second] issuer", "[providers.corp]", "mix-up"],
    ),
    "http issuer": (
        {"providers__corp__issuer": "http://login.example.com"},
        ["[providers.corp] issuer", "https"],
    ),
    "http endpoint": (
        {"providers__old__token_endpoint": "http://old.example.com/"},
        ["token_endpoint", "https"],
    ),
    "http API": ({"providers__old__api_base_url": "http://old.example.com/"}, ["api_base_url", "https"]),
    "localhost as user name": (
        {"providers__old__token_endpoint": "http://localhost:80@evil.example/"},
        ["token_endpoint", "user name"],
    ),
    "no URL": ({"providers__old__token_endpoint": "/token"}, ["token_endpoint", "'/token'", "absolute"]),
    "unparsable URL": ({"providers__old__token_endpoint": "https://["}, ["token_endpoint"]),
    "port out of range": (
        {"providers__old__token_endpoint": "https://a.example:99999/"},
        ["token_endpoint"],
    ),
    "fragment": (
        {"providers__old__token_endpoint": "https://a.example/#x"},
        ["token_endpoint", "fragment"],
    ),
    "script": (
        {"providers__old__authorization_endpoint": "javascript:alert(1)"},
        ["authorization_endpoint"],
    ),
    # names
    "reserved provider name": (
        {"providers__session": {"client_id": "a"}},
        ["[providers.session]", "usable name"],
    ),
    "upper-case provider name": (
        {"providers__GitHub": {"client_id": "a"}},
        ["[providers.GitHub]", "usable name"],
    ),
    "dots in a provider name": (
        {"providers__a/b": {"client_id": "a"}},
        ["[providers.a/b]", "usable name"],
    ),
    "name too long": ({f"providers__{'a' * 41}": {"client_id": "a"}}, ["usable name"]),
    # values out of range
    "timeout 0": ({"providers__corp__timeout": 0}, ["[providers.corp] timeout", "0"]),
    "timeout too long": ({"providers__corp__timeout": 3600}, ["[providers.corp] timeout", "3600"]),
    "max_sessions 0": ({"session__max_sessions": 0}, ["[session] max_sessions", "0", "1"]),
    "duration without unit": (
        {"session__idle_timeout": "14"},
        ["[session] idle_timeout", "'14'", '"14d"'],
    ),
    "duration of nothing": (
        {"session__idle_timeout": ""},
        ["[session] idle_timeout", "expected a duration"],
    ),
    "duration unknown unit": (
        {"session__idle_timeout": "3 months"},
        ["[session] idle_timeout", "3 months"],
    ),
    "duration zero": ({"session__absolute_timeout": "0s"}, ["[session] absolute_timeout", "1 second"]),
    "duration negative": ({"session__absolute_timeout": -5}, ["[session] absolute_timeout", "-5"]),
    "duration too long": (
        {"session__absolute_timeout": "999999w"},
        ["[session] absolute_timeout", "10 years"],
    ),
    "cookie name": ({"session__cookie": "a b"}, ["[session] cookie", "'a b'"]),
    "cookie with a semicolon": ({"session__cookie": "a;b"}, ["[session] cookie"]),
    "prefix without slash": (
        {"oauthgate__prefix": "_oauth"},
        ["[oauthgate] prefix", "'_oauth'", "/_oauth"],
    ),
    "prefix with a slash after": ({"oauthgate__prefix": "/_oauth/"}, ["[oauthgate] prefix"]),
    "prefix of dots": ({"oauthgate__prefix": "/../x"}, ["[oauthgate] prefix"]),
    "prefix empty": ({"oauthgate__prefix": ""}, ["[oauthgate] prefix"]),
    "short secret": (
        {"oauthgate__secret": ["short-one"]},
        ["[oauthgate] secret", "9 bytes", "32", "token_urlsafe"],
    ),
    "empty secret": ({"oauthgate__secret": [""]}, ["[oauthgate] secret", "0 bytes"]),
    "carry pattern": (
        {"providers__corp__carry": {"pin": {"pattern": "("}}},
        ["[providers.corp] carry.pin"],
    ),
    "carry reserved": (
        {"providers__corp__carry": ["next"]},
        ["[providers.corp] carry.next", "reserved"],
    ),
    "carry too long": ({"providers__corp__carry": {"a": {"max_length": 501}}}, ["carry.a"]),
    "origin with a path": (
        {"oauthgate__allowed_origins": ["https://a.example/x"]},
        ["allowed_origins", "path"],
    ),
    "origin null": ({"oauthgate__allowed_origins": ["null"]}, ["allowed_origins", "'null'"]),
    "origin star": ({"oauthgate__allowed_origins": ["*"]}, ["allowed_origins", "'*'"]),
    "origin http": ({"oauthgate__allowed_origins": ["http://a.example"]}, ["allowed_origins", "https"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_names_place_and_cure(case: str) -> None:
    """Every refusal names the file, the table, the key, what was found and what was expected."""
    changes, parts = REFUSED[case]
    message = refusal(**changes)
    assert message.startswith("configuration: [")
    for part in parts:
        assert part in message, message


BAD_BASES = [
    "app.example.com", "//app.example.com", "http://app.example.com", "ftp://app.example.com", "https://",
    "https:///x", "https://app.example.com?x", "https://app.example.com/#x", "https://user@app.example.com",
    "https://user:pass@app.example.com", "https://app.example.com:99999", "https://app.example.com\\evil",
    "https://app.example.com/a b", "https://[::1", "https://app.example.com/\r\nX: y", "https://ａｐｐ.example",
    "javascript:alert(1)", "https://app.example.com:port", "http://127.0.0.1.evil.example",
    "http://localhost.evil.example", "https://app.example.com/%2e%2e",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_BASES)
def test_a_base_url_that_cannot_be_one(text: str) -> None:
    """Row 69: the one address everything is built from is checked at start."""
    message = refusal(oauthgate__base_url=text)
    assert "[oauthgate] base_url" in message
    assert "pass" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://app.example.com/", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("https://app.example.com:443/app/", "https://app.example.com/app"),
        ("https://app.example.com:8443/app", "https://app.example.com:8443/app"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:80/", "http://localhost"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("http://app.localhost", "http://app.localhost"),
        ("", ""),
    ],
)
def test_a_base_url_has_one_spelling(text: str, expected: str) -> None:
    """Row 69: no trailing slash, no default port: what a browser says of the same address."""
    config = Config.load(document(oauthgate__base_url=text))
    assert config.base_url == expected
    if text:
        site = Gate(config, BlockingIO()).site("http", "evil.example", "")
        assert site.redirect_uri("github") == f"{expected}/_oauth/github/callback"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("1.5h", 5400),
        ("14d", 1209600),
        ("2w", 1209600),
        (" 3 d ", 259200),
        (60, 60),
    ],
)
def test_durations(text: str | int, seconds: float) -> None:
    """Durations in the units that people write, or in seconds."""
    assert Config.load(document(session__idle_timeout=text)).idle_timeout == seconds


def test_origins_have_one_spelling() -> None:
    """Row 67: allowed origins are kept as browsers send them."""
    origins = ["https://SPA.example:443", "http://localhost:3000", "https://a.example:8443"]
    config = Config.load(document(oauthgate__allowed_origins=origins))
    assert config.allowed_origins == (
        "https://spa.example",
        "http://localhost:3000",
        "https://a.example:8443",
    )


# -- references


def test_references_are_resolved_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`env:` and `file:` work in every string, lists and tables included, and log nothing."""
    monkeypatch.setenv("GATE_SECRET", SECRET)
    monkeypatch.setenv("GATE_SCOPE", "repo")
    (tmp_path / "id").write_text("id-from-a-file\r\n")
    (tmp_path / "gate.toml").write_text(
        '[oauthgate]\nsecret = ["env:GATE_SECRET"]\nstore = "memory:"\n'
        '[providers.github]\nclient_id = "file:id"\nclient_secret = "env:GATE_SECRET"\n'
        'scope = ["env:GATE_SCOPE"]\nauthorization_params = {a = "env:GATE_SCOPE"}\n'
    )
    with caplog.at_level(logging.DEBUG):
        config = Config.load(tmp_path / "gate.toml")
    github = config.providers["github"]
    assert (github.client_id, github.client_secret) == ("id-from-a-file", SECRET)
    assert github.scope == ["repo"] and github.authorization_params == {"a": "repo"}
    assert config.secrets == (SECRET.encode(),)
    assert SECRET not in caplog.text + repr(config)


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("env:NOT_THERE", ["NOT_THERE", "not set"]),
        ("env:EMPTY", ["EMPTY", "empty"]),
        ("env:", ["not set"]),
        ("file:missing", ["missing", "cannot be read", "No such file"]),
        ("file:folder", ["folder", "cannot be read"]),
        ("file:empty", ["empty", "is empty"]),
        ("file:binary", ["binary", "UTF-8"]),
    ],
)
def test_a_reference_that_leads_nowhere(
    reference: str, parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names table, key and reference, and nothing that a reference may hold."""
    monkeypatch.setenv("EMPTY", "")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    file = tmp_path / "gate.toml"
    file.write_text(f'[providers.github]\nclient_id = "a"\nclient_secret = "{reference}"\n')
    with pytest.raises(ConfigError) as refused:
        Config.load(file)
    assert str(refused.value).startswith(f"{file}: [providers.github] client_secret: ")
    for part in parts:
        assert part in str(refused.value)


def test_a_reference_to_the_parameter_store_without_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`ssm:` without boto3 says what to install. With it: tests/test_references.py."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    message = refusal(providers__corp__client_secret="ssm:/app/secret")
    assert "oauthgate[aws]" in message and "ssm:/app/secret" in message


def test_what_a_reference_names_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that came from the environment is not in a message, whatever key it stands at."""
    monkeypatch.setenv("HIDDEN", SECRET)
    for changes in (
        {"providers__corp__timeout": "env:HIDDEN"},
        {"providers__corp__token_params": {"api_key": "env:HIDDEN", "number": 5}},
        {"providers__corp__headers": {"X-Key": SECRET, "X-Other": 5}},
        {"providers__corp__carry": ["env:HIDDEN", 5]},
        {"session__max_sessions": "env:HIDDEN"},
        {"oauthgate__allowed_origins": "env:HIDDEN"},
        {"providers__corp__client_secret_jwt": {"iss": "env:HIDDEN", "aud": 5}},
        {"providers__corp__private_key": ["env:HIDDEN"]},
        {"oauthgate__secret": [SECRET, 5]},
        {"oauthgate__base_url": f"https://user:{SECRET}@app.example.com"},
        {"providers__corp__token_endpoint": f"https://user:{SECRET}@login.example.com/token"},
    ):
        assert "[" in refusal(**changes)


# -- files


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"[oauthgate\n", "not valid TOML"), (b"a = 1\na = 2\n", "not valid TOML"), (b"\xff", "UTF-8")],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes, part: str) -> None:
    """The message names the file and the place in it."""
    file = tmp_path / "gate.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        Config.load(str(file))
    assert str(file) in str(refused.value) and part in str(refused.value)
    with pytest.raises(ConfigError, match="No such file"):
        Config.load(tmp_path / "other.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.load(tmp_path)


def test_relative_places_belong_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative store and template folder are beside the configuration, wherever the server starts."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "gate.toml").write_text('[oauthgate]\nstore = "sqlite:///gate.db"\ntemplates = "pages"\n')
    monkeypatch.chdir(tmp_path)
    config = Config.load("etc/gate.toml")
    assert config.store == f"sqlite:///{folder / 'gate.db'}"
    assert config.templates == str(folder / "pages")


def test_a_loaded_configuration_is_taken_as_it_is() -> None:
    """`Config.load` of a `Config` is that one; the dict it was made of may change afterwards."""
    source = document()
    config = Config.load(source)
    source["providers"]["github"]["client_id"] = "changed"
    assert Config.load(config) is config
    assert config.providers["github"].client_id == "id"


def test_a_preset_name_cannot_leave_its_folder() -> None:
    """Row 75: a preset is a file name of letters and digits, never a path."""
    for name in ("../config", "/etc/passwd", "a/b", "github.toml", "", "GITHUB", "github\x00", "a" * 50):
        with pytest.raises(KeyError):
            read_preset(name)
    message = refusal(providers__x={"preset": "../../etc/passwd", "client_id": "a"})
    assert "[providers.x] preset" in message


def test_an_own_server_under_a_presets_name() -> None:
    """A table keeps what it gives: with another issuer the preset's endpoints are gone with the preset's
    server, so that no code is sent to a place that did not issue it."""
    table = {"issuer": "https://sso.example.com", "client_id": "a", "client_secret": SECRET}
    google = Config.load(document(providers__google=table)).providers["google"]
    assert google.issuer == "https://sso.example.com"
    assert google.token_endpoint == google.jwks_uri == google.userinfo_endpoint == ""
    assert google.issuer_aliases == []
    assert google.title == "Google"
