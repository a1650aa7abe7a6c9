"""A worker process: on `go` it signs new people in, all at once, and prints what became of them.

    python -m tests.access.worker MODE CONFIG.json FIRST COUNT

MODE is `asyncio` or `threads`; the accounts are FIRST to FIRST + COUNT - 1.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from oauthgate.config import Config
from oauthgate.errors import GateError
from oauthgate.gate import Gate
from oauthgate.io_async import AsyncIO
from oauthgate.io_blocking import BlockingIO
from oauthgate.stepping import run

from .links import link


async def sign_in(gate: Gate, account: int) -> str:
    """`ok`, or the error's code."""
    try:
        await gate.accounts.login(link("twitter", str(account)))
    except GateError as error:
        return error.code
    return "ok"


async def by_tasks(gate: Gate, accounts: list[int]) -> list[str]:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    found = await asyncio.gather(*(sign_in(gate, account) for account in accounts))
    await gate.close()
    return found


def by_threads(gate: Gate, accounts: list[int]) -> list[str]:
    with ThreadPoolExecutor(len(accounts)) as pool:
        print("ready", flush=True)
        sys.stdin.readline()
        found = list(pool.map(lambda account: run(sign_in(gate, account)), accounts))
    run(gate.close())
    return found


def main() -> None:
    mode, path, first, count = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        config = Config.load(json.load(file))
    accounts = list(range(int(first), int(first) + int(count)))
    if mode == "asyncio":
        found = asyncio.run(by_tasks(Gate(config, AsyncIO()), accounts))
    else:
        found = by_threads(Gate(config, BlockingIO()), accounts)
    print(json.dumps(Counter(found)), flush=True)


if __name__ == "__main__":
    main()
