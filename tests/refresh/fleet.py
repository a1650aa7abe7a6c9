"""Several worker processes that call at the same moment."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oauthgate
from oauthgate.leases import LEASE
from oauthgate.testing import LocalProvider
from tests.support import site_under_test

ROOT = Path(__file__).parents[2]


class Fleet:
    """Worker processes (`worker.py`) of one mode, all on one store."""

    def __init__(
        self, mode: str, config: dict[str, Any], user_id: str, folder: Path, *, callers: int
    ) -> None:
        self._arguments = [mode, str(folder / "config.json"), user_id, str(callers)]
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        self.workers: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        """Start one more worker and wait until it is ready."""
        worker = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "tests.refresh.worker", *self._arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.workers.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline().strip() == "ready"
        return worker

    @staticmethod
    def go(worker: subprocess.Popen[str]) -> None:
        """Have a worker make its calls."""
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()

    @staticmethod
    def result(worker: subprocess.Popen[str]) -> dict[str, Any]:
        """What came of them."""
        assert worker.stdout is not None
        line = worker.stdout.readline()
        assert line, f"a worker ended by itself, with {worker.wait()}"
        found: dict[str, Any] = json.loads(line)
        return found

    def round(self) -> list[dict[str, Any]]:
        """All workers at once."""
        for worker in self.workers:
            self.go(worker)
        return [self.result(worker) for worker in self.workers]

    def kill(self, worker: subprocess.Popen[str]) -> None:
        """End a worker at once, as a crash or the kernel would."""
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        for stream in (worker.stdin, worker.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self.workers.remove(worker)


@contextlib.contextmanager
def fleet(
    mode: str,
    config: dict[str, Any],
    user_id: str,
    folder: Path,
    *,
    processes: int = 4,
    callers: int = 20,
) -> Iterator[Fleet]:
    """A fleet of `processes` workers with `callers` concurrent calls each; ended by pid at the end."""
    found = Fleet(mode, config, user_id, folder, callers=callers)
    try:
        for _ in range(processes):
            found.start()
        yield found
    finally:
        for worker in list(found.workers):
            found.kill(worker)


def linked_user(config: dict[str, Any]) -> str:
    """A user with a Spotify link, who has signed in at a site of this configuration; the id."""
    with site_under_test("wsgi", config) as site:
        browser = site.browser()
        site.login(browser, "spotify")
        found: str = browser.get("/who").json()["user_id"]
    return found


def kill_holders(
    config: dict[str, Any], user_id: str, provider: LocalProvider, folder: Path, *, rounds: int
) -> None:
    """End the refreshing process at a random moment, `rounds` times: the link stays active, and no other
    caller waits longer than the lease plus 2 s."""
    provider.refresh_reuse_grace = 30
    chance = random.Random(94)
    with fleet("threads", config, user_id, folder, processes=2, callers=3) as workers:
        for _ in range(rounds):
            provider.expire_access_tokens()
            provider.faults.set("token", delay=0.02, after=chance.random() < 0.5, times=1)
            victim, witness = workers.workers
            workers.go(victim)
            time.sleep(chance.uniform(0.0, 0.06))
            workers.kill(victim)
            provider.faults.clear("token")
            workers.go(witness)
            result = Fleet.result(witness)
            assert result["ok"] == 3, result
            assert result["longest"] <= LEASE + 2
            workers.workers.insert(0, workers.workers.pop())
            workers.start()
            workers.workers.reverse()
    with oauthgate.open(config) as gate:
        (user,) = gate.users()
        assert [link.state for link in user.links] == ["active"]
