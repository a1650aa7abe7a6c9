"""What the tests of listening stores share: two machines on one engine, and a proxy between."""

from __future__ import annotations

import contextlib
import copy
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from oauthgate import gate as gate_module
from oauthgate import vault as vault_module
from tests.flows.steps import CountingStore, counting, who
from tests.servers.redis import until
from tests.support import Kind, SiteUnderTest, make_config, site_under_test

Machines = Callable[..., tuple[SiteUnderTest, SiteUnderTest]]


class Restless:
    """Clocks for the vault that are an hour later whenever they are looked at: whatever is believed is
    not believed because of the time. They go together, as in a process that was not frozen."""

    def __init__(self) -> None:
        self._hours = 0

    def time(self) -> float:
        return time.time() + 3600.0 * (self._hours + 1)  # the vault looks at the other one next

    def monotonic(self) -> float:
        self._hours += 1
        return time.monotonic() + 3600.0 * self._hours


def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on only what the store told counts, and a session is not proved anew by itself."""
    monkeypatch.setattr(vault_module, "time", Restless())
    monkeypatch.setattr(gate_module, "RECALL", 3600.0)


@contextlib.contextmanager
def two_machines(provider_url: str, folder: Path, **usual: Any) -> Iterator[Machines]:
    """Makes two gates over one store: the first over ASGI or as `here` says, the second of the kind that
    is asked for. `usual` are settings that a test may change."""
    with ExitStack() as stack:

        def make(
            store: str, kind: Kind, *, other: str = "", here: Kind = "asgi", **settings: Any
        ) -> tuple[SiteUnderTest, SiteUnderTest]:
            config = make_config(provider_url, folder)
            config["oauthgate"].update({"store": store, "secret": "s" * 32, **usual, **settings})
            there = copy.deepcopy(config)
            there["oauthgate"]["store"] = other or store
            return (
                stack.enter_context(site_under_test(here, config)),
                stack.enter_context(site_under_test(kind, there)),
            )

        yield make


def visitor(there: SiteUnderTest, browser: httpx2.Client) -> httpx2.Client:
    """The same session in another client, which does not carry the news of what the browser changed."""
    other = there.browser()
    other.cookies.set("oauthgate", browser.cookies["oauthgate"], domain="localhost.local")
    return other


def signed_in(site: SiteUnderTest, account: str = "ada") -> httpx2.Client:
    """A browser that has signed in at `site`."""
    browser = site.browser()
    site.login(browser, "twitter", account)
    return browser


def settled(store: CountingStore, browser: httpx2.Client) -> None:
    """Wait until this machine hears of changes: from then on a request reads nothing."""

    def quiet() -> bool:
        return reads(store, browser, 3) == 0

    until(quiet, "a machine that hears of changes")


def reads(store: CountingStore, browser: httpx2.Client, times: int = 20) -> int:
    """How often the store is read for some requests of somebody who is signed in."""
    before = store.count["get"]
    for _ in range(times):
        assert who(browser)["user_id"]
    return store.count["get"] - before


def listening(
    here: SiteUnderTest, browser: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> CountingStore:
    """Have `here` listen, and go by nothing else; its store, which counts."""
    restless(monkeypatch)
    store = counting(here.gate)
    settled(store, browser)
    return store


def obeyed(browser: httpx2.Client) -> None:
    """Wait until a session has ended here, for far shorter than `near_cache`."""
    until(lambda: who(browser)["user_id"] is None, "the end of a session", seconds=15)


class Muffler:
    """A proxy before a server that knows the connection on which changes are told by its first bytes.

    `port` is its own. That connection can be led to another server (`elsewhere`), and its answers can be
    held back (`muffled`) while the connection stays open and all the others go on.
    """

    def __init__(self, port: int, sign: bytes) -> None:
        self.target = self.elsewhere = port
        self.muffled = threading.Event()
        self.listeners = 0
        self._sign = sign
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._closing = threading.Event()
        self._threads[0].start()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                thread = threading.Thread(target=self._serve, args=(near,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            first = near.recv(65536)
            listens = self._sign in first
            self.listeners += listens
            with socket.create_connection(
                ("127.0.0.1", self.elsewhere if listens else self.target)
            ) as far:
                far.sendall(first)
                while not self._closing.is_set():
                    ready, _, _ = select.select([near, far], [], [], 0.05)
                    for source in ready:
                        data = source.recv(65536)
                        if not data:
                            return
                        if source is near:
                            far.sendall(data)
                        elif not (listens and self.muffled.is_set()):
                            near.sendall(data)


@contextlib.contextmanager
def muffler(port: int, sign: bytes) -> Iterator[Muffler]:
    """A `Muffler`, closed at the end."""
    proxy = Muffler(port, sign)
    try:
        yield proxy
    finally:
        proxy.close()
