"""Making the table of a DynamoDB store, which the store itself never does.

A server that makes its own table needs rights that it should not have, and one with a mistyped name or
region would begin with an empty table, where everybody seems never to have been there. So a person does
it, once, with `oauthgate store init`, or a template of the infrastructure (docs/stores.md, "DynamoDB").
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ..errors import StoreError
from .dynamodb_client import Client, boto_errors
from .dynamodb_faults import code_of, fault
from .dynamodb_url import read_url

KEY = "record_key"
FREE_AT = "free_at"
#: Seconds that the making may take, and between two looks.
PATIENCE = 120.0
LOOK_EVERY = 0.5


def create(url: str) -> None:
    """Make the table that `url` names, charged by request, with deletion of what expired; one that is
    there is checked, and the deletion switched on.

    It blocks its thread until the table can be used: the work of a command, not of a server. Raises
    `ConfigError`, or `StoreError` when AWS refuses or another kind of table has that name.
    """
    place = read_url(url)
    client = _Maker(place)
    try:
        client.make()
        client.wait()
        client.free_what_expired()
    finally:
        client.close()


class _Maker(Client):
    """The requests that make a table."""

    def make(self) -> None:
        """Make it, unless it is there."""
        with contextlib.suppress(_There):
            self._ask(
                "create_table",
                AttributeDefinitions=[{"AttributeName": KEY, "AttributeType": "S"}],
                KeySchema=[{"AttributeName": KEY, "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
            )

    def wait(self) -> None:
        """Until the table is active and as ours are."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                table = self._ask("describe_table")["Table"]
            except _NotThere:  # for a moment after it was made
                table = {}
            if table.get("TableStatus") in ("ACTIVE", "UPDATING"):
                break
            if time.monotonic() > deadline:
                raise StoreError(f"DynamoDB ({self.place}): the table is not ready; try again later")
            time.sleep(LOOK_EVERY)
        keys = [(each["AttributeName"], each["KeyType"]) for each in table["KeySchema"]]
        types = {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}
        if keys != [(KEY, "HASH")] or types[KEY] != "S":
            raise StoreError(
                f"DynamoDB ({self.place}): a table with another key has this name: choose another name"
            )

    def free_what_expired(self) -> None:
        """Switch on DynamoDB's own deletion."""
        about = self._ask("describe_time_to_live")["TimeToLiveDescription"]
        if about["TimeToLiveStatus"] in ("ENABLED", "ENABLING"):
            if about.get("AttributeName") != FREE_AT:
                raise StoreError(
                    f"DynamoDB ({self.place}): the table deletes by another attribute than {FREE_AT}: "
                    "switch its time to live off, or choose another table"
                )
            return
        self._ask(
            "update_time_to_live",
            TimeToLiveSpecification={"Enabled": True, "AttributeName": FREE_AT},
        )

    def _ask(self, operation: str, **parameters: object) -> dict[str, Any]:
        try:
            return self._once(operation, parameters)
        except boto_errors() as error:
            code = code_of(error)
            if code == "ResourceInUseException":
                raise _There from None
            if code == "ResourceNotFoundException":
                raise _NotThere from None
            if code == "AccessDeniedException":
                raise StoreError(
                    f"DynamoDB ({self.place}): these credentials may not make the table: grant "
                    "dynamodb:CreateTable, DescribeTable, DescribeTimeToLive and UpdateTimeToLive on it"
                ) from None
            raise fault(self.place, error) from None


class _There(Exception):
    """A table of that name is there."""


class _NotThere(Exception):
    """There is none."""
