"""Story A as it was: two Lambda functions, users in DynamoDB. The example itself, event by event."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.servers.dynamodb import dynamodb
from tests.stores.conftest import entered
from tests.stores.dynamodb_places import credentials, own
from tests.support import PAGE, SiteUnderTest
from tests.test_examples import ENVIRONMENT, EXAMPLES, local_services, write_config

from .gateway import FRONTS, Context, Front, Gateway

FOLDER = EXAMPLES / "now_playing"
BASE = "https://abc.lambda-url.eu-central-1.on.aws"
MODULES = ("aws_lambda", "act", "now_playing")


@pytest.fixture
def function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module, imported as Lambda imports it, with local providers; ends with its event loop."""
    credentials(monkeypatch)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(FOLDER))
    file = tmp_path / "oauthgate.toml"
    with ExitStack() as stack:
        server = entered(stack, dynamodb())
        _, _, local = stack.enter_context(local_services(BASE))
        text = (FOLDER / "oauthgate.toml").read_text("utf-8")
        text = text.replace("sqlite:///now-playing.db", own(server.endpoint))
        write_config(text, BASE, local, file)
        monkeypatch.setenv("NOW_PLAYING_CONFIG", str(file))
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            yield importlib.import_module("aws_lambda")
        finally:
            for name in MODULES:
                sys.modules.pop(name, None)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            asyncio.set_event_loop(None)
            loop.close()


@pytest.mark.parametrize("front", FRONTS)
def test_the_guest_and_the_job(
    function: ModuleType, front: Front, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = Gateway(function.site, front)
    with httpx2.Client(transport=gateway, base_url=BASE, headers=PAGE) as guest:
        assert "open the link in your invitation" in guest.get("/").text
        query = {"email": "ada@example.com", "pin": "4711", "then": "spotify"}
        answer = guest.get("/_oauth/twitter/login", params=query)
        for _ in ("twitter", "spotify"):
            assert answer.status_code == 303, answer.text
            back = urlsplit(SiteUnderTest.authorize(answer.headers["location"]))
            answer = guest.get(f"{back.path}?{back.query}")
        assert answer.headers["location"] == f"{BASE}/"
        assert "Welcome, ada@example.com" in guest.get("/").text
    function.job({"source": "aws.events"}, Context())
    assert capsys.readouterr().out == "ada@example.com: 201\n"
