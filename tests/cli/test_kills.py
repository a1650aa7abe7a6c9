"""`keys rotate` and `store copy` killed at any moment while the site serves: run again, nothing is lost.

`OAUTHGATE_CLI_KILLS` is how often, 8 by itself.
"""

from __future__ import annotations

import os
import random
import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from oauthgate.seal import Keys
from oauthgate.stepping import run

from .command import DEADLINE, Operator, write
from .test_keys import raw
from .traffic import Visitors, check, gate_of

KILLS = int(os.environ.get("OAUTHGATE_CLI_KILLS", "8"))
ROOT = Path(__file__).parent.parent.parent
#: People who are there before the first kill.
PEOPLE = 150


def configure(folder: Path, *keys: str, name: str = "gate", file: str = "oauthgate.toml") -> Path:
    table = {"store": f"sqlite:///{folder / f'{name}.db'}", "secret": list(keys), "near_cache": 0}
    return write(folder / file, {"oauthgate": table})


def settle(file: Path, log: Path) -> None:
    """Let people in before anybody works on the store."""
    gate = gate_of(file)
    with log.open("a") as lines:
        visitors = Visitors(gate, log, lines)
        for number in range(PEOPLE):
            visitors.sign_in(f"settled-{number}")
    run(gate.close())


@contextmanager
def traffic(file: Path, log: Path) -> Iterator[None]:
    """Visitors for as long as the block runs; all they were answered is in the log afterwards."""
    stop = log.with_name("stop")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.traffic", str(file), str(log), str(stop)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        stop.touch()
        status = process.wait(DEADLINE)
        stop.unlink()
        process.communicate()
    assert status == 0


def kill_when(process: subprocess.Popen[str], reached: Callable[[], bool]) -> bool:
    """SIGKILL at the moment that `reached` says; whether the command was still at work."""
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None and not reached():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    out, err = process.communicate()
    assert "Traceback" not in err, out + err
    return process.returncode == -9


def count(path: Path, condition: str = "1", *values: Any) -> int:
    """Records of a database; 0 while there is none."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as database:
            query = f"SELECT count(*) FROM oauthgate WHERE {condition}"
            (found,) = database.execute(query, values).fetchone()
            return int(found)
    except sqlite3.OperationalError:
        return 0


def test_rotate(tmp_path: Path) -> None:
    """Each round moves the site to another secret, with a kill in between. Afterwards the last secret is
    of no use, to the store or to whoever has its file, and everybody has what they were answered."""
    database, log = tmp_path / "gate.db", tmp_path / "log"
    current = secrets.token_urlsafe(32)
    settle(configure(tmp_path, current), log)
    operator, killed, halfway = Operator(tmp_path, {current}), 0, 0
    for _ in range(KILLS):
        old, current = current, secrets.token_urlsafe(32)
        operator.secrets |= {old, current}
        file = configure(tmp_path, current, old)
        sealed_old = b"\x01" + Keys([old.encode()]).key_id
        left = (database, "substr(value, 1, 5) = ?", sealed_old)
        with traffic(file, log):
            threshold = random.randint(0, count(*left))
            process = operator.start("keys", "rotate")
            killed += kill_when(process, lambda: count(*left) <= threshold)  # noqa: B023 - used at once
            halfway += count(*left) > 0
            done = operator.run("keys", "rotate", "--json").json
            assert done["finished"], done
        if not done["vacuumed"]:
            assert operator.run("keys", "rotate", "--json").json["vacuumed"]
        assert sealed_old not in raw(tmp_path), "what the old secret sealed is still in the file"
        for keys in ([current, old], [current]):
            gate = gate_of(configure(tmp_path, *keys))
            assert check(gate, log) >= PEOPLE
            run(gate.close())
    assert killed and halfway, "no kill ever hit a rotation at work"


def test_copy(tmp_path: Path) -> None:
    """Each round copies the site into another file, with a kill in between, and once more when the site
    has stopped: then the copy is the site."""
    source, log = tmp_path / "gate.db", tmp_path / "log"
    secret = secrets.token_urlsafe(32)
    file = configure(tmp_path, secret)
    settle(file, log)
    operator, killed, halfway = Operator(tmp_path, {secret}), 0, 0
    for number in range(KILLS):
        target = tmp_path / f"copy{number}.db"
        there = configure(tmp_path, secret, name=f"copy{number}", file="copy.toml")
        words = ("store", "copy", str(file), str(there))
        with traffic(file, log):
            threshold = random.randint(0, count(source))
            process = operator.start(*words)
            killed += kill_when(process, lambda: count(target) >= threshold)  # noqa: B023 - used at once
            halfway += 0 < count(target) < count(source)
            # While people come and go it may end with a difference, and says so.
            process = operator.start(*words, "--json")
            out, err = process.communicate(timeout=DEADLINE)
            assert process.returncode in (0, 1) and '"differing"' in out, out + err
        done = operator.run(*words, "--json").json
        assert done["identical"] and done["records"] == count(source)
        gate = gate_of(there)
        assert check(gate, log) >= PEOPLE
        run(gate.close())
    assert killed and halfway, "no kill ever hit a copy at work"
