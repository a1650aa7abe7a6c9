"""Now playing, as a single-page app: one page in plain JavaScript, and the JSON that it asks for.

There is no OAuth in here, and none in the page: `install` answers everything under `/_oauth/`, where the
page also finds the module that signs in and out. Tokens stay on this side.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Header, HTTPException
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

import oauthgate
from oauthgate import AsyncService
from oauthgate.fastapi import CurrentUser, Service

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src https: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
app = FastAPI(title="Now playing")
oauthgate.install(app, os.environ.get("NOW_PLAYING_CONFIG") or HERE / "oauthgate.toml")
app.mount("/static", StaticFiles(directory=HERE / "static"))


def same_page(user: CurrentUser, x_csrf_token: Annotated[str, Header()] = "") -> None:
    """A request that changes something is of a page that could read the session's own token."""
    if x_csrf_token != user.csrf_token:
        raise HTTPException(403, "this request is of another session")


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(HERE / "static" / "index.html", headers={"Content-Security-Policy": POLICY})


@app.get("/api/player")
async def player(spotify: Annotated[AsyncService, Service("spotify")]) -> Any:
    reply = await spotify.get("me/player")
    return reply.json() if reply.status_code == 200 else None  # 204: nothing is playing


@app.post("/api/posts", dependencies=[Depends(same_page)])
async def post(
    text: Annotated[str, Body(embed=True)], twitter: Annotated[AsyncService, Service("twitter")]
) -> dict[str, int]:
    return {"status": (await twitter.post("tweets", json={"text": text})).status_code}
