"""Story A: an invitation with data in it, Twitter (OAuth 1.0a), then Spotify, 25 places, and a job."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

import oauthgate
from oauthgate.testing import Account, LocalProvider, sign_in
from tests.clicks import Visitor
from tests.flows.steps import Clock, cookie_header
from tests.servers import free_port
from tests.support import PAGE, Kind, SiteUnderTest
from tests.test_examples import ENVIRONMENT, EXAMPLES, command, local_services, started, write_config

ROOT = Path(__file__).parents[2]
FOLDER = EXAMPLES / "now_playing"
INVITED = "/_oauth/twitter/login?email=ada@example.com&pin=4711&then=spotify"
PLACES = 25
MakeSite = Callable[[], SiteUnderTest]


@dataclass
class Site:
    """The example on a real server with two processes, and the local providers behind it."""

    base: str
    folder: Path
    environment: dict[str, str]
    twitter: LocalProvider
    spotify: LocalProvider

    def job(self) -> str:
        """Run the job by the command of the README; what it printed."""
        (line,) = re.findall(r"^python (\S+)$", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)
        done = subprocess.run(
            [sys.executable, line],
            cwd=FOLDER,
            env={**os.environ, **ENVIRONMENT, **self.environment, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stored(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
        """What came with each guest's Twitter account, by its name."""
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        with oauthgate.open(self.environment["NOW_PLAYING_CONFIG"]) as gate:
            links = [link for user in gate.users() for link in user.links if link.provider == "twitter"]
        return {str(link.profile.username): dict(link.extra) for link in links}


@pytest.fixture
def example(kind: Kind, tmp_path: Path) -> Iterator[Site]:
    """By the command of its README; over WSGI its twin."""
    port = free_port()
    base, file = f"http://127.0.0.1:{port}", tmp_path / "oauthgate.toml"
    with local_services(base) as (twitter, spotify, local):
        write_config((FOLDER / "oauthgate.toml").read_text("utf-8"), base, local, file)
        environment = {"NOW_PLAYING_CONFIG": str(file)}
        run, folder = f"{command('now_playing')} --workers 2", FOLDER
        if kind == "wsgi":
            run = "gunicorn tests.stories.now_playing_flask:app --workers 2 --threads 4"
            run, folder = f"{run} --bind 127.0.0.1:8000", ROOT
        with started(run, folder, port, environment, tmp_path / "log"):
            yield Site(base, tmp_path, environment, twitter, spotify)


