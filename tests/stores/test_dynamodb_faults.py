"""DynamoDB that is gone, silent, throttled, cut off or refuses: an error, never a wrong answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from oauthgate.errors import Conflict, StoreError
from oauthgate.stores import ABSENT, make_store
from oauthgate.stores.dynamodb_table import create
from tests.servers.dynamodb import SECRET_WORDS, DynamoDB, Front, dynamodb
from tests.support import Kind, site_under_test

from .dynamodb_places import address, credentials, own
from .outcomes import fails
from .redis_places import SHORT, SIDES, started, use


@pytest.fixture(scope="module")
def server() -> Iterator[DynamoDB]:
    with started(dynamodb()) as found:
        yield found


@pytest.fixture
def url(server: DynamoDB, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store without a proxy between; whatever was done to the server is undone after."""
    credentials(monkeypatch)
    yield own(server.endpoint)
    server.restore()


@pytest.fixture
def front(server: DynamoDB) -> Iterator[Front]:
    with contextlib.closing(Front(server)) as found:
        yield found


@pytest.fixture
def faulty(front: Front, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store behind the proxy."""
    credentials(monkeypatch)
    return own(front.endpoint)


@SIDES
def test_a_server_that_is_gone_and_comes_back_empty(server: DynamoDB, url: str, blocking: bool) -> None:
    """While it is away, and while its table is, everything is an error; then nothing of ours has to be
    restarted."""

    async def scenario(store: Any) -> None:
        await store.open()
        await store.put("k", b"v")
        server.stop()
        await fails(store, "cannot be reached")
        with pytest.raises(StoreError, match="cannot be reached"):
            await make_store(url, blocking=blocking).open()
        server.start()
        await fails(store, "the table is not there: make it")
        fresh = make_store(url, blocking=blocking)
        with pytest.raises(StoreError, match="the table is not there: make it"):
            await fresh.open()
        create(url)
        await fresh.open()
        await fresh.close()
        version = await store.put("k", b"v", expect=ABSENT)
        assert await store.get("k") == (b"v", version, None)

    use(url, blocking, scenario)


@SIDES
def test_a_server_that_is_silent(server: DynamoDB, url: str, blocking: bool) -> None:
    """A server that hangs is an error after the timeout; what it answers later goes to nobody."""

    async def scenario(store: Any) -> None:
        await store.put("a", b"a")
        await store.put("b", b"b")
        server.freeze()
        for work in (store.get("a"), store.put("late", b"v", expect=ABSENT), store.delete("a")):
            with pytest.raises(StoreError, match="gave no answer in time"):
                await work
        server.thaw()
        for _ in range(5):
            record = await store.get("b")
            assert record is not None and record.value == b"b"

    use(f"{url}&timeout={SHORT}", blocking, scenario)


def test_an_event_loop_is_not_blocked(server: DynamoDB, url: str) -> None:
    """While a read waits for a server that hangs the loop goes on: it is what wakes the server up."""

    async def scenario(store: Any) -> None:
        version = await store.put("k", b"v")
        server.freeze()
        waiting = asyncio.ensure_future(store.get("k"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        server.thaw()
        assert await waiting == (b"v", version, None)

    use(f"{url}&timeout=60", False, scenario)


@SIDES
@pytest.mark.parametrize("moment", ["lost", "cut"])
def test_a_write_that_is_cut_off_is_done_once(
    front: Front, faulty: str, blocking: bool, moment: str
) -> None:
    """A conditional write whose connection breaks, before or after the server did it, succeeds: once,
    and not as a conflict with itself."""

    async def scenario(store: Any) -> None:
        await store.get("warm up")
        front.faults.append(moment)
        version = await store.put("k", b"one", expect=ABSENT)
        assert await store.get("k") == (b"one", version, None)
        front.faults.extend((moment, "ThrottlingException"))
        newer = await store.put("k", b"two", expect=version)
        assert await store.get("k") == (b"two", newer, None)
        assert front.counts["PutItem"] == 2 + 3
        for expect in (version, ABSENT):
            front.faults.append(moment)
            with pytest.raises(Conflict):
                await store.put("k", b"three", expect=expect)
        assert not front.faults

    use(faulty, blocking, scenario)


@SIDES
def test_a_delete_that_is_cut_off(front: Front, faulty: str, blocking: bool) -> None:
    """A delete of a version may be sent again, as no other write can have that version. When it then is
    gone, nobody knows by whom: an error, and no conflict."""

    async def scenario(store: Any) -> None:
        version = await store.put("k", b"v")
        front.faults.append("lost")
        assert await store.delete("k", expect=version)
        version = await store.put("k", b"v")
        front.faults.append("cut")
        with pytest.raises(StoreError, match="the answer to a delete was lost") as raised:
            await store.delete("k", expect=version)
        assert not isinstance(raised.value, Conflict)
        assert await store.get("k") is None

    use(faulty, blocking, scenario)


@SIDES
@pytest.mark.parametrize("moment", ["lost", "cut", (500, "InternalServerError")])
def test_what_cannot_know_itself_is_not_sent_twice(
    front: Front, faulty: str, blocking: bool, moment: Any
) -> None:
    """A write without expectation, and such a delete, are sent once: a second time they could undo what
    somebody else did in between. It is an error, as nobody knows whether it was done."""

    async def scenario(store: Any) -> None:
        await store.open()
        front.counts.clear()
        for work in (store.put("k", b"v"), store.delete("k")):
            front.faults.append(moment)
            with pytest.raises(StoreError) as raised:
                await work
            assert not isinstance(raised.value, Conflict)
        assert front.counts == {"PutItem": 1, "DeleteItem": 1}

    use(faulty, blocking, scenario)


@SIDES
@pytest.mark.parametrize("moment", ["cut", (500, "InternalServerError"), (503, "ServiceUnavailable")])
def test_a_read_is_sent_twice_at_most(front: Front, faulty: str, blocking: bool, moment: Any) -> None:
    """A broken connection, such as one that a frozen function wakes up with, is tried once more for a
    read, and then it is an error."""

    async def scenario(store: Any) -> None:
        version = await store.put("k", b"v")
        front.faults.append(moment)
        assert await store.get("k") == (b"v", version, None)
        front.faults.append(moment)
        assert [key async for key, _ in store.scan("")] == ["k"]
        front.faults.extend([moment] * 2)
        with pytest.raises(StoreError, match=r"broke off|failed inside AWS"):
            await store.get("k")
        assert front.counts["GetItem"] == 4

    use(faulty, blocking, scenario)


@SIDES
@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"]
)
def test_throttling(front: Front, faulty: str, blocking: bool, code: str) -> None:
    """What was turned away is sent again twice, also what could not know itself: nothing was done. After
    that it is an error."""

    async def scenario(store: Any) -> None:
        front.faults.extend([code] * 2)
        version = await store.put("k", b"v")
        front.faults.extend([code] * 2)
        assert await store.get("k") == (b"v", version, None)
        front.faults.extend([code] * 3)
        with pytest.raises(StoreError, match="takes no more requests for now"):
            await store.put("k", b"w", expect=version)
        front.faults.extend([code] * 3)
        with pytest.raises(StoreError, match="takes no more requests for now"):
            await store.get("k")
        assert not front.faults
        assert await store.get("k") == (b"v", version, None)

    use(faulty, blocking, scenario)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("AccessDeniedException", "grant dynamodb:GetItem, PutItem, DeleteItem and Scan"),
        ("UnrecognizedClientException", "does not accept the credentials"),
        ("InvalidSignatureException", "this machine's clock is right"),
        ("ExpiredTokenException", "the credentials have expired"),
        ("ResourceNotFoundException", "the table is not there"),
        ("ValidationException", "refused a request as not valid"),
        ("SomethingNewException", r"refused a request \(SomethingNewException\)"),
        ("no code at all", r"refused a request \(status 400\)"),
    ],
)
def test_what_aws_refuses(front: Front, faulty: str, answer: str, expected: str) -> None:
    """A refusal is sent once, and told by its cause and cure; the words of AWS are not repeated."""

    async def scenario(store: Any) -> None:
        front.counts.clear()
        front.faults.append(answer)
        with pytest.raises(StoreError, match=expected) as raised:
            await store.get("k")
        assert "somebody" in SECRET_WORDS and "somebody" not in str(raised.value)
        assert "user/ada" not in str(raised.value)
        assert front.counts == {"GetItem": 1}

    use(faulty, True, scenario)


@pytest.mark.parametrize(
    ("missing", "options", "expected"),
    [
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "?region=eu-west-1", "found no credentials"),
        (("AWS_SECRET_ACCESS_KEY",), "?region=eu-west-1", "credentials of which a part is missing"),
        ((), "", "no region is known"),
    ],
)
def test_what_boto3_does_not_find(
    monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], options: str, expected: str
) -> None:
    """Without credentials or a region the store says what to set; nothing is sent."""
    credentials(monkeypatch)
    for name in missing:
        monkeypatch.delenv(name)

    async def scenario(store: Any) -> None:
        for work in (store.open(), store.get("k")):
            with pytest.raises(StoreError, match=expected):
                await work

    use(f"dynamodb://gate{options}", True, scenario)


def test_an_address_that_is_none(front: Front, faulty: str) -> None:
    """Another protocol's port, and one without a listener."""
    plain = address(front.endpoint.replace("http:", "https:"), "gate")

    async def tls(store: Any) -> None:
        with pytest.raises(StoreError, match="does not speak TLS"):
            await store.get("k")

    use(plain, True, tls)


def test_a_site_whose_table_goes_away(
    server: DynamoDB, url: str, kind: Kind, config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Who is signed in gets 503 with Retry-After and keeps the cookie; who is not, notices nothing. The
    log has the cause and the cure."""
    config["oauthgate"] |= {"store": f"{url}&timeout={SHORT}", "secret": "s" * 32, "near_cache": 0}
    with site_under_test(kind, config) as site:
        browser, stranger = site.browser(), site.browser()
        site.login(browser)
        for away, cause in (
            (server.freeze, "gave no answer in time"),
            (server.stop, "cannot be reached"),
            (server.start, "the table is not there: make it"),
        ):
            away()
            caplog.clear()
            with caplog.at_level(logging.ERROR, "oauthgate.store"):
                reply = browser.get("/who")
            assert reply.status_code == 503
            assert int(reply.headers["retry-after"]) > 0
            assert "set-cookie" not in reply.headers
            assert stranger.get("/who").json()["user_id"] is None
            # An error that a visitor can see names no table.
            assert url.partition("?")[0].removeprefix("dynamodb://") not in reply.text
            (record,) = (each for each in caplog.records if each.name == "oauthgate.store")
            assert cause in record.getMessage()
            assert "user/" not in record.getMessage()
        create(url)
        # An empty table: nobody is known, and nothing is broken.
        assert browser.get("/who").json()["user_id"] is None
        assert site.login(site.browser()).status_code == 303
