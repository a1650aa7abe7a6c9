"""Fixtures: a running local provider, and a site of each kind in front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from oauthgate.testing import LocalProvider, running

from .support import KINDS, Kind, SiteUnderTest, make_config, make_provider, site_under_test


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Both adapters: every scenario runs over each."""
    found: Kind = request.param
    return found


@pytest.fixture
def provider() -> LocalProvider:
    """A local provider with accounts ada (1001) and grace (1002)."""
    return make_provider()


@pytest.fixture
def provider_url(provider: LocalProvider) -> Iterator[str]:
    """The address at which it runs."""
    with running(provider) as url:
        yield url


@pytest.fixture
def config(provider_url: str, tmp_path: Path) -> dict[str, Any]:
    """A configuration for that provider; change it before asking for `site`."""
    return make_config(provider_url, tmp_path)


@pytest.fixture
def site(kind: Kind, config: dict[str, Any]) -> Iterator[SiteUnderTest]:
    """A site with a gate in front of that provider, over one of the adapters."""
    with site_under_test(kind, config) as found:
        yield found


@pytest.fixture
def make_site(kind: Kind, config: dict[str, Any]) -> Iterator[Callable[[], SiteUnderTest]]:
    """The same, made when called, after the test has changed `config`."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(site_under_test(kind, config))
