"""Starts the servers of this folder as private processes, and stops them.

Owns the life of a server process: what must be installed for it, its configuration (in its
environment, so that no secret stands in a process list), the wait until it answers, and its end.
Every server listens on 127.0.0.1 only, on a port that the system gives it, and ends by itself when
the process that started it dies, because its standard input closes then.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

FOLDER = Path(__file__).resolve().parent
START_DEADLINE = 20.0
"""Seconds a server may take until it answers."""
STOP_DEADLINE = 5.0
"""Seconds between the request to end and the kill."""
NPM_DEADLINE = 300.0
"""Seconds that installing the node packages may take."""

_READY = re.compile(r"^ready (http://127\.0\.0\.1:[0-9]+\S*)$", re.MULTILINE)
_LOG_TAIL = 4000


#: Ports that Linux and macOS give nobody by themselves (ip_local_port_range begins at 32768).
_OUR_PORTS = (12_000, 32_000)


class Missing(Exception):
    """Something a server needs is not installed; the message is one line that says how to get it.

    Tests turn it into a skip where the server is optional, and into a failure in CI.
    """


class ServerFailed(Exception):
    """A server ended, or did not answer in time; the message carries what it printed."""


def free_port() -> int:
    """Return a loopback port that is ours until this process ends.

    For what must know its port before it starts, such as an app whose redirect URI is registered. The
    kernel's own choice would be free for a moment only: until the server binds it, another test's
    listener or connection may be given the same number. So the port is from below the range that the
    kernel gives out, and a lock keeps other test processes from it.
    """
    folder = Path(tempfile.gettempdir()) / f"oauthgate-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    while True:
        port = random.randrange(*_OUR_PORTS)
        lock = os.open(folder / str(port), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(lock)
        else:
            return port  # the lock stays open, and goes with this process


def ensure_node_modules() -> None:
    """Run `npm ci` when `node_modules` is missing or older than the lock file.

    Parallel test processes wait for the one that installs.

    Raises:
        Missing: npm is not there, or it could not install.
    """
    with (FOLDER / "package-lock.json").open("rb") as lock:
        # The lock file itself is what is locked: npm ci replaces node_modules and leaves it alone.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _node_modules_fresh():
            return
        npm = shutil.which("npm")
        if npm is None:
            raise Missing("npm is not installed: install node 20 or newer, with npm")
        try:
            done = subprocess.run(
                [npm, "ci", "--no-audit", "--no-fund"],
                cwd=FOLDER,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=NPM_DEADLINE,
            )
        except subprocess.TimeoutExpired as error:
            raise Missing(f"npm ci in {FOLDER} took over {NPM_DEADLINE:.0f} s: try it by hand") from (
                error
            )
        if done.returncode != 0:
            lines = [line for line in done.stdout.splitlines() if "npm error" in line]
            why = (lines or [f"status {done.returncode}"])[0]
            raise Missing(f"npm ci in {FOLDER} failed ({why}): try it by hand")


def _node_modules_fresh() -> bool:
    # npm writes this file last, so its age is that of a complete installation.
    installed = FOLDER / "node_modules" / ".package-lock.json"
    wanted = FOLDER / "package-lock.json"
    return installed.is_file() and installed.stat().st_mtime >= wanted.stat().st_mtime


@contextmanager
def oidc_provider(config: Mapping[str, object], *, port: int = 0) -> Generator[str]:
    """Run panva's oidc-provider; yield its issuer.

    Args:
        config: The keys listed in README.md, such as `clients` and `accounts`.
        port: A fixed port, for a provider that must come back under the same issuer.
    """
    with _node_server("oidc_provider.mjs", config, port) as issuer:
        yield issuer


@contextmanager
def oauth1_server(config: Mapping[str, object], *, port: int = 0) -> Generator[str]:
    """Run the OAuth 1.0a server; yield its base URL, without a slash at the end."""
    with _node_server("oauth1.mjs", config, port) as base_url:
        yield base_url


@contextmanager
def django_oauth_toolkit(config: Mapping[str, object], *, port: int = 0) -> Generator[str]:
    """Run django-oauth-toolkit on a new database; yield its issuer, which ends in `/o`.

    Raises:
        Missing: Django or django-oauth-toolkit is not installed.
    """
    for package, module in (("django", "django"), ("django-oauth-toolkit", "oauth2_provider")):
        if importlib.util.find_spec(module) is None:
            raise Missing(f"{package} is not installed: pip install 'django-oauth-toolkit>=3'")
    with tempfile.TemporaryDirectory(prefix="oauthgate-dot-") as folder:
        command = [sys.executable, str(FOLDER / "dot.py"), folder]
        with _running(command, config, port) as issuer:
            yield issuer


@contextmanager
def _node_server(script: str, config: Mapping[str, object], port: int) -> Generator[str]:
    node = shutil.which("node")
    if node is None:
        raise Missing("node is not installed: install node 20 or newer, with npm")
    if not _node_modules_fresh():
        raise Missing("node_modules is missing or stale: run `python -m tests.servers`")
    with _running([node, str(FOLDER / script)], config, port) as url:
        yield url


@contextmanager
def _running(command: Sequence[str], config: Mapping[str, object], port: int) -> Generator[str]:
    environment = {
        **os.environ,
        "PORT": str(port),
        "SERVER_CONFIG": json.dumps(config),
        "SERVER_EXIT_WITH_STDIN": "1",
    }
    # A file and not a pipe: nobody has to empty it, however much a server prints.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command,
            cwd=FOLDER,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield _wait_until_ready(process, log)
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], log: IO[str]) -> str:
    name = Path(str(process.args[1])).name if isinstance(process.args, list) else "server"
    deadline = time.monotonic() + START_DEADLINE
    while True:
        ended = process.poll() is not None
        printed = _read(log)
        if match := _READY.search(printed):
            return match[1]
        if ended:
            raise ServerFailed(
                f"{name} ended with status {process.returncode}; it printed:\n{printed[-_LOG_TAIL:]}"
            )
        if time.monotonic() > deadline:
            raise ServerFailed(
                f"{name} did not answer in {START_DEADLINE:.0f} s; it printed:\n{printed[-_LOG_TAIL:]}"
            )
        time.sleep(0.02)


def _read(log: IO[str]) -> str:
    # pread on a descriptor of its own position: the child shares this file's offset, and seeking
    # here would make it write over what it wrote before.
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), size, 0).decode("utf-8", errors="replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    # The process leads a group of its own, so what it may have started ends with it.
    if process.stdin is not None:
        process.stdin.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            continue
        break
    process.wait()
