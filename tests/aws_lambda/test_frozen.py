"""A process that was frozen: nobody told it what happened meanwhile, and its own clock may not know."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oauthgate import vault as vault_module
from oauthgate.records import User
from oauthgate.seal import Keys
from oauthgate.stepping import run
from oauthgate.stores import ANY
from oauthgate.stores.memory import MemoryStore
from oauthgate.vault import Vault


class Clock:
    """The vault's clocks: the wall's goes on while the process is frozen, the other one stands still."""

    def __init__(self) -> None:
        self.frozen = 0.0

    def time(self) -> float:
        return time.time() + self.frozen

    @staticmethod
    def monotonic() -> float:
        return time.monotonic()


class HearingStore(MemoryStore):
    """As a store that is told of changes, and heard of none."""

    def stamp(self, key: str) -> int:
        return 1  # nothing was told

    def watch(self, within: float) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    found = Clock()
    monkeypatch.setattr(vault_module, "time", found)
    yield found


@pytest.mark.parametrize("hears", [False, True], ids=["by time", "by being told"])
def test_what_was_believed_before_is_asked_for_again(
    clock: Clock, hears: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hears:
        monkeypatch.delattr(MemoryStore, "stamp")
    store = (HearingStore if hears else MemoryStore)(f"memory:{tmp_path.name}", blocking=True)
    vault = Vault(store, Keys([b"s" * 32]), near=5.0)
    run(vault.put("user/u", User(id="u", created=1.0), expect=ANY))
    found = run(vault.opened("u"))
    assert found is not None
    assert vault.holds(found)
    clock.frozen = 600.0
    assert not vault.holds(found)
    again = run(vault.opened("u"))
    assert again is not None
    assert vault.holds(again)
