"""A small API to call with what was granted: who am I, what is playing, tweets, echo.

Owns: the routes below `/api`. They take a bearer token or an OAuth 1.0a signature alike; which
scope a bearer token needs for each is the provider's setting `api_scopes`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse, Response

from .access import caller
from .core import Core
from .faults import tampered
from .messages import Message, Refusal
from .state import Tweet

TWEET_LENGTH = 280
PLAYLIST = (  # artist, track, album, seconds
    ("Clara Schumann", "Scherzo No. 2", "Piano Works", 30),
    ("Scott Joplin", "The Entertainer", "Piano Rags", 40),
    ("Fanny Hensel", "September: At the River", "The Year", 35),
    ("Erik Satie", "Gymnopédie No. 1", "Trois Gymnopédies", 45),
    ("Louise Farrenc", "Nonet in E-flat", "Chamber Music", 50),
)


def _refuse(status: int, error: str, description: str) -> Refusal:
    return Refusal(JSONResponse({"error": error, "error_description": description}, status))


def me(core: Core, message: Message) -> Response:
    who = caller(core, message, core.api_scopes.get("me"))
    return JSONResponse(core.profile(who.account, core.base(message)))


def token_info(core: Core, message: Message) -> Response:
    """Tell which client a token was issued to: what a hand-over of tokens must check."""
    who = caller(core, message, core.api_scopes.get("token_info"))
    left = None if who.expires_at is None else max(0, int(who.expires_at - core.now()))
    extra = core.clients[who.client_id].extra
    answer = {"client_id": who.client_id, "id": who.account.id, "expires_in": left, **extra}
    return JSONResponse(tampered(core.faults.tamper_token_info, answer))


def player(core: Core, message: Message) -> Response:
    """Tell what is playing, in the shape of Spotify's answer: settled by the clock alone."""
    caller(core, message, core.api_scopes.get("player"))
    position = core.now() % sum(track[3] for track in PLAYLIST)
    index = 0
    while position >= PLAYLIST[index][3]:
        position -= PLAYLIST[index][3]
        index += 1
    artist, track, album, seconds = PLAYLIST[index]
    item = {
        "name": track,
        "artists": [{"name": artist}],
        "album": {"name": album, "images": []},
        "duration_ms": seconds * 1000,
    }
    return JSONResponse({"is_playing": True, "progress_ms": int(position * 1000), "item": item})


def tweets(core: Core, message: Message) -> Response:
    who = caller(core, message, core.api_scopes.get("tweets"))
    if message.method == "POST":
        now = core.now()
        number = str(len(core.tweets) + 1)
        tweet = Tweet(number, who.account.id, _text(message), now)
        core.tweets.put(number, tweet)
        return JSONResponse(_shown(core, tweet), 201)
    mine = [tweet for tweet in core.tweets.values() if tweet.account_id == who.account.id]
    return JSONResponse({"tweets": [_shown(core, tweet) for tweet in reversed(mine)]})


def _text(message: Message) -> str:
    if not message.complete:
        raise _refuse(413, "too_large", "the body is too large")
    given: Any
    if message.is_form:
        fields = dict(message.form)
        given = fields.get("text", fields.get("status"))
    else:
        try:
            document = json.loads(message.body)
        except (ValueError, RecursionError) as error:
            raise _refuse(400, "invalid_request", "the body is neither JSON nor a form") from error
        given = document.get("text") if isinstance(document, dict) else None
    if not isinstance(given, str) or not given.strip():
        raise _refuse(400, "invalid_request", "text is missing")
    if len(given) > TWEET_LENGTH:
        raise _refuse(400, "too_long", f"text is longer than {TWEET_LENGTH} characters")
    return given


def _shown(core: Core, tweet: Tweet) -> dict[str, str]:
    account = core.accounts[tweet.account_id]
    created = datetime.fromtimestamp(tweet.created_at, UTC).isoformat(timespec="seconds")
    return {
        "id": tweet.id,
        "text": tweet.text,
        "username": account.username,
        "created_at": created,
    }


def echo(core: Core, message: Message) -> Response:
    """Say what was received, and set a cookie that no shared client may keep."""
    who = caller(core, message, core.api_scopes.get("echo"))
    response = JSONResponse(
        {
            "method": message.method,
            "query": [list(pair) for pair in message.query],
            "content_type": message.header("content-type"),
            "body_length": message.body_length,
            "body_sha256": message.body_sha256,
            "account": who.account.id,
            "client_id": who.client_id,
            "scope": None if who.scope is None else list(who.scope),
            "cookie": message.header("cookie"),
        }
    )
    response.set_cookie("provider_cookie", who.account.id, httponly=True, samesite="lax")
    return response
