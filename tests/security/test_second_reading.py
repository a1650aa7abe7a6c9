"""Attacks on rotation, near-cache, transport and command line. Each succeeded once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx2
import pytest

import oauthgate
from oauthgate.cli.output import Output
from oauthgate.config import Config
from oauthgate.copying import copy
from oauthgate.errors import GateError
from oauthgate.gate import Gate
from oauthgate.io_async import AsyncIO
from oauthgate.io_blocking import BlockingIO
from oauthgate.records import Link, Profile, ProviderSession, Token, User
from oauthgate.rotation import rotate
from oauthgate.stepping import run
from oauthgate.stores import ANY, make_store
from oauthgate.stores.sqlite import SQLiteStore
from oauthgate.testing import LocalProvider
from oauthgate.vault import Vault
from tests.support import site_under_test

OLD = "old-secret-" + "o" * 32
NEW = "new-secret-" + "n" * 32


def with_secrets(config: dict[str, Any], *secrets: str) -> dict[str, Any]:
    return {**config, "oauthgate": {**config["oauthgate"], "secret": list(secrets)}}


@contextlib.contextmanager
def gate_with(folder: Path, *secrets: str) -> Iterator[Gate]:
    document = {"oauthgate": {"store": f"sqlite:///{folder / 'gate.db'}", "secret": list(secrets)}}
    found = Gate(Config.load(document), BlockingIO())
    try:
        yield found
    finally:
        run(found.close())


def link(account_id: str, **token: str) -> Link:
    return Link(
        provider="p",
        identity="p",
        account_id=account_id,
        profile=Profile(id=account_id),
        token=Token(**{"access_token": "a", **token}),  # type: ignore[arg-type]
    )


# -- rotation


def test_one_refresh_while_secrets_change_their_order(
    config: dict[str, Any], provider: LocalProvider
) -> None:
    """Processes with [new, old] and [old, new] share one lease: one refresh request (row 94)."""
    first, second = with_secrets(config, NEW, OLD), with_secrets(config, OLD, NEW)
    with site_under_test("wsgi", first) as site:
        browser = site.browser()
        site.login(browser, "spotify")
        user_id = browser.get("/who").json()["user_id"]
    provider.expire_access_tokens()
    provider.faults.set("token", delay=0.5)
    before, together = provider.count["token"], Barrier(2)

    def call(document: dict[str, Any]) -> int:
        with oauthgate.open(document) as gate:
            service = gate.services(user_id)["spotify"]
            together.wait(30)
            return int(service.get("me").status_code)

    with ThreadPoolExecutor(2) as pool:
        statuses = list(pool.map(call, (first, second)))
    assert provider.count["token"] == before + 1
    assert statuses == [200, 200]


def test_a_code_is_sent_once_while_secrets_change_their_order(
    config: dict[str, Any], provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two deliveries of one callback, to [new, old] and [old, new]: one token request (row 12)."""
    with (
        site_under_test("wsgi", with_secrets(config, NEW, OLD)) as one,
        site_under_test("wsgi", with_secrets(config, OLD, NEW)) as other,
    ):
        browser, again = one.browser(), other.browser()
        started = browser.get("/_oauth/spotify/login")
        callback = one.authorize(started.headers["location"])
        again.cookies = httpx2.Cookies(browser.cookies)
        before = provider.count["token"]
        put = one.gate.vault.put
        answers: list[int] = []

        async def after_the_other(key: str, *args: Any, **options: Any) -> int:
            if key.startswith("flow-used/") and not answers:
                answers.append(0)
                answers[0] = again.get(callback).status_code
            return await put(key, *args, **options)

        monkeypatch.setattr(one.gate.vault, "put", after_the_other)
        browser.get(callback)
        assert answers == [303]
        assert provider.count["token"] == before + 1


