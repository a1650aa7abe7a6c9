"""`make bench`, or `python -m bench [PART…]`: run the parts, print the goals, write the page.

Each part runs in a process of its own, one after another: one part's garbage, imports and Django
settings are not another's. A run of all parts rewrites the figures and the plot of
docs/performance.md; a run of some only prints.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from . import peers, plot, report
from .apps import Place
from .backends import postgres_server, redis_server
from .measure import Missing, Plan
from .processes import ROOT
from .results import Results

#: In this order: what needs a quiet machine most comes first.
PARTS = ("request", "call", "login", "refresh", "server", "growth", "counts")
#: Only when it is named: it takes minutes.
MORE = ("million",)
WITH_SERVERS = ("request", "server", "million")
PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "images" / "performance.svg"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of: {', '.join(PARTS + MORE)}")
    parser.add_argument(
        "--quick", action="store_true", help="tiny counts: whether it runs, not how fast"
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds at most (default: 7)")
    parser.add_argument(
        "--write", action="store_true", help="write the page after a run of some parts too"
    )
    parser.add_argument("--json", type=Path, help="write the raw samples to this file")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = sorted({*options.parts} - {*PARTS, *MORE})
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are: {', '.join(PARTS + MORE)}")
    chosen = [part for part in PARTS + MORE if part in (options.parts or PARTS)]
    plan = Plan(1, 0.001, 1, 2) if options.quick else Plan(options.rounds)
    if options.alone:
        (part,) = chosen
        _alone(part, plan, options.quick, options.json)
        return 0
    results = Results(plan, options.quick, Path())
    failed = [part for part in chosen if not _in_a_process(part, options, results)]
    versions = peers.versions()
    for table in results.tables.values():
        print(f"\n{table.title}\n{report.plain(report.TABLE_HEAD, report.table_rows(table))}")
    print("\nSingle figures")
    for name, figure in results.numbers.items():
        print(f"  {name}: {report.shown(figure.median)}")
    rows = report.goal_rows(results)
    if options.parts:
        rows = [row for row in rows if row[-1] != "not measured"]
    print(f"\nGoals\n{report.plain(report.GOAL_HEAD, rows)}\n")
    print(report.machine(versions))
    for name, reason in results.missing.items():
        print(f"not measured: {name}: {reason}")
    if options.json:
        options.json.write_text(json.dumps({**report.dump(results), "versions": versions}))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    if (len(chosen) == len(PARTS) and not options.quick) or options.write:
        report.write(PAGE, results, versions)
        PLOT.write_text(plot.svg(plot.panels(results)), encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)} and {PLOT.relative_to(ROOT)}")
    return 0


def _in_a_process(part: str, options: argparse.Namespace, results: Results) -> bool:
    """Run a part in a process of its own and take its figures up; false when it failed."""
    print(f"{part} …", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "found.json")
        command = [sys.executable, "-m", "bench", part, "--alone", "--json", str(found)]
        command += ["--rounds", str(options.rounds), *(["--quick"] if options.quick else [])]
        # A fixed order of sets and dicts: two runs differ by less.
        environ = {**os.environ, "PYTHONHASHSEED": "0"}
        if subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode:
            return False
        report.absorb(results, json.loads(found.read_text()))
    print(f"  {results.seconds[part]:.0f} s", flush=True)
    return True


def _alone(part: str, plan: Plan, quick: bool, found: Path) -> None:
    """Run one part here and write its figures."""
    started = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls: dict[str, str] = {}
        without: list[tuple[str, str]] = []
        if part in WITH_SERVERS:
            for name, server in (("redis", redis_server), ("postgres", postgres_server)):
                try:
                    urls[name] = stack.enter_context(server())
                except Missing as error:
                    without.append((name, str(error)))
        place = Place(folder, urls.get("redis", ""), urls.get("postgres", ""), tuple(without))
        results = Results(plan, quick, folder)
        importlib.import_module(f"bench.{part}").run(results, place)
    results.seconds[part] = time.monotonic() - started
    found.write_text(json.dumps(report.dump(results)))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
