"""The private key of a link stays where it belongs: in sealed cookies and records (rows 76 to 78).

Every key that the gate makes is noted, in every form in which it could show, and all that comes out of
the process is searched for it.
"""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from oauthgate.protocols import dpop
from oauthgate.testing import LocalProvider, running
from tests.flows.steps import Clock, post_json
from tests.security.test_leaks import Capture, capture, ours, run_handler
from tests.support import PAGE, Kind, SiteUnderTest, make_config, make_provider

from .dpop_steps import with_dpop
from .steps import Harness

__all__ = ["capture"]  # a fixture

Make = Callable[[], Harness]


class Keys:
    """The private keys made so far, as text, hexadecimal, decimal and bytes."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self._make = dpop.new_key

    def __call__(self) -> str:
        text = self._make()
        self.made.append(text)
        return text

    def hits(self, text: str) -> bool:
        return any(form in text for key in self.made for form in self._forms(key))

    @staticmethod
    def _forms(key: str) -> list[str]:
        raw = base64.urlsafe_b64decode(key + "=")
        standard = base64.b64encode(raw).decode()
        return [key, raw.hex(), str(int.from_bytes(raw, "big")), standard, repr(raw)[2:-1]]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Notes every key from here on."""
    found = Keys()
    monkeypatch.setattr(dpop, "new_key", found)
    return found


def endless(provider: LocalProvider) -> None:
    provider.dpop_nonce_required = ("authorization", "resource")
    provider.faults.endless_dpop_nonce = frozenset({"authorization", "resource"})


FAULTS: dict[str, Callable[[LocalProvider], object]] = {
    "none": lambda provider: None,
    "nonces": lambda provider: setattr(provider, "dpop_nonce_required", ("authorization", "resource")),
    "endless nonce": endless,
    "downgrade": lambda provider: setattr(provider, "dpop", False),
    "token_500": lambda provider: provider.faults.set("token", status=500),
    "me_500": lambda provider: provider.faults.set("me", status=500),
    "userinfo_401": lambda provider: provider.faults.set("userinfo", status=401),
    "bad_signature": lambda provider: setattr(provider.faults, "sign_with", "other_key"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_key_in_flows_and_failures(
    fault: str,
    make_harness: Make,
    provider: LocalProvider,
    config: dict[str, Any],
    keys: Keys,
    clock: Clock,
    capture: Capture,
) -> None:
    """Sign-in, calls, refresh, pages, unlink, and each of them failing: no log, no answer and no request
    has the key."""
    with_dpop(config)
    harness = make_harness()
    said: list[httpx2.Response] = []

    def sign_in(name: str) -> httpx2.Client:
        made = harness.browser()
        made.event_hooks = {"response": [said.append]}
        harness.deliver(made, harness.authorize(harness.start(made, name)))
        return made

    visitors = {name: sign_in(name) for name in ("spotify", "corp")}
    FAULTS[fault](provider)
    for name, visitor in visitors.items():
        for path in (f"/call/{name}/me", f"/sync/{name}/me", "/who", "/_oauth/session", "/_oauth/"):
            visitor.get(path, headers=PAGE)
        sign_in(name)
    clock.advance(3590)
    provider.advance(3590)
    for name, visitor in visitors.items():
        visitor.get(f"/call/{name}/me", headers=PAGE)
        post_json(harness.site, visitor, f"/{name}/unlink", account_id="1001")
    assert len(keys.made) == 4 and len(said) > 10 and capture.lines
    for line in capture.lines:
        assert not keys.hits(line), line
    for answer in said:
        answer.read()
        assert not keys.hits(answer.text + repr(answer.headers.multi_items()))
    for message in provider.log:
        assert not keys.hits(f"{message.headers}{message.query}{message.form}{message.body!r}")


def test_no_key_in_any_repr_or_traceback(
    kind: Kind, tmp_path_factory: pytest.TempPathFactory, served: tuple[LocalProvider, str], keys: Keys
) -> None:
    """`repr` of everything behind a service, and a failing call's traceback with all locals."""
    del served
    provider = make_provider()
    texts: list[str] = []
    with running(provider) as url:
        config = make_config(url, tmp_path_factory.mktemp("leaks"))
        with_dpop(config)

        def note(problem: BaseException) -> None:
            found = traceback.TracebackException.from_exception(problem, capture_locals=True)
            texts.append("".join(found.format()))

        def handler(oauth: Any, services: Any, gate: Any) -> Any:
            spotify = services["spotify"]

            def look() -> None:
                found = ours(oauth, services, gate, spotify)
                kinds = {type(item).__name__ for item in found}
                assert kinds >= {"Token", "Proofs", "ProofKey", "LinkAuth"}
                texts.extend(f"{item!r} {item}" for item in found)

            if kind == "wsgi":
                assert spotify.get("me").status_code == 200
                look()
                provider.faults.set("me", status=401)
                provider.faults.set("token", status=500)
                try:
                    spotify.get("me")
                except Exception as problem:
                    note(problem)
                return None

            async def work() -> None:
                assert (await spotify.get("me")).status_code == 200
                look()
                provider.faults.set("me", status=401)
                provider.faults.set("token", status=500)
                try:
                    await spotify.get("me")
                except Exception as problem:
                    note(problem)

            return work()

        def prepare(client: httpx2.Client) -> None:
            to_provider = client.get("/_oauth/spotify/login").headers["location"]
            assert client.get(SiteUnderTest.authorize(to_provider)).status_code == 303

        run_handler(kind, config, prepare, handler)
    assert len(keys.made) == 1 and len(texts) > 20
    assert any("RefreshFailed" in text for text in texts)
    for text in texts:
        assert not keys.hits(text), [line for line in text.splitlines() if keys.hits(line)]
