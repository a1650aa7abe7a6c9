"""`make demo`: what it prints can be done, and Ctrl-C ends it cleanly with nothing left behind."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .clicks import Visitor, post_unlink_and_sign_out, sign_in_and_link
from .servers import free_port

ROOT = Path(__file__).parent.parent
DEADLINE = 20.0
"""Seconds that a start, and an end, may take."""
LAST_LINE = "sign out."


@dataclass
class Demo:
    """A running demonstration."""

    process: subprocess.Popen[str]
    base: str
    printed: str

    @property
    def ports(self) -> list[int]:
        """Where it listens: the app and its providers."""
        port = urlsplit(self.base).port or 0
        config = tomllib.loads((ROOT / f".demo/{port}/oauthgate.toml").read_text("utf-8"))
        urls = [table.get("issuer") or table["token_endpoint"] for table in config["providers"].values()]
        assert len(urls) == 3
        return [port, *(urlsplit(url).port for url in urls)]

    def end(self, signum: int) -> tuple[int, str, str]:
        """Send it a signal: its exit status, and what it printed since."""
        self.process.send_signal(signum)
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err


@contextmanager
def demonstration(app: str, port: int | None = None) -> Iterator[Demo]:
    """The demonstration as a process of its own, on this port or on a free one."""
    port = port or free_port()
    process = subprocess.Popen(
        [sys.executable, "examples/demo.py", "--app", app, "--port", str(port)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        printed = ""
        while LAST_LINE not in printed:
            line = process.stdout.readline()
            assert line, process.communicate(timeout=DEADLINE)
            printed += line
        found = re.search(r"http://localhost:\d+", printed)
        assert found is not None
        yield Demo(process, found[0], printed)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(DEADLINE)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        shutil.rmtree(ROOT / ".demo" / str(port), ignore_errors=True)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("app", ["fastapi", "flask"])
def test_story_and_clean_end(app: str) -> None:
    """All that the printed lines say to click works; after SIGINT nothing listens any more."""
    with demonstration(app) as demo:
        assert len(demo.printed.splitlines()) <= 9
        with Visitor(demo.base) as visitor:
            sign_in_and_link(visitor)
            post_unlink_and_sign_out(visitor)
            visitor.click("Other ways to sign in")
            visitor.click("E Sign in with Example ID")
            visitor.press("as Grace Hopper")
            assert "Grace Hopper" in visitor.text
            # Connections that a browser keeps open must not hold up the end.
            ports = demo.ports
            assert all(listens(port) for port in ports)
            status, out, err = demo.end(signal.SIGINT)
        assert (status, out.split(), err) == (0, ["Stopped."], "")
        assert not any(listens(port) for port in ports)


@pytest.mark.parametrize("app", ["fastapi", "flask"])
def test_ends_when_told_to_terminate(app: str) -> None:
    """SIGTERM, as a supervisor or `make` sends it, ends it just as cleanly."""
    with demonstration(app) as demo:
        assert demo.end(signal.SIGTERM)[0::2] == (0, "")


def test_port_that_is_taken() -> None:
    """A port that was asked for and is taken is named; nothing starts."""
    with demonstration("flask") as demo:
        port = demo.ports[0]
        second = subprocess.run(
            [sys.executable, "examples/demo.py", "--port", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert second.returncode == 1
        assert second.stderr.splitlines() == [
            f"port {port} is taken: choose another one with PORT=, or leave it out"
        ]
        with Visitor(demo.base) as visitor:
            visitor.open("/")
            assert visitor.reply.status_code == 200


def test_control_c_in_a_terminal() -> None:
    """Ctrl-C typed in the terminal of `make demo`: `make` too ends with status 0, without a word."""
    if shutil.which("make") is None:
        pytest.fail("make is not installed")
    port = free_port()
    # This environment has all that the set-up would install.
    venv = os.path.relpath(sys.prefix, ROOT)
    command = ["make", "demo", "APP=flask", f"PORT={port}", f"VENV={venv}", "-o", f"{venv}/.group-demo"]
    # Without what a `make test` around this would hand down.
    outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, *command],
        cwd=ROOT,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        shown = read_until(master, LAST_LINE)
        os.write(master, b"\x03")
        shown = read_until(master, None)
        assert process.wait(DEADLINE) == 0, shown
        assert shown.replace("^C", "").split() == ["Stopped."]
        assert not listens(port)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)
        shutil.rmtree(ROOT / ".demo" / str(port), ignore_errors=True)


TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # what a shell's terminal is to it
os.execvp(sys.argv[1], sys.argv[1:])
"""


def read_until(descriptor: int, wanted: str | None) -> str:
    """What a terminal shows until `wanted` is there, or until it closes."""
    shown, deadline = "", time.monotonic() + DEADLINE
    while wanted is None or wanted not in shown:
        ready, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"nothing more within {DEADLINE:.0f} s: {shown}"
        try:
            piece = os.read(descriptor, 4096)
        except OSError:  # Linux says EIO when the other side has closed
            piece = b""
        if not piece:
            assert wanted is None, shown
            break
        shown += piece.decode()
    return shown
