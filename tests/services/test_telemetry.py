"""OpenTelemetry: spans and counters for flows, refreshes and calls, without a secret in any of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from oauthgate import telemetry
from oauthgate.testing import LocalProvider
from tests.support import SiteUnderTest


class Recorded:
    """What was exported since the test began."""

    def __init__(self, exporter: InMemorySpanExporter, reader: InMemoryMetricReader) -> None:
        self._exporter = exporter
        self._reader = reader

    @property
    def spans(self) -> list[Any]:
        return list(self._exporter.get_finished_spans())

    def counters(self) -> dict[str, int]:
        data = self._reader.get_metrics_data()
        found: dict[str, int] = {}
        for resource in data.resource_metrics if data else []:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points: list[Any] = list(metric.data.data_points)
                    found[metric.name] = sum(point.value for point in points)
        return found


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    """OpenTelemetry's SDK, exporting to memory, for this test only."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader])
    monkeypatch.setattr(trace, "get_tracer", lambda name: tracers.get_tracer(name))
    monkeypatch.setattr(metrics, "get_meter", lambda name: meters.get_meter(name))
    telemetry._api.cache_clear()
    yield Recorded(exporter, reader)
    telemetry._api.cache_clear()
    meters.shutdown()
    tracers.shutdown()


def test_spans_and_counters(site: SiteUnderTest, provider: LocalProvider, recorded: Recorded) -> None:
    """A sign-in, a call, a refresh and a failure are counted, and traced without anything private."""
    browser = site.browser()
    site.login(browser, "spotify")
    site.link(browser, "twitter")
    provider.expire_access_tokens()
    assert browser.get("/call/spotify/me", params={"q": "private"}).status_code == 200
    provider.revoke_all()
    assert browser.get("/call/spotify/me").status_code == 401
    names = {span.name for span in recorded.spans}
    assert names == {"oauthgate.start", "oauthgate.callback", "oauthgate.refresh", "oauthgate.call"}
    counters = recorded.counters()
    assert counters == {
        "oauthgate.logins": 1,
        "oauthgate.links": 1,
        "oauthgate.refreshes": 2,
        "oauthgate.errors": 1,
    }
    ended = [span for span in recorded.spans if "error.type" in (span.attributes or {})]
    assert {str(span.attributes["error.type"]) for span in ended} == {"provider_misbehaved", "NotLinked"}
    text = "".join(span.to_json() for span in recorded.spans)
    cookie = next(iter(browser.cookies.jar)).value or ""
    for secret in (cookie, "private", "secret", *_tokens(provider)):
        assert secret not in text


def _tokens(provider: LocalProvider) -> set[str]:
    found = {message.header("authorization") or "" for message in provider.log}
    return {value.partition(" ")[2] for value in found if value} - {""}
