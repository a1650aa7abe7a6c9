"""The measuring core: interleaved rounds, medians, spread, and ratios formed inside a round.

A machine speeds up and slows down while a benchmark runs. So every round runs each subject once, in an
order that moves on by one each time, and a ratio is formed of figures of the same round; reported is
the median over the rounds, with the quartiles beside it. CPU time is the process's own (all threads,
`time.process_time`): another process that holds the core, and a provider that answers in a process of
its own, do not count. Wall time is kept beside it.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field


class Missing(Exception):
    """A subject cannot be measured here; the message says why, and what to install."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of CPU and of wall time, where a subject takes its own measure."""

    cpu: float
    wall: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.cpu + other.cpu, self.wall + other.wall)


class Watch:
    """A stopwatch over the parts of a batch that count: `with watch: …`, then `watch.spent`."""

    def __init__(self) -> None:
        self.spent = Spent(0.0, 0.0)
        self._started = Spent(0.0, 0.0)

    def __enter__(self) -> None:
        self._started = Spent(time.process_time(), time.perf_counter())

    def __exit__(self, *exc: object) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        self.spent += Spent(cpu - self._started.cpu, wall - self._started.wall)


#: Runs the operation so many times; gives what counts of it, or None when all of it does.
Batch = Callable[[int], "Spent | None"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a name, and what makes its batch.

    `make` gets a stack for what must be closed at the end. It raises `Missing` or `ImportError` when
    something that it needs is not there. `count` fixes the operations of a batch; without it as many
    are taken as fill the plan's seconds. Each operation does `each` things at once, and the figures are
    of one of them.
    """

    name: str
    make: Callable[[ExitStack], Batch]
    count: int | None = None
    each: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: rounds, seconds of a batch, and the bounds of its operations."""

    rounds: int = 7
    seconds: float = 0.04
    least: int = 3
    most: int = 5000

    def but(self, rounds: int | None = None, seconds: float | None = None) -> Plan:
        """The same plan with other rounds or seconds, never more than were asked for."""
        return Plan(
            min(self.rounds, rounds or self.rounds),
            min(self.seconds, seconds or self.seconds),
            self.least,
            self.most,
        )


@dataclass(slots=True)
class Sample:
    """One subject's microseconds per operation, by round."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def of(self, clock: str) -> list[float]:
        return self.cpu if clock == "cpu" else self.wall


@dataclass(frozen=True, slots=True)
class Figure:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Figure:
        """Raises `ValueError` for no values."""
        found = sorted(values)
        if not found:
            raise ValueError("a figure needs at least one value")
        if len(found) == 1:
            return cls(found[0], found[0], found[0])
        low, median, high = statistics.quantiles(found, n=4, method="inclusive")
        return cls(median, low, high)


def measure(subjects: Sequence[Subject], plan: Plan) -> tuple[dict[str, Sample], dict[str, str]]:
    """Measure the subjects interleaved: their samples, and why some were not measured.

    Garbage is collected before each batch and what lives then is frozen, so a batch pays for its own
    garbage and for nobody else's. A subject that cannot be made because something is not installed is
    reported as not measured; any other failure is a defect and raises.
    """
    samples: dict[str, Sample] = {}
    missing: dict[str, str] = {}
    ready: list[tuple[Subject, Batch, int]] = []
    with ExitStack() as stack:
        for subject in subjects:
            inner = ExitStack()
            try:
                batch = subject.make(inner)
                count = subject.count or _calibrate(batch, plan)
            except (Missing, ImportError) as error:
                inner.close()
                missing[subject.name] = why(error)
                continue
            except BaseException:
                inner.close()
                raise
            stack.push(inner)
            ready.append((subject, batch, count))
            samples[subject.name] = Sample()
        try:
            gc.collect()
            gc.freeze()
            for number in range(plan.rounds):
                turn = number % len(ready) if ready else 0
                for subject, batch, count in [*ready[turn:], *ready[:turn]]:
                    gc.collect()
                    spent = timed(batch, count)
                    things = count * subject.each
                    samples[subject.name].cpu.append(spent.cpu / things * 1e6)
                    samples[subject.name].wall.append(spent.wall / things * 1e6)
        finally:
            gc.unfreeze()
    return samples, missing


def timed(batch: Batch, count: int) -> Spent:
    """What a batch took, by its own measure if it has one."""
    watch = Watch()
    with watch:
        own = batch(count)
    return own or watch.spent


def _calibrate(batch: Batch, plan: Plan) -> int:
    """Warm up, and find how many operations fill the plan's seconds."""
    count = plan.least
    timed(batch, count)
    while True:
        spent = timed(batch, count)
        per_operation = max(spent.cpu, spent.wall / 4, 1e-9) / count
        wanted = min(plan.most, max(plan.least, int(plan.seconds / per_operation)))
        if wanted <= count * 4 or count >= plan.most:
            return wanted
        count = min(wanted, count * 8)


def why(error: Missing | ImportError) -> str:
    """A reason for "not measured"."""
    if isinstance(error, ImportError):
        return f"{error.name or 'a package'} is not installed" if error.name else str(error)
    return str(error)


def ratio(
    samples: Mapping[str, Sample],
    above: str,
    below: str,
    *,
    above_base: str | None = None,
    below_base: str | None = None,
    clock: str = "cpu",
) -> Figure | None:
    """`above ÷ below`, each minus its base of the same round; None when one was not measured.

    A round in which the lower side is not positive says nothing and is left out; when that is half of
    them or more, the difference drowns in noise and there is no figure.
    """
    names = [name for name in (above, below, above_base, below_base) if name is not None]
    if any(name not in samples for name in names):
        return None

    def added(name: str, base: str | None) -> list[float]:
        values = samples[name].of(clock)
        if base is None:
            return values
        return [value - less for value, less in zip(values, samples[base].of(clock), strict=True)]

    pairs = list(zip(added(above, above_base), added(below, below_base), strict=True))
    found = [up / down for up, down in pairs if down > 0]
    return Figure.of(found) if len(found) * 2 > len(pairs) else None
