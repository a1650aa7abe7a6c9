"""`make demo`: one of the examples at work, with local providers instead of the real ones.

Owns: the providers of the demonstration, the configuration that points an example at them, and a start
and an end that leave nothing behind. It is one process: when it ends, all of it has ended.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / ".demo"
APPS = {
    "fastapi": ("FastAPI", "fastapi_app", "main"),
    "flask": ("Flask", "flask_app", "app"),
    "now_playing": ("an invitation", "now_playing", "now_playing"),
    "spa": ("a single-page app", "spa", "spa"),
}
PROVIDERS = {"twitter": "Twitter", "spotify": "Spotify", "corp": "Example ID"}
TOKEN_LIFETIME = 30
"""Seconds a token of the local Spotify lives: short, so that refreshing can be watched."""


def main() -> None:
    """Run the demonstration until Ctrl-C, with exit status 0."""
    # Blocked in every thread and waited for below: so they cut nothing short, neither the start nor the
    # end, and cannot arrive in a thread that does not look. A shell ignores SIGINT for background jobs.
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--app", choices=sorted(APPS), default="fastapi")
    parser.add_argument("--port", type=int, help="default: 8000, or the next free one")
    chosen = parser.parse_args()
    port = chosen.port or next(port for port in range(8000, 8100) if not taken(port))
    if taken(port):
        sys.exit(f"port {port} is taken: choose another one with PORT=, or leave it out")
    with ExitStack() as stack:
        stack.enter_context(own_interrupts())
        url = f"http://localhost:{port}"
        configure(chosen.app, port, providers(url, stack))
        serve_app(chosen.app, port, stack)
        print(greeting(chosen.app, url), flush=True)
        signal.sigwait(signals)
        print("\nStopped.", flush=True)


def greeting(app: str, url: str) -> str:
    """The address, and what to click."""
    if app == "now_playing":
        invitation = "/_oauth/twitter/login?email=ada@example.com&pin=4711&then=spotify"
        return f"""
Now playing, by invitation:  {url}    (Ctrl-C stops it)

  1. Open an invitation:  {url}{invitation}
  2. Sign in with Twitter and then with Spotify, as Ada or Grace. The providers are local.
  3. Invite the other one in a private window. There are 25 places; at {url}/_oauth/ you sign out.
"""
    return f"""
Now playing, with {APPS[app][0]}:  {url}    (Ctrl-C stops it)

  1. Sign in with Twitter, as Ada or Grace. The providers are local, no account is needed.
  2. Link Spotify and see what is playing. Its tokens live {TOKEN_LIFETIME} s, then they are renewed.
  3. Post it.
  4. Account: what is linked, and Example ID (OpenID Connect) to link. Unlink Spotify, sign out.
"""


def providers(url: str, stack: ExitStack) -> dict[str, str]:
    """Start the local providers for the app at `url`, until `stack` closes; their addresses by name."""
    from oauthgate.testing import Client, LocalProvider, serve

    settings: dict[str, dict[str, Any]] = {
        "twitter": {},
        "spotify": {
            "access_token_lifetime": TOKEN_LIFETIME,
            "scopes_supported": ["user-read-playback-state"],
            "api_scopes": {"player": "user-read-playback-state"},
        },
        "corp": {},
    }
    addresses = {}
    for name, title in PROVIDERS.items():
        client = Client(
            client_id=f"{name}-demo",
            client_name="Now playing",
            client_secret=secrets.token_urlsafe(),
            redirect_uris=[f"{url}/_oauth/{name}/callback"],
            post_logout_redirect_uris=[f"{url}/"],
        )
        provider = LocalProvider(name=name, title=f"{title} (local)", clients=[client], **settings[name])
        addresses[name] = stack.enter_context(serve(provider)).url
        # Under the names that the examples' configuration asks for.
        names = ("API_KEY", "API_SECRET") if name == "twitter" else ("CLIENT_ID", "CLIENT_SECRET")
        for variable, value in zip(names, (client.client_id, client.client_secret), strict=True):
            os.environ[f"{name.upper()}_{variable}"] = str(value)
    os.environ["OAUTHGATE_SECRET"] = secrets.token_urlsafe(32)
    return addresses


def configure(app: str, port: int, addresses: Mapping[str, str]) -> None:
    """Write the example's configuration, pointed at the local providers, and tell the example so."""
    folder = DATA / str(port)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = tomllib.loads((HERE / APPS[app][1] / "oauthgate.toml").read_text(encoding="utf-8"))
    config["oauthgate"]["base_url"] = f"http://localhost:{port}"
    tables: dict[str, dict[str, Any]] = config["providers"]
    for name, more in local_endpoints(addresses).items():
        tables[name] = {**tables.get(name, {}), "title": PROVIDERS[name], **more}
    file = folder / "oauthgate.toml"
    file.write_text(as_toml(config), encoding="utf-8")
    os.environ["NOW_PLAYING_CONFIG"] = str(file)


