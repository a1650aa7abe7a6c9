"""Now playing, by invitation: a guest signs in once; what they listen to is posted for them ever after.

An invitation is a link that signs in with Twitter, goes on to Spotify, and brings an e-mail address and
a PIN along. There is no OAuth in here: `install` answers everything under `/_oauth/`.
"""

import os
from html import escape
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

import oauthgate
from oauthgate.fastapi import CurrentVisitor

HERE = Path(__file__).parent
app = FastAPI()
oauthgate.install(app, os.environ.get("NOW_PLAYING_CONFIG") or HERE / "oauthgate.toml")


@app.get("/", response_class=HTMLResponse)
async def home(visitor: CurrentVisitor) -> str:
    links = {link.provider: link for link in visitor.links}
    if "twitter" not in links:
        return "<p>Please open the link in your invitation.</p>"
    if "spotify" not in links:
        return f'<p>Still to do: <a href="{escape(visitor.link_url("spotify"))}">Link Spotify</a></p>'
    guest = escape(links["twitter"].extra.get("email", "guest"))
    return f"<p>Welcome, {guest}. You may close this page.</p>"
