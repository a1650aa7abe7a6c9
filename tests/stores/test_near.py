"""What a process believes without asking the store, and what makes it ask again."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx2
import pytest

from oauthgate import gate as gate_module
from oauthgate import vault as vault_module
from oauthgate.errors import ConfigError
from oauthgate.gate import Gate
from oauthgate.stepping import run
from oauthgate.stores.memory import MemoryStore
from oauthgate.stores.sqlite import SQLiteStore
from tests.flows.steps import counting, who
from tests.support import Kind, SiteUnderTest, make_config, site_under_test

from .near_places import Machines, two_machines, visitor
from .test_sqlite import in_children


class Clock:
    """The vault's clock, moved by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def machines(
    kind: Kind, provider_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machines]:
    """Makes two gates over one store that cannot tell whether something changed."""
    monkeypatch.delattr(MemoryStore, "stamp")
    with two_machines(provider_url, tmp_path) as make:
        yield partial(make, f"memory:{tmp_path.name}", kind, here=kind)


def browser_there(browser: httpx2.Client, there: SiteUnderTest) -> httpx2.Client:
    """The same browser, answered by another machine from now on."""
    other = there.browser()
    other.cookies = browser.cookies
    return other


def reads(gate: Gate, browser: httpx2.Client, times: int = 5) -> int:
    store = counting(gate)
    for _ in range(times):
        assert who(browser)["user_id"]
    return store.count["get"]


