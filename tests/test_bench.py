"""The benchmarks run: every part once with tiny counts, so that none rots. No time is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from bench.__main__ import MORE, PARTS
from bench.measure import Batch, Figure, Missing, Plan, Sample, Spent, Subject, measure, ratio

ROOT = Path(__file__).parent.parent
#: A table that each part must have filled with figures of ours, or a number that it must have found.
SHOWS = {
    "request": "Starlette + oauthgate, sqlite, 1 link",
    "call": "oauthgate, bearer",
    "login": "oauthgate (Flask)",
    "refresh": "refreshes of 25 calls in each of 1 processes",
    "server": "Starlette + oauthgate, anonymous",
    "growth": "1,000 users",
    "counts": "instructions",
    "million": "1,000 users",
}


@pytest.mark.parametrize("part", PARTS + MORE)
def test_part(part: str, tmp_path: Path) -> None:
    """A part runs to its end and finds figures of ours, whether the peers are installed or not."""
    found = tmp_path / "found.json"
    command = [sys.executable, "-m", "bench", part, "--quick", "--json", str(found)]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    document = json.loads(found.read_text())
    names = {name for table in document["tables"].values() for name in table["samples"]}
    names |= {*document["numbers"], *document["missing"]}
    assert any(SHOWS[part] in name for name in names), names
    assert "Goals" in ran.stdout


def _subject(name: str, spent: list[Spent], order: list[str]) -> Subject:
    """A subject that takes what it is told, round by round, and notes its turn."""

    def make(stack: ExitStack) -> Batch:
        def batch(count: int) -> Spent:
            order.append(name)
            return spent.pop(0)

        return batch

    return Subject(name, make, count=2)


def test_rounds_are_interleaved_and_figures_are_of_one_operation() -> None:
    """Each round runs every subject once, and a batch's time is divided by its operations."""
    order: list[str] = []
    subjects = [
        _subject("a", [Spent(2e-6, 4e-6), Spent(4e-6, 8e-6)], order),
        _subject("b", [Spent(6e-6, 6e-6), Spent(6e-6, 6e-6)], order),
    ]
    samples, missing = measure(subjects, Plan(rounds=2))
    assert order == ["a", "b", "b", "a"] and not missing
    assert samples["a"].cpu == pytest.approx([1, 2]) and samples["a"].wall == pytest.approx([2, 4])
    assert samples["b"].cpu == pytest.approx([3, 3])


def test_what_is_missing_is_told() -> None:
    """A subject that cannot be made does not keep the others from being measured."""

    def make(stack: ExitStack) -> Batch:
        raise Missing("it is not here")

    order: list[str] = []
    there = _subject("there", [Spent(1e-6, 1e-6)], order)
    samples, missing = measure([Subject("away", make), there], Plan(rounds=1))
    assert missing == {"away": "it is not here"} and list(samples) == ["there"]


def test_ratio_is_formed_inside_a_round() -> None:
    """Each round's own base is taken off both sides, and rounds that say nothing are left out."""
    samples = {
        "base": Sample([1, 10, 5], [0, 0, 0]),
        "ours": Sample([2, 11, 6], [0, 0, 0]),
        "peer": Sample([5, 14, 4], [0, 0, 0]),
    }
    found = ratio(samples, "ours", "peer", above_base="base", below_base="base")
    assert found == Figure(0.25, 0.25, 0.25)
    assert ratio(samples, "ours", "nobody") is None
    noise = {**samples, "peer": Sample([1, 9, 6], [0, 0, 0])}
    assert ratio(noise, "ours", "peer", above_base="base", below_base="base") is None
