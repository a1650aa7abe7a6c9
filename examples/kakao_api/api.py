"""An API for a mobile app that signs people in with Kakao by itself.

The app hands Kakao's access token over at `/_oauth/kakao/token` and gets a session token of this API's,
which it sends as `Authorization: Bearer` from then on. There is no OAuth in here.
"""

import os
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request

import oauthgate

app = FastAPI(title="Kakao API")
oauthgate.install(app, os.environ.get("KAKAO_API_CONFIG") or Path(__file__).parent / "oauthgate.toml")


@app.get("/me")
async def me(request: Request) -> dict[str, str | None]:
    profile = request.state.oauth.profile
    if profile is None:
        raise HTTPException(401, "Sign in with Kakao first.")
    return {"id": profile.id, "email": profile.email, "nickname": profile.name, "gender": profile.gender}
