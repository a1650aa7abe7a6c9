"""The DynamoDB store on a table: what is in it, what a request costs, sign-ins, making the table."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oauthgate.errors import Conflict, StoreError
from oauthgate.stepping import run as step
from oauthgate.stores import ABSENT, make_store
from oauthgate.stores.dynamodb import GRACE, LARGEST_ITEM, OVERHEAD, DynamoDBStore
from oauthgate.stores.dynamodb_table import create
from tests.servers.dynamodb import DynamoDB, Front, dynamodb
from tests.support import PAGE, Kind, site_under_test

from .dynamodb_places import address, credentials, own
from .redis_places import SIDES, started, use

MANUAL = Path(__file__).parents[2] / "docs" / "stores.md"


@pytest.fixture(scope="module")
def server() -> Iterator[DynamoDB]:
    with started(dynamodb()) as found:
        yield found


@pytest.fixture
def front(server: DynamoDB) -> Iterator[Front]:
    with contextlib.closing(Front(server)) as found:
        yield found


@pytest.fixture
def url(front: Front, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store whose requests are counted, and those that made its table are not."""
    credentials(monkeypatch)
    found = own(front.endpoint)
    front.counts.clear()
    return found


def table_of(url: str) -> str:
    return url.partition("//")[2].partition("?")[0]


def items(server: DynamoDB, url: str) -> dict[str, Any]:
    """What is in the table, past the store."""
    found = server.ask("scan", TableName=table_of(url))["Items"]
    return {item["record_key"]["S"]: item for item in found}


@SIDES
def test_one_request_each(front: Front, url: str, blocking: bool) -> None:
    """A read, a write and a delete are one request, with whatever expectation; a purge is none."""

    async def scenario(store: Any) -> None:
        await store.open()
        for work, operation in (
            (store.get("k"), "GetItem"),
            (store.put("k", b"v"), "PutItem"),
            (store.put("l", b"v", expect=ABSENT), "PutItem"),
            (store.get("k"), "GetItem"),
            (store.delete("l"), "DeleteItem"),
        ):
            front.counts.clear()
            await work
            assert front.counts == {operation: 1}
        record = await store.get("k")
        front.counts.clear()
        version = await store.put("k", b"w", expect=record.version)
        for work in (
            store.put("k", b"no", expect=ABSENT),
            store.put("k", b"no", expect=record.version),
            store.delete("k", expect=record.version),
        ):
            with pytest.raises(Conflict):
                await work
        await store.delete("k", expect=version)
        await store.purge(time.time())
        assert front.counts == {"PutItem": 3, "DeleteItem": 2}

    use(url, blocking, scenario)


