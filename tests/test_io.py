"""The seam's leaves: deadline, size, coding, addresses, locks and what happens to them after a fork."""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
import time
import zlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import httpx2
import pytest

from oauthgate.addresses import is_public
from oauthgate.io import IO, AddressRefused, BodyTooLarge, Reply
from oauthgate.io_async import AsyncIO
from oauthgate.io_blocking import BlockingIO
from oauthgate.io_transport import check_addresses, decode_body
from oauthgate.stepping import run
from oauthgate.testing import LocalProvider, running

T = TypeVar("T")
LOCAL = frozenset({"127.0.0.1", "localhost"})


class Side:
    """One kind of IO and the way its coroutines run."""

    def __init__(self, blocking: bool) -> None:
        self.blocking = blocking
        self.io: IO = BlockingIO() if blocking else AsyncIO()

    def __call__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def scenario() -> T:
            try:
                return await work()
            finally:
                await self.io.close()

        return run(scenario()) if self.blocking else asyncio.run(scenario())

    async def get(self, url: str, *, deadline: float = 5.0, limit: int = 100_000) -> Reply:
        return await self.io.exchange("pool", httpx2.Request("GET", url), deadline=deadline, limit=limit)


@pytest.fixture(params=[True, False], ids=["blocking", "async"])
def side(request: pytest.FixtureRequest) -> Side:
    return Side(request.param)


@pytest.fixture
def provider() -> LocalProvider:
    return LocalProvider()


@pytest.fixture
def url(provider: LocalProvider, side: Side) -> Iterator[str]:
    side.io.trust(LOCAL)
    with running(provider) as found:
        yield f"{found}/api/echo"


def test_an_answer_is_read_whole(side: Side, provider: LocalProvider, url: str) -> None:
    """Status, headers and decoded body; no redirect is followed and no cookie kept."""
    headers = {"set-cookie": "a=b; Path=/", "location": "/elsewhere"}
    provider.faults.set("echo", status=302, body="hello", headers=headers)

    async def work() -> None:
        for _ in range(2):
            answer = await side.get(url)
            assert (answer.status_code, answer.content) == (302, b"hello")

    side(work)
    assert provider.count["echo"] == 2
    assert all(message.header("cookie") is None for message in provider.received("echo"))


@pytest.mark.parametrize("extra", [0, 1])
def test_the_limit_is_exact(side: Side, provider: LocalProvider, url: str, extra: int) -> None:
    """Row 85: a body of exactly the limit is read, one byte more is refused; compressed or not."""
    body = b"x" * (5000 + extra)
    for content, headers in ((body, {}), (gzip.compress(body), {"content-encoding": "gzip"})):
        provider.faults.set("echo", body=content, headers=headers)

        async def work() -> int:
            return len((await side.get(url, limit=5000)).content)

        if extra:
            with pytest.raises(BodyTooLarge):
                side(work)
        else:
            assert side(work) == 5000


@pytest.mark.parametrize("fault", [{"delay": 20.0}, {"drip": 0.01, "body": "x" * 5000}])
def test_the_deadline_is_for_the_whole(
    side: Side, provider: LocalProvider, url: str, fault: dict[str, Any]
) -> None:
    """Row 84: bytes that keep coming do not extend it; afterwards the pool works on."""
    provider.faults.set("echo", times=1, **fault)

    async def work() -> int:
        with pytest.raises(httpx2.TimeoutException):
            await side.get(url, deadline=0.3)
        return (await side.get(url)).status_code

    assert side(work) == 401


def test_a_private_address_is_refused_unless_configured(provider: LocalProvider) -> None:
    """Row 81: no connection to this machine for a host that nobody configured; one for a host that
    is."""
    for blocking in (True, False):
        side = Side(blocking)
        with running(provider) as found:
            for host in ("127.0.0.1", "localhost"):
                target = found.replace("127.0.0.1", host) + "/api/echo"

                async def work(target: str = target, side: Side = side) -> None:
                    await side.get(target)

                with pytest.raises(AddressRefused):
                    side(work)
    assert provider.count["echo"] == 0


