"""Browsers for an application of the test's own, and the steps that all of them take."""

from __future__ import annotations

from tests.flows.conftest import provider_url, shared_server

__all__ = ["provider_url", "shared_server"]