def test_reads_are_consistent(front: Front, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every read asks for what the last write left, not for what a replica has; moto has no replicas, so
    what was asked for is looked at."""
    store = DynamoDBStore(url)
    asked: list[bool] = []
    send = store._client.send

    def spy(operation: str, **parameters: Any) -> Any:
        asked.append(parameters.get("ConsistentRead", False))
        return send(operation, **parameters)

    monkeypatch.setattr(store._client, "send", spy)
    store.get("k")
    assert list(store.scan("")) == []
    store.close()
    assert asked == [True, True]


@SIDES
def test_what_is_in_the_table(server: DynamoDB, url: str, blocking: bool) -> None:
    """A record is one item; DynamoDB is told to free it later than it expires, by a grace."""

    async def scenario(store: Any) -> None:
        now = time.time()
        version = await store.put("k", b"\x00v", expires_at=now + 100.5)
        item = items(server, url)["shop:k"]
        free_at = int(item.pop("free_at")["N"])
        assert now + 100 + GRACE < free_at <= now + 102 + GRACE
        assert float(item.pop("expires_at")["N"]) == now + 100.5
        assert item == {
            "record_key": {"S": "shop:k"},
            "sealed": {"B": b"\x00v"},
            "record_version": {"N": str(version)},
        }
        # What has expired long ago is freed too: DynamoDB leaves alone what is five years old.
        await store.put("old", b"v", expires_at=5)
        assert int(items(server, url)["shop:old"]["free_at"]["N"]) > now
        assert await store.get("old") is None
        # A record without an expiry is never freed, also after it had one.
        await store.put("k", b"v")
        assert set(items(server, url)["shop:k"]) == {"record_key", "sealed", "record_version"}
        for far in (math.inf, 1e300):
            await store.put("k", b"v", expires_at=far)
            assert await store.get("k") is not None

    use(f"{url}&prefix=shop:", blocking, scenario)


@SIDES
def test_expiry_is_by_our_clock_at_every_use(url: str, blocking: bool) -> None:
    """What has expired is absent for every operation, although it lies in the table."""
    store = make_store(url, blocking=blocking)
    inner: DynamoDBStore = store.inner  # type: ignore[attr-defined]

    async def scenario() -> None:
        end = time.time() + 1000
        version = await store.put("k", b"v", expires_at=end, expect=ABSENT)
        await store.put("l", b"v", expires_at=end)
        for late, there in ((-0.5, True), (0.0, False), (0.5, False)):
            inner.clock = lambda late=late: end + late  # type: ignore[misc]
            assert (await store.get("k") is not None) is there
            assert [key async for key, _ in store.scan("k")] == ["k"] * there
            if there:
                with pytest.raises(Conflict):
                    await store.put("k", b"w", expect=ABSENT)
                continue
            with pytest.raises(Conflict):
                await store.put("k", b"w", expect=version)
            with pytest.raises(Conflict):
                await store.delete("k", expect=version)
        assert await store.delete("l") is False
        await store.put("k", b"w", expect=ABSENT)
        await store.close()

    if blocking:
        step(scenario())
    else:
        asyncio.run(scenario())


@SIDES
def test_scan_reads_page_by_page(front: Front, url: str, blocking: bool) -> None:
    """A table that is larger than one answer is read to its end."""

    async def scenario(store: Any) -> None:
        for number in range(6):
            await store.put(f"user/{number}", bytes(250_000))
        front.counts.clear()
        assert {key async for key, _ in store.scan("user/")} == {f"user/{n}" for n in range(6)}
        assert front.counts["Scan"] > 1
        # The end of the table holds nothing of it, and what does is not on the first page.
        assert [key async for key, _ in store.scan("user/5")] == ["user/5"]

    use(url, blocking, scenario)


@SIDES
def test_two_prefixes_share_a_table(url: str, blocking: bool) -> None:
    """Records of one are not another's."""

    async def write(store: Any) -> None:
        await store.put("k", b"v", expect=ABSENT)

    async def read(store: Any) -> None:
        assert [key async for key, _ in store.scan("")] == ["k"]
        assert await store.get("b:k") is None

    use(f"{url}&prefix=a:", blocking, write)
    use(f"{url}&prefix=b:", blocking, write)
    use(f"{url}&prefix=a:", blocking, read)


@SIDES
def test_a_record_that_is_too_large(front: Front, url: str, blocking: bool) -> None:
    """What cannot be an item is refused before it is sent, with its size, and without its key."""
    largest = LARGEST_ITEM - OVERHEAD - len("user/somebody")

    async def scenario(store: Any) -> None:
        front.counts.clear()
        with pytest.raises(StoreError, match=r"user/… of 409601 bytes .*\(400 KB\)") as refused:
            await store.put("user/somebody", bytes(largest + 1))
        assert "somebody" not in str(refused.value)
        assert not isinstance(refused.value, Conflict)
        assert not front.counts
        # moto counts in base64, so it refuses some that DynamoDB would take: their answer is understood.
        with pytest.raises(StoreError, match="larger than the 400 KB"):
            await store.put("user/somebody", bytes(largest))

    use(url, blocking, scenario)


@SIDES
def test_what_is_not_ours_is_not_touched(server: DynamoDB, url: str, blocking: bool) -> None:
    """Items of others under our keys are an error, and stay as they are."""
    server.ask("put_item", TableName=table_of(url), Item={"record_key": {"S": "k"}, "x": {"S": "y"}})

    async def scenario(store: Any) -> None:
        with pytest.raises(StoreError, match="choose another table or"):
            await store.get("k")
        with pytest.raises(StoreError, match="choose another table or"):
            _ = [key async for key, _ in store.scan("")]
        for expect in (ABSENT, 1):
            with pytest.raises(Conflict):
                await store.put("k", b"v", expect=expect)

    use(url, blocking, scenario)
    assert items(server, url)["k"] == {"record_key": {"S": "k"}, "x": {"S": "y"}}


# -- sites


def test_a_sign_in_and_a_call(front: Front, url: str, kind: Kind, config: dict[str, Any]) -> None:
    """Sign-in, a call to the linked service, a second link, and the list of users."""
    config["oauthgate"] |= {"store": url, "secret": "s" * 32}
    with site_under_test(kind, config) as site:
        browser = site.browser()
        assert site.login(browser).status_code == 303
        assert browser.get("/call/spotify/me", headers=PAGE).json()["id"] == "1001"
        assert site.link(browser, "twitter").status_code == 303
        assert browser.get("/call/twitter/me").json()["id"] == "1001"
        assert browser.get("/who").json()["services"] == ["spotify", "twitter"]


def test_a_signed_in_request_is_one_read(
    front: Front, url: str, kind: Kind, config: dict[str, Any]
) -> None:
    """A whole request of somebody who is signed in costs one GetItem, of anybody else nothing."""
    config["oauthgate"] |= {"store": url, "secret": "s" * 32, "near_cache": 0}
    with site_under_test(kind, config) as site:
        browser, stranger = site.browser(), site.browser()
        site.login(browser)
        front.counts.clear()
        for _ in range(5):
            assert browser.get("/who").json()["user_id"]
            assert stranger.get("/who").json()["user_id"] is None
        assert front.counts == {"GetItem": 5}


def test_a_logout_is_obeyed_by_another_machine(url: str, kind: Kind, config: dict[str, Any]) -> None:
    """A session that one gate has ended, a second one over the same table refuses at once."""
    config["oauthgate"] |= {"store": url, "secret": "s" * 32, "near_cache": 0}
    with site_under_test(kind, config) as one, site_under_test(kind, config) as other:
        browser, elsewhere = one.browser(), other.browser()
        one.login(browser)
        elsewhere.cookies.update(browser.cookies)
        assert elsewhere.get("/who").json()["user_id"]
        assert one.post(browser, "/logout").status_code == 200
        assert elsewhere.get("/who").json()["user_id"] is None


# -- the table


def test_a_table_is_made_once(server: DynamoDB, url: str) -> None:
    """`create` makes the table and switches the deletion on; again, it finds all as it should be."""
    fresh = address(server.endpoint, "made-by-the-command")
    create(fresh)
    about = server.ask("describe_table", TableName="made-by-the-command")["Table"]
    assert about["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    freeing = server.ask("describe_time_to_live", TableName="made-by-the-command")
    assert freeing["TimeToLiveDescription"] == {
        "TimeToLiveStatus": "ENABLED",
        "AttributeName": "free_at",
    }
    store = DynamoDBStore(fresh)
    version = store.put("k", b"v")
    create(fresh)
    assert store.get("k") == (b"v", version, None)
    store.close()


def test_a_table_of_somebody_else(server: DynamoDB, url: str) -> None:
    """A table with another key is left alone, and named by the store."""
    server.ask(
        "create_table",
        TableName="foreign",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    foreign = address(server.endpoint, "foreign")
    with pytest.raises(StoreError, match="a table with another key has this name"):
        create(foreign)
    freeing = server.ask("describe_time_to_live", TableName="foreign")
    assert freeing["TimeToLiveDescription"]["TimeToLiveStatus"] == "DISABLED"
    store = DynamoDBStore(foreign)
    for work in (store.open, lambda: store.get("k"), lambda: store.put("k", b"v")):
        with pytest.raises(StoreError, match="the table has another key"):
            work()
    store.close()


def test_a_table_that_deletes_by_something_else(server: DynamoDB, url: str) -> None:
    """A time to live of somebody's own is not changed."""
    server.ask(
        "update_time_to_live",
        TableName=table_of(url),
        TimeToLiveSpecification={"Enabled": False, "AttributeName": "free_at"},
    )
    server.ask(
        "update_time_to_live",
        TableName=table_of(url),
        TimeToLiveSpecification={"Enabled": True, "AttributeName": "other"},
    )
    with pytest.raises(StoreError, match="deletes by another attribute than free_at"):
        create(url)


def test_rights_to_make_a_table(front: Front, url: str) -> None:
    """Those that are missing are named, in our words."""
    front.faults.append("AccessDeniedException")
    with pytest.raises(StoreError, match="grant dynamodb:CreateTable") as denied:
        create(url)
    assert "somebody" not in str(denied.value)


def test_the_rights_that_the_manual_lists(front: Front, url: str) -> None:
    """The two policies in docs/stores.md hold exactly the actions that are used: to make the table,
    and daily."""
    section = MANUAL.read_text(encoding="utf-8").partition("\n## DynamoDB\n")[2].partition("\n## ")[0]
    making, daily = (
        {action for statement in json.loads(text)["Statement"] for action in statement["Action"]}
        for text in re.findall(r"^```json\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    )
    store = DynamoDBStore(url)
    store.open()
    store.delete("k", expect=store.put("k", b"v"))
    assert list(store.scan("")) == []
    store.close()
    assert {f"dynamodb:{name}" for name in front.counts} == daily
    front.counts.clear()
    create(address(front.endpoint, "made-for-its-rights"))
    assert {f"dynamodb:{name}" for name in front.counts} == making