PRIVATE = [
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1", "0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "192.0.0.8", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a00:1::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "fc00::1", "fd12::1", "fe80::1",
    "fe80::1%eth0",
    "ff02::1", "2001:db8::1", "fec0::1", "100::1", "192.88.99.1", "5f00::1", "3fff::1", "",
    "localhost", "1.2.3", "0x7f.1", "2130706433",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    """Row 81: loopback, private, link-local, metadata, reserved, and all of them in IPv6 clothing."""
    assert is_public(address) is False
    with pytest.raises(AddressRefused):
        check_addresses("op.example", ["8.8.8.8", address], frozenset())
    assert check_addresses("op.example", [address], frozenset({"op.example"})) == [address]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    """Row 81: what is on the public Internet stays reachable."""
    assert is_public(address) is True
    assert check_addresses("op.example", [address], frozenset()) == [address]


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "GZIP", " gzip "])
def test_codings(coding: str) -> None:
    """Row 85: the two codings of the web are undone, within the limit."""
    packed = zlib.compress(b"hello") if coding == "deflate" else gzip.compress(b"hello")
    assert decode_body(packed, coding, 5) == b"hello"
    with pytest.raises(BodyTooLarge):
        decode_body(packed, coding, 4)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "chunked", "x"])
def test_codings_that_were_not_asked_for(coding: str) -> None:
    """Row 85: any other coding is refused."""
    with pytest.raises(httpx2.DecodingError):
        decode_body(b"hello", coding, 100)


def test_a_bomb_takes_no_memory() -> None:
    """Row 85: of 100 MB in 100 KB no more than the limit is ever unpacked."""
    packer = zlib.compressobj(1, wbits=31)
    bomb = b"".join(packer.compress(bytes(1024 * 1024)) for _ in range(100)) + packer.flush()
    with pytest.raises(BodyTooLarge):
        decode_body(bomb, "gzip", 1024 * 1024)


def test_a_lock_excludes_by_key() -> None:
    """One holder for a key, any number for different keys, and nothing kept afterwards; on both
    sides."""
    io = BlockingIO()
    inside: list[str] = []
    most: list[int] = []

    async def hold(key: str) -> None:
        async with io.lock(key):
            inside.append(key)
            most.append(inside.count(key))
            time.sleep(0.005)
            inside.remove(key)

    threads = [threading.Thread(target=lambda n=n: run(hold(f"k{n % 2}"))) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) == 10
    assert io._locks == {}

    async def on_a_loop() -> None:
        other = AsyncIO()
        together: list[int] = []

        async def hold_there(key: str) -> None:
            async with other.lock(key):
                together.append(1)
                await asyncio.sleep(0.005)
                together.pop()
                assert key != "a" or not together

        await asyncio.gather(*(hold_there("a") for _ in range(5)))
        assert other._here().locks == {}
        await other.close()

    asyncio.run(on_a_loop())


def test_a_lock_is_free_after_a_fork() -> None:
    """Row 108: a lock that another thread held at the moment of a fork does not hold up the child."""
    io = BlockingIO()
    held, done = threading.Event(), threading.Event()

    async def hold() -> None:
        async with io.lock("k"):
            held.set()
            done.wait(10)

    async def take() -> None:
        async with io.lock("k"):
            return

    thread = threading.Thread(target=lambda: run(hold()))
    thread.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        run(take())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_pool_is_not_shared_with_a_child(provider: LocalProvider) -> None:
    """Row 108: after a fork the child opens its own connection, and both go on."""
    io = BlockingIO()
    io.trust(LOCAL)
    with running(provider) as found:

        async def get() -> int:
            request = httpx2.Request("GET", f"{found}/api/echo")
            return (await io.exchange("pool", request, deadline=5, limit=10_000)).status_code

        assert run(get()) == 401
        before = io.transport("pool")
        child = os.fork()
        if child == 0:
            other = io.transport("pool") is not before
            os._exit(0 if run(get()) == 401 and other else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert run(get()) == 401
        assert io.transport("pool") is before
        run(io.close())
    assert provider.count["echo"] == 3


def test_shielded_work_outlives_its_caller() -> None:
    """Row 100: a caller that is cancelled does not take the work with it; closing waits for it."""
    finished: list[str] = []

    async def scenario() -> None:
        io = AsyncIO()

        async def work() -> None:
            await asyncio.sleep(0.05)
            finished.append("done")

        caller = asyncio.create_task(io.shield(work()))
        await asyncio.sleep(0.01)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert finished == []
        await io.close()

    asyncio.run(scenario())
    assert finished == ["done"]


def test_hooks_of_both_colours(side: Side) -> None:
    """A hook may be a plain function or a coroutine under either adapter."""

    def plain(value: int) -> int:
        return value + 1

    async def coroutine(value: int) -> int:
        await asyncio.sleep(0)
        return value + 2

    async def work() -> tuple[object, object]:
        return await side.io.call(plain, 1), await side.io.call(coroutine, 1)

    assert side(work) == (2, 3)
