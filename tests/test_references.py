"""`ssm:` references: a real boto3 against moto's Systems Manager, counted request by request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import botocore.client
import pytest
from botocore.exceptions import ClientError

from oauthgate import Config, ConfigError
from tests.servers.aws import AWS, aws

SECRET = "correct horse battery staple, thirty-two"


@pytest.fixture(scope="module")
def server() -> Iterator[AWS]:
    with aws() as found:
        found.put_parameters(
            secret=SECRET,
            client_id="tarot",
            client_secret="hunter2hunter2",
            domain="login.tarot.example",
        )
        with found.client("ssm") as ssm:
            ssm.put_parameter(Name="plain", Value="first", Type="String")
            ssm.put_parameter(Name="plain", Value="second", Type="String", Overwrite=True)
            for number in range(25):
                ssm.put_parameter(Name=f"/many/{number}", Value=f"v{number}", Type="String")
        yield found


@pytest.fixture
def requests(server: AWS, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What was asked of Systems Manager since, by operation."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    count: Counter[str] = Counter()
    call = botocore.client.BaseClient._make_api_call

    def counted(self: Any, operation: str, parameters: Any) -> Any:
        count[operation] += 1
        return call(self, operation, parameters)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", counted)
    return count


def tarot(**changes: object) -> dict[str, Any]:
    """The old system's settings: all under one path, the secret ones encrypted."""
    return {
        "oauthgate": {"base_url": "https://tarot.example", "secret": ["ssm:/tarot/prod/secret"]},
        "providers": {
            "cognito": {
                "domain": "ssm:/tarot/prod/domain",
                "region": "eu-central-1",
                "user_pool_id": "eu-central-1_abc",
                "client_id": "ssm:/tarot/prod/client_id",
                "client_secret": "ssm:/tarot/prod/client_secret",
                **changes,
            }
        },
    }


def test_one_request_for_all(requests: Counter[str]) -> None:
    """All parameters of a configuration come with one request, decrypted, each where it belongs."""
    config = Config.load(tarot())
    assert requests == {"GetParameters": 1}
    provider = config.providers["cognito"]
    assert config.secrets == (SECRET.encode(),)
    assert (provider.client_id, provider.client_secret) == ("tarot", "hunter2hunter2")
    assert provider.end_session_endpoint == "https://login.tarot.example/logout"


def test_read_anew_for_each_configuration(requests: Counter[str], server: AWS) -> None:
    """Nothing is kept beyond one reading: a secret that was changed is the new one next time."""
    Config.load(tarot())
    with server.client("ssm") as ssm:
        ssm.put_parameter(
            Name="/tarot/prod/client_id", Value="tarot-2", Type="SecureString", Overwrite=True
        )
        requests.clear()
        assert Config.load(tarot()).providers["cognito"].client_id == "tarot-2"
        assert requests == {"GetParameters": 1}
        ssm.put_parameter(
            Name="/tarot/prod/client_id", Value="tarot", Type="SecureString", Overwrite=True
        )


def test_ten_a_request(requests: Counter[str]) -> None:
    """More than a request can name come with as few as can be; the same one twice is asked for once."""
    names = [f"ssm:/many/{number}" for number in range(25)] * 2
    config = Config.load(tarot(api_hosts=[], scope=names))
    assert requests == {"GetParameters": 3}
    assert config.providers["cognito"].scope == [f"v{number}" for number in range(25)] * 2


def test_a_version(requests: Counter[str]) -> None:
    """A reference may name a version of a parameter."""
    config = Config.load(tarot(client_id="ssm:plain:1"))
    assert config.providers["cognito"].client_id == "first"
    assert Config.load(tarot(client_id="ssm:plain")).providers["cognito"].client_id == "second"


def test_nothing_is_asked_without_a_reference(requests: Counter[str]) -> None:
    """A configuration without such a reference asks nobody."""
    Config.load({"providers": {"spotify": {"client_id": "a", "client_secret": "b"}}})
    assert not requests


def _denied(*_: object) -> None:
    error = {"Error": {"Code": "AccessDeniedException", "Message": "not authorized to perform"}}
    raise ClientError(error, "GetParameters")


@pytest.mark.usefixtures("requests")
def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there, or cannot be asked for, is refused with its place and never with a value."""
    with pytest.raises(ConfigError) as missing:
        Config.load(tarot(client_secret="ssm:/tarot/prod/other"))
    assert str(missing.value) == (
        "configuration: [providers.cognito] client_secret: the parameter ssm:/tarot/prod/other does not "
        "exist in this account and region"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ConfigError) as unreachable:
        Config.load(tarot())
    assert "cannot be read (EndpointConnectionError)" in str(unreachable.value)
    with monkeypatch.context() as patch:
        patch.setattr(botocore.client.BaseClient, "_make_api_call", _denied)
        with pytest.raises(ConfigError) as denied:
            Config.load(tarot())
    assert "cannot be read (AccessDeniedException)" in str(denied.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError) as anonymous:
        Config.load(tarot())
    assert "cannot be read (NoCredentialsError)" in str(anonymous.value)
