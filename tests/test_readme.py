"""The README's code is run as it stands there, against local providers; its links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from oauthgate.config_providers import read_preset

from .clicks import Visitor
from .servers import free_port
from .test_examples import local_services, started, write_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = FENCE.findall(README)
MAX_LINES = 14


def block(language: str, containing: str = "") -> str:
    """The one block of this language with this text in it."""
    found = [text for kind, text in BLOCKS if kind == language and containing in text]
    assert len(found) == 1, (language, containing, len(found))
    return str(found[0])


@pytest.mark.parametrize(
    ("framework", "file", "runner"), [("FastAPI", "main.py", "uvicorn"), ("Flask", "app.py", "flask")]
)
def test_app(framework: str, file: str, runner: str, tmp_path: Path) -> None:
    """Each app, in the file the text names, with the TOML and by the command: the visitor opens
    `/now`, is led to sign in and to link, and gets there."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = next(line for line in block("sh", "--port").splitlines() if line.startswith(runner))
    assert f"With {framework}, in `{file}`" in README
    (tmp_path / file).write_text(block("python", f"{framework}("), "utf-8")
    with local_services(base) as (_, spotify, local):
        write_config(block("toml"), base, local, tmp_path / "oauthgate.toml")
        with (
            started(command, tmp_path, port, {}, tmp_path / "log"),
            Visitor(base) as visitor,
        ):
            visitor.open("/now")
            visitor.click(f"Sign in with {read_preset('twitter')['title']}")
            visitor.press("as Ada Lovelace")
            assert "/_oauth/spotify/link" in visitor.url
            visitor.press("Link Spotify")
            visitor.press("as Ada Lovelace")
            assert visitor.url == f"{base}/now"
            answer = json.loads(visitor.reply.text)
            assert answer["listener"] == "ada"
            assert answer["song"]
            # A script is told instead of led.
            visitor.client.cookies.clear()
            refused = visitor.client.get(f"{base}/now", headers={"accept": "application/json"})
            assert (refused.status_code, refused.json()["provider"]) == (401, "twitter")
    assert spotify.count["player"] == 1


def test_apps_are_short() -> None:
    """Both apps have at most 14 lines."""
    apps = [text for language, text in BLOCKS if language == "python"]
    assert len(apps) == 2
    assert all(len(text.splitlines()) <= MAX_LINES for text in apps)


def test_commands_exist() -> None:
    """The two commands are targets of the Makefile."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for line in block("sh", "make").splitlines():
        _, _, target = line.partition(" ")
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_somewhere() -> None:
    """Every relative link and picture is a file of the repository."""
    targets = re.findall(r"(?:\]\(|src=\")([^)#\"]+)", README)
    assert targets
    missing = [name for name in targets if "://" not in name and not (ROOT / name).is_file()]
    assert not missing
