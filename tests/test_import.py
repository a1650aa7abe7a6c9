"""`import oauthgate`: little is loaded by it, and everything is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import oauthgate


def _run(*lines: str) -> str:
    """What a new process says that runs these lines."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(("import sys", *lines))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_an_import_loads() -> None:
    """Neither half of the gate, nor a package that only a gate needs."""
    heavy = {"httpx2", "cryptography", "msgspec", "jinja2", "aiosqlite", "asyncio", "sqlite3"}
    said = _run("import oauthgate", "oauthgate.install, oauthgate.NotLinked", "print(*sys.modules)")
    assert "oauthgate.install" in said.split() and not heavy & set(said.split())
    # One half does not bring the other.
    assert "oauthgate.asgi" not in _run("import oauthgate; oauthgate.WSGIGate", "print(*sys.modules)")
    assert "oauthgate.wsgi" not in _run("import oauthgate; oauthgate.ASGIGate", "print(*sys.modules)")


def test_every_name_is_there() -> None:
    """By each way of asking, in a process that has none of them yet."""
    assert set(oauthgate.__all__) <= set(dir(oauthgate))
    _run(
        "import oauthgate", "for name in oauthgate.__all__: assert getattr(oauthgate, name) is not None"
    )
    _run("from oauthgate import *", "assert callable(install) and issubclass(ASGIGate, object)")
    for name in oauthgate.__all__:
        assert getattr(oauthgate, name) is getattr(oauthgate, name)


def test_modules_and_names_that_are_alike() -> None:
    """`install` is the function, whoever imports the module; other modules are found by name."""
    lines = ("import oauthgate.install", "import oauthgate", "assert callable(oauthgate.install)")
    _run(*lines, "from oauthgate.install import install", "assert oauthgate.install is install")
    _run("import oauthgate", "assert oauthgate.stores.ABSENT", "assert oauthgate.testing.LocalProvider")
    for name in ("nothing", "stores.base.ABSENT", "é"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(oauthgate, name)
    assert not hasattr(oauthgate, "__wrapped__") and not hasattr(oauthgate, "_stores")
