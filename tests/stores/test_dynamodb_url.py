"""DynamoDB URLs: what they may say, and that no refusal repeats a part of them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from oauthgate.errors import ConfigError
from oauthgate.stores import known_schemes, make_store
from oauthgate.stores.dynamodb import DynamoDBStore
from oauthgate.stores.dynamodb_url import read_url

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("dynamodb://gate", {"table": "gate", "region": None, "endpoint": None, "prefix": ""}),
        ("dynamodb://My_Table.v-2/?region=us-gov-west-1", {"table": "My_Table.v-2"}),
        ("dynamodb://gate?region=ap-northeast-2&prefix=shop%3A", {"prefix": "shop:"}),
        ("dynamodb://gate?endpoint=http://[::1]:8000/", {"endpoint": "http://[::1]:8000"}),
        ("dynamodb://gate?endpoint=https%3A%2F%2Fvpce-1.example.com", {"timeout": 3}),
        ("dynamodb://gate?timeout=0.5&connect_timeout=2&connections=7", {"connections": 7}),
    ],
)
def test_what_a_url_says(url: str, expected: dict[str, Any]) -> None:
    """Table and options arrive as they were written, percent-decoded."""
    place = read_url(url)
    assert {name: getattr(place, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"dynamodb://AKIA:{SECRET}@gate?region=eu-west-1", "credentials come from where boto3 looks"),
        (f"dynamodb://{SECRET}@gate", "credentials come from where boto3 looks"),
        ("dynamodb://", "with the name of a table"),
        ("dynamodb:///gate", "with the name of a table"),
        ("dynamodb:gate", "with the name of a table"),
        ("dynamodb://ab", "with the name of a table"),
        ("dynamodb://gate:8000", "with the name of a table"),
        ("dynamodb://gate/other", "with the name of a table"),
        ("dynamodb://gate#part", "with the name of a table"),
        ("dynamodb://[::1", "cannot be read"),
        ("dynamodb://gate?region=", "the option region is not the name of a region"),
        ("dynamodb://gate?region=evil.example.com", "the option region is not the name of a region"),
        ("dynamodb://gate?region=a&region=b", "the option region is there twice"),
        ("dynamodb://gate?endpoint=localhost:8000", "the option endpoint is not an address"),
        (
            f"dynamodb://gate?endpoint=http://u:{SECRET}@localhost",
            "the option endpoint is not an address",
        ),
        ("dynamodb://gate?endpoint=http://localhost/path", "the option endpoint is not an address"),
        ("dynamodb://gate?endpoint=http://localhost:x", "the option endpoint is not an address"),
        ("dynamodb://gate?endpoint=http://a%20b", "the option endpoint is not an address"),
        ("dynamodb://gate?timeout=0", "the option timeout is not seconds between"),
        ("dynamodb://gate?connect_timeout=nan", "the option connect_timeout is not seconds between"),
        ("dynamodb://gate?connections=many", "the option connections is not a number between"),
        (f"dynamodb://gate?aws_secret_access_key={SECRET}", "option 1 after the '?' is not known"),
        ("dynamodb://gate?region=eu-west-1&verify=false", "option 2 after the '?' is not known"),
    ],
)
def test_what_is_refused(url: str, expected: str) -> None:
    """What cannot work, and what would weaken the connection, is refused at start, with what may be."""
    with pytest.raises(ConfigError) as refused:
        make_store(url, blocking=True)
    message = str(refused.value)
    assert expected in message
    assert SECRET not in message and "aws_secret" not in message


def test_the_scheme_is_known() -> None:
    """`dynamodb` is among the schemes, and shown without its options."""
    assert "dynamodb" in known_schemes()
    store = DynamoDBStore(f"dynamodb://gate?region=eu-west-1&prefix={SECRET}")
    assert repr(store) == "DynamoDBStore('gate, eu-west-1')"


def test_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose client is not installed says what to install."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigError, match=r'pip install "oauthgate\[dynamodb\]"'):
        make_store("dynamodb://gate", blocking=True)


def test_boto3_costs_nothing_when_it_is_not_used() -> None:
    """A gate over another store imports nothing of AWS."""
    program = (
        "import sys, oauthgate; from oauthgate.stores import make_store; "
        "make_store('memory:', blocking=True); "
        "assert not {'boto3', 'botocore'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
