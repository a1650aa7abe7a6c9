"""The examples that are Flask apps as FastAPI apps, for the same stories over the other adapter."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse

import oauthgate
from oauthgate import AsyncService
from oauthgate.fastapi import CurrentUser, CurrentVisitor, Service

PLAYBACK = ["user-read-playback-state"]


def twt_tnk(config: str) -> FastAPI:
    """`examples/twt_tnk`."""
    app = FastAPI()
    oauthgate.install(app, config)

    @app.get("/", response_class=HTMLResponse)
    async def home(visitor: CurrentVisitor) -> str:
        if visitor.profile is None:
            return '<p><a href="/login">Sign in with Twitter</a></p>'
        return (
            f"<h1>{visitor.profile.name}</h1><p>@{visitor.profile.username}</p>"
            '<form method="post" action="/_oauth/logout">'
            f'<input type="hidden" name="csrf_token" value="{visitor.csrf_token}">'
            "<button>Sign out</button></form>"
        )

    @app.get("/login")
    async def login(visitor: CurrentVisitor) -> RedirectResponse:
        return RedirectResponse(visitor.login_url("twitter", next="/"), 302)

    @app.get("/verify")
    async def verify(user: CurrentUser) -> dict[str, str | None]:
        me = user.profile
        assert me is not None
        return {"id": me.id, "username": me.username, "name": me.name, "picture": me.picture}

    return app


def flask_services(config: str) -> FastAPI:
    """`examples/flask_services`."""
    app = FastAPI()
    oauthgate.install(app, config)

    @app.get("/")
    async def home(user: CurrentUser) -> dict[str, Any]:
        return {"user": user.user_id, "services": sorted({link.provider for link in user.links})}

    @app.get("/google")
    async def google(google: Annotated[AsyncService, Service("google")]) -> Any:
        return (await google.get("userinfo")).json()

    @app.get("/github")
    async def github(github: Annotated[AsyncService, Service("github")]) -> Any:
        return (await github.get("user")).json()

    @app.get("/spotify")
    async def spotify(spotify: Annotated[AsyncService, Service("spotify", scope=PLAYBACK)]) -> Any:
        return (await spotify.get("me/player")).json()

    return app
