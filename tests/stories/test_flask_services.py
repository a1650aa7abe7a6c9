"""Story E: several services for one signed-in user, each linked on demand, nothing asked for twice."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from oauthgate.testing import Client, LocalProvider, running, serve
from tests.clicks import Visitor
from tests.servers import free_port
from tests.support import Kind
from tests.test_examples import EXAMPLES, command, load_demo, started

from .seen import Watcher
from .twins import flask_services

FOLDER = EXAMPLES / "flask_services"
NAMES = ("google", "github", "spotify")
ENVIRONMENT = {
    **{f"{name.upper()}_CLIENT_ID": f"{name}-id" for name in NAMES},
    **{f"{name.upper()}_CLIENT_SECRET": f"{name}-{'s' * 32}" for name in NAMES},
    "OAUTHGATE_SECRET": "k" * 32,
}
PLAYBACK = "user-read-playback-state"


@dataclass
class Site:
    base: str
    google: LocalProvider
    github: LocalProvider
    spotify: LocalProvider

    @property
    def token_requests(self) -> list[int]:
        return [provider.count["token"] for provider in (self.google, self.github, self.spotify)]


def local_provider(name: str, base: str) -> LocalProvider:
    """A stand-in for one of the three, that asks its clients to authenticate as the real one does."""
    method = "client_secret_basic" if name == "spotify" else "client_secret_post"
    provider = LocalProvider(
        name=name,
        clients=[
            Client(
                client_id=f"{name}-id",
                client_secret=ENVIRONMENT[f"{name.upper()}_CLIENT_SECRET"],
                redirect_uris=[f"{base}/_oauth/{name}/callback"],
                token_endpoint_auth_method=method,
            )
        ],
        scopes_supported=[
            *("openid", "profile", "email", "read:user", "user:email"),
            *("user-read-email", "user-read-private", PLAYBACK),
        ],
        api_scopes={"player": PLAYBACK},
    )
    # GitHub's name for it.
    (me,) = [route for route in provider.app.routes if getattr(route, "path", "") == "/api/me"]
    assert isinstance(me, Route)
    provider.app.router.routes.append(Route("/api/user", me.endpoint))
    return provider


def local_tables(google: str, github: str, spotify: str) -> dict[str, dict[str, Any]]:
    """What is different about the stand-ins: where they are, and the shape of two profiles."""
    profile = {name: name for name in ("id", "username", "name", "email", "picture")}
    return {
        "google": {"issuer": google, "api_base_url": f"{google}/oauth2"},
        **{
            name: {
                "authorization_endpoint": f"{url}/oauth2/authorize",
                "token_endpoint": f"{url}/oauth2/token",
                "userinfo_endpoint": f"{url}/api/me",
                "api_base_url": f"{url}/api",
                "profile": profile,
                "profile_documents": {},
            }
            for name, url in (("github", github), ("spotify", spotify))
        },
    }


@pytest.fixture
def site(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The example, by the command of its README; over ASGI its twin."""
    port = free_port()
    base, file = f"http://127.0.0.1:{port}", tmp_path / "oauthgate.toml"
    providers = [local_provider(name, base) for name in NAMES]
    config = tomllib.loads((FOLDER / "oauthgate.toml").read_text("utf-8"))
    config["oauthgate"]["base_url"] = base
    with running(*providers) as urls, ExitStack() as stack:
        for name, table in local_tables(*urls).items():
            config["providers"][name].update(table)
        file.write_text(load_demo().as_toml(config), "utf-8")
        if kind == "wsgi":
            environment = {**ENVIRONMENT, "FLASK_SERVICES_CONFIG": str(file)}
            stack.enter_context(
                started(command("flask_services"), FOLDER, port, environment, tmp_path / "log")
            )
        else:
            for name, value in ENVIRONMENT.items():
                monkeypatch.setenv(name, value)
            stack.enter_context(serve(flask_services(str(file)), port=port))
        yield Site(base, *providers)


def sign_in_and_link(visitor: Visitor) -> None:
    """Open each service's page: what is missing is asked for on the way."""
    visitor.open("/google")
    visitor.click("Sign in with Google")
    visitor.press("as Ada Lovelace")
    assert visitor.url == f"{visitor.base}/google"
    assert visitor.reply.json()["sub"] == "1001"
    visitor.open("/github")
    visitor.press("Link GitHub")
    visitor.press("as Ada Lovelace")
    assert visitor.url == f"{visitor.base}/github"
    assert visitor.reply.json()["username"] == "ada"


def test_story(site: Site) -> None:
    """Sign in with the first service that is wanted, link the others when they are, and grant more scope
    when a view needs it; no token in anything that the browser got."""
    with Watcher(site.base) as visitor:
        sign_in_and_link(visitor)
        visitor.open("/spotify")
        visitor.press("Link Spotify")
        visitor.press("as Ada Lovelace")
        # Linked, and still without the scope that this view needs: that is asked for next.
        assert PLAYBACK in visitor.text
        visitor.press("Continue to Spotify")
        visitor.press("as Ada Lovelace")
        assert visitor.url == f"{site.base}/spotify"
        assert visitor.reply.json()["item"]["name"]
        visitor.open("/")
        assert visitor.reply.json()["services"] == sorted(NAMES)
        hidden = [value for name, value in ENVIRONMENT.items() if "SECRET" in name]
        for provider in (site.google, site.github, site.spotify):
            hidden += [*provider.access_tokens._items, *provider.refresh_store._items]
        assert len(hidden) == 4 + 2 * 4
        visitor.assert_unseen(hidden)


def test_nothing_is_fetched_twice(site: Site) -> None:
    """Calls cost no token request and no metadata; an expired token costs one, for all who wait."""
    with Watcher(site.base) as visitor:
        sign_in_and_link(visitor)
        before = site.token_requests, site.google.count["discovery"], site.google.count["jwks"]
        for _ in range(5):
            for name in ("google", "github"):
                visitor.open(f"/{name}")
                assert visitor.reply.status_code == 200
        assert (site.token_requests, site.google.count["discovery"], site.google.count["jwks"]) == before
        assert site.token_requests == [1, 1, 0]
        site.google.expire_access_tokens()
        for _ in range(3):
            visitor.open("/google")
            assert visitor.reply.status_code == 200
        assert site.token_requests == [2, 1, 0]


def test_a_link_that_ended(site: Site) -> None:
    """A grant that was withdrawn at the provider is asked for again, and the other services go on."""
    with Watcher(site.base) as visitor:
        sign_in_and_link(visitor)
        site.github.revoke_all()
        visitor.open("/github")
        assert "again" in visitor.text
        visitor.open("/google")
        assert visitor.reply.status_code == 200
        visitor.open("/github")
        visitor.press("Link GitHub again")
        visitor.press("as Ada Lovelace")
        assert visitor.url == f"{site.base}/github" and visitor.reply.status_code == 200


def test_one_line_a_service() -> None:
    """Each service's view has one line, and the app says nothing of the protocol."""
    code = (FOLDER / "flask_services.py").read_text("utf-8").partition('"""\n\n')[2]
    for name in NAMES:
        assert code.count(f'services["{name}"]') == 1
    for word in ("token", "authlib", "callback", "redirect", "secret"):
        assert word not in code
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