def test_a_logout_elsewhere_is_obeyed_in_time(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default a session that ended on another machine is good for one second at most."""
    clock = Clock()
    monkeypatch.setattr(vault_module, "time", clock)
    here, there = machines()
    browser = here.browser()
    here.login(browser)
    second = visitor(there, browser)
    assert who(second)["user_id"]
    assert here.post(browser, "/logout").status_code == 200
    assert who(browser)["user_id"] is None, "this machine obeys itself at once"
    clock.ahead = 1.0
    assert who(second)["user_id"] is None


def test_near_cache_spares_reads(machines: Machines) -> None:
    """Within its seconds a machine asks once; only what was proved is believed, never an absence."""
    here, there = machines(near_cache="60s")
    browser = here.browser()
    here.login(browser)
    run(there.gate.vault.check_keys())  # once a process, and not what is counted here
    second = visitor(there, browser)
    assert reads(there.gate, second) == 1
    made_up = there.browser()
    made_up.cookies.set(
        "oauthgate", browser.cookies["oauthgate"][:-4] + "AAAA", domain="localhost.local"
    )
    store = counting(there.gate)
    assert who(made_up)["user_id"] is None
    assert who(made_up)["user_id"] is None
    assert store.count["get"] == 2


def test_a_browser_sees_its_own_change(machines: Machines) -> None:
    """Who linked, unlinked or signed in on one machine is not answered from another's memory."""
    here, there = machines(near_cache="60s")
    browser = here.browser()
    here.login(browser, "twitter")
    elsewhere = browser_there(browser, there)
    second = visitor(there, browser)
    assert who(second)["services"] == ["twitter"]
    here.link(browser, "spotify")
    assert who(elsewhere)["services"] == ["spotify", "twitter"]
    assert elsewhere.get("/call/spotify/me").status_code == 200
    assert here.post(browser, "/spotify/unlink").status_code == 303
    assert who(elsewhere)["services"] == ["twitter"]
    assert elsewhere.get("/call/spotify/me").status_code == 401


def test_near_cache_can_be_switched_off(machines: Machines) -> None:
    """With 0 every request asks the store, and no cookie is set for it."""
    here, there = machines(near_cache=0)
    browser = here.browser()
    here.login(browser)
    assert sorted(browser.cookies.keys()) == ["oauthgate"]
    run(there.gate.vault.check_keys())
    assert reads(there.gate, browser_there(browser, there)) == 5
    second = visitor(there, browser)
    here.post(browser, "/logout")
    assert who(second)["user_id"] is None


def test_a_stamped_store_is_obeyed_at_once(kind: Kind, provider_url: str, tmp_path: Path) -> None:
    """Two gates on one SQLite file: no read while nobody writes, and every write is seen at once."""
    config = make_config(provider_url, tmp_path)
    with site_under_test(kind, copy.deepcopy(config)) as here, site_under_test(kind, config) as there:
        browser = here.browser()
        here.login(browser, "twitter")
        second = visitor(there, browser)
        assert who(second)["services"] == ["twitter"]
        assert reads(there.gate, second) == 0
        here.link(browser, "spotify")
        assert reads(there.gate, second) == 1
        assert who(second)["services"] == ["spotify", "twitter"]
        here.login(here.browser(), account="grace")
        assert reads(there.gate, second) == 1, "anybody's write counts"
        here.post(browser, "/logout")
        assert who(second)["user_id"] is None


def test_nothing_is_believed_for_ever(site: SiteUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the stamp says, a session is proved anew after some seconds."""
    browser = site.browser()
    site.login(browser)
    clock = Clock()
    monkeypatch.setattr(gate_module, "time", clock)
    assert who(browser)["user_id"]
    assert reads(site.gate, browser) == 0
    clock.ahead = gate_module.RECALL
    assert reads(site.gate, browser) == 1


def test_a_session_ends_in_time_without_a_read(
    kind: Kind, provider_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle timeout shorter than what is believed counts all the same."""
    config = make_config(provider_url, tmp_path)
    config["session"] = {"idle_timeout": "5s"}
    with site_under_test(kind, config) as site:
        browser = site.browser()
        site.login(browser)
        assert who(browser)["user_id"]
        clock = Clock()
        monkeypatch.setattr(gate_module, "time", clock)
        clock.ahead = 5.0
        assert who(browser)["user_id"] is None


@pytest.mark.parametrize("value", ["-1s", -1, "61s", 3600, "soon"])
def test_near_cache_has_bounds(tmp_path: Path, value: object) -> None:
    """A value that would leave signed-out visitors in for long is refused."""
    config = make_config("http://localhost:1", tmp_path)
    config["oauthgate"]["near_cache"] = value
    with pytest.raises(ConfigError, match="near_cache"), site_under_test("wsgi", config):
        pass


# -- SQLite's stamp


def store_at(path: Path) -> SQLiteStore:
    return SQLiteStore(f"sqlite:///{path}", blocking=True)


def test_stamp_changes_with_every_write(tmp_path: Path) -> None:
    """Equal while nobody writes; another one after every write, of another process too."""
    path = tmp_path / "gate.db"
    store = store_at(path)
    assert store.stamp("a") is None, "nothing is known before the first read"
    run(store.put("a", b"1"))
    run(store.get("a"))
    seen = {store.stamp("a")}
    for number in range(20):
        before = store.stamp("a")
        assert before is not None and before == store.stamp("a")
        assert in_children(lambda: run(store_at(path).put("b", b"2"))) == [0]
        seen.add(store.stamp("a"))
        assert run(store.delete("b")) is True
        seen.add(store.stamp("a"))
        run(store.put("a", str(number).encode()))
        seen.add(store.stamp("a"))
    assert len(seen) == 61
    run(store.close())


def test_stamp_is_gone_without_a_connection(tmp_path: Path) -> None:
    """A closed store, and a forked child that has not read yet, cannot tell; nor can a file that was
    deleted and made again be taken for the old one."""
    path = tmp_path / "gate.db"
    store = store_at(path)
    run(store.put("a", b"1"))
    run(store.get("a"))
    old = store.stamp("a")
    assert old is not None

    def child() -> None:
        assert store.stamp("a") is None
        assert run(store.get("a")) is not None
        assert store.stamp("a") == old

    assert in_children(child) == [0]
    assert store.stamp("a") == old
    run(store.close())
    assert store.stamp("a") is None
    for name in tmp_path.iterdir():
        name.unlink()
    run(store.put("b", b"1"))
    assert run(store.get("a")) is None
    assert store.stamp("a") not in (None, old)
    run(store.close())


def test_no_descriptors_are_left(tmp_path: Path) -> None:
    """Opening and closing stores again and again leaks no descriptor and no lock."""

    def once() -> None:
        store = store_at(tmp_path / "gate.db")
        run(store.put("a", b"1"))
        run(store.get("a"))
        assert store.stamp("a") is not None
        run(store.close())

    for _ in range(3):
        once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        once()
    assert len(os.listdir("/proc/self/fd")) <= before + 2
