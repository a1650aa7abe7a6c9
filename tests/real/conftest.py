"""Servers that others wrote, each started once for all tests of a file, and sites in front of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import httpx2
import pytest

from tests.servers import Missing
from tests.support import BASE, Kind, SiteUnderTest, site_under_test

#: The applications of `tests.support` name this provider; no test here asks it for anything.
UNUSED = {
    "client_id": "unused",
    "client_secret": "unused",
    "authorization_endpoint": "https://unused.example/authorize",
    "token_endpoint": "https://unused.example/token",
    "userinfo_endpoint": "https://unused.example/me",
    "profile": {"id": "id"},
}
#: Where the site is for `form_post`: its flow cookie is `SameSite=None`, which browsers want `Secure`.
SECURE_BASE = "https://localhost"


class MakeSite(Protocol):
    def __call__(self, providers: dict[str, dict[str, Any]], base: str = BASE) -> SiteUnderTest: ...


@contextlib.contextmanager
def started(server: contextlib.AbstractContextManager[str]) -> Iterator[str]:
    """The address of a running server; skips the tests where what it needs is not installed.

    With `OAUTHGATE_TEST_ALL=1` that is a failure.
    """
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(server)
        except Missing as missing:
            if os.environ.get("OAUTHGATE_TEST_ALL") == "1":
                pytest.fail(str(missing))
            pytest.skip(str(missing))
        yield url


@pytest.fixture
def make_real_site(kind: Kind, tmp_path: Path) -> Iterator[MakeSite]:
    """Make a site whose configuration has the given provider tables."""
    with contextlib.ExitStack() as stack:

        def make(providers: dict[str, dict[str, Any]], base: str = BASE) -> SiteUnderTest:
            gate = {"base_url": base, "store": f"sqlite:///{tmp_path / 'gate.db'}"}
            config = {"oauthgate": gate, "providers": {"spotify": UNUSED, **providers}}
            return stack.enter_context(site_under_test(kind, config))

        yield make


@pytest.fixture
def person() -> Iterator[httpx2.Client]:
    """A person's browser as far as the providers see it: its jar is the session there."""
    with httpx2.Client() as client:
        yield client