def test_story(example: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The invitation, both providers, what came along is kept, and the job acts without the guest: also
    after the token has expired. What the invitation said is nowhere in clear."""
    with Visitor(example.base) as ada:
        ada.open("/")
        assert "open the link in your invitation" in ada.text
        ada.open(INVITED)
        ada.press("as Ada Lovelace")
        assert "Spotify" in ada.text
        ada.press("as Ada Lovelace")
        assert ada.url == f"{example.base}/"
        assert "Welcome, ada@example.com" in ada.text
        session = ada.client.get(f"{example.base}/_oauth/session")
        assert "4711" not in session.text
    assert example.stored(monkeypatch) == {"ada": {"email": "ada@example.com", "pin": "4711"}}
    for file in example.folder.glob("now-playing.db*"):
        for secret in (b"ada@example.com", b"4711", b"Lovelace"):
            assert secret not in file.read_bytes(), file
    example.spotify.expire_access_tokens()
    assert example.job() == "ada@example.com: 201\n"
    assert [tweet.text[:2] for tweet in example.twitter.tweets.values()] == ["♪ "]
    assert example.spotify.count["token"] == 2
    example.spotify.revoke_all()
    assert example.job() == ""
    log = (example.folder / "log").read_text()
    for token in [*example.twitter.oauth1_tokens._items, *example.spotify.access_tokens._items, "4711"]:
        assert token not in log.replace("pin=4711", "")


def test_a_chain_that_breaks_is_mended(example: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever refuses Spotify is told so, keeps Twitter and what came along, and finds the way on."""
    with Visitor(example.base) as ada:
        ada.open(INVITED)
        ada.press("Deny")
        assert ada.reply.status_code == 400 and "access_denied" in ada.text
        ada.open("/")
        assert "open the link in your invitation" in ada.text
        assert example.stored(monkeypatch) == {}
        ada.open(INVITED)
        ada.press("as Ada Lovelace")
        ada.press("Deny")
        assert ada.reply.status_code == 400 and "access_denied" in ada.text
        home = next(url for url in ada.page.links.values() if url.endswith(f"{example.base}/"))
        ada.open(home)
        ada.click("Link Spotify")
        ada.press("Link Spotify")
        ada.press("as Ada Lovelace")
        assert "Welcome, ada@example.com" in ada.text
    assert example.stored(monkeypatch) == {"ada": {"email": "ada@example.com", "pin": "4711"}}


@pytest.mark.parametrize(
    "query",
    [
        "email=ada&pin=4711", "email=ada@example.com&pin=47", "email=ada@example.com&pin=x4711",
        "email=ada@example.com&pin=471100000", "email=a%20b@example.com&pin=4711",
        f"email={'a' * 100}@example.com&pin=4711", "email=a@b&pin=4711%0A",
        "email=a@b&email=c@d&pin=4711",
        "email=a@b&pin=%D9%A4%D9%A7%D9%A1%D9%A1", "email=a@b&pin=4711&then=nobody",
        "email=a@b&pin=4711&then=spotify,spotify",
    ],
)  # fmt: skip
def test_what_an_invitation_may_not_say(invited: SiteUnderTest, query: str) -> None:
    """A field that breaks its rule is refused before anybody is asked anything."""
    answer = invited.browser().get(f"/_oauth/twitter/login?{query}", headers=PAGE)
    assert answer.status_code in (400, 404)
    assert "set-cookie" not in answer.headers
    assert "ada" not in answer.text and "4711" not in answer.text


def test_what_is_not_declared_is_not_kept(invited: SiteUnderTest) -> None:
    """Other parameters go nowhere: not to the provider, not into the store."""
    browser = invited.browser()
    started = browser.get("/_oauth/twitter/login?email=a@b.example&pin=4711&role=admin&user_id=1")
    assert "role" not in started.headers["location"] and "email" not in started.headers["location"]
    assert browser.get(invited.authorize(started.headers["location"])).status_code == 303
    assert extras(invited.config) == {"1001": {"email": "a@b.example", "pin": "4711"}}


# -- in one process


@pytest.fixture
def invited(config: dict[str, Any], make_site: MakeSite) -> SiteUnderTest:
    """A site with twitter, spotify and corp, and the fields that an invitation has."""
    config["providers"]["twitter"]["carry"] = {
        "email": {"pattern": r"[^@\s]+@[^@\s]+", "max_length": 100},
        "pin": {"pattern": "[0-9]{4,8}", "max_length": 8},
    }
    return make_site()


def extras(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    with oauthgate.open(config) as gate:
        return {
            link.account_id: dict(link.extra)
            for user in gate.users()
            for link in user.links
            if link.provider == "twitter"
        }


CHAIN = ["twitter", "spotify", "corp"]
#: Seconds after which a flow is over.
LATE = 20 * 60 + 1
#: How a step breaks, and what the visitor is told.
BROKEN = {
    "deny": (400, "access_denied"),
    "token": (503, "provider_unavailable"),
    "profile": (502, "provider_misbehaved"),
    "late": (400, "flow_not_found"),  # the browser has dropped the flow's cookie
}


@pytest.mark.parametrize("how", list(BROKEN))
@pytest.mark.parametrize("length", [1, 2, 3])
def test_chains(
    invited: SiteUnderTest,
    provider: LocalProvider,
    monkeypatch: pytest.MonkeyPatch,
    length: int,
    how: str,
) -> None:
    """Chains of 1, 2 and 3 providers that break at their last step, and one that does not: what was
    done before stays, the visitor is told what happened, and is still signed in."""
    clock = Clock(monkeypatch)
    names = CHAIN[:length]
    for broken in (True, False):
        browser = invited.browser()
        query = f"email=ada@example.com&pin=4711&then={','.join(names[1:])}&next=/who"
        answer = browser.get(f"/_oauth/twitter/login?{query}", headers=PAGE)
        for position, name in enumerate(names):
            assert answer.status_code == 303, answer.text
            last = broken and position == length - 1
            back = invited.authorize(answer.headers["location"], deny=last and how == "deny")
            if last and how == "token":
                provider.faults.set(
                    "access_token" if name == "twitter" else "token", status=500, times=1
                )
            if last and how == "profile":
                provider.faults.set("userinfo" if name == "corp" else "me", status=500, times=1)
            if last and how == "late":
                clock.advance(LATE)
            answer = browser.get(back, headers=PAGE)
        done = names[:-1] if broken else names
        if broken:
            clock.advance(-LATE if how == "late" else 0)  # the provider has its own clock
            status, code = BROKEN[how]
            assert answer.status_code == status, answer.text
            back_to = "/" if how == "late" else "/who"
            assert code in answer.text and f'href="{invited.base}{back_to}"' in answer.text
        else:
            assert answer.headers["location"] == f"{invited.base}/who"
        who = browser.get("/who").json()
        assert who["services"] == sorted(done)
        assert (who["user_id"] is not None) == bool(done)
        assert extras(invited.config) == (
            {"1001": {"email": "ada@example.com", "pin": "4711"}} if done else {}
        )
        if done:
            invited.post(browser, "/logout")


def test_twenty_minutes(
    invited: SiteUnderTest, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flow is good for 20 minutes and not longer, and nobody has to clean up after it."""
    clock = Clock(monkeypatch)
    for seconds, status in ((LATE - 30, 303), (LATE, 400)):
        browser = invited.browser()
        started = browser.get("/_oauth/spotify/login")  # whose requests do not say what time it is
        back = invited.authorize(started.headers["location"])
        cookies = cookie_header(browser)  # also what a browser should have dropped by then
        clock.advance(seconds)
        answer = invited.browser().get(back, headers=cookies)
        assert answer.status_code == status
    assert answer.json()["error"] == "flow_expired"
    assert provider.count["token"] == 1


def test_visitors_in_any_order(invited: SiteUnderTest, provider: LocalProvider) -> None:
    """200 guests at once, each step of each at a random moment: everybody's data and accounts are
    their own, which is what two files on a shared disk could not do."""
    people = 200
    for number in range(people):
        provider.accounts[f"g{number}"] = Account(id=f"g{number}", username=f"guest{number}")
    chance = random.Random(1)

    def guest(number: int) -> Iterator[None]:
        name, browser = f"guest{number}", invited.browser()
        query = f"email={name}@example.com&pin={10_000 + number}&then=spotify&next=/who"
        answer = browser.get(f"/_oauth/twitter/login?{query}")
        for _ in range(2):
            yield
            with httpx2.Client() as client:
                back = sign_in(client, answer.headers["location"], name)
            yield
            answer = browser.get(str(back))
        who = browser.get("/who").json()
        assert who["links"] == [f"twitter:g{number}", f"spotify:g{number}"]
        assert browser.get("/call/spotify/me").json()["id"] == f"g{number}"

    waiting = [guest(number) for number in range(people)]

    def step(one: Iterator[None]) -> Iterator[None] | None:
        try:
            next(one)
        except StopIteration:
            return None
        return one

    with ThreadPoolExecutor(8) as pool:
        while waiting:
            chance.shuffle(waiting)
            # Some go on together, the others wait: nobody's next step is where it would be expected.
            now, later = waiting[: len(waiting) // 2 + 1], waiting[len(waiting) // 2 + 1 :]
            waiting = later + [one for one in pool.map(step, now) if one is not None]
    kept = extras(invited.config)
    assert kept == {
        f"g{number}": {"email": f"guest{number}@example.com", "pin": str(10_000 + number)}
        for number in range(people)
    }
    with oauthgate.open(invited.config) as gate:
        for user in gate.users():
            assert len({link.account_id for link in user.links}) == 1 and len(user.links) == 2


# -- 25 places


def test_fifty_guests_for_twenty_five_places(example: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """50 guests come back from Twitter at the same moment, to two processes: 25 get in and go on to
    Spotify, 25 read that there is no place left, and those who are in come in again."""
    guests = [f"guest{number}" for number in range(50)]
    for name in guests:
        example.twitter.accounts[name] = Account(id=name, username=name)
    browsers = {name: httpx2.Client(trust_env=False, timeout=30, headers=PAGE) for name in guests}

    def ready(name: str) -> str:
        query = f"email={name}@example.com&pin=4711&then=spotify"
        started = browsers[name].get(f"{example.base}/_oauth/twitter/login?{query}")
        with httpx2.Client(trust_env=False) as client:
            return str(sign_in(client, started.headers["location"], name))

    def finish(name: str, back: str) -> tuple[str, str]:
        answer = browsers[name].get(back)
        if answer.status_code == 303:
            assert answer.headers["location"].startswith(str(example.spotify.issuer))
            return name, "in"
        assert answer.status_code == 403, answer.text
        assert "No places left" in answer.text
        return name, "full"

    with ThreadPoolExecutor(50) as pool:
        backs = list(pool.map(ready, guests))
        found = dict(pool.map(finish, guests, backs))
    assert Counter(found.values()) == {"in": PLACES, "full": 50 - PLACES}
    let_in = {name for name, outcome in found.items() if outcome == "in"}
    assert set(example.stored(monkeypatch)) == let_in
    name = min(let_in)
    assert finish(name, ready(name)) == (name, "in")
    for client in browsers.values():
        client.close()


def test_no_oauth_in_the_app() -> None:
    """App and job are as short as the manual says, and name nothing of the protocols."""
    counted = {}
    for file in ("now_playing.py", "act.py", "aws_lambda.py", "oauthgate.toml"):
        text = (FOLDER / file).read_text("utf-8")
        code = text.partition('"""\n\n')[2] or text
        for word in ("oauth_token", "access_token", "request_token", "redirect", "verifier", "authlib"):
            assert word not in code or file.endswith(".toml")
        lines = [line for line in code.splitlines() if line.strip() and not line.startswith("#")]
        counted[file] = len(lines)
    manual = (ROOT / "docs" / "systems.md").read_text("utf-8")
    for file, count in counted.items():
        path = f"examples/now_playing/{file}"
        row = rf"^\| \[`{path}`\]\(\.\./{path}\)[^|]* \| {count} \|$"
        assert re.search(row, manual, re.MULTILINE), counted
