"""twt-tnk: a site that knows its visitors by their Twitter account.

There is no OAuth in here: `install` answers everything under `/_oauth/`, and `current_user` is whoever
signed in there. What Twitter gave for them stays on the server.
"""

import os
from pathlib import Path

from flask import Flask, redirect
from markupsafe import Markup
from werkzeug.wrappers import Response

import oauthgate
from oauthgate.flask import current_user, login_required

app = Flask(__name__)
oauthgate.install(app, os.environ.get("TWT_TNK_CONFIG") or Path(__file__).with_name("oauthgate.toml"))
PAGE = Markup("<!doctype html><meta charset=utf-8><title>twt-tnk</title>{}")  # fills in what it escapes


@app.get("/")
def home() -> str:
    me = current_user.profile
    if me is None:
        return PAGE.format(Markup('<p><a href="/login">Sign in with Twitter</a></p>'))
    return PAGE.format(
        Markup(
            '<h1>{}</h1><p>@{}</p><form method="post" action="/_oauth/logout">'
            '<input type="hidden" name="csrf_token" value="{}"><button>Sign out</button></form>'
        ).format(me.name, me.username, current_user.csrf_token)
    )


@app.get("/login")
def login() -> Response:
    return redirect(current_user.login_url("twitter", next="/"))


@app.get("/verify")
@login_required
def verify() -> dict[str, str | None]:
    """The account in the old site's words, which are the same for every provider."""
    me = current_user.profile
    assert me is not None
    return {"id": me.id, "username": me.username, "name": me.name, "picture": me.picture}
