"""Store servers for the run: a Redis and a PostgreSQL of our own, in a folder that goes with it.

Nobody's running server is touched. What is not installed is `Missing`, with the reason.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from oauthgate.errors import ConfigError
from oauthgate.stores import known_schemes, make_store

from .measure import Missing

START_DEADLINE = 20.0  # seconds


def store_missing(url: str) -> str | None:
    """Why the gate cannot use a store of this URL here, or None when it can."""
    scheme = url.partition(":")[0]
    if scheme not in known_schemes():
        return f"this oauthgate has no store for {scheme}:"
    try:
        make_store(url, blocking=True)
    except ConfigError as error:  # what a store says of a driver that is not installed
        return f"the store for {scheme}: {error}"
    return None


def free_port() -> int:
    """A port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """A Redis without persistence on a free port: its URL without a database. Raises `Missing`."""
    program = shutil.which("redis-server")
    if program is None:
        raise Missing("redis-server is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait("redis-server", server, lambda: _accepts(port))
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """A PostgreSQL cluster of our own on a free port: the URL of a database. Raises `Missing`."""
    programs = sorted(glob.glob("/usr/lib/postgresql/*/bin")) + sorted(
        glob.glob("/usr/local/opt/postgresql*/bin") + glob.glob("/opt/homebrew/opt/postgresql*/bin")
    )
    path = os.pathsep.join([os.environ.get("PATH", ""), *reversed(programs)])
    initdb, postgres = shutil.which("initdb", path=path), shutil.which("postgres", path=path)
    if initdb is not None:  # both of one version: the folder's own before a stray one on the path
        beside = Path(initdb).parent / "postgres"
        postgres = str(beside) if beside.exists() else postgres
    if initdb is None or postgres is None:
        raise Missing("PostgreSQL (initdb, postgres) is not installed")
    owner: str | None = None
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        try:
            owner = pwd.getpwnam("postgres").pw_name
        except KeyError:
            raise Missing("PostgreSQL does not run as root, and there is no user postgres") from None
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        if owner:
            shutil.chown(folder, owner)
        made = subprocess.run(
            [initdb, "-D", str(data), "-U", "bench", "-A", "trust", "-N", "-E", "UTF8"],
            user=owner,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise Missing(f"initdb failed: {made.stderr.strip().splitlines()[-1:]}")
        options = ["-p", str(port), "-h", "127.0.0.1", "-k", folder]
        server = subprocess.Popen(
            [postgres, "-D", str(data), *options],
            user=owner,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait("postgres", server, lambda: _answers_postgres(port))
            yield f"postgresql://bench@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # "fast": does not wait until everybody has hung up
            server.wait()


def _wait(name: str, server: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    until = time.monotonic() + START_DEADLINE
    while not ready():
        if server.poll() is not None or time.monotonic() > until:
            raise Missing(f"{name} did not start")
        time.sleep(0.02)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _answers_postgres(port: int) -> bool:
    """Whether start-up is over: before that a connection is accepted and refused."""
    startup = b"\x00\x03\x00\x00user\x00bench\x00database\x00postgres\x00\x00"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall((len(startup) + 4).to_bytes(4, "big") + startup)
            return connection.recv(1) == b"R"  # an authentication message, not an error
    except OSError:
        return False
