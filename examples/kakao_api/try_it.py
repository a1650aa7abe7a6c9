"""`python try_it.py`: the whole story on this machine, with a local Kakao and no account anywhere.

It starts the provider and the API of `api.py`, plays the mobile app, and prints what is answered.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import sys
import tempfile
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2

from oauthgate.testing import Account, Client, LocalProvider, serve, sign_in

HERE = Path(__file__).resolve().parent
APP_IDS = {"our": 123456, "other": 654321}
SECRET = "s" * 32
RETURN = "kakao.example:/oauth"
"""Where a mobile app's own sign-ins return."""
ENVIRONMENT = {
    "KAKAO_REST_API_KEY": "our-rest-api-key",
    "KAKAO_CLIENT_SECRET": SECRET,
    "KAKAO_APP_ID": str(APP_IDS["our"]),
    "OAUTHGATE_SECRET": secrets.token_urlsafe(32),
}


def main() -> None:
    """Play the app."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kakao = stack.enter_context(serve(local_kakao())).url
        file, base = folder / "oauthgate.toml", "http://127.0.0.1:8000"
        file.write_text(as_toml(local_config(kakao, base, folder)), encoding="utf-8")
        os.environ.update(ENVIRONMENT, KAKAO_API_CONFIG=str(file))
        sys.path.insert(0, str(HERE))
        stack.enter_context(serve(importlib.import_module("api").app, port=8000))
        api = stack.enter_context(httpx2.Client(base_url=base, trust_env=False))
        show(api.get("/me"))
        show(api.post("/_oauth/kakao/token", json={"access_token": kakao_token(kakao, "other")}))
        given = show(api.post("/_oauth/kakao/token", json={"access_token": kakao_token(kakao)}))
        api.headers["authorization"] = f"Bearer {given['session_token']}"
        show(api.get("/me"))
        given = show(api.post("/_oauth/session/refresh"))
        api.headers["authorization"] = f"Bearer {given['session_token']}"
        show(api.post("/_oauth/logout"))
        show(api.get("/me"))


def show(answer: httpx2.Response) -> Any:
    """Print one exchange; what was answered."""
    print(f"{answer.request.method} {answer.request.url.path}  ->  {answer.status_code}")
    print(f"  {json.dumps(answer.json(), ensure_ascii=False)}\n")
    return answer.json()


def local_kakao() -> LocalProvider:
    """A provider that answers as Kakao does, with two apps and two people, one without e-mail."""

    def person(number: int, username: str, nickname: str, email: str | None) -> Account:
        account: dict[str, Any] = {"gender": "female", "profile": {"nickname": nickname}}
        account["profile"]["profile_image_url"] = f"https://k.kakaocdn.example/{number}.jpg"
        if email:
            account |= {"email": email, "is_email_valid": True, "is_email_verified": True}
        extra = {"id": number, "kakao_account": account}
        return Account(id=str(number), username=username, extra=extra)

    apps = [
        Client(
            client_id=f"{name}-rest-api-key",
            client_secret=SECRET,
            redirect_uris=[RETURN],
            token_endpoint_auth_method="client_secret_post",
            extra={"app_id": number},
        )
        for name, number in APP_IDS.items()
    ]
    people = [person(1001, "ada", "에이다", "ada@example.com"), person(1002, "mute", "무명", None)]
    return LocalProvider(
        name="kakao", title="Kakao (local)", clients=apps, accounts=people, pkce_required=False
    )


def local_config(url: str, base_url: str, folder: Path) -> dict[str, Any]:
    """The configuration of this folder, pointed at the local Kakao."""
    config = tomllib.loads((HERE / "oauthgate.toml").read_text(encoding="utf-8"))
    config["oauthgate"] |= {"base_url": base_url, "store": f"sqlite:///{folder / 'kakao-api.db'}"}
    config["providers"]["kakao"] |= {
        "issuer": url,
        "userinfo_endpoint": f"{url}/api/me",
        "token_info": {"url": f"{url}/api/token_info", "field": "app_id", "equals": "{app_id}"},
    }
    return config


def kakao_token(url: str, app: str = "our", account: str = "ada") -> str:
    """What Kakao's SDK does inside a mobile app: sign somebody in, and end up with an access token."""
    asked = {"client_id": f"{app}-rest-api-key", "redirect_uri": RETURN}
    query = {"response_type": "code", "scope": "openid profile email", **asked}
    with httpx2.Client(trust_env=False) as phone:
        back = sign_in(phone, str(httpx2.URL(f"{url}/oauth2/authorize", params=query)), account)
        form = {"grant_type": "authorization_code", "client_secret": SECRET, **asked}
        form["code"] = httpx2.URL(back).params["code"]
        token: str = phone.post(f"{url}/oauth2/token", data=form).json()["access_token"]
    return token


def as_toml(config: dict[str, Any]) -> str:
    """Tables, texts, numbers and lists as TOML."""

    def value(item: Any) -> str:
        if isinstance(item, dict):
            return "{ " + ", ".join(f"{key} = {value(held)}" for key, held in item.items()) + " }"
        return json.dumps(item)

    return "\n".join(f"{key} = {value(item)}" for key, item in config.items())


if __name__ == "__main__":
    main()
