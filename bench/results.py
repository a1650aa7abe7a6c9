"""What a run found: samples by part, plain numbers, and what was not measured and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .measure import Figure, Plan, Sample, Subject, measure, ratio


@dataclass(slots=True)
class Table:
    """The samples of subjects that were measured interleaved, and the one that they stand against."""

    title: str
    base: str
    samples: dict[str, Sample]
    missing: dict[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(slots=True)
class Results:
    """Filled by the parts. `numbers` are single figures by name, in the unit that the name ends with."""

    plan: Plan
    quick: bool
    folder: Path
    tables: dict[str, Table] = field(default_factory=dict)
    numbers: dict[str, Figure] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    say: Callable[[str], None] = print

    def table(
        self,
        key: str,
        title: str,
        subjects: list[Subject],
        *,
        plan: Plan | None = None,
        note: str = "",
    ) -> Table:
        """Measure subjects interleaved and keep them as a table; the first is what it stands against."""
        samples, missing = measure(subjects, plan or self.plan)
        found = self.tables[key] = Table(title, subjects[0].name, samples, missing, note)
        return found

    def number(self, name: str, value: float | Figure) -> None:
        """Keep a single figure."""
        self.numbers[name] = value if isinstance(value, Figure) else Figure(value, value, value)

    def ratio(
        self,
        key: str,
        above: str,
        below: str,
        *,
        above_base: str | None = None,
        below_base: str | None = None,
        clock: str = "cpu",
    ) -> Figure | None:
        """See `measure.ratio`; None when the table or a subject was not measured."""
        table = self.tables.get(key)
        if table is None:
            return None
        return ratio(
            table.samples, above, below, above_base=above_base, below_base=below_base, clock=clock
        )
