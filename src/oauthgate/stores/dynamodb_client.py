"""One request at a time to DynamoDB, over a client of this process.

Owns: `Client`. boto3 knows credentials, signatures, endpoints and the wire format; here it is decided
that

- a client is made on first use and kept by process id: no socket is shared after a fork. boto3's clients
  may be used by many threads at once, its sessions and resources may not, so those are not kept;
- boto3 repeats nothing by itself: it would send a write a second time without telling. Here it is known
  what a request that failed has done, and the caller says what may be sent again;
- a process waits for a free connection rather than opening one more for every request.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from importlib.util import find_spec
from typing import Any

from ..errors import ConfigError, StoreError
from .dynamodb_faults import Fault, Outcome, code_of, fault
from .dynamodb_url import Place

#: Seconds before a request that was throttled is sent again, the first time and the second.
PAUSES = (0.05, 0.15)


class Unmet(Exception):
    """The condition of a write did not hold. `item` is what is there instead; `in_doubt` is whether the
    same request was sent before and its answer lost."""

    def __init__(self, item: dict[str, Any], *, in_doubt: bool) -> None:
        super().__init__()
        self.item = item
        self.in_doubt = in_doubt


class _Held:
    """What one process holds."""

    def __init__(self, connections: int) -> None:
        self.making = threading.Lock()
        self.free = threading.Semaphore(connections)
        self.client: Any = None


class Client:
    """Requests about one table. Raises `ConfigError` where boto3 is not installed."""

    def __init__(self, place: Place) -> None:
        if find_spec("boto3") is None:
            raise ConfigError(
                "[oauthgate] store: dynamodb:// needs the package boto3, which is not installed: "
                'pip install "oauthgate[dynamodb]"'
            )
        self.place = place
        self._by_process: dict[int, _Held] = {}

    def send(self, operation: str, *, repeat: bool = False, **parameters: object) -> dict[str, Any]:
        """Send one request about the table and return the answer.

        What was throttled or never sent is sent again, a few times. With `repeat` so is, once, what may
        have been done. Raises `Unmet`, or `StoreError`.
        """
        pauses = list(PAUSES)
        in_doubt = tried_again = False
        while True:
            try:
                return self._once(operation, parameters)
            except boto_errors() as error:
                if code_of(error) == "ConditionalCheckFailedException":
                    response: dict[str, Any] = getattr(error, "response", {})
                    raise Unmet(response.get("Item", {}), in_doubt=in_doubt) from None
                failed: Fault = fault(self.place, error)
            if failed.outcome is Outcome.THROTTLED and pauses:
                # By half at random, or everybody who was turned away would return together.
                time.sleep(pauses.pop(0) * (50 + secrets.randbelow(51)) / 100)
                continue
            sent = failed.outcome is Outcome.UNKNOWN
            if tried_again or not (failed.outcome is Outcome.UNSENT or (sent and repeat)):
                raise failed
            tried_again = True
            in_doubt = in_doubt or sent

    def open(self) -> None:
        """Make the client. Raises `StoreError`."""
        try:
            self._client(self._held())
        except boto_errors() as error:
            raise fault(self.place, error) from None

    def close(self) -> None:
        """Close the connections of this process; the next request makes new ones."""
        held = self._by_process.pop(os.getpid(), None)
        if held is not None and held.client is not None:
            with contextlib.suppress(*boto_errors()):
                held.client.close()

    def _once(self, operation: str, parameters: dict[str, object]) -> dict[str, Any]:
        held = self._held()
        client = self._client(held)
        if not held.free.acquire(timeout=self.place.timeout):
            raise StoreError(
                f"DynamoDB ({self.place}): all {self.place.connections} connections of this process "
                f"were in use for {self.place.timeout:g} s: see whether it is slow, or raise "
                "?connections="
            )
        try:
            answer: dict[str, Any] = getattr(client, operation)(TableName=self.place.table, **parameters)
            return answer
        finally:
            held.free.release()

    def _held(self) -> _Held:
        pid = os.getpid()
        # A forked child leaves its parent's entry alone, and so its sockets, and a lock that a thread
        # of the parent may have held.
        held = self._by_process.get(pid)
        return held or self._by_process.setdefault(pid, _Held(self.place.connections))

    def _client(self, held: _Held) -> Any:  # noqa: ANN401 - boto3 has no types
        if held.client is None:
            with held.making:
                if held.client is None:
                    held.client = _make(self.place)
        return held.client


def boto_errors() -> tuple[type[Exception], ...]:
    """What boto3 raises. Loading boto3 takes a quarter of a second: not before the first request of
    all, or a Lambda function would start that much later for a visitor who needs none."""
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError, OSError, UnicodeError)


def _make(place: Place) -> Any:  # noqa: ANN401 - boto3 has no types
    import boto3.session
    from botocore.config import Config

    config = Config(
        connect_timeout=place.connect_timeout,
        read_timeout=place.timeout,
        max_pool_connections=place.connections,
        retries={"total_max_attempts": 1, "mode": "standard"},
        # An idle connection that a NAT gateway has forgotten is noticed by the kernel.
        tcp_keepalive=True,
    )
    session = boto3.session.Session(region_name=place.region)
    return session.client("dynamodb", endpoint_url=place.endpoint, config=config)