def test_a_secret_that_is_removed_in_the_middle_of_a_rotation(tmp_path: Path) -> None:
    """Without the old secret nothing is served until all was moved: nobody gets a second user."""
    with gate_with(tmp_path, OLD) as before:
        _, owner, _ = run(before.accounts.login(link("1")))

    class Killed(BaseException):
        pass

    def kill(done: int) -> None:
        if done == 3:  # account, key check, and at the user
            raise Killed

    with gate_with(tmp_path, NEW, OLD) as during, pytest.raises(Killed):
        run(rotate(during.vault, during.io, kill))
    with gate_with(tmp_path, NEW) as after:
        with pytest.raises(GateError) as refused:
            run(after.accounts.login(link("1")))
        assert refused.value.status == 503
    with gate_with(tmp_path, NEW, OLD) as back:
        _, found, _ = run(back.accounts.login(link("1")))
        assert found.id == owner.id


def test_a_visitor_cannot_stop_a_rotation(tmp_path: Path) -> None:
    """A session id of a provider's that two users signed in with is no reason to give up."""
    with gate_with(tmp_path, OLD) as before:
        _, first, _ = run(before.accounts.login(link("1"), sid="S"))
        key = "sid/" + before.vault.hash_key("sid", "p\x00S")
        run(before.vault.put(key, ProviderSession(user_id=first.id), expect=ANY, expires_at=4e9))
        # Another account is linked, the first one given up, the cookie thrown away.
        session = first.sessions[0].id
        run(before.accounts.attach(first.id, session, link("2")))
        run(before.accounts.detach(first.id, "p", "1"))
    with gate_with(tmp_path, NEW, OLD) as during:
        _, second, _ = run(during.accounts.login(link("1"), sid="S"))
        assert second.id != first.id
        key = "sid/" + during.vault.hash_key("sid", "p\x00S")
        run(during.vault.put(key, ProviderSession(user_id=second.id), expect=ANY, expires_at=4e9))
        assert run(rotate(during.vault, during.io)).settled


def test_a_rotation_before_the_site_has_the_new_secret(tmp_path: Path) -> None:
    """A process without the new secret answers 503; it does not take a moved account for a new one."""
    with gate_with(tmp_path, OLD) as site:
        _, owner, _ = run(site.accounts.login(link("1")))
        with gate_with(tmp_path, NEW, OLD) as operator:
            assert run(rotate(operator.vault, operator.io)).settled
            with pytest.raises(GateError) as refused:
                run(site.accounts.login(link("1")))
            assert refused.value.status == 503
            _, found, _ = run(operator.accounts.login(link("1")))
            assert found.id == owner.id


# -- near-cache


def believed_after_sign_out(url: str) -> bool:
    """Whether a record that another connection changed is still believed."""
    store = SQLiteStore(url, blocking=True)
    keys_config = {"oauthgate": {"store": url, "secret": [NEW]}}
    gate = Gate(Config.load(keys_config), BlockingIO(), store=store)
    ticket, _, _ = run(gate.accounts.login(link("1")))
    run(gate.visit(ticket, False))
    run(gate.visit(ticket, False))
    other = Gate(Config.load(keys_config), BlockingIO())
    run(other.accounts.end_session(ticket))
    believed = gate.recall(ticket.value, False) is not None
    run(other.close())
    run(gate.close())
    return believed


def test_a_database_behind_a_symbolic_link(tmp_path: Path) -> None:
    """SQLite keeps -shm beside the real file; one that was left beside the link says nothing."""
    (tmp_path / "volume").mkdir()
    run(make_store(f"sqlite:///{tmp_path}/gate.db", blocking=True).open())
    left = sqlite3.connect(tmp_path / "gate.db")
    left.execute("SELECT count(*) FROM oauthgate").fetchone()
    shutil.copy(tmp_path / "gate.db-shm", tmp_path / "kept")  # as a process that was killed leaves it
    left.close()
    shutil.move(tmp_path / "gate.db", tmp_path / "volume" / "gate.db")
    (tmp_path / "gate.db").symlink_to(tmp_path / "volume" / "gate.db")
    shutil.move(tmp_path / "kept", tmp_path / "gate.db-shm")
    assert not believed_after_sign_out(f"sqlite:///{tmp_path}/gate.db")


