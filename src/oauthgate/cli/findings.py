"""What `check` finds: one line each, with its cause and its cure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`about` says what was looked at. A `problem` stops the site or a provider from working; a
    `warning` is for the operator to judge."""

    status: Status
    about: str
    message: str


def ok(about: str, message: str) -> Finding:
    return Finding("ok", about, message)


def warning(about: str, message: str) -> Finding:
    return Finding("warning", about, message)


def problem(about: str, message: str) -> Finding:
    return Finding("problem", about, message)
