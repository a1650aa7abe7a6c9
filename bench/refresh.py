"""Refresh: how many refresh requests come of many calls at once with a token that has expired.

One process, then four that share the store. The token rotates, so a second request would end the link.
`python -m bench.refresh` is one of those processes: it reads its task from its standard input.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

import oauthgate

from .api_server import make_certificates, trusting
from .apps import Place
from .processes import ROOT
from .provider import BASE, CALLBACKS, CLIENT_ID, CLIENT_SECRET, Remote, provider_process
from .results import Results
from .site import make_config, make_link, seed

CALLS = 25
PROCESSES = (1, 4)


def _config(url: str, place: Place, processes: int) -> dict[str, Any]:
    table = {
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "authorization_endpoint": f"{url}/oauth2/authorize",
        "token_endpoint": f"{url}/oauth2/token",
        "userinfo_endpoint": f"{url}/api/me",
        "api_base_url": f"{url}/api",
        "profile": {"id": "id"},
    }
    store = f"sqlite:///{place.folder}/refresh-{processes}.db"
    return make_config(store, services=0, corp=table)


def _expired_user(remote: Remote, config: dict[str, Any]) -> str:
    """A user whose access token is over and whose refresh token is good."""
    url = remote.urls["http"]
    back = remote.authorize(remote.authorization_url(url))
    form = {"grant_type": "authorization_code", "code": parse_qs(urlsplit(back).query)["code"][0]}
    with httpx2.Client(auth=(CLIENT_ID, CLIENT_SECRET)) as client:
        answer = client.post(f"{url}/oauth2/token", data={**form, "redirect_uri": BASE + CALLBACKS[0]})
    token = answer.json()
    now = time.time()
    link = make_link(
        "corp",
        "1001",
        now,
        access_token=token["access_token"],
        refresh_token=token["refresh_token"],
        received_at=now - 7200,
        expires_at=now - 3600,
    )
    return seed(config, [link])[0].partition(".")[0]


def run(results: Results, place: Place) -> None:
    """The part."""
    certificates = make_certificates(place.folder)
    with trusting(certificates.bundle), provider_process(certificates) as remote:
        for processes in PROCESSES[: 1 if results.quick else None]:
            config = _config(remote.urls["http"], place, processes)
            user_id = _expired_user(remote, config)
            before = remote.counted()["token"]
            started = time.perf_counter()
            _workers(processes, config, user_id, 3 if results.quick else CALLS)
            took = time.perf_counter() - started
            refreshes = remote.counted()["token"] - before
            results.number(f"refreshes of {CALLS} calls in each of {processes} processes", refreshes)
            results.number(f"all calls of {processes} processes, start of Python included (s)", took)


def _workers(processes: int, config: dict[str, Any], user_id: str, calls: int) -> None:
    task = json.dumps({"config": config, "user_id": user_id, "calls": calls}).encode()
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "bench.refresh"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    cwd=ROOT,
                )
            )
            for _ in range(processes)
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"ready\n"  # imported, so that all begin together
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(task)
            worker.stdin.close()
        for worker in workers:
            assert worker.wait(60) == 0, "a call did not succeed"


async def _call(task: dict[str, Any]) -> None:
    async with oauthgate.open(task["config"]) as gate:

        async def one() -> int:
            services = await gate.services(task["user_id"])
            status: int = (await services["corp"].get("me")).status_code
            return status

        assert set(await asyncio.gather(*(one() for _ in range(task["calls"])))) == {200}


if __name__ == "__main__":
    print("ready", flush=True)
    asyncio.run(_call(json.load(sys.stdin)))