def test_a_database_that_is_not_in_wal_mode(tmp_path: Path) -> None:
    """A -shm that was left behind is not the index of a database in another journal mode."""
    run(make_store(f"sqlite:///{tmp_path}/gate.db", blocking=True).open())
    left = sqlite3.connect(tmp_path / "gate.db")
    left.execute("SELECT count(*) FROM oauthgate").fetchone()
    shutil.copy(tmp_path / "gate.db-shm", tmp_path / "kept")
    left.execute("PRAGMA journal_mode=DELETE")
    left.close()
    shutil.move(tmp_path / "kept", tmp_path / "gate.db-shm")
    assert not believed_after_sign_out(f"sqlite:///{tmp_path}/gate.db")


def test_a_browser_over_http2_sees_its_own_change() -> None:
    """Over HTTP/2 each cookie may come in a field of its own (RFC 9113 section 8.2.3)."""
    seen: list[str | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["state"]["oauth"].user_id)

    class Remote:
        """A store that cannot tell of changes."""

        def __init__(self) -> None:
            self._inner = make_store("memory:", blocking=False)

        def __getattr__(self, name: str) -> Any:
            if name in ("stamp", "watch"):
                raise AttributeError(name)
            return getattr(self._inner, name)

    async def main() -> None:
        gate = oauthgate.ASGIGate(app, {"oauthgate": {"base_url": "https://a.test", "store": "memory:"}})
        remote: Any = Remote()
        gate.gate.vault = Vault(remote, gate.gate.keys, 1.0)
        gate.gate.accounts._vault = gate.gate.vault
        ticket, _, _ = await gate.gate.accounts.login(link("1"))
        cookie = b"__Host-oauthgate=" + ticket.value.encode()

        def scope(*cookies: bytes) -> dict[str, Any]:
            return {"type": "http", "path": "/", "scheme": "https", "method": "GET",
                    "headers": [(b"cookie", each) for each in cookies]}  # fmt: skip

        # The application of this test neither reads nor answers, so there is nothing to receive or send.
        await gate(scope(cookie), None, None)  # type: ignore[arg-type]
        elsewhere = Vault(remote, gate.gate.keys)
        key = f"user/{ticket.user_id}"
        found = await elsewhere.get(User, key)
        assert found is not None
        await elsewhere.put(key, User(id=ticket.user_id, created=0.0), expect=found[1])
        await gate(scope(cookie + b"; __Host-oauthgate-changed=1"), None, None)  # type: ignore[arg-type]
        assert seen[-1] is None
        seen.clear()
        await elsewhere.put(key, found[0], expect=found[1] + 1)
        await gate(scope(cookie), None, None)  # type: ignore[arg-type]
        await elsewhere.put(key, User(id=ticket.user_id, created=0.0), expect=found[1] + 2)
        await gate(scope(cookie, b"__Host-oauthgate-changed=1"), None, None)  # type: ignore[arg-type]
        assert seen == [ticket.user_id, None]

    asyncio.run(main())


def test_any_scheme_that_a_proxy_names(tmp_path: Path) -> None:
    """`wss`, which some proxies send in X-Forwarded-Proto, is no reason for a 500."""
    seen: list[str | None] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ["oauthgate.user"].user_id)
        start_response("204 No Content", [])
        return []

    gate = oauthgate.WSGIGate(app, {"oauthgate": {"base_url": "https://a.test", "store": "memory:"}})
    ticket, _, _ = run(gate.gate.accounts.login(link("1")))
    cookie = f"__Host-oauthgate={ticket.value}"
    for scheme in ("https", "wss", "HTTPS"):
        environ = {"PATH_INFO": "/", "HTTP_COOKIE": cookie, "wsgi.url_scheme": scheme}
        gate(environ, lambda *_: None)
    assert seen == [ticket.user_id] * 3


# -- the faster transport


