"""The peers: their versions, and their modules imported when they are first needed.

They live in the environment of `make bench` only, so nothing here imports them at its top. What is not
installed is `Missing`, and its rows say so.
"""

from __future__ import annotations

import importlib
import platform
import sqlite3
import ssl
from importlib import metadata
from typing import Any

from .measure import Missing

#: Distributions whose versions stand beside the figures.
SHOWN = (
    "oauthgate",
    "starlette",
    "fastapi",
    "Flask",
    "Django",
    "Authlib",
    "Flask-Dance",
    "fastapi-sso",
    "django-allauth",
    "starsessions",
    "Flask-Session",
    "SQLAlchemy",
    "cachelib",
    "httpx2",
    "httpx",
    "requests",
    "aiohttp",
    "redis",
    "psycopg",
    "uvicorn",
    "httptools",
    "gunicorn",
)


def peer(module: str) -> Any:
    """A module of a peer. Raises `Missing`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = error.name or module
        raise Missing(f"{name.partition('.')[0]} is not installed (see: make bench)") from None


def versions() -> dict[str, str]:
    """The versions of what was compared, by the name of the distribution."""
    found = {
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
    }
    for name in SHOWN:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
