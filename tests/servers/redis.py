"""Private Redis servers: one, one behind a sentinel, and a small cluster.

Owns the life of a `redis-server`: a folder, a port (`free_port`) and a socket of its own, nothing shared
with a Redis that may run on the machine. It ends with the block, or with the test process if that is
killed: a shell between the two waits on its standard input, and kills what it started.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from .processes import START_DEADLINE, STOP_DEADLINE, Missing, ServerFailed, free_port

# A file that grows over a limit (`tests/stores/small_disk.py`) is an error for the server, not its end.
_KEEPER = (
    "exec 2>/dev/null; trap '' XFSZ; "
    '"$@" </dev/null >>server.log 2>&1 & echo $!; '
    "cat >/dev/null; kill -KILL $!; wait $!"
)
#: The name under which the sentinel knows its primary.
SERVICE = "gate"


class RedisServer:
    """One `redis-server` process; `options` are directives of its configuration file."""

    def __init__(self, folder: Path, options: dict[str, str], *, sentinel: bool = False) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise Missing("redis-server is not installed: apt install redis-server")
        self.port = free_port()
        self.folder = folder
        self.socket = str(folder / "redis.sock")
        #: Arguments with which redis-py connects for what a test itself asks.
        self.connection: dict[str, Any] = {"unix_socket_path": self.socket}
        directives = {
            "port": str(self.port),
            "unixsocket": self.socket,
            "bind": "127.0.0.1",
            "dir": str(folder),
            "save": '""',
            "repl-diskless-sync-delay": "0",
            "daemonize": "no",
            **options,
        }
        # A sentinel, and a cluster's node, write into their configuration.
        file = folder / "redis.conf"
        file.write_text("".join(f"{name} {value}\n" for name, value in directives.items()))
        self._command = [program, str(file), *(["--sentinel"] if sentinel else [])]
        self._keeper: subprocess.Popen[str] | None = None
        self.pid = 0

    def start(self) -> None:
        """Start it, also again after `stop`, and wait until it answers."""
        self._keeper = subprocess.Popen(
            ["sh", "-c", _KEEPER, "sh", *self._command],
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        self.pid = int(self._keeper.stdout.readline())
        until(lambda: self.ask("PING") is True, f"redis-server in {self.folder}", self._log)

    def stop(self) -> None:
        """Kill it, as a crash would; what it had answered is only there again with `appendonly`."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        with suppress(subprocess.TimeoutExpired):
            keeper.communicate(timeout=STOP_DEADLINE)  # closes its standard input first
            return
        os.killpg(keeper.pid, signal.SIGKILL)
        keeper.communicate()

    def freeze(self) -> None:
        """Stop it in the middle of its work: connections stay open, and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def ask(self, *command: str | bytes | int) -> Any:
        """Send one command, past the store."""
        import redis

        with redis.Redis(**self.connection, protocol=2) as client:
            return client.execute_command(*command)

    def calls(self) -> dict[str, int]:
        """How often each command was carried out, by name, but for those that only ask for that."""
        stats: dict[str, dict[str, int]] = self.ask("INFO", "commandstats")
        names = {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}
        return {name: calls for name, calls in names.items() if not name.startswith(("info", "client"))}

    def _log(self) -> str:
        log = self.folder / "server.log"
        return log.read_text()[-4000:] if log.exists() else ""


def until(
    reached: Callable[[], bool], what: str, log: Callable[[], str] = str, seconds: float = START_DEADLINE
) -> None:
    """Wait until `reached`; an exception counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(Exception):
            if reached():
                return
        if time.monotonic() > deadline:
            raise ServerFailed(f"{what}: not there after {seconds:.0f} s; it printed:\n{log()}")
        time.sleep(0.02)


@contextmanager
def redis_server(
    options: dict[str, str] | None = None, *, sentinel: bool = False, **connection: Any
) -> Generator[RedisServer]:
    """Run one server; `connection` replaces the arguments for `ask`.

    Raises:
        Missing: redis-server is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="oauthgate-redis-") as folder:
        server = RedisServer(Path(folder), options or {}, sentinel=sentinel)
        server.connection |= connection
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def redis_sentinel() -> Generator[tuple[RedisServer, RedisServer, RedisServer]]:
    """Run a primary, its replica, and a sentinel that knows the primary as `SERVICE`."""
    with ExitStack() as stack:
        primary = stack.enter_context(redis_server())
        replica = stack.enter_context(redis_server({"replicaof": f"127.0.0.1 {primary.port}"}))
        until(lambda: replica.ask("INFO")["master_link_status"] == "up", "the replica's link")
        options = {
            "sentinel monitor": f"{SERVICE} 127.0.0.1 {primary.port} 1",
            # Never by itself: a test asks for a failover, and a busy machine does not.
            "sentinel down-after-milliseconds": f"{SERVICE} 60000",
            "sentinel failover-timeout": f"{SERVICE} 60000",
        }
        sentinel = stack.enter_context(redis_server(options, sentinel=True))
        until(lambda: len(sentinel.ask("SENTINEL REPLICAS", SERVICE)) == 1, "the sentinel's replica")
        yield primary, replica, sentinel


@contextmanager
def redis_cluster(primaries: int = 3) -> Generator[list[RedisServer]]:
    """Run a cluster without replicas; every server holds an equal part of the slots."""
    with ExitStack() as stack:
        servers = []
        for _ in range(primaries):
            options = {
                "cluster-enabled": "yes",
                "cluster-config-file": "nodes.conf",
                "cluster-port": str(free_port()),
            }
            server = stack.enter_context(redis_server(options))
            server.ask("CONFIG SET", "cluster-node-timeout", 2000)
            servers.append(server)
        for number, server in enumerate(servers):
            first, last = (16384 * each // primaries for each in (number, number + 1))
            server.ask("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            bus = server.ask("CONFIG GET", "cluster-port")["cluster-port"]
            servers[0].ask("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
        for server in servers:
            until(lambda: _joined(server, primaries), "the cluster")  # noqa: B023 - used at once
        yield servers


def _joined(server: RedisServer, nodes: int) -> bool:
    about = server.ask("CLUSTER INFO")
    known: bool = about["cluster_state"] == "ok" and int(about["cluster_known_nodes"]) == nodes
    return known
