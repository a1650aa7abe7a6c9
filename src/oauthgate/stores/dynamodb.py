"""Records in one table of Amazon DynamoDB.

Owns: `DynamoDBStore`, how a record is written down, and the conditions. A record is one item:

    record_key      the partition key, and all of it: prefix and key
    sealed          the value
    record_version  a number that is drawn at random for every write, from 2^62
    expires_at      Unix seconds; not there when the record lives for ever
    free_at         whole Unix seconds, after which DynamoDB may delete it (its "time to live")

A read is one strongly consistent GetItem; a write or delete is one request with its condition in it
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.ConditionExpressions.html).
The version never returns for a key, also after the key was deleted or expired, and it is how a write
that is sent again after its answer was lost recognizes itself.

DynamoDB deletes late, within days (…/developerguide/TTL.html), so `expires_at` is compared with our own
clock at every use, and in every condition: what has expired counts as absent, there or not.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import Conflict, StoreError
from .base import ABSENT, ANY, Expect, Record
from .dynamodb_client import Client, Unmet
from .dynamodb_url import read_url

#: Seconds between a record's expiry and its deletion: as far may the clocks of our machines differ.
GRACE = 60
#: Bytes of an item, names included ("Item size" in …/developerguide/ServiceQuotas.html).
LARGEST_ITEM = 400 * 1024
#: Bytes of an item that are neither key nor value: five names, three numbers of 21 bytes at most.
OVERHEAD = 128
#: No expiry is later than this (Unix seconds): DynamoDB's numbers end where those of `float` do not.
LATEST = 1e15

_LIVE = "(attribute_not_exists(expires_at) OR expires_at > :now)"
_IS_ABSENT = "attribute_not_exists(record_key) OR expires_at <= :now"
_IS_VERSION = f"record_version = :version AND {_LIVE}"


class DynamoDBStore:
    """`dynamodb://TABLE?region=…`. Raises `ConfigError` for a URL that cannot work.

    Its methods block, because boto3's do: under ASGI `bridge` runs them in a thread.
    """

    colour = "sync"

    def __init__(self, url: str, *, blocking: bool = False) -> None:
        self.place = read_url(url)
        self._url = url
        self.clock: Callable[[], float] = time.time
        self._client = Client(self.place)
        self._looked = False

    def __repr__(self) -> str:
        return f"DynamoDBStore({str(self.place)!r})"

    def open(self) -> None:
        """Connect, and see that the table is there: by a read, which every user of a store may do."""
        self._client.open()
        if not self._looked:
            self.get("meta/open")
            self._looked = True

    def create(self) -> None:
        """Make the table, for `oauthgate store init`: a server has no business to (`dynamodb_table`)."""
        from .dynamodb_table import create

        create(self._url)

    def close(self) -> None:
        self._client.close()

    def get(self, key: str) -> Record | None:
        # Consistent, or a session that another machine has ended would go on for a while here.
        answer = self._client.send("get_item", Key=self._key(key), ConsistentRead=True, repeat=True)
        return self._record(answer["Item"]) if "Item" in answer else None

    def put(
        self, key: str, value: bytes, *, expires_at: float | None = None, expect: Expect = ANY
    ) -> int:
        now = self.clock()
        fresh = secrets.randbits(62)
        item = self._key(key) | {"sealed": {"B": value}, "record_version": _number(fresh)}
        if expires_at is not None:
            until = min(max(float(expires_at), 0.0), LATEST)
            # What expired years ago DynamoDB would keep for ever.
            item |= {
                "expires_at": _number(until),
                "free_at": _number(math.ceil(max(until, now)) + GRACE),
            }
        self._measure(key, value)
        try:
            self._client.send(
                "put_item",
                Item=item,
                # Sent again, a write with an expectation finds itself written, or the record as it was.
                # One without could undo what somebody wrote in between.
                repeat=expect is not ANY,
                **_condition(expect, now),
            )
        except Unmet as unmet:
            if unmet.item.get("record_version") != _number(fresh):  # else it was us
                raise Conflict(
                    f"the record {_kind(key)} is not as the writer expected ({expect!r})"
                ) from None
        return fresh

    def delete(self, key: str, *, expect: Expect = ANY) -> bool:
        if not isinstance(expect, int):
            # Sent once: a second time it could delete what somebody wrote in between.
            answer = self._client.send("delete_item", Key=self._key(key), ReturnValues="ALL_OLD")
            return "Attributes" in answer and self._record(answer["Attributes"]) is not None
        try:
            # Sent again it can only delete the same version, which never returns.
            self._client.send(
                "delete_item", Key=self._key(key), repeat=True, **_condition(expect, self.clock())
            )
        except Unmet as unmet:
            if unmet.in_doubt:  # what was deleted leaves no trace by which we would know that it was us
                raise StoreError(
                    f"DynamoDB ({self.place}): the answer to a delete was lost; the record is not at "
                    "this version any more, by whomever"
                ) from None
            raise Conflict(f"the record {_kind(key)} was changed by another writer") from None
        return True

    def scan(self, prefix: str) -> Iterator[tuple[str, Record]]:
        """Reads the whole table, page by page: it has no other order than that of the keys' hashes."""
        begin = self.place.prefix + prefix
        filters: dict[str, Any] = {
            "FilterExpression": _LIVE,
            "ExpressionAttributeValues": {":now": _number(self.clock())},
        }
        if begin:
            filters["FilterExpression"] += " AND begins_with(record_key, :begin)"
            filters["ExpressionAttributeValues"][":begin"] = {"S": begin}
        while True:
            page = self._client.send("scan", ConsistentRead=True, repeat=True, **filters)
            for item in page["Items"]:
                record = self._record(item)
                if record is not None:
                    yield item["record_key"]["S"].removeprefix(self.place.prefix), record
            # A page can be empty and not the last: the filter is applied after it was read.
            if not page.get("LastEvaluatedKey"):
                return
            filters["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def purge(self, now: float) -> int:
        """Nothing is left to drop: DynamoDB deletes by itself what expired."""
        return 0

    # --

    def _key(self, key: str) -> dict[str, Any]:
        return {"record_key": {"S": self.place.prefix + key}}

    def _measure(self, key: str, value: bytes) -> None:
        size = len(self.place.prefix.encode()) + len(key.encode()) + len(value) + OVERHEAD
        if size > LARGEST_ITEM:
            raise StoreError(
                f"DynamoDB ({self.place}): a record {_kind(key)} of {size} bytes is larger than the "
                f"{LARGEST_ITEM} (400 KB) that an item can have: have less carried through flows and "
                "kept with links, or use another store"
            )

    def _record(self, item: dict[str, Any]) -> Record | None:
        """The record in an item, when it is live."""
        try:
            value = item["sealed"]["B"]
            version = int(item["record_version"]["N"])
            expires_at = float(item["expires_at"]["N"]) if "expires_at" in item else None
        except (KeyError, ValueError):
            raise StoreError(
                f"DynamoDB ({self.place}): holds what this oauthgate did not write: upgrade oauthgate, "
                "or choose another table or ?prefix="
            ) from None
        if expires_at is not None and expires_at <= self.clock():
            return None
        return Record(bytes(value), version, expires_at)


def _condition(expect: Expect, now: float) -> dict[str, Any]:
    """The part of a write that says what must be there."""
    if expect is ANY:
        return {}
    condition: dict[str, Any] = {
        "ConditionExpression": _IS_ABSENT,
        "ExpressionAttributeValues": {":now": _number(now)},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    if expect is not ABSENT:
        condition["ConditionExpression"] = _IS_VERSION
        condition["ExpressionAttributeValues"][":version"] = _number(expect)
    return condition


def _number(value: object) -> dict[str, str]:
    return {"N": repr(value)}


def _kind(key: str) -> str:
    # A key may hold a hash that names a person: errors speak of the kind of record only.
    return f"{key.partition('/')[0]}/…"
