"""The examples run as they stand: by the commands of their README, with all of their story."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from oauthgate.testing import Client, LocalProvider, running

from .clicks import Visitor, post_unlink_and_sign_out, sign_in_and_link
from .servers import free_port

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
FOLDERS = ["fastapi_app", "flask_app"]
START_DEADLINE = 20.0
"""Seconds an example may take until it answers."""
ENVIRONMENT = {
    "TWITTER_API_KEY": "twitter-id",
    "TWITTER_API_SECRET": "t" * 32,
    "SPOTIFY_CLIENT_ID": "spotify-id",
    "SPOTIFY_CLIENT_SECRET": "s" * 32,
    "OAUTHGATE_SECRET": "k" * 32,
}


def load_demo() -> Any:
    """`examples/demo.py` as a module, which knows what is different about local providers."""
    spec = importlib.util.spec_from_file_location("now_playing_demo", EXAMPLES / "demo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(folder: str) -> str:
    """What the folder's README says to start it with."""
    text = (EXAMPLES / folder / "README.md").read_text("utf-8")
    found = re.findall(r"^((?:uvicorn|flask) .* --port 8000)$", text, re.MULTILINE)
    assert len(found) == 1, found
    return str(found[0])


@contextmanager
def started(
    command: str, folder: Path, port: int, environment: Mapping[str, str], log: Path
) -> Iterator[str]:
    """An app as a process of its own, by a command that says port 8000; its address."""
    base = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *shlex.split(command.replace("8000", str(port)))],
            cwd=folder,
            env={**os.environ, **ENVIRONMENT, **environment, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until_answers(process, base, log)
            yield base
        finally:
            process.terminate()
            process.wait(10)


def wait_until_answers(process: subprocess.Popen[bytes], base: str, log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE
    with httpx2.Client(trust_env=False) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client.get(base)
                return
            except httpx2.TransportError:
                time.sleep(0.05)
    raise AssertionError(f"no answer from {base}: {log.read_text()}")


@dataclass
class Example:
    """A running example and the local providers behind it."""

    base: str
    twitter: LocalProvider
    spotify: LocalProvider


@contextmanager
def local_services(base: str) -> Iterator[tuple[LocalProvider, LocalProvider, dict[str, Any]]]:
    """Local providers for the app at `base`: Twitter, Spotify, and what their tables say differently."""
    twitter, spotify = (
        LocalProvider(
            name=name,
            clients=[
                Client(
                    client_id=f"{name}-id",
                    client_secret=name[0] * 32,
                    redirect_uris=[f"{base}/_oauth/{name}/callback"],
                )
            ],
            scopes_supported=["user-read-playback-state"],
            api_scopes={"player": "user-read-playback-state"},
            access_token_lifetime=30,
        )
        for name in ("twitter", "spotify")
    )
    with running(twitter, spotify) as urls:
        addresses = dict(zip(("twitter", "spotify", "corp"), (*urls, ""), strict=True))
        yield twitter, spotify, load_demo().local_endpoints(addresses)


def write_config(text: str, base: str, local: Mapping[str, Any], file: Path) -> None:
    """A configuration as it is published, for the app at `base` with local providers."""
    config = tomllib.loads(text)
    config["oauthgate"]["base_url"] = base
    for name, table in config["providers"].items():
        table.update(local[name])
    file.write_text(load_demo().as_toml(config), "utf-8")


@pytest.fixture(params=FOLDERS)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Example]:
    """Each of the examples, with its own configuration pointed at local providers."""
    name, port = request.param, free_port()
    folder, file = EXAMPLES / name, tmp_path / "oauthgate.toml"
    base = f"http://127.0.0.1:{port}"
    with local_services(base) as (twitter, spotify, local):
        write_config((folder / "oauthgate.toml").read_text("utf-8"), base, local, file)
        environment = {"NOW_PLAYING_CONFIG": str(file)}
        with started(command(name), folder, port, environment, tmp_path / "log"):
            yield Example(base, twitter, spotify)


def test_story(example: Example) -> None:
    """Sign in, link, now playing, post, unlink, sign out: by clicks on the pages."""
    with Visitor(example.base) as visitor:
        sign_in_and_link(visitor)
        post_unlink_and_sign_out(visitor)
    assert [tweet.text[:2] for tweet in example.twitter.tweets.values()] == ["♪ "]
    tokens = example.spotify.access_tokens.values()
    assert [token.revoked or token.grant.revoked for token in tokens] == [True]


def test_song_after_the_token_ended(example: Example) -> None:
    """Past the token's end the page still shows the song, for one refresh and nothing to see."""
    with Visitor(example.base) as visitor:
        sign_in_and_link(visitor)
        example.spotify.expire_access_tokens()
        visitor.open("/")
        assert "Now playing" in visitor.text
    assert example.spotify.count["token"] == 2


def test_silence_and_a_refused_post(example: Example) -> None:
    """Nothing playing is said as such, and so is a post that the service did not take."""
    with Visitor(example.base) as visitor:
        sign_in_and_link(visitor)
        example.twitter.faults.set("tweets", status=403, times=1)
        visitor.press("Post to Twitter", text="hello")
        assert "it answered 403" in visitor.text
        example.spotify.faults.set("player", status=204, body=b"", times=1)
        visitor.open("/")
        assert "Silence" in visitor.text


def test_post_needs_its_own_form(example: Example) -> None:
    """A post with the csrf token of nobody, or of somebody else, is refused and posts nothing."""
    with Visitor(example.base) as visitor, Visitor(example.base) as other:
        sign_in_and_link(visitor)
        sign_in_and_link(other, "Grace Hopper")
        token = other.page.forms[0].fields["csrf_token"]
        for value in ("", token):
            visitor.open("/")
            visitor.press("Post to Twitter", csrf_token=value)
            assert visitor.reply.status_code in (403, 422)
        with Visitor(example.base) as stranger:
            stranger.reply = other.reply
            stranger.page = other.page
            stranger.press("Post to Twitter")
            assert stranger.reply.status_code == 403
    assert example.twitter.count["tweets"] == 0


@pytest.mark.parametrize("folder", [*FOLDERS, "now_playing", "spa"])
def test_real_configuration(folder: str, tmp_path: Path) -> None:
    """With the folder's own TOML the visitor is sent to the real Spotify, with the README's address."""
    for left in (EXAMPLES / folder).glob("now-playing.db*"):
        pytest.fail(f"{left} is of somebody's own run; move it away")
    try:
        with (
            started(command(folder), EXAMPLES / folder, free_port(), {}, tmp_path / "log") as base,
            httpx2.Client(base_url=base, trust_env=False) as client,
        ):
            answer = client.get("/_oauth/spotify/login", headers={"accept": "text/html"})
            assert answer.status_code == 303
            target = httpx2.URL(answer.headers["location"])
            assert (target.host, target.path) == ("accounts.spotify.com", "/authorize")
            readme = (EXAMPLES / folder / "README.md").read_text("utf-8")
            assert f"`{target.params['redirect_uri']}`" in readme
            assert target.params["scope"] == "user-read-playback-state"
    finally:
        for made in (EXAMPLES / folder).glob("now-playing.db*"):
            made.unlink()


def test_examples_are_the_same() -> None:
    """Page and configuration are the same in both frameworks, and no app contains OAuth code."""
    for name in ("oauthgate.toml", "templates/now.html"):
        first, second = ((EXAMPLES / folder / name).read_text("utf-8") for folder in FOLDERS)
        assert first == second
    toml = [(EXAMPLES / folder / "oauthgate.toml").read_text("utf-8") for folder in ("spa", *FOLDERS)]
    assert len(set(toml)) == 1
    for file in ("fastapi_app/main.py", "flask_app/app.py", "spa/spa.py"):
        code = (EXAMPLES / file).read_text("utf-8").partition('"""\n\n')[2]
        for word in ("token_endpoint", "access_token", "authlib", "redirect_uri", "callback", "code_"):
            assert word not in code
        assert len(code.splitlines()) <= 45
