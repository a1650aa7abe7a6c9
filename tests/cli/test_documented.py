"""docs/operating.md is held to the command: every command is there, with the JSON that it prints."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oauthgate.cli.parser import make_parser

from .command import Operator, write
from .conftest import NEW, OLD, People

PAGE = (Path(__file__).parent.parent.parent / "docs" / "operating.md").read_text(encoding="utf-8")


def commands(parser: argparse.ArgumentParser, words: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every command with its options."""
    groups = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    for group in groups:
        for name, sub in group.choices.items():
            yield from commands(sub, f"{words} {name}".strip())
    if not groups:
        yield words, [option for action in parser._actions for option in action.option_strings]


COMMANDS = dict(commands(make_parser()))


def section(name: str) -> str:
    found = re.search(rf"^## `oauthgate {name}`$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/operating.md has no section for oauthgate {name}"
    return found[1]


def shape(value: Any) -> Any:
    """The keys of a document, in depth; of a list the union of what its elements have."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    """A section for each, which names its options and shows its JSON."""
    text = section(name)
    for option in COMMANDS[name]:
        if option.startswith("--") and option not in ("--help", "--config", "--json"):
            assert f"`{option}" in text, f"{name} {option}"
    assert "```json" in text
    assert set(re.findall(r"^## `oauthgate (.*)`$", PAGE, re.MULTILINE)) == set(COMMANDS)


def test_json_is_as_documented(
    operator: Operator, people: People, config: dict[str, Any], tmp_path: Path
) -> None:
    """What is shown has the keys of what is printed, by every command; and no command prints a secret,
    in either form."""
    config["oauthgate"]["secret"] = [NEW, OLD]
    write(tmp_path / "oauthgate.toml", config)
    grace = people.who(people.grace)["user_id"]
    words = {
        "user": ["user", grace],
        "revoke": ["revoke", "--provider", "spotify"],
        "store copy": ["store", "copy", "oauthgate.toml", f"sqlite:///{tmp_path / 'copy.db'}"],
        "backup": ["backup", "backup.db"],
    }
    operator.run("revoke", "--provider", "twitter")
    operator.run("backup", "first.db")
    last = ["keys rotate", "revoke"]
    for name in sorted(COMMANDS, key=lambda name: name in last):
        shown = re.search(r"```json\n(.*?)```", section(name), re.DOTALL)
        assert shown
        documented = json.loads(shown[1])
        if name not in ("backup", "revoke"):  # of which there is nothing to do twice
            operator.run(*words.get(name, name.split()))
        real = operator.run(*words.get(name, name.split()), "--json").lines[0]
        if name == "check":
            documented["register"] = real["register"]
        for of_key in real.get("secrets", []) + documented.get("secrets", []):
            of_key["records"] = of_key["hashes"] = {}
        assert shape(documented) == shape(real), name
