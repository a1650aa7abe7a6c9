"""Servers in processes of their own, and the CPU time that they take."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from .backends import free_port
from .measure import Missing

START_DEADLINE = 30.0  # seconds
_TICK = os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).parent.parent


@dataclass(slots=True)
class Process:
    """A running server and its workers."""

    url: str
    process: subprocess.Popen[bytes]

    def pids(self) -> list[int]:
        """The server's process and all below it."""
        found = [self.process.pid]
        for pid in found:
            try:
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found.extend(int(child) for child in (task / "children").read_text().split())
            except OSError:
                continue
        return found

    def cpu(self) -> float:
        """Seconds of CPU so far, of all its processes and threads."""
        return sum(_cpu(pid) for pid in self.pids())

    def memory(self) -> list[float]:
        """Each worker's proportional share of memory in MiB; the parent's is left out if it has any."""
        pids = self.pids()
        return [_pss(pid) for pid in (pids[1:] or pids)]


def _cpu(pid: int) -> float:
    """Nanosecond figures of the scheduler where there are any; those of `stat` have 10 ms steps."""
    total = 0.0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0]) / 1e9
        if total:
            return total
    except OSError:
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def _pss(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) / 1024 if match else 0.0


@contextlib.contextmanager
def serving(command: list[str], port: int, environ: Mapping[str, str], path: str) -> Iterator[Process]:
    """A server while the block runs. Raises `Missing` when it does not come up."""
    if not Path("/proc/self/stat").exists():
        raise Missing("the CPU time of a server is read from /proc, which is not there")
    server = subprocess.Popen(
        [sys.executable, "-m", *command],
        env={**os.environ, **environ},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    said: list[bytes] = []
    assert server.stderr is not None
    reader = threading.Thread(target=lambda: said.extend(server.stderr or []), daemon=True)
    reader.start()
    try:
        until = time.monotonic() + START_DEADLINE
        while not _up(port, path):
            if server.poll() is not None or time.monotonic() > until:
                reader.join(1)
                last = b"".join(said[-1:]).decode(errors="replace").strip()
                raise Missing(f"{command[0]} did not start: {last or 'it said nothing'}")
            time.sleep(0.05)
        yield Process(f"http://127.0.0.1:{port}", server)
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        reader.join(1)
        server.stderr.close()


def _up(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()


def uvicorn(
    app: str, environ: Mapping[str, str], path: str, workers: int = 1
) -> contextlib.AbstractContextManager[Process]:
    """uvicorn with httptools on asyncio's own loop."""
    port = free_port()
    command = ["uvicorn", app, "--port", str(port), "--http", "httptools", "--loop", "asyncio"]
    command += ["--no-access-log", "--log-level", "error", "--workers", str(workers)]
    return serving(command, port, environ, path)


def gunicorn(
    app: str, environ: Mapping[str, str], path: str, worker: str = "sync", workers: int = 1
) -> contextlib.AbstractContextManager[Process]:
    """gunicorn with workers of that class; gthread with four threads each."""
    port = free_port()
    command = ["gunicorn", app, "--bind", f"127.0.0.1:{port}", "--worker-class", worker]
    command += ["--workers", str(workers), "--log-level", "error", "--no-control-socket"]
    if worker == "gthread":
        command += ["--threads", "4"]
    return serving(command, port, environ, path)


@dataclass(frozen=True, slots=True)
class Load:
    """What driving a server for a while gave: requests, seconds, and the 99th percentile in ms."""

    requests: int
    seconds: float
    p99: float


def drive(url: str, cookie: str, seconds: float, connections: int = 8) -> Load:
    """GET `url` as fast as it answers. Every answer must be a 200."""
    program = shutil.which("wrk")
    if program is None:
        return _drive(url, cookie, seconds)
    command = [program, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    command += ["-H", f"Cookie: {cookie}"] if cookie else []
    said = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in said, said
    counted = re.search(r"(\d+) requests in ([\d.]+)s", said)
    late = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    assert counted, said
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    p99 = float(late[1]) * unit[late[2]] if late else 0.0
    return Load(int(counted[1]), float(counted[2]), p99)


def _drive(url: str, cookie: str, seconds: float) -> Load:
    """The same without wrk, one request at a time."""
    parts = urlsplit(url)
    taken: list[float] = []
    started = time.perf_counter()
    connection = HTTPConnection(parts.hostname or "", parts.port)
    while (now := time.perf_counter()) - started < seconds:
        connection.request("GET", parts.path, headers={"Cookie": cookie} if cookie else {})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        taken.append(time.perf_counter() - now)
    connection.close()
    taken.sort()
    return Load(len(taken), time.perf_counter() - started, taken[int(len(taken) * 0.99)] * 1e3)
