"""A worker process: on each line `go` it makes CALLERS calls at once and prints what came of them.

    python -m tests.refresh.worker MODE CONFIG.json USER_ID CALLERS

MODE is `asyncio`, `threads` or `gevent`. It uses the gate as a job does (`oauthgate.open`), which is the
same core, refresher and store as a web worker's.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def report(outcomes: list[Any]) -> None:
    """One line of JSON: how many calls succeeded, some errors, the longest wait in seconds."""
    errors = [repr(outcome) for outcome, _ in outcomes if outcome != 200]
    result = {
        "ok": len(outcomes) - len(errors),
        "errors": errors[:3],
        "longest": max(seconds for _, seconds in outcomes),
    }
    print(json.dumps(result), flush=True)


async def by_tasks(config: dict[str, Any], user_id: str, callers: int) -> None:
    """Tasks on one event loop."""
    import oauthgate

    async with oauthgate.open(config) as gate:

        async def call() -> tuple[object, float]:
            begun = time.monotonic()
            try:
                service = (await gate.services(user_id))["spotify"]
                outcome: object = (await service.get("me")).status_code
            except Exception as error:
                outcome = error
            return outcome, time.monotonic() - begun

        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            report(await asyncio.gather(*(call() for _ in range(callers))))


def by_threads(config: dict[str, Any], user_id: str, callers: int) -> None:
    """Threads, which under gevent's monkey patch are greenlets."""
    import oauthgate

    with oauthgate.open(config) as gate, ThreadPoolExecutor(callers) as pool:

        def call(_: int) -> tuple[object, float]:
            begun = time.monotonic()
            try:
                outcome: object = gate.services(user_id)["spotify"].get("me").status_code
            except Exception as error:
                outcome = error
            return outcome, time.monotonic() - begun

        print("ready", flush=True)
        while sys.stdin.readline():
            report(list(pool.map(call, range(callers))))


def main() -> None:
    mode, path, user_id, callers = sys.argv[1:]
    if mode == "gevent":
        from gevent import monkey

        monkey.patch_all(sys=True)
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    if mode == "asyncio":
        asyncio.run(by_tasks(config, user_id, int(callers)))
    else:
        by_threads(config, user_id, int(callers))


if __name__ == "__main__":
    main()
