"""`check`: the addresses to register, and every problem with its cure."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

import oauthgate
from oauthgate.testing import LocalProvider
from tests.support import flask_app

from .command import Operator, write
from .conftest import OLD


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    clients = {f"{name}-secret-{'s' * 24}" for name in ("twitter", "spotify", "corp")}
    return Operator(tmp_path, clients | {OLD})


def messages(done: Any, status: str) -> str:
    return "\n".join(
        f"{each['about']}: {each['message']}" for each in done["findings"] if each["status"] == status
    )


@contextmanager
def answering(answer: Any) -> Iterator[str]:
    """A server that answers every GET with `answer(path)`: status, headers, body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self.path)
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_addresses(operator: Operator, file: Path) -> None:
    """Exactly what the router answers, for each provider."""
    operator.run("store", "init")
    done = operator.run("check", "oauthgate.toml", "--json").json
    assert done["ok"] is True
    by_name = {each["provider"]: each for each in done["register"]}
    assert by_name["twitter"] == {
        "provider": "twitter",
        "redirect_uri": "http://localhost/_oauth/twitter/callback",
    }
    assert by_name["corp"] == {
        "provider": "corp",
        "redirect_uri": "http://localhost/_oauth/corp/callback",
        "post_logout_redirect_uri": "http://localhost/",
        "backchannel_logout_uri": "http://localhost/_oauth/corp/backchannel-logout",
        "frontchannel_logout_uri": "http://localhost/_oauth/corp/frontchannel-logout",
    }
    good = messages(done, "ok")
    assert "its metadata and keys can be had" in good and "gate.db') answers" in good
    assert "this machine's own" in messages(done, "warning")
    text = operator.run("check", "--config", "oauthgate.toml").out
    assert "redirect uri: http://localhost/_oauth/spotify/callback" in text


def test_refused_configurations(operator: Operator, config: dict[str, Any], tmp_path: Path) -> None:
    """What a site refuses at its start is a problem here, told in the same words."""
    config["oauthgate"]["base_ulr"] = "x"
    write(tmp_path / "oauthgate.toml", config)
    assert 'did you mean "base_url"?' in operator.run("check", status=1).err
    del config["oauthgate"]["base_ulr"]
    config["providers"]["corp"]["client_secret"] = "env:NOT_SET_ANYWHERE"
    write(tmp_path / "oauthgate.toml", config)
    assert "NOT_SET_ANYWHERE is not set" in operator.run("check", "--json", status=1).json["error"]
    assert "cannot be read" in operator.run("check", "missing.toml", status=1).err
    config["providers"]["corp"]["client_secret"] = "x" * 20
    config["hooks"] = {"login": "nothing:here"}
    write(tmp_path / "oauthgate.toml", config)
    assert "import path" in operator.run("check", "--offline", status=1).out


def test_address_and_cookies(operator: Operator, config: dict[str, Any], tmp_path: Path) -> None:
    """What follows for visitors from the address, the prefix and the other origins."""
    config["oauthgate"] |= {
        "base_url": "https://app.example.com/shop",
        "prefix": "/auth",
        "allowed_origins": ["https://spa.example.org", "https://spa.example.com"],
    }
    write(tmp_path / "oauthgate.toml", config)
    done = operator.run("check", "--offline", "--json").json
    assert "__Host-oauthgate with HttpOnly; SameSite=Lax; Path=/; Secure" in messages(done, "ok")
    warned = messages(done, "warning")
    assert "it has the path /shop" in warned and "another [session] cookie" in warned
    assert "spa.example.org is another site" in warned and "spa.example.com" not in warned
    addresses = {each["provider"]: each["redirect_uri"] for each in done["register"]}
    assert addresses["corp"] == "https://app.example.com/shop/auth/corp/callback"
    config["oauthgate"]["base_url"] = ""
    config["providers"]["spotify"]["response_mode"] = "form_post"
    write(tmp_path / "oauthgate.toml", config)
    done = operator.run("check", "--offline", "--json").json
    assert "missing: only this machine is served" in messages(done, "warning")
    assert "SameSite=None" in messages(done, "warning")
    assert done["register"][0]["redirect_uri"] == "http://localhost:PORT/auth/twitter/callback"


