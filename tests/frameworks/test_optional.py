"""FastAPI and Flask stay optional: nothing of the package imports them, and their lack is named."""

from __future__ import annotations

import subprocess
import sys

import pytest


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_the_package_imports_no_framework() -> None:
    """`import oauthgate` and all of its own work bring in none of them."""
    done = python(
        "import sys, oauthgate, oauthgate.cli.main, oauthgate.router\n"
        "print(*{'fastapi', 'flask', 'django', 'quart', 'litestar'} & set(sys.modules))"
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize(("module", "name"), [("fastapi", "FastAPI"), ("flask", "Flask")])
def test_a_framework_that_is_not_installed(module: str, name: str) -> None:
    """The message says what is missing and how to get it."""
    done = python(f"import sys; sys.modules[{module!r}] = None; import oauthgate.{module}")
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        f"ImportError: oauthgate.{module} needs {name}, which is not installed: pip install {module}"
    )
