"""docs/systems.md says how long each app is: it is that long."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| \[`examples/([\w/.]+)`\]\([^)]*\) \| (\d+) \|", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs" / "systems.md").read_text("utf-8"))


def lines_of_code(path: Path) -> int:
    """Lines that are neither blank, nor a comment, nor of the text at a module's head."""
    text = path.read_text("utf-8")
    if path.suffix == ".py" and text.startswith('"""'):
        text = text.split('"""', 2)[2]
    lines = (line.strip() for line in text.splitlines())
    return sum(bool(line) and not line.startswith(("#", "//")) for line in lines)


def test_there_are_rows() -> None:
    """The pattern still finds the rows of these three stories."""
    assert {name.partition("/")[0] for name, _ in ROWS} >= {"spa", "twt_tnk", "flask_services"}


@pytest.mark.parametrize(("name", "lines"), ROWS)
def test_lines(name: str, lines: str) -> None:
    """The number is the real one."""
    assert lines_of_code(ROOT / "examples" / name) == int(lines)
