"""The report: what is printed, the tables of docs/performance.md, and the JSON between processes."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .goals import GOALS
from .measure import Figure, Sample
from .results import Results, Table

BEGIN, END = "<!-- figures: written by `make bench` -->", "<!-- end of the figures -->"


def dump(results: Results) -> dict[str, Any]:
    """The figures as JSON values."""
    return {
        "tables": {key: asdict(table) for key, table in results.tables.items()},
        "numbers": {key: asdict(figure) for key, figure in results.numbers.items()},
        "missing": results.missing,
        "seconds": results.seconds,
    }


def absorb(results: Results, found: dict[str, Any]) -> None:
    """Add what `dump` of another process wrote."""
    for key, table in found["tables"].items():
        samples = {name: Sample(**sample) for name, sample in table.pop("samples").items()}
        results.tables[key] = Table(samples=samples, **table)
    for key, figure in found["numbers"].items():
        results.numbers[key] = Figure(**figure)
    results.missing.update(found["missing"])
    results.seconds.update(found["seconds"])


def shown(value: float) -> str:
    """A figure with three digits that count."""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def _spread(figure: Figure) -> str:
    return "" if figure.low == figure.high else f"{shown(figure.low)} to {shown(figure.high)}"


def goal_rows(results: Results) -> list[list[str]]:
    """One row a goal: number, what, condition, bound, measured, spread, met."""
    rows = []
    for goal in GOALS:
        figure = goal.find(results)
        row = [str(goal.number), goal.text, goal.condition, f"{goal.sense} {shown(goal.bound)}"]
        if figure is None:
            row += ["", "", "not measured"]
        else:
            met = "yes" if goal.met(figure) else "**no**"
            # With one round of two requests only the counts mean something.
            judged = not results.quick or goal.sense == "="
            row += [shown(figure.median), _spread(figure), met if judged else "too quick to tell"]
        rows.append(row)
    return rows


GOAL_HEAD = ["", "ratio", "condition", "goal", "measured", "middle half", "met"]


def table_rows(table: Table) -> list[list[str]]:
    """One row a subject: CPU, its spread, against the base, added to it, wall."""
    base = table.samples.get(table.base)
    rows = []
    for name, sample in table.samples.items():
        cpu = Figure.of(sample.cpu)
        against = added = ""
        if base is not None and name != table.base:
            pairs = list(zip(sample.cpu, base.cpu, strict=True))
            against = shown(Figure.of(a / b for a, b in pairs if b > 0).median) if base.cpu else ""
            added = shown(Figure.of(a - b for a, b in pairs).median)
        wall = shown(Figure.of(sample.wall).median)
        rows.append([name, shown(cpu.median), _spread(cpu), against, added, wall])
    rows += [[name, f"not measured: {why}", "", "", "", ""] for name, why in table.missing.items()]
    return rows


TABLE_HEAD = ["", "CPU µs", "middle half", "÷ first", "added µs", "wall µs"]


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table; numbers to the right. `|` never stands in a cell."""
    ruler = ["---" if not name or name in ("ratio", "condition") else "---:" for name in head]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ruler, *rows])


def plain(head: list[str], rows: list[list[str]]) -> str:
    """The same for a terminal."""
    every = [[cell.replace("**", "") for cell in row] for row in [head, *rows]]
    widths = [max(len(row[at]) for row in every) for at in range(len(head))]
    # What says why something is missing may be long; it stands alone in its row.
    widths[1] = min(widths[1], 60)
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in every
    )


def machine(versions: dict[str, str]) -> str:
    """What it was measured on, without the machine's name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Measured on {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{memory:.0f} GiB, with {found}."
    )


def sections(results: Results, versions: dict[str, str]) -> str:
    """The part of docs/performance.md that a run writes."""
    took = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in results.seconds.items())
    parts = [
        BEGIN,
        f"{machine(versions)} {results.plan.rounds} rounds at most; the parts took: {took}.",
        "## Goals",
        markdown(GOAL_HEAD, goal_rows(results)),
        "## Figures",
    ]
    for table in results.tables.values():
        parts += [f"### {table.title}", markdown(TABLE_HEAD, table_rows(table))]
    if results.numbers:
        rows = [
            [name, shown(figure.median), _spread(figure)] for name, figure in results.numbers.items()
        ]
        parts += ["### Single figures", markdown(["", "measured", "middle half"], rows)]
    if results.missing:
        rows = [[name, why] for name, why in results.missing.items()]
        parts += ["### Not measured", markdown(["", "because"], rows)]
    return "\n\n".join([*parts, END]) + "\n"


def write(page: Path, results: Results, versions: dict[str, str]) -> None:
    """Replace the figures of docs/performance.md; the words around them stay."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END + "\n")
    if not end:
        raise ValueError(f"{page} has no place for the figures: {BEGIN} … {END}")
    page.write_text(before + sections(results, versions) + after, encoding="utf-8")