def test_secrets(operator: Operator, config: dict[str, Any], tmp_path: Path) -> None:
    """Key files, missing secrets of shared stores, doubled ones, and those that anybody can read."""
    file = tmp_path / "oauthgate.toml"

    def check(status: int, **changes: Any) -> Any:
        config["oauthgate"] |= changes
        write(file, config)
        return operator.run("check", "--offline", "--json", status=status).json

    assert "will be made" in messages(check(0, secret=[]), "warning")
    operator.run("store", "init")
    key = tmp_path / "gate.db.key"
    operator.secrets.add(key.read_text())
    assert f"the key file {key}" in messages(check(0), "ok")
    key.chmod(0o640)
    assert f"chmod 600 {key}" in messages(check(1), "problem")
    key.chmod(0o600)
    (tmp_path / "gate.db").chmod(0o644)
    assert "gate.db can be read by others" in messages(check(0), "warning")
    found = messages(check(1, store="redis://:red-password@127.0.0.1:9/0"), "problem")
    assert "a store that several machines share needs one" in found
    operator.secrets.add("red-password")
    found = messages(check(1, secret=[OLD, OLD]), "problem")
    assert "check that it runs" in found
    assert "twice" in messages(check(0, store=f"sqlite:///{tmp_path / 'x.db'}"), "warning")
    assert "keys check" in messages(check(0, secret=[OLD, "y" * 40]), "ok")
    file.chmod(0o644)
    found = messages(operator.run("check", "--offline", "--json").json, "warning")
    assert "holds oauthgate.secret, providers.corp.client_secret" in found
    found = messages(check(0, store="memory:", secret=[]), "ok")
    assert "memory: holds ends" in found and "MemoryStore answers" in found


def test_a_store_of_another_secret(operator: Operator, config: dict[str, Any], tmp_path: Path) -> None:
    """A database that our secrets do not open is a problem before any visitor meets it."""
    write(tmp_path / "oauthgate.toml", config)
    operator.run("store", "init")
    config["oauthgate"]["secret"] = ["another-" + "z" * 32]
    write(tmp_path / "oauthgate.toml", config)
    found = messages(operator.run("check", "--offline", "--json", status=1).json, "problem")
    assert "sealed with another secret" in found


def test_providers_that_do_not_answer(
    operator: Operator, config: dict[str, Any], tmp_path: Path, provider: LocalProvider
) -> None:
    """Nothing there, another issuer, or no TLS where https is said: a problem by the provider's name."""
    url = config["providers"]["corp"]["issuer"]
    for issuer in (
        "http://127.0.0.1:9",
        url.replace("http:", "https:"),
        url.replace("127.0.0.1", "localhost"),
    ):
        config["providers"]["corp"]["issuer"] = issuer
        write(tmp_path / "oauthgate.toml", config)
        done = operator.run("check", "--json", status=1).json
        assert messages(done, "problem").startswith("providers.corp: the metadata"), issuer


@pytest.mark.parametrize(("off", "told"), [(3600, "ahead of"), (-3600, "behind"), (0, "")])
def test_clocks(
    operator: Operator,
    config: dict[str, Any],
    tmp_path: Path,
    provider: LocalProvider,
    off: int,
    told: str,
) -> None:
    """A provider whose Date header is an hour off is told; one that is right is not."""

    def answer(path: str) -> Any:
        host = config["providers"]["corp"]["issuer"]
        documents: dict[str, Any] = {
            "/.well-known/openid-configuration": {
                "issuer": host,
                "authorization_endpoint": f"{host}/authorize",
                "token_endpoint": f"{host}/token",
                "jwks_uri": f"{host}/jwks",
            },
            "/jwks": provider.public_jwks(),
        }
        headers = {"Date": formatdate(time.time() + off, usegmt=True)}
        return 200, headers, json.dumps(documents[path]).encode()

    with answering(answer) as issuer:
        config["providers"]["corp"]["issuer"] = issuer
        write(tmp_path / "oauthgate.toml", config)
        warned = messages(operator.run("check", "--json").json, "warning")
    clock = re.search(r"providers.corp: its clock is (\d+) s (ahead of|behind) this machine's", warned)
    assert (clock is not None) == bool(off)
    if clock:
        # A Date has whole seconds, and the machine may take its time.
        assert clock[2] == told and abs(int(clock[1]) - 3600) <= 10


def test_the_site_itself(operator: Operator, config: dict[str, Any], tmp_path: Path) -> None:
    """The running site is recognised; another application at its address, or a stale one, is told."""

    def check(base: str, status: int = 0) -> Any:
        config["oauthgate"]["base_url"] = base
        write(tmp_path / "oauthgate.toml", config)
        return operator.run("check", "--json", status=status).json

    assert "cannot be reached from here" in messages(check("http://127.0.0.1:9"), "warning")
    app = flask_app()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    base = f"http://127.0.0.1:{server.port}"
    config["oauthgate"]["base_url"] = base
    oauthgate.install(app, config)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert "answers as this gate" in messages(check(base), "ok")
        config["providers"].pop("twitter")
        assert "has other providers than this file" in messages(check(base), "warning")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    for status, headers, told in (
        (404, {}, "the application itself uses the prefix"),
        (301, {"Location": "https://elsewhere/"}, "something in front redirects"),
        (502, {}, "the proxy does not reach"),
        (421, {}, "has no base_url"),
        (200, {}, "not as a gate"),
    ):
        with answering(lambda path, answer=(status, headers, b"<p>hello</p>"): answer) as base:
            assert told in messages(check(base, 1), "problem"), status
    names = json.dumps({"providers": [{"name": name} for name in config["providers"]]}).encode()
    with answering(lambda path: (200, {"Cache-Control": "max-age=60"}, names)) as base:
        assert "a proxy changes Cache-Control" in messages(check(base, 1), "problem")
