"""A private nginx: the locations of a test, on a port of its own.

It ends with the block, or with the test process if that is killed: a shell between the two waits on its
standard input, and kills what it started.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2

from .processes import STOP_DEADLINE, Missing, free_port
from .redis import until

_KEEPER = 'exec 2>/dev/null; "$@" </dev/null >>server.log 2>&1 & cat >/dev/null; kill -QUIT $!; wait $!'
_CONFIGURATION = """\
daemon off;
master_process off;
pid nginx.pid;
error_log server.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port};
    location = /nginx-is-ready {{ return 204; }}
    {locations}
  }}
}}
"""


def program() -> str:
    """nginx, with the module that asks another server. Raises `Missing`."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Missing("nginx is not installed: apt install nginx-light")
    return found


@contextmanager
def nginx(locations: str, port: int | None = None) -> Generator[str]:
    """Run nginx with these `location` blocks in its one server; its address.

    Raises:
        Missing: nginx is not installed.
    """
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="oauthgate-nginx-") as name:
        folder = Path(name)
        text = _CONFIGURATION.format(port=port, locations=locations)
        (folder / "nginx.conf").write_text(text, encoding="utf-8")
        keeper = subprocess.Popen(
            [
                "sh",
                "-c",
                _KEEPER,
                "sh",
                program(),
                "-p",
                name,
                "-c",
                "nginx.conf",
                "-e",
                "server.log",
            ],
            cwd=folder,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        address = f"http://localhost:{port}"
        try:
            ready = f"http://127.0.0.1:{port}/nginx-is-ready"
            until(
                lambda: httpx2.get(ready, trust_env=False).status_code == 204,
                f"nginx in {folder}",
                (folder / "server.log").read_text,
            )
            yield address
        finally:
            with suppress(subprocess.TimeoutExpired):
                keeper.communicate(timeout=STOP_DEADLINE)  # closes its standard input first
            with suppress(ProcessLookupError):
                os.killpg(keeper.pid, signal.SIGKILL)
            keeper.wait()
