"""A site at an https address of its own, and one provider and one site a module, since most tests here
differ only in what the provider says wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from oauthgate.testing import LocalProvider, running
from tests.flows.steps import Clock
from tests.support import KINDS, Kind, SiteUnderTest, make_config, make_provider, site_under_test

from .steps import SITE, Harness


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Both adapters."""
    found: Kind = request.param
    return found


@pytest.fixture(scope="session")
def served() -> Iterator[tuple[LocalProvider, str]]:
    """One running provider: making its keys takes longer than most tests here."""
    provider = make_provider(SITE)
    with running(provider) as url:
        yield provider, url


@pytest.fixture
def provider(served: tuple[LocalProvider, str]) -> Iterator[LocalProvider]:
    """That provider as it was made: no fault, no count, no token."""
    provider, _ = served
    settings = {
        name: value
        for name, value in vars(provider).items()
        if isinstance(value, (bool, int, str, tuple)) and not name.startswith("_")
    }
    clients, accounts = dict(provider.clients), dict(provider.accounts)
    provider.clear()
    yield provider
    provider.clear()
    vars(provider).update(settings)
    provider.clients, provider.accounts = clients, accounts


@pytest.fixture
def provider_url(served: tuple[LocalProvider, str]) -> str:
    return served[1]


@pytest.fixture
def config(provider_url: str, tmp_path: Path) -> dict[str, Any]:
    """A configuration for that provider; change it before asking for `harness`."""
    return make_config(provider_url, tmp_path, SITE)


@pytest.fixture
def make_harness(
    kind: Kind, config: dict[str, Any], provider: LocalProvider
) -> Iterator[Callable[[], Harness]]:
    """A site of one's own, made when called, after the test has changed `config`."""
    with ExitStack() as stack:
        yield lambda: Harness(stack.enter_context(site_under_test(kind, config)), provider)


@pytest.fixture(scope="module")
def shared_site(
    kind: Kind, served: tuple[LocalProvider, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SiteUnderTest]:
    """One site for all tests of a module that leave the configuration alone."""
    config = make_config(served[1], tmp_path_factory.mktemp("site"), SITE)
    with site_under_test(kind, config) as site:
        yield site


@pytest.fixture
def harness(shared_site: SiteUnderTest, provider: LocalProvider) -> Harness:
    """The shared site with the provider of this test, whose metadata and keys it knows nothing of
    yet."""
    shared_site.gate.directory._entries.clear()
    return Harness(shared_site, provider)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The gate's time; the provider keeps its own."""
    return Clock(monkeypatch)