async def answers(kind: str, reply: Any, *requests: dict[str, Any]) -> tuple[list[Any], list[bytearray]]:
    """Send `requests` one after the other; the outcomes, and what each connection carried."""
    carried: list[bytearray] = []

    served: list[asyncio.Task[Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.append(task)
        carried.append(bytearray())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reply(reader, writer, carried[-1])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    outside = AsyncIO(kind)
    outside.trust(frozenset({"127.0.0.1"}))
    outcomes: list[Any] = []
    async with httpx2.AsyncClient(transport=outside.transport("p")) as client:
        for each in requests:
            try:
                async with asyncio.timeout(20):
                    outcomes.append((await client.request(url=url, **each)).content)
            except Exception as error:  # h11's own is not one of httpx2's
                outcomes.append(type(error).__name__)
    await outside.close()
    server.close()
    await asyncio.gather(*served)
    return outcomes, carried


@pytest.mark.parametrize("transport", ["httpx2", "aiohttp"])
@pytest.mark.parametrize("length", ["300", "3"])
def test_a_wrong_content_length_spoils_no_other_request(transport: str, length: str) -> None:
    """A body that is not as long as was said must not swallow the next visitor's request and token."""

    async def reply(reader: Any, writer: Any, carried: bytearray) -> None:
        while data := await reader.read(65536):
            carried += data
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()

    first = {"method": "POST", "content": b"abcdef", "headers": {"content-length": length}}
    second = {"method": "GET", "headers": {"authorization": "Bearer another-visitor's"}}
    outcomes, carried = asyncio.run(answers(transport, reply, first, second))
    assert outcomes == ["LocalProtocolError", b"ok"]
    assert not any(b"abc" in each and b"another" in each for each in carried)


@pytest.mark.parametrize("transport", ["httpx2", "aiohttp"])
def test_an_answer_that_begins_before_the_body_was_sent(transport: str) -> None:
    """The upload goes on to its end, and the call too."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(5):
            await asyncio.sleep(0.05)
            yield b"x" * 1000

    async def reply(reader: Any, writer: Any, carried: bytearray) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await writer.drain()
        await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write(b"world")
        await writer.drain()

    outcomes, _ = asyncio.run(answers(transport, reply, {"method": "POST", "content": body()}))
    assert outcomes == [b"helloworld"]


# -- the command line


def test_json_shows_no_terminal_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    """C1 controls (CSI is one character there) are escaped in JSON too."""
    Output(json=True).document({"name": "\x9b31mroot\x7f\u202e"})
    out = capsys.readouterr().out
    assert out.rstrip("\n").isprintable()
    assert json.loads(out)["name"] == "\x9b31mroot\x7f\u202e"


def test_modules_do_not_come_from_the_current_folder(tmp_path: Path) -> None:
    """Whoever can write into the folder where the command is run cannot run code by it."""
    file = tmp_path / "etc" / "oauthgate.toml"
    file.parent.mkdir()
    file.write_text(f'[oauthgate]\nsecret = ["{NEW}"]\nstore = "dynamodb://table?region=eu-central-1"\n')
    (tmp_path / "boto3.py").write_text("print('hijacked')\n")
    # As the installed script runs it: without the current folder in the path.
    code = "import sys; from oauthgate.cli import main; main(sys.argv[1:])"
    words = ["check", "--offline", "--config", str(file)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert "hijacked" not in done.stdout


def test_no_site_begins_with_half_a_copy(tmp_path: Path) -> None:
    """What it wrote would be undone by the next run; until then people would seem not to be there."""
    with gate_with(tmp_path, NEW) as site:
        _, owner, _ = run(site.accounts.login(link("1")))
    source = SQLiteStore(f"sqlite:///{tmp_path}/gate.db", blocking=True)
    (tmp_path / "new").mkdir()
    target = SQLiteStore(f"sqlite:///{tmp_path}/new/gate.db", blocking=True)

    class Killed(BaseException):
        pass

    def kill(done: int) -> None:
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        run(copy(source, target, "source", kill))
    with gate_with(tmp_path / "new", NEW) as site:
        with pytest.raises(GateError, match="copy that was not finished") as refused:
            run(site.accounts.login(link("2")))
        assert refused.value.status == 503
        assert not run(copy(source, target, "source")).differing
        _, user, _ = run(site.accounts.login(link("1")))
        assert user.id == owner.id
    run(source.close())
    run(target.close())
