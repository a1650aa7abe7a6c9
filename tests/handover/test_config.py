"""What a provider's table may say of hand-overs: a proof that could not fail is refused at start."""

from __future__ import annotations

from typing import Any

import pytest

from oauthgate import ConfigError
from oauthgate.config import Config
from oauthgate.config_providers import preset_names, read_preset
from oauthgate.protocols.token_proof import way_of_proof
from oauthgate.providers import Provider

URL = "https://api.cafe.example/token_info"


def provider(name: str = "cafe", **keys: Any) -> Provider:
    """One configured provider."""
    table: dict[str, Any] = {"client_id": "id", "client_secret": "s" * 32, **keys}
    if name == "cafe":
        table |= {
            "authorization_endpoint": "https://cafe.example/authorize",
            "token_endpoint": "https://cafe.example/token",
            "userinfo_endpoint": "https://api.cafe.example/me",
            "profile": {"id": "id"},
        }
    return Config.load({"providers": {name: table}}).providers[name]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"token_info": {"url": "http://api.cafe.example/x"}}, "https"),
        ({"token_info": {"field": "client_id"}}, "url"),
        ({"token_info": {"url": URL, "feild": "x"}}, "feild"),
        ({"token_info": {"url": URL, "equals": ""}}, "equals"),
        ({"token_info": {"url": URL, "field": ""}}, "field"),
        ({"token_info": {"url": URL, "equals": "{app_id}"}}, "app_id"),
        ({"token_info": {"url": URL, "auth": "client"}}, "access_token"),
        ({"token_info": {"url": URL, "auth": "none", "params": {"token": "x"}}}, "access_token"),
        ({"token_info": {"url": URL, "method": "PUT"}}, "method"),
        ({"handover": ["password"]}, "handover"),
        ({"handover_redirect_uris": ["http://cafe.example/app"]}, "https"),
        ({"handover_redirect_uris": ["https://cafe.example/app#x"]}, "fragment"),
        ({"handover_redirect_uris": ["javascript:alert(1)"]}, "scheme"),
        ({"handover_redirect_uris": ["data:text/html,x"]}, "scheme"),
        ({"handover_redirect_uris": ["cafe:/app"]}, "scheme"),
        ({"handover_redirect_uris": ["com.cafe.app:/a b"]}, "scheme"),
        ({"handover_redirect_uris": ["/app"]}, "scheme"),
        ({"handover_redirect_uris": [""]}, "scheme"),
    ],
)
def test_refusals(keys: dict[str, Any], words: str) -> None:
    """Each names what is wrong."""
    with pytest.raises(ConfigError, match=words):
        provider(**keys)


def test_accepted() -> None:
    """Addresses of one's own, of a native application, of a person's machine; a number as a number."""
    uris = ["https://spa.cafe.example/back", "com.cafe.app:/signed-in", "http://127.0.0.1:4000/back"]
    found = provider(handover_redirect_uris=uris, token_info={"url": URL, "equals": 42})
    assert found.handover_redirect_uris == uris
    info = way_of_proof(found)
    assert info is not None and (info.field, info.equals) == ("client_id", "42")


def test_presets_that_tell_whom_a_token_was_issued_to() -> None:
    """Those prove an access token by this client's own id; Kakao's by a number, once it is given."""
    proving = {name for name in preset_names() if "token_info" in read_preset(name)}
    assert proving == {"discord", "facebook", "github", "google", "kakao", "line"}
    for name in proving - {"kakao"}:
        info = way_of_proof(provider(name))
        assert info is not None and info.equals == "id", name
    assert way_of_proof(provider("kakao")) is None
    info = way_of_proof(provider("kakao", app_id="42"))
    assert info is not None and info.equals == "42"


def test_the_proof_stays_with_its_server() -> None:
    """One's own server under a preset's name is not asked about at the preset's address."""
    assert provider("google", issuer="https://login.cafe.example").token_info is None
    moved = provider("github", token_endpoint="https://git.cafe.example/token")
    assert moved.token_info is None
