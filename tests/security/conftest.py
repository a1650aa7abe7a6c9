"""The clock and the shared server of the scenario tests serve here too; requests go byte for byte."""

from __future__ import annotations

import pytest

from tests.flows.conftest import clock, provider_url, shared_server
from tests.support import SiteUnderTest

from .raw import Raw

__all__ = ["clock", "provider_url", "shared_server"]


@pytest.fixture
def raw(site: SiteUnderTest) -> Raw:
    """Sends requests to the site without a client in between."""
    return Raw(site)