def local_endpoints(addresses: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What is different about the local providers: their endpoints and the shape of their profiles."""
    twitter, spotify, corp = (addresses[name] for name in PROVIDERS)
    profile = {name: name for name in ("id", "username", "name", "email", "picture")}
    return {
        "twitter": {
            "request_token_url": f"{twitter}/oauth1/request_token",
            "authorization_endpoint": f"{twitter}/oauth1/authenticate",
            "token_endpoint": f"{twitter}/oauth1/access_token",
            "userinfo_endpoint": f"{twitter}/api/me",
            "revocation_endpoint": "",
            "api_base_url": f"{twitter}/api",
            "api_hosts": [],
            "profile": profile,
        },
        "spotify": {
            "authorization_endpoint": f"{spotify}/oauth2/authorize",
            "token_endpoint": f"{spotify}/oauth2/token",
            "revocation_endpoint": f"{spotify}/oauth2/revoke",
            "userinfo_endpoint": f"{spotify}/api/me",
            "api_base_url": f"{spotify}/api",
            "profile": profile,
        },
        "corp": {
            "issuer": corp,
            "client_id": "env:CORP_CLIENT_ID",
            "client_secret": "env:CORP_CLIENT_SECRET",
            "scope": ["openid", "profile", "email"],
        },
    }


def as_toml(document: Mapping[str, Any]) -> str:
    """A document of tables, strings, numbers and lists of strings as TOML."""

    def value(item: Any) -> str:
        if isinstance(item, dict):
            return "{ " + ", ".join(f"{key} = {value(held)}" for key, held in item.items()) + " }"
        return json.dumps(item, ensure_ascii=False)  # a JSON string is a TOML string as well

    def table(name: str, items: Mapping[str, Any]) -> str:
        return "\n".join([f"[{name}]", *(f"{key} = {value(item)}" for key, item in items.items()), ""])

    tables = [table(name, items) for name, items in document.items() if name != "providers"]
    tables += [table(f"providers.{name}", items) for name, items in document["providers"].items()]
    return "\n".join(tables)


def serve_app(app: str, port: int, stack: ExitStack) -> None:
    """Serve the example, as it stands, until `stack` closes."""
    _, folder, module = APPS[app]
    sys.path.insert(0, str(HERE / folder))
    example = importlib.import_module(module).app
    if app == "flask":
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        server = make_server("127.0.0.1", port, example, threaded=True)
        thread = threading.Thread(target=server.serve_forever, name="flask", daemon=True)
        thread.start()
        stack.callback(example.wsgi_app.close)
        stack.callback(server.server_close)
        stack.callback(thread.join)
        stack.callback(server.shutdown)
    else:
        from oauthgate.testing import serve

        stack.enter_context(serve(example, port=port))


def taken(port: int) -> bool:
    """Whether something answers on `localhost` there, on IPv4 or IPv6: a browser may try either."""
    try:
        with socket.create_connection(("localhost", port), timeout=1):
            return True
    except OSError:
        return False


@contextmanager
def own_interrupts() -> Iterator[None]:
    """Take Ctrl-C to this process alone, so that `make` above it sees a clean end, not an interrupt.

    What a shell does for a job: a process group of its own in the terminal's foreground, and the former
    one put back at the end.
    """
    if not sys.stdin.isatty() or os.tcgetpgrp(0) != os.getpgrp() or os.getpgrp() == os.getpid():
        yield
        return
    before = os.getpgrp()
    # Stopping only this group would leave the shell waiting for `make` without a prompt.
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(0, before)


if __name__ == "__main__":
    main()
