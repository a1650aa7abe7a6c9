"""The language of a page: RFC 9110 section 12.5.4 (Accept-Language), and the message catalogue."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from importlib.resources import files

LANGUAGES = ("en", "ko", "ja")

_LONGEST = 200
_RANGE = re.compile(r"\*|[a-z]{1,8}(?:-[a-z0-9]{1,8})*")
_WEIGHT = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


def language_for(accept_language: str, available: Sequence[str] = LANGUAGES) -> str:
    """Choose the language that the visitor likes best; the first one available if none fits.

    Malformed parts of the header are skipped. A range with a region ("ko-KR") accepts its
    language; of equal weights the earlier range wins, and weight 0 excludes.
    """
    entries = accept_language[: _LONGEST + 1].lower().split(",")
    if len(accept_language) > _LONGEST:
        entries.pop()  # cut in the middle, it may have lost its weight
    weights: dict[str, tuple[float, int]] = {}
    for position, entry in enumerate(entries):
        tag, separator, weight = (part.strip(" \t") for part in entry.partition(";"))
        found = _WEIGHT.fullmatch(weight if separator else "q=1")
        if _RANGE.fullmatch(tag) and found:
            rank = (float(found[1]), -position)
            primary = tag.partition("-")[0]
            weights[primary] = max(rank, weights.get(primary, rank))
    anything = weights.get("*", (0.0, 0))
    best = max(available, key=lambda language: weights.get(language, anything))
    return best if weights.get(best, anything)[0] > 0 else available[0]


def load_messages(language: str) -> dict[str, str]:
    """Read one language's messages, flattened: {"errors.flow_used.cure": "…"}."""
    text = files(__package__).joinpath("messages", f"{language}.toml").read_text("utf-8")
    return dict(_flatten("", tomllib.loads(text)))


def _flatten(prefix: str, table: dict[str, object]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            rows += _flatten(f"{prefix}{key}.", value)
        else:
            rows.append((prefix + key, str(value)))
    return rows
