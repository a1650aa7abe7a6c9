"""The clock and the shared server of the scenario tests serve here too."""

from __future__ import annotations

from tests.flows.conftest import clock, provider_url, shared_server

__all__ = ["clock", "provider_url", "shared_server"]
