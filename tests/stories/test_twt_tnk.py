"""Story B: a site that signs in with Twitter (OAuth 1.0a), whose tokens never reach the browser."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from oauthgate.testing import LocalProvider, serve
from tests.servers import free_port
from tests.support import Kind
from tests.test_examples import (
    ENVIRONMENT,
    EXAMPLES,
    command,
    local_services,
    started,
    write_config,
)

from .seen import Watcher
from .twins import twt_tnk

FOLDER = EXAMPLES / "twt_tnk"
PICTURE = "https://pictures.example/ada.png"


@dataclass
class Site:
    base: str
    twitter: LocalProvider


@pytest.fixture
def site(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The example, by the command of its README; over ASGI its twin."""
    port = free_port()
    base, file = f"http://127.0.0.1:{port}", tmp_path / "oauthgate.toml"
    with local_services(base) as (twitter, _, local), ExitStack() as stack:
        twitter.accounts["1001"] = replace(twitter.accounts["1001"], picture=PICTURE)
        write_config((FOLDER / "oauthgate.toml").read_text("utf-8"), base, local, file)
        if kind == "wsgi":
            environment = {"TWT_TNK_CONFIG": str(file)}
            stack.enter_context(started(command("twt_tnk"), FOLDER, port, environment, tmp_path / "log"))
        else:
            for name, value in ENVIRONMENT.items():
                monkeypatch.setenv(name, value)
            stack.enter_context(serve(twt_tnk(str(file)), port=port))
        yield Site(base, twitter)


def secrets_of(twitter: LocalProvider) -> list[str]:
    """What nobody but the server and Twitter may know."""
    tokens = [*twitter.oauth1_tokens._items, *(t.secret for t in twitter.oauth1_tokens.values())]
    requested = [token.secret for token in twitter.request_tokens.values()]
    return [*tokens, *requested, ENVIRONMENT["TWITTER_API_SECRET"], ENVIRONMENT["OAUTHGATE_SECRET"]]


def test_story(site: Site) -> None:
    """Sign in, be known by name, ask who one is, sign out; no token or secret in anything that the
    browser got or sent."""
    with Watcher(site.base) as visitor:
        visitor.open("/")
        visitor.click("Sign in with Twitter")
        hidden = secrets_of(site.twitter)  # the request token's secret, while there is one
        visitor.press("as Ada Lovelace")
        assert visitor.url == f"{site.base}/"
        assert "Ada Lovelace @ada" in visitor.text
        visitor.open("/verify")
        assert visitor.reply.json() == {
            "id": "1001",
            "username": "ada",
            "name": "Ada Lovelace",
            "picture": PICTURE,
        }
        visitor.open("/")
        visitor.press("Sign out")
        assert "You are signed out" in visitor.text
        visitor.open("/")
        assert "Sign in with Twitter" in visitor.text
        hidden += secrets_of(site.twitter)
        assert len(set(hidden)) == 5
        visitor.assert_unseen(set(hidden))
    assert site.twitter.count["me"] == 1, "the profile was asked for once, at the sign-in"


def test_the_search_finds_what_is_there(site: Site) -> None:
    """The search itself: a secret that did reach the browser is found, in each of its spellings."""
    secret = "a-secret-of-thirty-two-characters"
    raw = secret.encode()
    for form in (
        secret,
        raw.hex(),
        base64.urlsafe_b64encode(b"xy" + raw).decode(),
        secret.replace("-", "%2D"),
    ):
        with Watcher(site.base) as visitor:
            visitor.seen = [f"before{form}after"]
            with pytest.raises(AssertionError):
                visitor.assert_unseen([secret])


def test_asked_before_signing_in(site: Site) -> None:
    """Who asks for `/verify` first signs in on the way, and arrives there."""
    with Watcher(site.base) as visitor:
        visitor.open("/verify")
        assert "Sign in" in visitor.text
        (link,) = [name for name in visitor.page.links if "Sign in with" in name]
        visitor.click(link)
        visitor.press("as Grace Hopper")
        assert visitor.url == f"{site.base}/verify"
        assert visitor.reply.json()["username"] == "grace"


def test_what_used_to_be_an_exception(site: Site) -> None:
    """A token that nobody handed out, and one that another browser was handed, are answered with a page
    that says so; so is a refusal."""
    with Watcher(site.base) as visitor, Watcher(site.base) as other:
        visitor.open("/_oauth/twitter/callback?oauth_token=unknown&oauth_verifier=unknown")
        assert (visitor.reply.status_code, visitor.page.links != {}) == (400, True)
        visitor.open("/login")
        token = visitor.reply.url.params["oauth_token"]
        other.open(f"/_oauth/twitter/callback?oauth_token={token}&oauth_verifier=guessed")
        assert other.reply.status_code == 400
        visitor.press("Deny")
        assert visitor.reply.status_code == 400 and "access_denied" in visitor.text
        assert site.twitter.count["access_token"] == 0
        visitor.open("/login")
        visitor.press("as Ada Lovelace")
        assert "Ada Lovelace @ada" in visitor.text


def test_no_oauth_in_the_app() -> None:
    """The app is as short as it claims, and says nothing of the protocol."""
    code = (FOLDER / "twt_tnk.py").read_text("utf-8").partition('"""\n\n')[2]
    for word in ("oauth_token", "access_token", "authlib", "callback", "secret", "request_token"):
        assert word not in code
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
