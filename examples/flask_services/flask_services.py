"""Several services for one signed-in user, a line each.

There is no OAuth in here: a view takes the service that it needs from `services`. Who is not signed in,
or has not linked it, is sent to do so and comes back.
"""

import os
from pathlib import Path
from typing import Any

from flask import Flask

import oauthgate
from oauthgate.flask import current_user, login_required, requires, services

HERE = Path(__file__).parent
app = Flask(__name__)
oauthgate.install(app, os.environ.get("FLASK_SERVICES_CONFIG") or HERE / "oauthgate.toml")


@app.get("/")
@login_required
def home() -> dict[str, Any]:
    return {"user": current_user.user_id, "services": sorted(services)}


@app.get("/google")
def google() -> Any:
    return services["google"].get("userinfo").json()


@app.get("/github")
def github() -> Any:
    return services["github"].get("user").json()


@app.get("/spotify")
@requires("spotify", scope=["user-read-playback-state"])
def spotify() -> Any:
    return services["spotify"].get("me/player").json()
