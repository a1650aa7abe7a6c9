"""What the tests of the DynamoDB store share: an environment for boto3, and a table for one test."""

from __future__ import annotations

import functools
import secrets

import pytest

from oauthgate.stores.dynamodb_table import create
from tests.servers.dynamodb import CREDENTIALS, REGION


def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which boto3 finds the tests' credentials and nothing of whoever runs them."""
    import botocore.session

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    # These tests make hundreds of clients, each of which would read boto3's descriptions of AWS anew.
    monkeypatch.setattr(botocore.session, "create_loader", _loader)


@functools.cache
def _loader(search_path_string: str | None = None) -> object:
    import botocore.loaders

    return botocore.loaders.Loader()


def address(endpoint: str, table: str, options: str = "") -> str:
    """The URL of a store there."""
    return f"dynamodb://{table}?region={REGION}&endpoint={endpoint}{options}"


def own(endpoint: str, options: str = "") -> str:
    """The URL of a store on a new table of its own."""
    url = address(endpoint, f"t-{secrets.token_hex(6)}", options)
    create(url)
    return url
