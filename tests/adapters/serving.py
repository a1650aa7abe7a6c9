"""Real servers as subprocesses: the command lines of each, the wait until one answers, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import httpx2

from tests.servers import ServerFailed

ROOT = Path(__file__).resolve().parents[2]
APPS = "tests.adapters.apps"
#: Seconds that a server may take until it answers, and until it has ended.
START_DEADLINE = 30.0
STOP_DEADLINE = 15.0

_UVICORN = "uvicorn {app} --host 127.0.0.1 --port {port} --log-level warning --http"
_GRANIAN = "granian {app} --host 127.0.0.1 --port {port} --log-level warning --interface"
# gthread closes a connection whose request it has not read within the keep-alive time (2 s otherwise),
# which a busy machine can take.
_GUNICORN = (
    "gunicorn {app} --bind 127.0.0.1:{port} --workers 2 --log-level warning --keep-alive 30"
    " --worker-class"
)
_HYPERCORN = "hypercorn {app} --bind 127.0.0.1:{port} --workers"

ASGI_SERVERS: dict[str, str] = {
    "uvicorn-h11": f"{_UVICORN} h11 --workers 1",
    "uvicorn-httptools": f"{_UVICORN} httptools --workers 1",
    "uvicorn-h11-2-workers": f"{_UVICORN} h11 --workers 2",
    "uvicorn-httptools-2-workers": f"{_UVICORN} httptools --workers 2",
    "hypercorn": f"{_HYPERCORN} 1",
    "hypercorn-2-workers": f"{_HYPERCORN} 2",
    "granian": f"{_GRANIAN} asgi --workers 1",
    "granian-2-workers": f"{_GRANIAN} asgi --workers 2",
}
WSGI_SERVERS: dict[str, str] = {
    "gunicorn-sync": f"{_GUNICORN} sync",
    "gunicorn-sync-preload": f"{_GUNICORN} sync --preload",
    "gunicorn-gthread": f"{_GUNICORN} gthread --threads 4",
    "gunicorn-gthread-preload": f"{_GUNICORN} gthread --threads 4 --preload",
    "gunicorn-gevent": f"{_GUNICORN} gevent",
    "gunicorn-gevent-preload": f"{_GUNICORN} gevent --preload",
    "granian-wsgi": f"{_GRANIAN} wsgi --workers 2 --blocking-threads 4",
}
SERVERS = {**ASGI_SERVERS, **WSGI_SERVERS}


@contextlib.contextmanager
def serving(
    server: str,
    app: str,
    port: int,
    environment: Mapping[str, str],
    *,
    ready: str = "/_oauth/providers",
    more: Sequence[str] = (),
) -> Iterator[None]:
    """Run `app` (`module:attribute` below `apps`) under one of `SERVERS` while the block runs.

    `ready` is a path that answers 200 once the server is up; `more` are further arguments. Raises
    `ServerFailed` with what the server printed.
    """
    arguments = SERVERS[server].format(app=f"{APPS}.{app}", port=port).split()
    # A file and not a pipe: nobody has to empty it, however much a server prints.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments, *more],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}{ready}", log)
            yield
            if (status := process.poll()) is not None:
                raise ServerFailed(f"{server} ended by itself ({status}); it printed:\n{_printed(log)}")
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: IO[str]) -> None:
    deadline = time.monotonic() + START_DEADLINE
    while True:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(url, timeout=5, trust_env=False).status_code == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServerFailed(
                f"{process.args!r} does not answer at {url}; it printed:\n{_printed(log)}"
            )
        time.sleep(0.02)


def _printed(log: IO[str]) -> str:
    return os.pread(log.fileno(), 1 << 16, 0).decode("utf-8", "replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, as a process manager does; whatever of it is left then is killed."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_DEADLINE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_toml(path: Path, config: Mapping[str, Any]) -> str:
    """Write a configuration of strings, numbers, lists and tables as a TOML file; its path."""
    lines: list[str] = []
    _write_table(lines, "", config)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def _write_table(lines: list[str], name: str, table: Mapping[str, Any]) -> None:
    if name:
        lines.append(f"[{name}]")
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    # JSON's strings, numbers and lists are TOML's too, as long as they are ASCII.
    lines.extend(f"{key} = {json.dumps(value)}" for key, value in table.items() if key not in inner)
    for key, value in inner.items():
        _write_table(lines, f"{name}.{key}" if name else key, value)
