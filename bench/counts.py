"""Instructions of each request: what backs up the figures that are too noisy for a clock.

`perf stat` where the machine lets it count, else callgrind. Either runs `python -m bench.counts NAME
COUNT` twice, with few and with many requests, so that everything else cancels out: (many - few) ÷
requests. callgrind is switched on for the requests only: under it, imports would take most of the time.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from .apps import ASGI, WSGI, App, Place
from .driver import AsgiDriver, WsgiDriver
from .measure import Missing
from .processes import ROOT
from .results import Results

FEW, MANY = 40, 240
#: Set for a process whose counting is switched on by itself.
_SWITCHED = "BENCH_CALLGRIND"
NAMES = (
    "Starlette",
    "Starlette + oauthgate, anonymous",
    "Starlette + oauthgate, sqlite, 1 link",
    "Starlette SessionMiddleware (cookie)",
    "Flask",
    "Flask + oauthgate, anonymous",
    "Flask + oauthgate, sqlite, 1 link",
    "Flask session (cookie)",
)


def _perf(command: list[str], environ: dict[str, str]) -> int:
    said = subprocess.run(
        ["perf", "stat", "-x", ",", "-e", "instructions:u", *command],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    match = re.search(r"^(\d+),[^\n]*instructions", said, re.MULTILINE)
    if match is None:
        raise Missing("perf cannot count instructions on this machine")
    return int(match[1])


def _callgrind(command: list[str], environ: dict[str, str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        said = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--instr-atstart=no",
                f"--callgrind-out-file={folder}/out",
                *command,
            ],
            env={**environ, _SWITCHED: "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stderr
    match = re.search(r"Collected\s*:\s*(\d+)", said)
    if match is None:
        raise Missing("callgrind did not count")
    return int(match[1])


def counter(environ: dict[str, str]) -> tuple[str, Callable[[list[str], dict[str, str]], int]]:
    """What counts here, by name. Raises `Missing`."""
    if shutil.which("perf"):
        try:
            _perf(["true"], environ)
            return "perf stat", _perf
        except (Missing, subprocess.CalledProcessError):
            pass
    if shutil.which("valgrind") and shutil.which("callgrind_control"):
        return "callgrind", _callgrind
    raise Missing("neither perf can count here nor is valgrind installed")


def run(results: Results, place: Place) -> None:
    """The part."""
    # One order of sets and dicts for every run, or the counts differ by that alone.
    environ = {**os.environ, "PYTHONHASHSEED": "0", "BENCH_FOLDER": str(place.folder)}
    try:
        name, count = counter(environ)
    except Missing as error:
        results.missing["instructions"] = str(error)
        return
    results.say(f"  counting with {name}")
    few_many = (2, 4) if results.quick else (FEW, MANY)
    names = NAMES[: 1 if results.quick else None]
    runs = [(app, times) for app in names for times in few_many]
    # Counts, unlike times, do not mind company.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(
            zip(
                runs,
                pool.map(
                    lambda one: count(
                        [sys.executable, "-m", "bench.counts", one[0], str(one[1])], environ
                    ),
                    runs,
                ),
                strict=True,
            )
        )
    few, many = few_many
    for app in names:
        each = (found[app, many] - found[app, few]) / (many - few)
        results.number(f"instructions of each request, {app}", each)


def _request(name: str, times: int) -> None:
    """What is counted: so many requests to the application of that name."""
    place = Place(Path(os.environ["BENCH_FOLDER"]))
    app: App = next(app for app in [*ASGI, *WSGI] if app.name == name)
    with ExitStack() as stack:
        made = app.make(place, app)
        driver = (AsgiDriver if app.kind == "asgi" else WsgiDriver)(made, stack)
        batch = driver.batch(app.cookies(place, driver))
        batch(FEW)
        # What was made until here is nobody's garbage, and when it would be looked through is chance.
        gc.collect()
        gc.freeze()
        _switch("on")
        batch(times)
        _switch("off")


def _switch(state: str) -> None:
    if _SWITCHED in os.environ:
        command = ["callgrind_control", "-i", state, str(os.getpid())]
        subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    _request(sys.argv[1], int(sys.argv[2]))
