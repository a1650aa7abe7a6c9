"""Now playing: sign in with Twitter, link Spotify, see what is playing, post it.

There is no OAuth in here: `install` answers everything under `/_oauth/`, and `request.state` brings the
visitor and a client for each linked service.
"""

import os
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Form, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.templating import Jinja2Templates

import oauthgate

HERE = Path(__file__).parent
app = FastAPI(title="Now playing")
oauthgate.install(app, os.environ.get("NOW_PLAYING_CONFIG") or HERE / "oauthgate.toml")
pages = Jinja2Templates(HERE / "templates")


@app.get("/")
async def home(request: Request, posted: str = "") -> Response:
    oauth, services, song = request.state.oauth, request.state.services, None
    if "spotify" in services:
        reply = await services["spotify"].get("me/player")
        song = reply.json() if reply.status_code == 200 else None  # 204: nothing is playing
    values = {"oauth": oauth, "services": services, "song": song, "posted": posted}
    return pages.TemplateResponse(request, "now.html", values)


@app.post("/post")
async def post(
    request: Request, text: Annotated[str, Form()], csrf_token: Annotated[str, Form()]
) -> Response:
    if csrf_token != request.state.oauth.csrf_token:
        raise HTTPException(403, "This form is of another session: go back and reload the page.")
    reply = await request.state.services["twitter"].post("tweets", json={"text": text})
    return RedirectResponse(f"/?posted={reply.status_code}", 303)
