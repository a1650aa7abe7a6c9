"""Now playing: sign in with Twitter, link Spotify, see what is playing, post it.

There is no OAuth in here: `install` answers everything under `/_oauth/`, and `request.state` brings the
visitor and a client for each linked service.
"""

import os
from pathlib import Path

from flask import Flask, abort, redirect, render_template, request
from werkzeug.wrappers import Response

import oauthgate

app = Flask(__name__)
oauthgate.install(
    app, os.environ.get("NOW_PLAYING_CONFIG") or Path(__file__).with_name("oauthgate.toml")
)


@app.get("/")
def home() -> str:
    oauth, services, song = request.state.oauth, request.state.services, None
    if "spotify" in services:
        reply = services["spotify"].get("me/player")
        song = reply.json() if reply.status_code == 200 else None  # 204: nothing is playing
    posted = request.args.get("posted", "")
    return render_template("now.html", oauth=oauth, services=services, song=song, posted=posted)


@app.post("/post")
def post() -> Response:
    if request.form["csrf_token"] != request.state.oauth.csrf_token:
        abort(403, "This form is of another session: go back and reload the page.")
    reply = request.state.services["twitter"].post("tweets", json={"text": request.form["text"]})
    return redirect(f"/?posted={reply.status_code}", 303)
