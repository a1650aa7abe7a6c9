"""A site with people in it, its configuration as a file, and an operator at a shell beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from oauthgate.config import Config
from oauthgate.gate import Gate
from oauthgate.io_blocking import BlockingIO
from oauthgate.records import User
from oauthgate.stepping import iterate, run
from tests.support import SiteUnderTest, site_under_test

from .command import Operator, write

OLD = "old-secret-" + "o" * 32
NEW = "new-secret-" + "n" * 32


@pytest.fixture
def secrets() -> list[str]:
    """`[oauthgate] secret` of the site."""
    return [OLD]


@pytest.fixture
def config(config: dict[str, Any], secrets: list[str], tmp_path: Path) -> dict[str, Any]:
    config["oauthgate"]["secret"] = secrets
    return config


@pytest.fixture
def file(config: dict[str, Any], tmp_path: Path) -> Path:
    """The configuration as a file, in the folder where the operator is."""
    return write(tmp_path / "oauthgate.toml", config)


class People:
    """Ada with three links and two sessions, Grace with one of each, and what only they may know."""

    def __init__(self, site: SiteUnderTest, file: Path) -> None:
        self.ada, self.grace = site.browser(), site.browser()
        site.login(self.ada, "corp")
        site.link(self.ada, "spotify")
        site.link(self.ada, "twitter")
        self.ada_again = site.browser()
        site.login(self.ada_again, "spotify")
        site.login(self.grace, "spotify", account="grace")
        self.site = site
        self.file = file

    def who(self, browser: httpx2.Client) -> Any:
        return browser.get("/who").json()

    def tokens(self) -> set[str]:
        """Every secret that the store holds or a browser has."""
        found: set[str] = set()
        for user in users(self.file):
            for link in user.links:
                token = link.token
                for value in (token.access_token, token.refresh_token, token.token_secret):
                    found.add(value)
                found.add(token.id_token)
            found.update(session.secret_hash.hex() for session in user.sessions)
        for browser in (self.ada, self.ada_again, self.grace):
            found.update(value.partition(".")[2] for value in browser.cookies.values())
        return {each for each in found if len(each) >= 8}


def users(file: Path) -> list[User]:
    """All users of a configuration's store."""
    gate = Gate(Config.load(file), BlockingIO())
    found = list(iterate(gate.vault.users()))
    run(gate.close())
    return found


@pytest.fixture
def people(file: Path, config: dict[str, Any]) -> Iterator[People]:
    """A WSGI site that serves while the commands run."""
    with site_under_test("wsgi", config) as site:
        yield People(site, file)


@pytest.fixture
def operator(people: People, tmp_path: Path, secrets: list[str]) -> Operator:
    """Somebody at a shell, who must see none of the site's secrets."""
    clients = {f"{name}-secret-{'s' * 24}" for name in ("twitter", "spotify", "corp")}
    return Operator(tmp_path, people.tokens() | clients | {OLD, NEW})
