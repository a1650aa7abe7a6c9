"""`examples/now_playing` as a Flask app, for the same story over the other adapter."""

from __future__ import annotations

import os
from html import escape

from flask import Flask

import oauthgate
from oauthgate.flask import current_user

app = Flask(__name__)
oauthgate.install(app, os.environ["NOW_PLAYING_CONFIG"])


@app.get("/")
def home() -> str:
    links = {link.provider: link for link in current_user.links}
    if "twitter" not in links:
        return "<p>Please open the link in your invitation.</p>"
    if "spotify" not in links:
        return (
            f'<p>Still to do: <a href="{escape(current_user.link_url("spotify"))}">Link Spotify</a></p>'
        )
    guest = escape(links["twitter"].extra.get("email", "guest"))
    return f"<p>Welcome, {guest}. You may close this page.</p>"
