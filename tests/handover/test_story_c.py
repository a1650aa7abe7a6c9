"""Story C over HTTP: a mobile app hands Kakao's token over, to the example and to the same in Flask."""

from __future__ import annotations

import importlib.util
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from flask import Flask, abort
from flask import request as flask_request
from werkzeug.serving import make_server

import oauthgate
from oauthgate.testing import LocalProvider, running
from tests.servers import free_port
from tests.support import Kind
from tests.test_examples import EXAMPLES, command, started

from .steps import bearer

FOLDER = EXAMPLES / "kakao_api"


def load_try_it() -> Any:
    """`try_it.py` of the example as a module: it knows the local Kakao."""
    spec = importlib.util.spec_from_file_location("kakao_api_try_it", FOLDER / "try_it.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TRY_IT = load_try_it()


def flask_variant(config: dict[str, Any]) -> Flask:
    """The example's `api.py` in Flask."""
    app = Flask("kakao_api")
    oauthgate.install(app, config)

    @app.get("/me")
    def me() -> dict[str, str | None]:
        profile = flask_request.state.oauth.profile  # type: ignore[attr-defined]
        if profile is None:
            abort(401)
        return {
            "id": profile.id,
            "email": profile.email,
            "nickname": profile.name,
            "gender": profile.gender,
        }

    return app


@contextmanager
def flask_served(config: dict[str, Any], port: int) -> Iterator[None]:
    app = flask_variant(config)
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        app.wsgi_app.close()  # type: ignore[attr-defined] # now the gate


@dataclass
class Story:
    """The running API, Kakao, and what a phone can do."""

    api: httpx2.Client
    kakao: LocalProvider
    url: str
    store: Path

    def hand_over(self, app: str = "our", account: str = "ada") -> httpx2.Response:
        token = TRY_IT.kakao_token(self.url, app, account)
        return self.api.post("/_oauth/kakao/token", json={"access_token": token})

    def kept(self) -> set[str]:
        """The keys of all that the API keeps."""
        with closing(sqlite3.connect(self.store)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
                return set()
            return {key for (key,) in connection.execute("SELECT key FROM oauthgate")}


@pytest.fixture
def story(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    """The example by its README's command over ASGI, its Flask variant over WSGI."""
    kakao, port = TRY_IT.local_kakao(), free_port()
    base, file = f"http://127.0.0.1:{port}", tmp_path / "oauthgate.toml"
    with ExitStack() as stack:
        url = stack.enter_context(running(kakao))
        config = TRY_IT.local_config(url, base, tmp_path)
        if kind == "asgi":
            file.write_text(TRY_IT.as_toml(config), "utf-8")
            environment = {**TRY_IT.ENVIRONMENT, "KAKAO_API_CONFIG": str(file)}
            stack.enter_context(
                started(command("kakao_api"), FOLDER, port, environment, tmp_path / "log")
            )
        else:
            for name, value in TRY_IT.ENVIRONMENT.items():
                monkeypatch.setenv(name, value)
            stack.enter_context(flask_served(config, port))
        api = stack.enter_context(httpx2.Client(base_url=base, trust_env=False))
        yield Story(api, kakao, url, tmp_path / "kakao-api.db")


def test_the_story(story: Story) -> None:
    """Hand over, profile, own JWT, call the API with it, refresh, logout: 401."""
    api = story.api
    assert api.get("/me").status_code == 401
    first = story.hand_over()
    assert first.status_code == 201, first.text
    given = first.json()
    assert given["profile"] == {
        "id": "1001",
        "username": "에이다",
        "name": "에이다",
        "email": "ada@example.com",
        "email_verified": True,
        "picture": "https://k.kakaocdn.example/1001.jpg",
        "gender": "female",
    }
    assert given["session_token"].count(".") == 2 and given["expires_in"] == 24 * 3600
    again = story.hand_over()
    assert (again.status_code, again.json()["user_id"]) == (200, given["user_id"])
    me = api.get("/me", headers=bearer(given["session_token"]))
    assert me.json() == {
        "id": "1001",
        "email": "ada@example.com",
        "nickname": "에이다",
        "gender": "female",
    }
    fresh = api.post("/_oauth/session/refresh", headers=bearer(given["session_token"])).json()
    assert api.get("/me", headers=bearer(given["session_token"])).status_code == 401
    assert api.get("/me", headers=bearer(fresh["session_token"])).status_code == 200
    assert api.post("/_oauth/logout", headers=bearer(fresh["session_token"])).status_code == 200
    assert api.get("/me", headers=bearer(fresh["session_token"])).status_code == 401
    assert api.get("/me", headers=bearer(again.json()["session_token"])).status_code == 200


def test_what_is_refused(story: Story) -> None:
    """Another app's token, an expired one, no e-mail, a refused scope, a slow Kakao: each its code."""
    api, kakao = story.api, story.kakao

    def refused(answer: httpx2.Response) -> tuple[int, str]:
        assert not {key for key in story.kept() if key.startswith(("user/", "account/"))}
        return answer.status_code, answer.json()["error"]

    assert refused(story.hand_over("other")) == (401, "invalid_token")
    assert refused(story.hand_over(account="mute")) == (403, "missing_profile_field")
    token = TRY_IT.kakao_token(story.url)
    body = {"access_token": token}
    kakao.api_scopes["me"] = "account_email"
    assert refused(api.post("/_oauth/kakao/token", json=body)) == (403, "insufficient_scope")
    del kakao.api_scopes["me"]
    kakao.faults.set("token_info", delay=60)
    assert refused(api.post("/_oauth/kakao/token", json=body)) == (504, "provider_timeout")
    kakao.faults.set("token_info", status=503)
    assert refused(api.post("/_oauth/kakao/token", json=body)) == (503, "provider_unavailable")
    kakao.faults.clear()
    kakao.expire_access_tokens()
    assert refused(api.post("/_oauth/kakao/token", json=body)) == (401, "invalid_token")
    assert refused(api.post("/_oauth/kakao/token", json={})) == (400, "invalid_request")
    assert refused(api.post("/_oauth/kakao/token", data=body)) == (415, "unsupported_media_type")
    assert story.hand_over().status_code == 201


def test_the_example_holds_no_oauth() -> None:
    """`api.py` is short, and knows neither tokens nor addresses of Kakao's."""
    code = (FOLDER / "api.py").read_text("utf-8").partition('"""\n\n')[2]
    for word in ("token", "authlib", "redirect", "callback", "http", "jwt"):
        assert word not in code.lower().replace("httpexception", "")
    assert len(code.splitlines()) <= 25


def test_the_real_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the folder's own TOML a token is proved at the real Kakao, by this app's number."""
    for name, value in TRY_IT.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    kakao = oauthgate.Config.load(FOLDER / "oauthgate.toml").providers["kakao"]
    assert kakao.token_info is not None
    assert kakao.token_info.url == "https://kapi.kakao.com/v1/user/access_token_info"
    assert (kakao.token_info.field, kakao.token_info.equals) == ("app_id", "123456")
    assert kakao.timeout == 2
